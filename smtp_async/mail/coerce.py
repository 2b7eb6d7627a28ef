"""What a caller may hand in → `Mail`: an envelope, and a way to render content for what a server offers.

`to_mail` is the one entry. It returns a `Mail` where that needs no waiting, and a `PendingMail` where something has to
be read or so much is in memory that a thread has to convert it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from io import BytesIO
from typing import Any, Final, NamedTuple

from ..errors import InvalidArgument
from ..message.builder import Message
from ..message.external import BEFORE_HEADER, ForeignMail, content_of, content_of_crlf, content_of_raw
from ..model.address import Address
from ..model.content import Content, Mail, Origin, Source
from ..model.envelope import Envelope, Recipient
from ..model.octets import only_crlf
from ..protocol.options import SendOptions
from ..sources import aclose_origin, close_origin, in_thread, read_all
from ..sources.unsent import UnsentSources
from ..sources.weight import LONG, is_heavy
from .raw import MOST_HEADER, RawMail, raw_mail

__all__ = ["PendingMail", "Raw", "to_mail", "unsent_sources"]

_DEFAULTS: Final = SendOptions()
# Once: a union made for each message would cost more than the question.
_BYTES: Final = (bytes, bytearray, memoryview)


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


def to_mail(
    message: Any,
    options: SendOptions = _DEFAULTS,
    sender: str | Address | None = None,
    recipients: Sequence[str | Address | Recipient] | None = None,
) -> Mail | PendingMail:
    """Return `message` as a `Mail`, or as a `PendingMail` where that needs waiting.

    Args:
        message: a `Message`, an `email.message.Message`, a `Raw`, or a `Mail` of any other kind, which is returned as
            it is.
        options: `exact` holds for a `Raw` and for the `raw` of a `Message`, `remove_bcc` for a `Raw`; `close_source`
            closes streams after the transfer and when it fails, except those of attachments.
        sender, recipients: an envelope in place of the message's own; what is None stays as it is.

    Raises:
        InvalidArgument: the message cannot be sent.
        InvalidAddress, MissingRecipient: there is no valid envelope.
    """
    if hasattr(message, "envelope") and hasattr(message, "content"):
        # One look at nearly every message: a `Message` is a mail already, unless it has octets or streams to care for.
        if not isinstance(message, Message) or (message.raw is None and not options.close_source):
            mail: Mail = message
            return mail if sender is None and recipients is None else _readdressed(mail, sender, recipients)
        return _message_to_mail(message, options, sender, recipients)
    if isinstance(message, Raw):
        return _raw_to_mail(message, options, sender, recipients)
    if hasattr(message, "raw_items") and hasattr(message, "get_payload"):
        if is_heavy(message):
            return _LargeObject(message, sender, recipients)
        return _readdressed(content_of(message), sender, recipients)
    raise InvalidArgument(
        f"cannot send {type(message).__name__}: a Message or email.message.Message is needed"
    )


def unsent_sources(message: Any, options: SendOptions) -> UnsentSources:
    """Return the streams of a message that `to_mail` has not converted: those to be closed as it is not sent."""
    if options.close_source and isinstance(message, Message):
        return UnsentSources(_StreamClosingMessage(message))
    if not isinstance(message, Raw):
        # What is no mail stays as it is: it was a mistake to hand it in.
        return UnsentSources(message if hasattr(message, "envelope") else None)
    source = message.source
    if isinstance(source, _BYTES) or not (message.close or options.close_source):
        return UnsentSources(None)
    return UnsentSources(None, Content((Source(source, close=True),), size=0))


def _message_to_mail(
    message: Message,
    options: SendOptions,
    sender: str | Address | None,
    recipients: Sequence[str | Address | Recipient] | None,
) -> Mail | PendingMail:
    """Convert a `Message` that has a complete message in `raw`, or texts whose streams are to be closed."""
    raw = message.raw
    if raw is not None and (not isinstance(raw, bytes) or len(raw) > LONG):
        # The recipients are the message's to name, not the header's.
        envelope = _readdressed(message, sender, recipients).envelope()
        return _Unread(
            raw, lambda mail: _Readdressed(mail, envelope), exact=options.exact, close=options.close_source
        )
    mail: Mail = message
    if options.exact and raw is not None:
        mail = _Readdressed(content_of_raw(raw, exact=True), message.envelope())
    elif options.close_source and _text_streams(message):
        mail = _StreamClosingMessage(message)
    return _readdressed(mail, sender, recipients)


def _raw_to_mail(
    raw: Raw,
    options: SendOptions,
    sender: str | Address | None,
    recipients: Sequence[str | Address | Recipient] | None,
) -> Mail | PendingMail:
    sender = raw.sender if sender is None else sender
    recipients = raw.recipients if recipients is None else recipients
    source, exact, remove_bcc = raw.source, options.exact, options.remove_bcc
    if isinstance(source, _BYTES) and len(source) <= LONG:
        mail = content_of_raw(bytes(source), exact=exact, remove_bcc=remove_bcc)
        return _readdressed(mail, sender, recipients)
    return _Unread(
        source,
        partial(_readdressed, sender=sender, recipients=recipients),
        exact=exact,
        remove_bcc=remove_bcc,
        close=raw.close or options.close_source,
    )


def _readdressed(
    mail: Mail, sender: str | Address | None, recipients: Sequence[str | Address | Recipient] | None
) -> Mail:
    """Return `mail` under another envelope; what is None stays as it is."""
    if sender is None and recipients is None:
        return mail
    if isinstance(recipients, str | bytes):
        raise InvalidArgument("recipients is a sequence of addresses, not one text")
    if isinstance(mail, ForeignMail | RawMail):
        return _Readdressed(mail, mail.envelope(sender, recipients))
    if sender is None:
        sender = mail.envelope().sender
    if recipients is None:
        recipients = mail.envelope().recipients
    return _Readdressed(mail, Envelope(sender, recipients))


# --- mail that needs waiting ---------------------------------------------------------------------------------


class PendingMail(ABC):
    """A message that becomes a `Mail` only after waiting."""

    @abstractmethod
    async def read(self) -> Mail:
        """Read what has to be known before the message is sent; a body that is a stream is read while it is sent.

        Raises:
            FileError: the stream cannot be opened or read; as after every other error it is closed if that was asked.
            SMTPError: the message cannot be sent.
        """

    @abstractmethod
    async def read_whole(self) -> Mail:
        """Read all of the message into memory; raises as `read`."""


class _Unread(PendingMail):
    """A complete message in a stream, or one so large that it is read like one.

    Args:
        source: where the message is.
        address: puts the mail under its envelope.
        exact, remove_bcc, close: as for `raw_mail`.
    """

    __slots__ = ("_address", "_close", "_exact", "_remove_bcc", "_source")

    def __init__(
        self,
        source: bytes | Origin,
        address: Callable[[Mail], Mail],
        *,
        exact: bool,
        close: bool,
        remove_bcc: bool = True,
    ) -> None:
        self._source = source
        self._address = address
        self._exact = exact
        self._remove_bcc = remove_bcc
        self._close = close

    async def read(self) -> Mail:
        source = origin = self._source
        if isinstance(source, _BYTES):
            whole = await in_thread(partial(_unchanged, source, self._exact, self._remove_bcc))
            if whole is not None:
                return self._address(whole)
            # Threads read a file in slices, also one in memory: no copy of the whole is made.
            origin = BytesIO(source)
        raw = await raw_mail(origin, exact=self._exact, remove_bcc=self._remove_bcc, close=self._close)
        try:
            mail = self._address(raw)
            # Asked for here, because the stream of a message without one would not be closed later.
            mail.envelope()
        except BaseException:
            if isinstance(raw, RawMail):
                await raw.aclose()
            raise
        return mail

    async def read_whole(self) -> Mail:
        source = self._source
        if not isinstance(source, _BYTES):
            whole = Content((Source(source, encoding="identity", close=self._close),))
            source = await read_all(whole, close_streams=True)
        return self._address(content_of_raw(bytes(source), exact=self._exact, remove_bcc=self._remove_bcc))


def _unchanged(source: bytes | bytearray | memoryview, exact: bool, remove_bcc: bool) -> ForeignMail | None:
    """Return the mail of a large message that is sent from where it is in memory; None if it has to be rewritten."""
    data = bytes(source)
    if exact or not data.endswith(b"\r\n") or data[:1] in BEFORE_HEADER:
        return None
    end = data.find(b"\r\n\r\n", 0, MOST_HEADER)
    if end < 0 or (remove_bcc and b"bcc" in data[:end].lower()) or not only_crlf(data):
        return None
    return content_of_crlf(data, remove_bcc=remove_bcc)


class _LargeObject(PendingMail):
    """An `email.message.Message` that a thread converts."""

    __slots__ = ("_message", "_recipients", "_sender")

    def __init__(
        self,
        message: Any,
        sender: str | Address | None,
        recipients: Sequence[str | Address | Recipient] | None,
    ) -> None:
        self._message = message
        self._sender = sender
        self._recipients = recipients

    async def read(self) -> Mail:
        mail = await in_thread(partial(content_of, self._message))
        return _readdressed(mail, self._sender, self._recipients)

    async def read_whole(self) -> Mail:
        return await self.read()


# --- mail around other mail ----------------------------------------------------------------------------------


class _Readdressed:
    """A mail under another envelope."""

    __slots__ = ("_envelope", "_mail")

    def __init__(self, mail: Mail, envelope: Envelope) -> None:
        self._mail = mail
        self._envelope = envelope

    def envelope(self) -> Envelope:
        return self._envelope

    def content(self, *, eightbit: bool = False, utf8: bool = False, binary: bool = False) -> Content:
        return self._mail.content(eightbit=eightbit, utf8=utf8, binary=binary)

    def close(self) -> None:
        """Close the streams of a message that is not sent after all, as far as that needs no waiting."""
        UnsentSources(self._mail).close()

    async def aclose(self) -> None:
        """Close them, also what has to be awaited."""
        await UnsentSources(self._mail).aclose()


class _StreamClosingMessage:
    """A `Message` whose texts are read while they are sent, from streams that are closed afterwards."""

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
        """The message's attachments, of which `UnsentSources` closes the streams."""
        return self._message.attachments

    def close(self) -> None:
        """Close the streams of a message that is not sent after all, as far as that needs no waiting."""
        for origin in _text_streams(self._message):
            close_origin(origin)

    async def aclose(self) -> None:
        """Close them, also what has to be awaited."""
        for origin in _text_streams(self._message):
            await aclose_origin(origin)


def _text_streams(message: Message) -> list[Any]:
    texts = (message.text, message.html, message.raw)
    return [one for one in texts if one is not None and not isinstance(one, str | bytes)]
