"""aiohttp: one client for the application, opened and closed by a cleanup context.

SMTP_URL=smtp://ann:secret@smtp.example.com python -m aiohttp.web aiohttp_app:make_app
"""

import os
from collections.abc import AsyncIterator

from aiohttp import web

from smtp_async import Message, SMTPClient, SMTPError

MAIL = web.AppKey("mail", SMTPClient)


async def mail_client(app: web.Application) -> AsyncIterator[None]:
    async with SMTPClient.from_url(os.environ["SMTP_URL"]) as client:
        app[MAIL] = client
        yield


async def register(request: web.Request) -> web.Response:
    try:
        message = Message(
            sender="hello@example.com",
            to=request.query["address"],
            subject="Welcome",
            text="Nice to meet you.\n",
        )
        receipt = await request.app[MAIL].send(message, deadline=10)
    except SMTPError as error:
        status = 503 if error.temporary else 400
        return web.json_response({"detail": "we could not write to you"}, status=status)
    return web.json_response({"outcome": receipt.outcome.value})


def make_app(arguments: object = None) -> web.Application:
    app = web.Application()
    app.cleanup_ctx.append(mail_client)
    app.add_routes([web.post("/register", register)])
    return app
