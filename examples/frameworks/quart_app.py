"""Quart: one client for the application, opened and closed around its serving.

SMTP_URL=smtp://ann:secret@smtp.example.com quart --app quart_app run
"""

import os
from collections.abc import AsyncGenerator
from typing import cast

from quart import Quart, request

from smtp_async import Message, SMTPClient, SMTPError

app = Quart(__name__)


@app.while_serving
async def mail_client() -> AsyncGenerator[None, None]:
    async with SMTPClient.from_url(os.environ["SMTP_URL"]) as client:
        app.extensions["mail"] = client
        yield


@app.post("/register")
async def register() -> tuple[dict[str, str], int]:
    address = request.args["address"]
    try:
        message = Message(
            sender="hello@example.com", to=address, subject="Welcome", text="Nice to meet you.\n"
        )
        receipt = await cast(SMTPClient, app.extensions["mail"]).send(message, deadline=10)
    except SMTPError as error:
        return {"detail": "we could not write to you"}, 503 if error.temporary else 400
    return {"outcome": receipt.outcome.value}, 200
