"""What can be sent: everything becomes a `Mail`, an envelope and a way to render content."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from io import BytesIO
from typing import Any, NamedTuple

from ..errors import InvalidArgument
from ..message.builder import Message
from ..message.external import ForeignMail, content_of, content_of_raw
from ..model.address import Address
from ..model.content import Content, Mail, Origin, Source
from ..model.envelope import Envelope, Recipient
from ..protocol.options import SendOptions
from ..sources import aclose_origin, close_origin, in_thread
from ..sources.unsent import UnsentSources
from ..sources.weight import LONG, is_heavy
from .raw import RawMail, raw_mail

__all__ = [
    "Raw",
    "Readdressed",
    "addressed",
    "as_mail",
    "dispose",
    "is_stream",
    "mail_at_once",
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
        if isinstance(self._mail, RawMail | Closing):
            self._mail.close()

    async def aclose(self) -> None:
        """Close it, and wait for what has to be awaited."""
        if isinstance(self._mail, RawMail | Closing):
            await self._mail.aclose()


class Closing:
    """A message whose text is read while it is sent, from streams that are closed afterwards."""

    __slots__ = ("_message",)

    def __init__(self, message: Message) -> None:
        self._message = message

    def envelope(self) -> Envelope:
        return self._message.envelope()

    def content(self, *, eightbit: bool = False, utf8: bool = False, binary: bool = False) -> Content:
        content = self._message.content(eightbit=eightbit, utf8=utf8, binary=binary)
        for source in content.sources:
            # An attachment has a name, and says for itself whether it is to be closed.
            source.close = source.close or not source.name
        return content

    @property
    def attachments(self) -> Sequence[Any]:
        """Those of the message."""
        return self._message.attachments

    def close(self) -> None:
        """Close the streams of a message that is not sent after all."""
        for origin in _texts(self._message):
            close_origin(origin)

    async def aclose(self) -> None:
        """Close them, and wait for what has to be awaited."""
        for origin in _texts(self._message):
            await aclose_origin(origin)


def _texts(message: Message) -> list[Any]:
    texts = (message.text, message.html, message.raw)
    return [one for one in texts if one is not None and not isinstance(one, str | bytes)]


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


async def mail_of(message: Any, *, exact: bool = False, remove_bcc: bool = True, close: bool = False) -> Mail:
    """Return `message` as a `Mail`, also where that takes its time: it has to be read from a stream, or is large.

    Args:
        message: what `as_mail` takes, or a `Raw` of any source; only what `takes_long` waits for something.
        exact: see `raw_mail`; of no effect on anything but a `Raw` and the `raw` of a `Message`.
        remove_bcc: see `raw_mail`; of no effect on anything but a `Raw`.
        close: close streams after the transfer, and when it fails; attachments say so for themselves.

    Raises:
        FileError: the stream cannot be opened or read.
        InvalidArgument: it cannot be sent.
    """
    if not takes_long(message):
        return as_mail(message, exact=exact, remove_bcc=remove_bcc, close=close)
    if isinstance(message, Message):
        # Who gets it is the message's to say.
        assert message.raw is not None
        origin = _as_file(message.raw)
        return Readdressed(await raw_mail(origin, exact=exact, close=close), message.envelope())
    if not isinstance(message, Raw):
        return await in_thread(partial(as_mail, message))
    origin = _as_file(message.source)
    raw = await raw_mail(origin, exact=exact, remove_bcc=remove_bcc, close=close or message.close)
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
    """Return what `mail_of` does, with what the options say."""
    return await mail_of(
        message, exact=options.exact, remove_bcc=options.remove_bcc, close=options.close_source
    )


async def dispose(message: Any, options: SendOptions) -> None:
    """Close the streams of a message that was never begun, where it or the options say so."""
    await _never_begun(message, options).aclose()


def release(message: Any, options: SendOptions) -> None:
    """Close, as far as that needs no waiting, the streams that `dispose` closes."""
    _never_begun(message, options).close()


def _never_begun(message: Any, options: SendOptions) -> UnsentSources:
    if options.close_source and isinstance(message, Message):
        return UnsentSources(Closing(message))
    if not isinstance(message, Raw):
        return UnsentSources(message)
    source = message.source
    if isinstance(source, bytes) or not (message.close or options.close_source):
        return UnsentSources(None)
    return UnsentSources(None, Content((Source(source, close=True),), size=0))


def mail_at_once(
    message: Any, *, exact: bool = False, remove_bcc: bool = True, close: bool = False
) -> Mail | None:
    """Return `message` as a `Mail`, or None where that takes its time: await `mail_of` then.

    Arguments as `mail_of`.

    Raises:
        InvalidArgument: it cannot be sent.
    """
    if hasattr(message, "envelope") and hasattr(message, "content"):
        # A mail already, as a Message is, too, unless its octets or streams ask for more.
        if not isinstance(message, Message) or (message.raw is None and not close):
            mail: Mail = message
            return mail
    if takes_long(message):
        return None
    return as_mail(message, exact=exact, remove_bcc=remove_bcc, close=close)


def as_mail(message: Any, *, exact: bool = False, remove_bcc: bool = True, close: bool = False) -> Mail:
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
    if close and isinstance(message, Message) and _texts(message):
        return Closing(message)
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
