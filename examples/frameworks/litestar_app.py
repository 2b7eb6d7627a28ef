"""Litestar: one client for the application, opened and closed by its lifespan, injected into handlers.

SMTP_URL=smtp://ann:secret@smtp.example.com litestar --app litestar_app:app run
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from litestar import Litestar, post
from litestar.datastructures import State
from litestar.di import NamedDependency, Provide
from litestar.exceptions import HTTPException
from litestar.params import FromQuery

from smtp_async import Message, SMTPClient, SMTPError


@asynccontextmanager
async def lifespan(app: Litestar) -> AsyncIterator[None]:
    async with SMTPClient.from_url(os.environ["SMTP_URL"]) as client:
        app.state.mail = client
        yield


async def mail_client(state: State) -> SMTPClient:
    client: SMTPClient = state.mail
    return client


@post("/register")
async def register(address: FromQuery[str], mail: NamedDependency[SMTPClient]) -> dict[str, str]:
    try:
        message = Message(
            sender="hello@example.com", to=address, subject="Welcome", text="Nice to meet you.\n"
        )
        receipt = await mail.send(message, deadline=10)
    except SMTPError as error:
        raise HTTPException(
            "we could not write to you", status_code=503 if error.temporary else 400
        ) from error
    return {"outcome": receipt.outcome.value}


app = Litestar([register], lifespan=[lifespan], dependencies={"mail": Provide(mail_client)})
