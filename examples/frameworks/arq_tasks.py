"""arq: one client for each worker, in the context of its jobs.

SMTP_URL=smtp://ann:secret@smtp.example.com arq arq_tasks.WorkerSettings
"""

import os
from typing import Any

from arq import Retry

from smtp_async import Message, SMTPClient, SMTPError


async def startup(ctx: dict[Any, Any]) -> None:
    ctx["mail"] = SMTPClient.from_url(os.environ["SMTP_URL"])


async def shutdown(ctx: dict[Any, Any]) -> None:
    await ctx["mail"].close()


async def welcome(ctx: dict[Any, Any], address: str) -> str:
    message = Message(sender="hello@example.com", to=address, subject="Welcome", text="Nice to meet you.\n")
    mail: SMTPClient = ctx["mail"]
    try:
        return (await mail.send(message)).outcome.value
    except SMTPError as error:
        # A message that may have been delivered is not sent again.
        if error.temporary and error.receipt is not None and not error.receipt.unknown:
            raise Retry(defer=60 * ctx["job_try"]) from error
        raise


class WorkerSettings:
    functions = [welcome]
    on_startup = startup
    on_shutdown = shutdown
