"""`Message`: the sender, recipients, texts and header fields of a mail, set by the caller."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal, Unpack

from ..errors import InvalidArgument, InvalidHeader, MissingSender
from ..model.address import Address
from ..model.content import Content, Origin
from ..model.envelope import Envelope, Kind, Recipient
from ..model.reply import printable
from .attachment import Attachment
from .headers import check_name, check_value
from .optional_fields import Addresses, Fields, Rare, mailboxes
from .render import render
from .snapshot import GeneratedValues, MessageID, Snapshot
from .transfer_encoding import Capabilities

if TYPE_CHECKING:
    from email.message import EmailMessage
    from email.message import Message as OldMessage

__all__ = ["Headers", "Message", "MessageID"]

#: Extra header fields in order.
Headers = Mapping[str, str] | Iterable[tuple[str, str]]
#: `as_bytes` renders for a server without 8BITMIME; UTF-8 is allowed only in addresses, which need SMTPUTF8 anyway.
_MOST_SERVERS: Final = Capabilities(eightbit=False, utf8=True, binary=False)
_TO, _CC, _BCC = Kind.TO, Kind.CC, Kind.BCC
_FIELDS: Final = frozenset(Fields.__annotations__)
#: What arguments are called elsewhere, and here.
_ELSEWHERE: Final = {
    **dict.fromkeys(("body", "content", "plain", "message", "text_body"), "text"),
    **dict.fromkeys(("html_body", "html_content", "html_message", "alternative"), "html"),
    **dict.fromkeys(("from_", "from_addr", "from_email", "mail_from"), "sender"),
    **dict.fromkeys(("recipient", "recipient_list", "to_addrs", "to_email", "to_emails", "receivers"), "to"),
    **dict.fromkeys(("files", "attach", "attachment"), "attachments"),
    **dict.fromkeys(("extra_headers", "header"), "headers"),
    "reply": "reply_to",
    "title": "subject",
}


def _random_hex(count: int) -> str:
    """Return hexadecimal digits for `count` random octets, as `secrets.token_hex` does in four calls."""
    return os.urandom(count).hex()


class Message(Rare):
    """A mail to be sent.

    Everything is optional until the message is sent: then it needs a sender and a recipient. All attributes may
    be changed. Date, Message-ID and boundaries are made when the message is first rendered and kept, so that
    sending it twice sends the same bytes; apart from that, sending changes nothing.

    Args:
        sender: the author, named in From; bounces go there too, unless there is a `return_path`.
        to: the primary recipients: addresses separated by commas, an address, or a list of them.
        cc: recipients of a copy.
        bcc: hidden recipients of a copy; no header field names them.
        recipients: further recipients, each with its kind; they follow those of to, cc and bcc.
        subject: one line of any text.
        text: the plain text; bare CR and LF become CRLF. Bytes must be in `charset`. A path, a binary file object
            or an iterator of bytes is read while the message is sent, and sent unchanged in base64.
        html: the same in HTML.
        attachments: see `attach`.
        reply_to: where answers should go.
        headers: extra header fields; order and letter case are kept.
        date: of the message; by default, and for `"now"`, the time of the first rendering. A datetime without a zone
            is in UTC. A text is written unchanged; with an empty text, the field is left out.
        message_id: with or without angle brackets; by default random, under the sender's domain; or a callable
            that is called at the first rendering; empty for none, so that a server adds one.
        authors: several authors for From; then `sender`, or the first of them, is named in Sender.
        return_path: where bounces go; `"<>"` for nowhere.
        fields: less common fields, see `Fields`.

    Raises:
        InvalidAddress: a text is not a mailbox.
        InvalidHeader: a header field that would change the structure of the message.
        InvalidArgument: a value that the field cannot have.
        TextNotEncodable: an unknown charset.
    """

    __slots__ = (
        "_authors",
        "_can",
        "_headers",
        "_generated",
        "_reply_to",
        "_return_path",
        "_sender",
        "attachments",
        "date",
        "html",
        "message_id",
        "recipients",
        "subject",
        "text",
    )

    _generated: GeneratedValues | None
    _sender: Address | None
    _authors: tuple[Address, ...]
    _reply_to: tuple[Address, ...]
    _return_path: Address | Literal["<>"] | None
    _headers: list[tuple[str, str]]

    def __init__(
        self,
        *,
        sender: str | Address | None = None,
        to: Addresses = (),
        cc: Addresses = (),
        bcc: Addresses = (),
        recipients: Iterable[str | Address | Recipient] = (),
        subject: str | None = None,
        text: str | bytes | Origin | None = None,
        html: str | bytes | Origin | None = None,
        attachments: Iterable[Attachment] = (),
        reply_to: Addresses = (),
        headers: Headers = (),
        date: datetime | str | None = None,
        message_id: MessageID = None,
        authors: Addresses = (),
        return_path: str | Address | None = None,
        **fields: Unpack[Fields],
    ) -> None:
        self._generated = self._rare = None
        # What the server accepts for which the message was rendered last.
        self._can = _MOST_SERVERS
        self._sender = None if sender is None else Address.parse(sender)
        #: All recipients of the message; `to`, `cc` and `bcc` are views of it.
        self.recipients: list[Recipient] = [Recipient(address, _TO) for address in mailboxes(to)]
        if cc:
            self.recipients += [Recipient(address, _CC) for address in mailboxes(cc)]
        if bcc:
            self.recipients += [Recipient(address, _BCC) for address in mailboxes(bcc)]
        if recipients:
            self.recipients += [Recipient.of(recipient) for recipient in recipients]
        self.subject = subject
        self.text = text
        self.html = html
        self.attachments: list[Attachment] = list(attachments)
        if attachments and not all([isinstance(one, Attachment) for one in self.attachments]):
            raise InvalidArgument("attachments are Attachment objects; attach() makes one of bytes or a file")
        self._reply_to = mailboxes(reply_to) if reply_to else ()
        if headers:
            self.headers = headers
        else:
            self._headers = []
        self.date = date
        self.message_id = message_id
        self._authors = mailboxes(authors) if authors else ()
        if return_path is None:
            self._return_path = None
        else:
            self.return_path = return_path
        if fields:
            for name, value in fields.items():
                if name not in _FIELDS:
                    raise TypeError(_unexpected(name))
                setattr(self, name, value)

    @property
    def sender(self) -> Address | None:
        """The author, and the address for bounces if there is no `return_path`."""
        return self._sender

    @sender.setter
    def sender(self, value: str | Address | None) -> None:
        self._sender = None if value is None else Address.parse(value)

    @property
    def authors(self) -> tuple[Address, ...]:
        """The addresses of From; empty if From names only the sender."""
        return self._authors

    @authors.setter
    def authors(self, value: Addresses) -> None:
        self._authors = mailboxes(value)

    @property
    def reply_to(self) -> tuple[Address, ...]:
        """The addresses for answers."""
        return self._reply_to

    @reply_to.setter
    def reply_to(self, value: Addresses) -> None:
        self._reply_to = mailboxes(value)

    @property
    def return_path(self) -> Address | Literal["<>"] | None:
        """The address for bounces; `"<>"`: no bounces are sent; `None`: the sender."""
        return self._return_path

    @return_path.setter
    def return_path(self, value: str | Address | None) -> None:
        if value is None or value == "<>":
            self._return_path = "<>" if value else None
        else:
            self._return_path = Address.parse(value)

    @property
    def to(self) -> tuple[Address, ...]:
        """The primary recipients."""
        return self._of_kind(_TO)

    @to.setter
    def to(self, value: Addresses) -> None:
        self._replace(_TO, value)

    @property
    def cc(self) -> tuple[Address, ...]:
        """The recipients of a copy."""
        return self._of_kind(_CC)

    @cc.setter
    def cc(self, value: Addresses) -> None:
        self._replace(_CC, value)

    @property
    def bcc(self) -> tuple[Address, ...]:
        """The hidden recipients of a copy."""
        return self._of_kind(_BCC)

    @bcc.setter
    def bcc(self, value: Addresses) -> None:
        self._replace(_BCC, value)

    @property
    def headers(self) -> list[tuple[str, str]]:
        """Extra header fields as (name, value), in order."""
        return self._headers

    @headers.setter
    def headers(self, value: Headers) -> None:
        try:
            pairs = [(name, text) for name, text in (value.items() if isinstance(value, Mapping) else value)]
        except (TypeError, ValueError) as error:
            raise InvalidHeader("headers are a mapping or pairs of a name and a text") from error
        for name, text in pairs:
            check_name(name)
            check_value(name, text)
        self._headers = pairs

    def clear_headers(self) -> None:
        """Clear sender, recipients, subject and all other header fields, but not the texts.

        The next rendering makes a new Date and Message-ID. Settings (charsets, the length of header lines) are kept.
        """
        self._generated = self._sender = self._return_path = None
        self._authors = self._reply_to = ()
        self.recipients.clear()
        self._headers.clear()
        self.subject = self.date = self.message_id = None
        self._clear_rare()

    def attach(
        self,
        source: bytes | Origin,
        *,
        filename: str | None = None,
        content_type: str | None = None,
        cid: str | None = None,
        close: bool = False,
        disposition: str | None = None,
        description: str | None = None,
        name_parameter: bool = False,
    ) -> Attachment:
        """Add a file; the arguments are those of `Attachment`.

        Raises:
            InvalidHeader: a control character in one of the names.
            InvalidArgument: not a source, or not a content type or disposition.
        """
        attachment = Attachment(
            source,
            filename=filename,
            content_type=content_type,
            cid=cid,
            close=close,
            disposition=disposition,
            description=description,
            name_parameter=name_parameter,
        )
        self.attachments.append(attachment)
        return attachment

    # --- rendering -------------------------------------------------------------------------------------------

    def envelope(self) -> Envelope:
        """Return the envelope: the address for bounces and the recipients.

        Raises:
            MissingSender: neither sender nor authors nor return path.
            MissingRecipient: to, cc and bcc are empty.
        """
        sender: str | Address | None = self._return_path or self._sender
        if sender is None:
            if not self._authors:
                raise MissingSender("the message has no sender: give the author as sender=…")
            sender = self._authors[0]
        return Envelope(sender, self.recipients)

    def content(
        self,
        *,
        eightbit: bool = False,
        utf8: bool = False,
        binary: bool = False,
        now: Callable[[], float] = time.time,
        token: Callable[[int], str] = _random_hex,
    ) -> Content:
        """Return the content for a server with or without 8BITMIME, SMTPUTF8 and BINARYMIME; the same bytes each time.

        Args:
            eightbit: parts may contain octets above 127.
            utf8: addresses in the header may have local parts that are not ASCII. Nothing else uses SMTPUTF8 unless
                `header_charset` is empty, so that content needs the extension only where there is no other way.
            binary: attachments may be sent without encoding; those of 4 KiB and more are.
            now: returns seconds of the epoch; called once per message.
            token: returns hexadecimal digits for that many random octets.

        Raises:
            MissingSender: neither sender nor authors.
            InvalidHeader: a header field name or value that would change the structure of the message.
            ExtensionMissing: an address in the header needs SMTPUTF8 and `utf8` is false.
            TextNotEncodable: a text that its charset cannot express, for example half of a surrogate pair.
        """
        self._can = can = Capabilities(eightbit, utf8, binary)
        return self._rendered(can, now, token)

    def as_bytes(self) -> bytes:
        """Return the message as it is sent to a server without 8BITMIME. The call blocks while it reads files.

        An iterator that can be read only once is replaced by its octets; a file object is put back to its position.

        Raises:
            UsageError: a part comes from an async iterator; `await message.render()` reads it.
            FileError: a file cannot be opened or read.
            SMTPError: as `content`.
        """
        from .readback import message_bytes

        return message_bytes(self._rendered(_MOST_SERVERS), self._keep)

    def render(self) -> Coroutine[Any, Any, bytes]:
        """Return an awaitable for the bytes of `as_bytes`; files are read without blocking the event loop.

        Async iterators are read, too; a source that can be read only once is then used up.
        """
        from ..sources import read_all
        from .readback import as_sent

        content = self._rendered(_MOST_SERVERS)
        return read_all(content, partial(as_sent, content))

    @property
    def size(self) -> int | None:
        """Octets of `as_bytes()`, with the sizes of files; None if a source would have to be read to know."""
        from .readback import message_size

        return message_size(self._rendered(_MOST_SERVERS))

    @property
    def all_headers(self) -> tuple[tuple[str, str], ...]:
        """All header fields as (name, value), unfolded, as they were last sent."""
        from .readback import unfolded_fields

        return unfolded_fields(self.headers_text)

    @property
    def headers_text(self) -> str:
        """The header with its empty line, as it was last sent, or else as `as_bytes` writes it."""
        from .readback import header_and_body

        return header_and_body(self._rendered(self._can), self._keep)[0]

    @property
    def body_text(self) -> str:
        """The octets behind the header as text, as they were last sent; those that are not UTF-8 become surrogates.

        Raises:
            UsageError, FileError: as `as_bytes`.
        """
        from .readback import header_and_body

        return header_and_body(self._rendered(self._can), self._keep, body=True)[1]

    # --- conversion -------------------------------------------------------------------------------------------

    @classmethod
    def from_bytes(cls, data: bytes) -> Message:
        """Read a whole message: header, empty line, body.

        If a `Message` cannot express everything (signed or encrypted parts, reports, several texts, a field that
        cannot be parsed or occurs twice), `raw` keeps the whole message, beside the attributes that could be parsed.
        No message is refused.
        """
        from .convert import from_bytes

        return from_bytes(cls(), data)

    @classmethod
    def from_email_message(cls, message: OldMessage) -> Message:
        """Read a message of the standard library's `email` package, which is left unchanged.

        Raises:
            InvalidHeader: a field name or value that would change the structure of the message, or is not a text.
            InvalidArgument: the message is signed or encrypted, or contains a part that cannot be sent.
            TextNotEncodable: a text that its charset cannot express.
        """
        from .convert import from_email_message

        return from_email_message(cls(), message)

    def to_email_message(self, *, bcc: bool = False) -> EmailMessage:
        """Return the message as an object of the standard library.

        Args:
            bcc: add the Bcc field, which every program that sends the object then sends, too.

        Raises:
            UsageError, FileError: as `as_bytes`.
        """
        from .convert import to_email_message

        return to_email_message(self, bcc=bcc)

    def _rendered(
        self,
        can: Capabilities,
        now: Callable[[], float] = time.time,
        token: Callable[[int], str] = _random_hex,
    ) -> Content:
        rare = self._rare
        snapshot = Snapshot(
            self._generated,
            self._sender,
            self._authors,
            self._reply_to,
            (*self.recipients,),
            self.subject,
            self.text,
            self.html,
            (*self.attachments,),
            (*self._headers,),
            self.date,
            self.message_id,
            None if rare is None else rare.copy(),
        )
        content, self._generated = render(snapshot, can, now=now, token=token)
        return content

    def _keep(self, origin: Any, data: bytes) -> None:
        """Keep octets in place of the origin that they were read from, because it can be read only once."""
        for attachment in self.attachments:
            if attachment.source is origin:
                attachment._source = data
        for name in ("text", "html", "raw"):
            if getattr(self, name) is origin:
                setattr(self, name, data)

    def _of_kind(self, kind: Kind) -> tuple[Address, ...]:
        return tuple([recipient.address for recipient in self.recipients if recipient.kind is kind])

    def _replace(self, kind: Kind, value: Addresses) -> None:
        added = [Recipient(address, kind) for address in mailboxes(value)]
        self.recipients[:] = [r for r in self.recipients if r.kind is not kind] + added

    def __repr__(self) -> str:
        return (
            f"<Message {printable(self.subject or '', 60)!r} from {self._sender} to {len(self.recipients)}>"
        )


def _unexpected(name: str) -> str:
    """Return the text of the error for an argument that `Message` does not have."""
    text = f"Message() got an unexpected keyword argument {name!r}"
    meant = _ELSEWHERE.get(name)
    if meant is None:
        from difflib import get_close_matches  # imported here because only a mistake needs the module

        close = get_close_matches(name, [*(Message.__init__.__kwdefaults__ or ()), *_FIELDS], n=1)
        meant = close[0] if close else None
    return text if meant is None else f"{text}; did you mean {meant!r}?"
