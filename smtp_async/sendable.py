"""What can be sent: everything becomes a `Mail`, an envelope and a way to render content."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from io import BytesIO
from typing import Any, NamedTuple

from .address import Address, Envelope, Recipient
from .bodies import Body, close_origin, in_thread
from .content import Content, Mail, Origin, Source
from .errors import InvalidArgument
from .job import Unread
from .message.builder import Message
from .message.foreign import ForeignMail, content_of, content_of_raw
from .protocol.options import SendOptions
from .rawmail import RawMail, raw_mail
from .weight import LONG, is_heavy

__all__ = [
    "Raw",
    "Readdressed",
    "addressed",
    "as_mail",
    "as_told",
    "dispose",
    "is_stream",
    "mail_for",
    "mail_of",
    "release",
    "takes_long",
]


class Raw(NamedTuple):
    """A complete message for `SMTPClient.send_all`.

    Attributes:
        source: header, empty line, body: bytes, a path, a binary file object, an iterable or async iterable of bytes.
        sender, recipients: the envelope; what is not given is read from the message's own header.
        close: close a stream after the transfer, and when it fails.
    """

    source: bytes | Origin
    sender: str | Address | None = None
    recipients: Sequence[str | Address | Recipient] | None = None
    close: bool = False


class Readdressed:
    """A mail under another envelope."""

    __slots__ = ("_envelope", "_mail")

    def __init__(self, mail: Mail, envelope: Envelope) -> None:
        self._mail = mail
        self._envelope = envelope

    def envelope(self) -> Envelope:
        return self._envelope

    def content(self, *, eightbit: bool = False, utf8: bool = False, binary: bool = False) -> Content:
        return self._mail.content(eightbit=eightbit, utf8=utf8, binary=binary)

    @property
    def attachments(self) -> Sequence[Any]:
        """Those of the mail, for whoever closes their streams."""
        attachments: Sequence[Any] = getattr(self._mail, "attachments", ())
        return attachments

    def close(self) -> None:
        """Close the stream of a message that is not sent after all."""
        if isinstance(self._mail, RawMail):
            self._mail.close()

    async def aclose(self) -> None:
        """Close it, and wait for what has to be awaited."""
        if isinstance(self._mail, RawMail):
            await self._mail.aclose()


def is_stream(message: Any) -> bool:
    """Is `message` complete already, but somewhere that `mail_of` has to read from first?"""
    if isinstance(message, Raw):
        return not isinstance(message.source, bytes | bytearray | memoryview)
    return isinstance(message, Message) and message.raw is not None and not isinstance(message.raw, bytes)


def takes_long(message: Any) -> bool:
    """Has `message` to be read from somewhere, or is there so much of it that threads make it mail?"""
    if isinstance(message, Message):
        source = message.raw
        if source is None:
            return False
    elif isinstance(message, Raw):
        source = message.source
    else:
        return hasattr(message, "get_payload") and is_heavy(message)
    return not isinstance(source, bytes) or len(source) > LONG


async def mail_of(message: Any, *, exact: bool = False, remove_bcc: bool = True) -> Mail:
    """Return `message` as a `Mail`, also where that takes its time: it has to be read from a stream, or is large.

    Args:
        message: what `as_mail` takes, or a `Raw` of any source; only what `takes_long` waits for something.
        exact: see `raw_mail`; of no effect on anything but a `Raw` and the `raw` of a `Message`.
        remove_bcc: see `raw_mail`; of no effect on anything but a `Raw`.

    Raises:
        FileError: the stream cannot be opened or read.
        InvalidArgument: it cannot be sent.
    """
    if not takes_long(message):
        return as_mail(message, exact=exact, remove_bcc=remove_bcc)
    if isinstance(message, Message):
        # Who gets it is the message's to say.
        assert message.raw is not None
        return Readdressed(await raw_mail(_as_file(message.raw), exact=exact), message.envelope())
    if not isinstance(message, Raw):
        return await in_thread(partial(as_mail, message))
    raw = await raw_mail(_as_file(message.source), exact=exact, remove_bcc=remove_bcc, close=message.close)
    try:
        mail = addressed(raw, message.sender, message.recipients)
        # Later nobody would close the stream of a message that has none.
        mail.envelope()
    except BaseException:
        if isinstance(raw, RawMail):
            await raw.aclose()
        raise
    return mail


def _as_file(source: bytes | Origin) -> Origin:
    """Return octets that are many as a file, which threads read in slices."""
    return BytesIO(source) if isinstance(source, bytes | bytearray | memoryview) else source


async def mail_for(message: Any, options: SendOptions) -> Mail:
    """Return what `mail_of` does, with what the options say about a `Raw`."""
    return await mail_of(as_told(message, options), exact=options.exact, remove_bcc=options.remove_bcc)


def as_told(message: Any, options: SendOptions) -> Any:
    """Return a `Raw` that is closed if the options say so; anything else as it is."""
    if options.close_source and isinstance(message, Raw):
        return message._replace(close=True)
    return message


async def dispose(message: Any) -> None:
    """Close the streams of a message that was never begun, where it says so."""
    if not isinstance(message, Raw):
        await Unread(message).aclose()
    elif message.close and not isinstance(message.source, bytes):
        await Body(Content((Source(message.source, close=True),), size=0)).aclose()


def release(message: Any) -> None:
    """Close, as far as that needs no waiting, the streams of a message that was never begun, where it says so."""
    if isinstance(message, Raw):
        if message.close:
            close_origin(message.source)
    else:
        Unread(message).close()


def as_mail(message: Any, *, exact: bool = False, remove_bcc: bool = True) -> Mail:
    """Return `message` as a `Mail`; arguments as `mail_of`.

    Raises:
        InvalidArgument: it cannot be sent, or has to be read first (`is_stream`).
    """
    if isinstance(message, Raw):
        if not isinstance(message.source, bytes | bytearray | memoryview):
            raise InvalidArgument(f"a Raw of {type(message.source).__name__} has to be read first")
        data = bytes(message.source)
        mail_of_bytes = content_of_raw(data, exact=exact, remove_bcc=remove_bcc)
        return addressed(mail_of_bytes, message.sender, message.recipients)
    if exact and isinstance(message, Message) and isinstance(message.raw, bytes):
        return Readdressed(content_of_raw(message.raw, exact=True), message.envelope())
    if hasattr(message, "content") and hasattr(message, "envelope"):
        mail: Mail = message
        return mail
    if hasattr(message, "raw_items") and hasattr(message, "get_payload"):
        return content_of(message)
    raise InvalidArgument(
        f"cannot send {type(message).__name__}: a Message or email.message.Message is needed"
    )


def addressed(
    mail: Mail, sender: str | Address | None, recipients: Sequence[str | Address | Recipient] | None
) -> Mail:
    """Return `mail` under another envelope; what is not given stays as it is."""
    if sender is None and recipients is None:
        return mail
    if isinstance(recipients, str | bytes):
        raise InvalidArgument("recipients is a sequence of addresses, not one text")
    if isinstance(mail, ForeignMail | RawMail):
        return Readdressed(mail, mail.envelope(sender, recipients))
    if sender is None:
        sender = mail.envelope().sender
        return Readdressed(mail, Envelope(sender, recipients or ()))
    return Readdressed(
        mail, Envelope(sender, mail.envelope().recipients if recipients is None else recipients)
    )
