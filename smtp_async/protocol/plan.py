"""An envelope and its content → every line of a transaction, made and checked for what one server offers.

Strategy: it runs in the caller's task, before the message is queued, so that a session gets bytes that cannot fail.
"""

from __future__ import annotations

from typing import Final

from ..address import Envelope
from ..content import Content
from ..errors import ExtensionMissing, MessageTooLarge
from . import commands
from .extensions import Extensions
from .framing import chunk_framed, dot_stuffed
from .options import SendOptions
from .transaction import Transaction

__all__ = ["SMALL_BODY", "plan"]

#: A body up to this size is written at once by the session; a larger one by its caller's task.
SMALL_BODY: Final = 65536


def plan(
    envelope: Envelope,
    content: Content,
    extensions: Extensions,
    options: SendOptions,
    *,
    chunking: bool = False,
) -> Transaction:
    """Make every line of a transaction, for what the server offers.

    Args:
        envelope: who sends to whom.
        content: the message.
        extensions: the server's offer.
        options: the caller's wishes.
        chunking: write the body with BDAT (RFC 3030) instead of DATA; needs the server's CHUNKING.

    Raises:
        ExtensionMissing: the message needs SMTPUTF8, 8BITMIME or BINARYMIME and the server has it not.
        MessageTooLarge: larger than the server's SIZE limit, RFC 1870 section 6.1.
        InvalidAddress: an address that cannot be written on a command line.
    """
    utf8 = content.utf8 or envelope.needs_utf8
    if utf8 and not extensions.smtputf8:
        raise ExtensionMissing("an address or header needs SMTPUTF8, which the server does not offer")
    parameters = _mail_parameters(content, extensions, utf8=utf8)
    sender = envelope.sender
    mail = commands.mail(b"" if sender is None else sender.wire(utf8=utf8), parameters)
    rcpts = tuple([commands.rcpt(one.address.wire(utf8=utf8)) for one in envelope.recipients])
    transaction = Transaction(mail, rcpts, envelope.recipients, content, extensions, options)
    if content.size is not None and content.size <= SMALL_BODY:
        transaction.chunked = chunking
        transaction.carry(chunk_framed(content) if chunking else dot_stuffed(content))
    return transaction


def _mail_parameters(content: Content, extensions: Extensions, *, utf8: bool) -> list[bytes]:
    parameters = []
    if extensions.size is not None and content.size is not None:
        if 0 < extensions.size < content.size:
            text = f"the message has {content.size} bytes, the server takes {extensions.size}"
            raise MessageTooLarge(text, stage="MAIL")
        parameters.append(b"SIZE=%d" % content.size)
    if content.binary:
        raise ExtensionMissing("the message has bare CR or LF, NUL or overlong lines and needs BINARYMIME")
    if content.eightbit or utf8:
        if not extensions.eightbitmime:
            raise ExtensionMissing("the message has 8-bit content and the server does not offer 8BITMIME")
        parameters.append(b"BODY=8BITMIME")
    if utf8:
        parameters.append(b"SMTPUTF8")
    return parameters
