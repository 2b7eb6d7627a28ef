"""Sending one message from a script that has no event loop."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from ..errors import UsageError
from ..message.builder import Message
from ..model.content import Mail
from ..model.receipt import Receipt
from .client import SMTPClient
from .options import ClientOptions

if TYPE_CHECKING:
    from email.message import Message as EmailMessage

__all__ = ["send_blocking"]

_DEFAULTS: Final = ClientOptions()


def send_blocking(
    message: Message | EmailMessage | Mail, *, url: str, options: ClientOptions = _DEFAULTS
) -> Receipt:
    """Send one message from a script that has no event loop; `url` as for `SMTPClient.from_url`.

    Raises:
        UsageError: an event loop is running: await `smtp_async.send` there.
        SMTPError: as `SMTPClient.send`.
    """
    client = SMTPClient.from_url(url, options=options)
    # As in `from_url`: the URL may hold a password.
    del url
    if _in_event_loop():
        raise UsageError("send_blocking would stop the running event loop: await smtp_async.send instead")
    return asyncio.run(_send_once(message, client))


def _in_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


async def _send_once(message: Message | EmailMessage | Mail, client: SMTPClient) -> Receipt:
    async with client:
        return await client.send(message)
