"""taskiq: one client for each worker, in its state; a real application has another broker than this one.

SMTP_URL=smtp://ann:secret@smtp.example.com taskiq worker taskiq_tasks:broker
"""

import os
from typing import Annotated

from taskiq import Context, InMemoryBroker, TaskiqDepends, TaskiqEvents, TaskiqState

from smtp_async import Message, SMTPClient

broker = InMemoryBroker()


@broker.on_event(TaskiqEvents.WORKER_STARTUP)
async def open_client(state: TaskiqState) -> None:
    state.mail = SMTPClient.from_url(os.environ["SMTP_URL"])


@broker.on_event(TaskiqEvents.WORKER_SHUTDOWN)
async def close_client(state: TaskiqState) -> None:
    await state.mail.close()


@broker.task(retry_on_error=True)
async def welcome(address: str, context: Annotated[Context, TaskiqDepends()]) -> str:
    message = Message(sender="hello@example.com", to=address, subject="Welcome", text="Nice to meet you.\n")
    mail: SMTPClient = context.state.mail
    return (await mail.send(message)).outcome.value
