"""Coerces whatever can be sent to a `Mail`: an envelope, and content rendered for the extensions of a server.

`to_mail` is the only entry point. It returns a `Mail` if that needs no waiting, and a `PendingMail` if a stream has to
be read, or the message is so large that a thread has to convert it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from io import BytesIO
from typing import Any, Final, NamedTuple, cast

from ..errors import InvalidArgument, SMTPError
from ..message.builder import Message
from ..message.foreign_mail import (
    BEFORE_HEADER,
    ForeignMail,
    mail_of_bytes,
    mail_of_crlf,
    mail_of_email_object,
    raw_content,
)
from ..model.address import Address
from ..model.content import Content, Mail, Origin, Source
from ..model.envelope import Envelope, Recipient
from ..model.octets import survey
from ..model.signing import MessageSigner
from ..protocol.options import SendOptions
from ..sources import TempDir, aclose_origin, close_origin, in_thread, read_all
from ..sources.render_cost import LONG, is_heavy
from ..sources.unsent import UnsentSources
from .raw import MOST_HEADER, RawMail, raw_mail
from .rendered import RenderedMail

__all__ = ["PendingMail", "Raw", "read_mail", "to_mail", "unsent_sources"]

_DEFAULTS: Final = SendOptions()
# Made once, because making a union for each message would cost more than the check.
_BYTES: Final = (bytes, bytearray, memoryview)
_TEXTS: Final = (str, bytes)


class Raw(NamedTuple):
    """A complete message for `SMTPClient.send_all`.

    Attributes:
        source: header, empty line, body: bytes, a path, a binary file object, an iterable or async iterable of bytes.
        sender, recipients: the envelope; a value that is not given is read from the header of the message.
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
    *,
    sign: bool = True,
) -> Mail | PendingMail:
    """Return `message` as a `Mail`, or as a `PendingMail` where that needs waiting.

    A message that is to be signed always gives a `PendingMail`.

    Args:
        message: a `Message`, an `email.message.Message`, a `Raw`, or a `Mail` of any other kind, which is returned
            unchanged.
        options: `exact` holds for a `Raw` and for the `raw` of a `Message`, `remove_bcc` for a `Raw`; `close_source`
            closes streams after the transfer and when it fails, except those of attachments; `sign` says how it is
            signed.
        sender, recipients: replace the sender or the recipients of the message unless None.
        sign: False leaves it unsigned, whatever `options` say.

    Raises:
        InvalidArgument: the message cannot be sent.
        InvalidAddress, MissingRecipient: there is no valid envelope.
    """
    if options.sign and sign:
        unsigned = to_mail(message, options, sender, recipients, sign=False)
        # A tuple, since the options were made.
        ways = cast("Sequence[MessageSigner]", options.sign)
        return _Unsigned(unsigned, ways, heavy=is_heavy(message))
    if isinstance(message, Raw):
        return _raw_to_mail(message, options, sender, recipients)
    if isinstance(message, Message):
        # The only check for most messages: a `Message` is a mail, unless it has `raw` or streams to close.
        if message.raw is not None or options.close_source:
            return _message_to_mail(message, options, sender, recipients)
        return message if sender is None and recipients is None else _readdressed(message, sender, recipients)
    if hasattr(message, "envelope") and hasattr(message, "content"):
        return _readdressed(message, sender, recipients)
    if hasattr(message, "raw_items") and hasattr(message, "get_payload"):
        if is_heavy(message):
            return _LargeObject(message, sender, recipients)
        return _readdressed(mail_of_email_object(message), sender, recipients)
    raise InvalidArgument(
        f"cannot send {type(message).__name__}: a Message or email.message.Message is needed"
    )


async def read_mail(message: Any, options: SendOptions, temp_dir: TempDir = None) -> Mail:
    """Return `message` as a `Mail`, after waiting if that is needed; its streams are closed if that fails.

    Args:
        message, options: as for `to_mail`.
        temp_dir: as for `PendingMail.read`.

    Raises:
        SMTPError: as `to_mail` and `PendingMail.read`.
    """
    try:
        mail = to_mail(message, options)
    except SMTPError:
        await unsent_sources(message, options).aclose()
        raise
    return await mail.read(temp_dir) if isinstance(mail, PendingMail) else mail


def unsent_sources(message: Any, options: SendOptions) -> UnsentSources:
    """Return the streams to close of a message that is not sent and that `to_mail` has not converted."""
    if options.close_source and isinstance(message, Message):
        return UnsentSources(_StreamClosingMessage(message))
    if not isinstance(message, Raw):
        # An object that is not a mail was passed by mistake, so it is not touched.
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
        # The recipients come from the attributes of the message, not from its header.
        envelope = _readdressed(message, sender, recipients).envelope()
        return _Unread(
            raw, lambda mail: _Readdressed(mail, envelope), exact=options.exact, close=options.close_source
        )
    mail: Mail = message
    if options.exact and raw is not None:
        mail = _Readdressed(mail_of_bytes(raw, exact=True), message.envelope())
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
        if sender is None or recipients is None:
            mail = mail_of_bytes(bytes(source), exact=exact, remove_bcc=remove_bcc)
            return _readdressed(mail, sender, recipients)
        # The usual case of a bulk mailing: nothing of the header is needed for the envelope.
        content = raw_content(bytes(source), exact=exact, remove_bcc=remove_bcc)
        _demand_several(recipients)
        return RenderedMail(Envelope(sender, recipients), content)
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
    """Return `mail` with another envelope; None keeps the sender or the recipients."""
    if sender is None and recipients is None:
        return mail
    _demand_several(recipients)
    if isinstance(mail, ForeignMail | RawMail):
        return _Readdressed(mail, mail.envelope(sender, recipients))
    if sender is None:
        sender = mail.envelope().sender
    if recipients is None:
        recipients = mail.envelope().recipients
    return _Readdressed(mail, Envelope(sender, recipients))


def _demand_several(recipients: object) -> None:
    if isinstance(recipients, _TEXTS):
        raise InvalidArgument("recipients is a sequence of addresses, not one text")


# --- mail that needs waiting ---------------------------------------------------------------------------------


class PendingMail:
    """A message that becomes a `Mail` only after waiting.

    No abstract class, because every call of `send` asks whether it has one, and `ABCMeta` answers in Python code.
    """

    __slots__ = ()

    async def read(self, temp_dir: TempDir = None) -> Mail:
        """Read what must be known before the message is sent; the body of a stream may be read while it is sent.


        Args:
            temp_dir: where a source that can be read only once is stored if it has to be read twice.

        Raises:
            FileError: the stream cannot be opened or read. After any error it is closed if `close` is set.
            SMTPError: the message cannot be sent.
        """
        raise NotImplementedError

    async def read_whole(self) -> Mail:
        """Read all of the message into memory; raises as `read`."""
        raise NotImplementedError


class _Unread(PendingMail):
    """A complete message in a stream, or a message so large that it is read like a stream.

    Args:
        source: the origin of the message.
        address: sets the envelope of the mail.
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

    async def read(self, temp_dir: TempDir = None) -> Mail:
        source = origin = self._source
        if isinstance(source, _BYTES):
            whole = await in_thread(partial(_unchanged, source, self._exact, self._remove_bcc))
            if whole is not None:
                return self._address(whole)
            # Threads read a file in slices, also one in memory, so the whole message is not copied.
            origin = BytesIO(source)
        raw = await raw_mail(origin, exact=self._exact, remove_bcc=self._remove_bcc, close=self._close)
        try:
            mail = self._address(raw)
            # The envelope is read here, because the stream of a message without one would not be closed later.
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
        return self._address(mail_of_bytes(bytes(source), exact=self._exact, remove_bcc=self._remove_bcc))


def _unchanged(source: bytes | bytearray | memoryview, exact: bool, remove_bcc: bool) -> ForeignMail | None:
    """Return the mail of a large message that is sent from memory unchanged; None if it has to be rewritten."""
    data = bytes(source)
    if exact or not data.endswith(b"\r\n") or data[:1] in BEFORE_HEADER:
        return None
    end = data.find(b"\r\n\r\n", 0, MOST_HEADER)
    if end < 0 or (remove_bcc and b"bcc" in data[:end].lower()):
        return None
    surveyed = survey(data, crlf_only=True)
    return None if surveyed is None else mail_of_crlf(data, remove_bcc=remove_bcc, surveyed=surveyed)


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

    async def read(self, temp_dir: TempDir = None) -> Mail:
        mail = await in_thread(partial(mail_of_email_object, self._message))
        return _readdressed(mail, self._sender, self._recipients)

    async def read_whole(self) -> Mail:
        return await self.read()


class _Unsigned(PendingMail):
    """A message that is to be signed.

    Args:
        mail: the message.
        sign: how it is signed.
        heavy: there is so much in memory that it is rendered in a thread.
    """

    __slots__ = ("_heavy", "_mail", "_sign")

    def __init__(self, mail: Mail | PendingMail, sign: Sequence[MessageSigner], *, heavy: bool) -> None:
        self._mail = mail
        self._sign = sign
        self._heavy = heavy

    # The import stands in the methods, because few callers sign.

    async def read(self, temp_dir: TempDir = None) -> Mail:
        from .signing import signed

        mail = self._mail
        if isinstance(mail, PendingMail):
            mail = await mail.read(temp_dir)
        return await signed(mail, self._sign, temp_dir=temp_dir, heavy=self._heavy)

    async def read_whole(self) -> Mail:
        from .signing import signed

        mail = self._mail
        if isinstance(mail, PendingMail):
            mail = await mail.read_whole()
        return await signed(mail, self._sign, heavy=self._heavy)


# --- mail around other mail ----------------------------------------------------------------------------------


class _Readdressed:
    """A mail with another envelope."""

    __slots__ = ("_envelope", "_mail")

    def __init__(self, mail: Mail, envelope: Envelope) -> None:
        self._mail = mail
        self._envelope = envelope

    def envelope(self) -> Envelope:
        return self._envelope

    def content(self, *, eightbit: bool = False, utf8: bool = False, binary: bool = False) -> Content:
        return self._mail.content(eightbit=eightbit, utf8=utf8, binary=binary)

    def close(self) -> None:
        """Close the streams of a message that is not sent, if that needs no waiting."""
        UnsentSources(self._mail).close()

    async def aclose(self) -> None:
        """Close the streams, also those that have to be awaited."""
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
            # An attachment has a name, and its own `close`.
            source.close = source.close or not source.name
        return content

    @property
    def attachments(self) -> Sequence[Any]:
        """The attachments of the message, whose streams `UnsentSources` closes."""
        return self._message.attachments

    def close(self) -> None:
        """Close the streams of a message that is not sent, if that needs no waiting."""
        for origin in _text_streams(self._message):
            close_origin(origin)

    async def aclose(self) -> None:
        """Close the streams, also those that have to be awaited."""
        for origin in _text_streams(self._message):
            await aclose_origin(origin)


def _text_streams(message: Message) -> list[Any]:
    texts = (message.text, message.html, message.raw)
    return [one for one in texts if one is not None and not isinstance(one, str | bytes)]
