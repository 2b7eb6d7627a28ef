"""Celery: one blocking client for all tasks; each worker process has connections of its own, made after the fork.

SMTP_URL=smtp://ann:secret@smtp.example.com celery -A celery_tasks worker
"""

import os
from typing import Any

from celery import Celery

from smtp_async import BlockingClient, Message, SMTPError

app = Celery("celery_tasks", broker=os.environ.get("BROKER_URL", "memory://"))
mail = BlockingClient.from_url(os.environ["SMTP_URL"])


@app.task(bind=True, max_retries=5)
def welcome(task: Any, address: str) -> str:
    message = Message(sender="hello@example.com", to=address, subject="Welcome", text="Nice to meet you.\n")
    try:
        return mail.send(message).outcome.value
    except SMTPError as error:
        # A message that may have been delivered is not sent again.
        if error.temporary and error.receipt is not None and not error.receipt.unknown:
            raise task.retry(exc=error, countdown=60 * 2**task.request.retries) from error
        raise
