"""Sending one message by a client of its own, from a coroutine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from ..mail.coerce import Raw
from ..message.builder import Message
from ..model.address import Address
from ..model.content import Mail
from ..model.envelope import Recipient
from ..model.receipt import Receipt
from .client import SMTPClient
from .options import ClientOptions

if TYPE_CHECKING:
    from email.message import Message as EmailMessage

__all__ = ["send"]

_DEFAULTS: Final = ClientOptions()


async def send(
    message: Message | EmailMessage | Mail | Raw,
    *,
    url: str,
    sender: str | Address | None = None,
    recipients: Sequence[str | Address | Recipient] | None = None,
    options: ClientOptions = _DEFAULTS,
    deadline: float | None = None,
) -> Receipt:
    """Connect, send one message, and close the connection.

    For one message now and then. A program that sends more keeps an `SMTPClient`, whose connections stay open.
    A call that is cancelled ends within `timeouts.close`, because a message that was written may still be answered.

    Args:
        message, sender, recipients, deadline: as for `SMTPClient.send`.
        url: the server, as for `SMTPClient.from_url`.
        options: of the client; `options.send` says how the message is sent.

    Raises:
        InvalidArgument: not a URL of a mail server.
        SMTPError: as `SMTPClient.send`.
    """
    client = SMTPClient.from_url(url, options=options)
    # As in `from_url`: the URL may hold a password, and tracebacks may show local variables.
    del url
    async with client:
        return await client.send(message, sender=sender, recipients=recipients, deadline=deadline)
