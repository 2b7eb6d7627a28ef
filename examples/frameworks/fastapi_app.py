"""FastAPI (Starlette is the same): one client for the application, opened and closed by its lifespan.

SMTP_URL=smtp://ann:secret@smtp.example.com uvicorn fastapi_app:app
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, cast

from fastapi import Depends, FastAPI, HTTPException, Request

from smtp_async import Message, SMTPClient, SMTPError


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with SMTPClient.from_url(os.environ["SMTP_URL"]) as client:
        app.state.mail = client
        yield


def mail_client(request: Request) -> SMTPClient:
    return cast(SMTPClient, request.app.state.mail)


app = FastAPI(lifespan=lifespan)


@app.post("/register")
async def register(address: str, mail: Annotated[SMTPClient, Depends(mail_client)]) -> dict[str, str]:
    try:
        message = Message(
            sender="hello@example.com", to=address, subject="Welcome", text="Nice to meet you.\n"
        )
        receipt = await mail.send(message, deadline=10)
    except SMTPError as error:
        raise HTTPException(503 if error.temporary else 400, "we could not write to you") from error
    return {"outcome": receipt.outcome.value}
