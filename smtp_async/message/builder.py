"""Message and Attachment: what a mail says, in the caller's terms."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Final, Literal

from ..address import Address, Envelope, Kind, Recipient, parse_list
from ..content import Content
from ..errors import InvalidArgument, InvalidHeader, MissingSender
from ..reply import printable
from .headers import check_name, check_value, message_id_text
from .render import Identity, render

__all__ = ["Addresses", "Attachment", "Headers", "Message"]

#: One or several mailboxes: a comma list, an address, or an iterable of them.
Addresses = str | Address | Iterable[str | Address]
#: Extra header fields in order.
Headers = Mapping[str, str] | Iterable[tuple[str, str]]

OCTETS: Final = "application/octet-stream"

# What Python's own table lacks or has only in newer versions.
_TYPES: Final = {
    ".7z": "application/x-7z-compressed",
    ".docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    ".eml": "message/rfc822",
    ".gz": "application/gzip",
    ".ics": "text/calendar",
    ".md": "text/markdown",
    ".odp": "application/vnd.oasis.opendocument.presentation",
    ".ods": "application/vnd.oasis.opendocument.spreadsheet",
    ".odt": "application/vnd.oasis.opendocument.text",
    ".pptx": "application/vnd.openxmlformats-officedocument.presentationml.presentation",
    ".webp": "image/webp",
    ".xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
}

_TOKEN = r"[A-Za-z0-9!#$%&'*+.^_`{|}~\-]++"
_TYPE: Final = re.compile(
    rf"({_TOKEN}/{_TOKEN})((?:[ ]*+;[ ]*+{_TOKEN}=(?:{_TOKEN}|\"(?:[^\"\\]|\\.)*+\"))*+)"
)
_PARAMETER: Final = re.compile(rf"({_TOKEN})=(?:({_TOKEN})|\"((?:[^\"\\]|\\.)*+)\")")
_ESCAPED: Final = re.compile(r"\\(.)")
_CONTROL: Final = re.compile("[\x00-\x1f\x7f]")


class Attachment:
    """A file that travels with a message. Immutable.

    Args:
        data: the bytes.
        filename: the name that the reader is offered.
        content_type: `type/subtype`, parameters may follow; by default guessed from the file name.
        cid: a name for `cid:` links in the HTML text, which makes the part an inline one.

    Raises:
        InvalidHeader: a control character in one of the names.
        InvalidArgument: not a content type, or one that only this library may make (multipart).
    """

    __slots__ = ("_cid", "_content_type", "_data", "_filename", "_parameters")

    def __init__(
        self,
        data: bytes,
        *,
        filename: str | None = None,
        content_type: str | None = None,
        cid: str | None = None,
    ) -> None:
        if not isinstance(data, bytes | bytearray | memoryview):
            raise InvalidArgument(f"an attachment is made of bytes, not of {type(data).__name__}")
        for what, value in (("a file name", filename), ("a content type", content_type), ("a cid", cid)):
            if value is not None:
                check_value(what, value)
                if _CONTROL.search(value):
                    raise InvalidHeader(f"{what} holds a control character")
        self._data = bytes(data)
        self._filename = filename
        self._cid = None if cid is None else message_id_text(cid)[1:-1]
        self._content_type, self._parameters = _content_type(content_type or _guessed(filename))

    @property
    def data(self) -> bytes:
        """The bytes."""
        return self._data

    @property
    def filename(self) -> str | None:
        """The name that the reader is offered."""
        return self._filename

    @property
    def content_type(self) -> str:
        """`type/subtype` in lower case."""
        return self._content_type

    @property
    def parameters(self) -> tuple[tuple[str, str], ...]:
        """The parameters of the content type, for example `("charset", "utf-8")`."""
        return self._parameters

    @property
    def cid(self) -> str | None:
        """The name for `cid:` links, without angle brackets; `None` for an attached file."""
        return self._cid

    def __repr__(self) -> str:
        return f"<Attachment {self._filename!r} {self._content_type} {len(self._data)} bytes>"


class Message:
    """A mail to be sent.

    Everything is optional until it is sent: then there must be a sender and a recipient. All attributes may
    be changed. Date, Message-ID and boundaries are drawn when the message is first rendered and stay, so that
    sending it twice sends the same bytes; apart from that, sending changes nothing.

    Args:
        sender: the author, named in From; bounces go there too, unless there is a `return_path`.
        to: who it is for: a comma list, an address, or a list of them.
        cc: who gets a copy.
        bcc: who gets a copy that nobody is told of; no header field ever names them.
        subject: one line of any text.
        text: the plain text; bare CR and LF become CRLF.
        html: the same in HTML.
        attachments: see `attach`.
        reply_to: where answers should go.
        headers: extra header fields; order and letter case are kept.
        date: of the message; by default the moment of the first rendering. One without a zone is in UTC.
        message_id: with or without angle brackets; by default drawn at random under the sender's domain;
            empty for none, so that a server adds it.
        authors: several authors for From; then `sender`, or the first of them, is named in Sender.
        return_path: where bounces go; `"<>"` for nowhere.

    Raises:
        InvalidAddress: a text is not a mailbox.
        InvalidHeader: a header field that would change the structure of the message.
    """

    __slots__ = (
        "_authors",
        "_headers",
        "_identity",
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

    _identity: Identity | None
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
        subject: str | None = None,
        text: str | None = None,
        html: str | None = None,
        attachments: Iterable[Attachment] = (),
        reply_to: Addresses = (),
        headers: Headers = (),
        date: datetime | None = None,
        message_id: str | None = None,
        authors: Addresses = (),
        return_path: str | Address | None = None,
    ) -> None:
        self._identity = None
        self._sender = None if sender is None else Address.parse(sender)
        #: Everybody who gets the message; `to`, `cc` and `bcc` are views of it.
        self.recipients: list[Recipient] = []
        self.recipients += [Recipient(address, Kind.TO) for address in _addresses(to)]
        self.recipients += [Recipient(address, Kind.CC) for address in _addresses(cc)]
        self.recipients += [Recipient(address, Kind.BCC) for address in _addresses(bcc)]
        self.subject = subject
        self.text = text
        self.html = html
        self.attachments: list[Attachment] = list(attachments)
        self._reply_to = _addresses(reply_to)
        self.headers = headers
        self.date = date
        self.message_id = message_id
        self._authors = _addresses(authors)
        self.return_path = return_path

    @property
    def sender(self) -> Address | None:
        """The author, and where bounces go unless there is a `return_path`."""
        return self._sender

    @sender.setter
    def sender(self, value: str | Address | None) -> None:
        self._sender = None if value is None else Address.parse(value)

    @property
    def authors(self) -> tuple[Address, ...]:
        """Who is named in From, if not the sender."""
        return self._authors

    @authors.setter
    def authors(self, value: Addresses) -> None:
        self._authors = _addresses(value)

    @property
    def reply_to(self) -> tuple[Address, ...]:
        """Where answers should go."""
        return self._reply_to

    @reply_to.setter
    def reply_to(self, value: Addresses) -> None:
        self._reply_to = _addresses(value)

    @property
    def return_path(self) -> Address | Literal["<>"] | None:
        """Where bounces go, `"<>"` for nowhere, `None` for the sender."""
        return self._return_path

    @return_path.setter
    def return_path(self, value: str | Address | None) -> None:
        if value is None or value == "<>":
            self._return_path = "<>" if value else None
        else:
            self._return_path = Address.parse(value)

    @property
    def to(self) -> tuple[Address, ...]:
        """Who it is for."""
        return self._of_kind(Kind.TO)

    @to.setter
    def to(self, value: Addresses) -> None:
        self._replace(Kind.TO, value)

    @property
    def cc(self) -> tuple[Address, ...]:
        """Who gets a copy."""
        return self._of_kind(Kind.CC)

    @cc.setter
    def cc(self, value: Addresses) -> None:
        self._replace(Kind.CC, value)

    @property
    def bcc(self) -> tuple[Address, ...]:
        """Who gets a copy that nobody is told of."""
        return self._of_kind(Kind.BCC)

    @bcc.setter
    def bcc(self, value: Addresses) -> None:
        self._replace(Kind.BCC, value)

    @property
    def headers(self) -> list[tuple[str, str]]:
        """Extra header fields as (name, value), in order."""
        return self._headers

    @headers.setter
    def headers(self, value: Headers) -> None:
        pairs = value.items() if isinstance(value, Mapping) else value
        self._headers = [(name, text) for name, text in pairs]
        for name, text in self._headers:
            check_name(name)
            check_value(name, text)

    def attach(
        self,
        source: bytes,
        *,
        filename: str | None = None,
        content_type: str | None = None,
        cid: str | None = None,
    ) -> Attachment:
        """Add a file; the arguments are those of `Attachment`.

        Raises:
            InvalidHeader: a control character in one of the names.
            InvalidArgument: not a content type.
        """
        attachment = Attachment(source, filename=filename, content_type=content_type, cid=cid)
        self.attachments.append(attachment)
        return attachment

    def envelope(self) -> Envelope:
        """Return where bounces go and who gets it.

        Raises:
            MissingSender: neither sender nor authors nor return path.
            MissingRecipient: nobody in to, cc and bcc.
        """
        sender: str | Address | None = self._return_path or self._sender
        if sender is None:
            if not self._authors:
                raise MissingSender("the message has no sender")
            sender = self._authors[0]
        return Envelope(sender, self.recipients)

    def content(
        self,
        *,
        eightbit: bool = False,
        utf8: bool = False,
        now: Callable[[], float] = time.time,
        token: Callable[[int], str] = secrets.token_hex,
    ) -> Content:
        """Return the content for a server with or without 8BITMIME and SMTPUTF8; the same bytes each time.

        Args:
            eightbit: parts may hold octets above 127.
            utf8: addresses in the header may have local parts that are not ASCII. Nothing else makes use of
                it, so that content asks for SMTPUTF8 only when there is no other way.
            now: seconds of the epoch, asked once in the life of the message.
            token: hexadecimal digits from that many random octets.

        Raises:
            MissingSender: nobody to name in From.
            InvalidHeader: a header field name or value that would change the structure of the message.
            ExtensionMissing: an address in the header needs SMTPUTF8 and `utf8` is false.
            TextNotEncodable: a text holds half of a surrogate pair.
        """
        return render(self, eightbit=eightbit, utf8=utf8, now=now, token=token)

    def as_bytes(self) -> bytes:
        """Return the message as a server without 8BITMIME would get it; raises what `render` raises."""
        return self.content(utf8=True).join()

    @property
    def size(self) -> int | None:
        """Octets of `as_bytes()`."""
        return self.content(utf8=True).size

    def _of_kind(self, kind: Kind) -> tuple[Address, ...]:
        return tuple([recipient.address for recipient in self.recipients if recipient.kind is kind])

    def _replace(self, kind: Kind, value: Addresses) -> None:
        added = [Recipient(address, kind) for address in _addresses(value)]
        self.recipients[:] = [r for r in self.recipients if r.kind is not kind] + added

    def __repr__(self) -> str:
        return (
            f"<Message {printable(self.subject or '', 60)!r} from {self._sender} to {len(self.recipients)}>"
        )


def _addresses(value: Addresses) -> tuple[Address, ...]:
    if isinstance(value, str):
        return tuple(parse_list(value))
    return (value,) if isinstance(value, Address) else tuple([Address.parse(item) for item in value])


def _guessed(filename: str | None) -> str:
    """Return the content type that goes with a file name."""
    if filename is None:
        return OCTETS
    import mimetypes  # only attachments need it

    # The table itself, not guess_type(): that would read files of the system.
    extension = "." + filename.rpartition(".")[2].lower()
    return _TYPES.get(extension) or mimetypes.types_map.get(extension, OCTETS)


def _content_type(text: str) -> tuple[str, tuple[tuple[str, str], ...]]:
    """Read a content type, RFC 2045 section 5.1."""
    match = _TYPE.fullmatch(text.strip(" "))
    if match is None:
        raise InvalidArgument(f"“{printable(text, 80)}” is not a content type")
    if match[1].lower().startswith("multipart/"):
        raise InvalidArgument("a multipart is made of parts: attach each of them")
    parameters = [
        (name, plain or _ESCAPED.sub(r"\1", quoted)) for name, plain, quoted in _PARAMETER.findall(match[2])
    ]
    return match[1].lower(), tuple(parameters)
