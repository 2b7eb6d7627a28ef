"""Messages made by other software: `email.message.Message` objects, and whole messages as bytes.

Strategy. Both become header fields in octets, from which one parser reads the envelope (`header_parser`). An
`email.message` object is copied into an `Entity` (`entity_from_email`) and rendered for what the server accepts
(`render_entity`); in a whole message only the line endings are changed.

Bcc and Resent-Bcc are removed from the header of the outermost message, after the envelope was read from it. Whole
messages are often sent by the thousand, with a given envelope: then the header is only searched for the names of these
fields, and not parsed.

Nothing here imports `email`: a caller that has an `email.message` object has imported that package.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

from ..errors import InvalidArgument, MissingSender
from ..model.address import Address
from ..model.content import Content
from ..model.envelope import Envelope, Kind, Recipient
from ..model.octets import SLICE, Survey, find, normalised, only_crlf
from .header_parser import (
    BOM,
    HEADER_END,
    HIDDEN,
    MAILBOXES,
    Field,
    check_line_ends,
    fields_of,
    leading_lines,
    mailboxes_in,
    without_leading,
)

if TYPE_CHECKING:
    from email.message import Message as EmailMessage

__all__ = [
    "BEFORE_HEADER",
    "ForeignMail",
    "mail_of_email_object",
    "mail_of_crlf",
    "mail_of_bytes",
    "raw_content",
]

# The first octets of empty lines and of a byte order mark: one quick test for each message of a bulk mailing.
BEFORE_HEADER: Final = (b"\r", b"\n", BOM[:1])
_KINDS: Final = tuple((kind.value.lower(), kind) for kind in Kind)


class ForeignMail:
    """A message made by other software: a `Mail` whose envelope is given, or read from its header.

    Args:
        fields: returns the fields that an envelope depends on; called once, when the header has to be read.
        write: makes the content for a server with or without 8BITMIME and SMTPUTF8.
    """

    __slots__ = ("_fields", "_read", "_write")

    def __init__(self, fields: Callable[[], list[Field]], write: Callable[[bool, bool], Content]) -> None:
        self._fields: list[Field] | None = None
        self._read = fields
        self._write = write

    def envelope(
        self,
        sender: str | Address | None = None,
        recipients: Iterable[str | Address | Recipient] | None = None,
    ) -> Envelope:
        """Return the envelope; by default from Sender or From, and from To, Cc and Bcc.

        Args:
            sender: `"<>"` for the null return path.
            recipients: texts and addresses count as To.

        Raises:
            InvalidArgument: the message was resent (RFC 5322 section 3.6.6), so its header names no certain envelope.
            InvalidAddress: the field that is needed contains an item that is not a mailbox.
            MissingSender, MissingRecipient: the message lacks the fields.
        """
        given = sender is not None and recipients is not None
        if not given and any([one.name.startswith("resent-") for one in self._header()]):
            raise InvalidArgument("the message has Resent- fields: sender and recipients must be given")
        if sender is None:
            authors = self._addresses("sender") or self._addresses("from")
            if not authors:
                raise MissingSender("the message has neither a Sender nor a From field with a mailbox")
            sender = authors[0]
        if recipients is None:
            recipients = [
                Recipient(address, kind) for name, kind in _KINDS for address in self._addresses(name)
            ]
        return Envelope(sender, recipients)

    def content(self, *, eightbit: bool = False, utf8: bool = False, binary: bool = False) -> Content:
        """Return the content for a server with or without 8BITMIME and SMTPUTF8; the same bytes each time.

        `binary` is ignored, because other software has chosen the encodings.

        Raises:
            InvalidHeader: a header field cannot be written.
            InvalidArgument: a part cannot be encoded for the server.
            ExtensionMissing: an address in the header needs SMTPUTF8 and `utf8` is false.
        """
        return self._write(eightbit, utf8)

    def _header(self) -> list[Field]:
        if self._fields is None:
            self._fields = self._read()
        return self._fields

    def _addresses(self, name: str) -> list[Address]:
        return [address for field in self._header() if field.name == name for address in mailboxes_in(field)]


def mail_of_bytes(data: bytes, *, exact: bool = False, remove_bcc: bool = True) -> ForeignMail:
    """Return a whole message, given as bytes, as mail.

    Args:
        data: header, empty line, body. A byte order mark and empty lines before them are dropped.
        exact: remove Bcc and change nothing else; otherwise bare CR and LF become CRLF.
        remove_bcc: remove Bcc and Resent-Bcc with their folded lines.

    Raises:
        InvalidHeader: the line endings of the message were converted twice.
    """
    return mail_of_crlf(_canonical(data, exact=exact), exact=exact, remove_bcc=remove_bcc)


def raw_content(data: bytes, *, exact: bool = False, remove_bcc: bool = True) -> Content:
    """Return the content alone of a whole message, for an envelope that is given; arguments and errors as above."""
    return _content(_canonical(data, exact=exact), exact=exact, remove_bcc=remove_bcc)


def mail_of_crlf(
    data: bytes, *, exact: bool = False, remove_bcc: bool = True, surveyed: Survey | None = None
) -> ForeignMail:
    """Return a whole message in which every line, the last one included, ends with CRLF, as mail.

    Args:
        data: header, empty line, body; nothing precedes the header.
        exact: the data may be anything; remove Bcc and change nothing else.
        remove_bcc: remove Bcc and Resent-Bcc with their folded lines.
        surveyed: what is known of the data already.
    """
    content = _content(data, exact=exact, remove_bcc=remove_bcc, surveyed=surveyed)
    return ForeignMail(
        lambda: _read_fields(fields_of(without_leading(data))[0]), lambda eightbit, utf8: content
    )


def mail_of_email_object(message: EmailMessage) -> ForeignMail:
    """Return a message of the standard library's `email` package as mail; the object is not changed.

    Raises:
        InvalidHeader: a field name or value would change the structure of the message, or the header was cut short.
        InvalidArgument: the message is signed or encrypted, or contains a part that cannot be sent.
        TextNotEncodable: a text that its charset cannot express.
    """
    from .entity_from_email import entity_of_email_object
    from .render_entity import content_of_entity
    from .transfer_encoding import Capabilities

    entity = entity_of_email_object(message)
    return ForeignMail(
        lambda: _read_fields(entity.fields),
        lambda eightbit, utf8: content_of_entity(entity, Capabilities(eightbit, utf8, binary=False)),
    )


def _read_fields(fields: list[Field]) -> list[Field]:
    return [one for one in fields if one.name in MAILBOXES or one.name.startswith("resent-")]


def _canonical(data: bytes, *, exact: bool) -> bytes:
    """Return a whole message in the form in which it is sent; `exact` leaves it as it is."""
    if exact:
        _check_line_ends(data)
        return data
    if not (only_crlf(data) and data.endswith(b"\r\n")):
        # Only here, because there is no bare CR above, so no CR CR LF either.
        _check_line_ends(data)
        data = normalised(data)
    return without_leading(data) if data[:1] in BEFORE_HEADER else data


def _content(data: bytes, *, exact: bool, remove_bcc: bool, surveyed: Survey | None = None) -> Content:
    head = _head(data, exact=exact).lower()
    # Parse the fields only if the header contains one of these names.
    if remove_bcc and b"bcc" in head:
        data, surveyed = _without_hidden(data), None
        head = _head(data, exact=exact).lower()
    return Content.of_message(data, head, exact=exact, surveyed=surveyed)


def _check_line_ends(data: bytes) -> None:
    if find(data, b"\r\r\n") >= 0:
        check_line_ends(data)


def _without_hidden(data: bytes) -> bytes:
    begin = leading_lines(data)
    fields, end = fields_of(data[begin:])
    kept = [field.octets for field in fields if field.name not in HIDDEN]
    return data if len(kept) == len(fields) else b"".join([data[:begin], *kept, data[begin + end :]])


def _head(data: bytes, *, exact: bool) -> bytes:
    """Return the header; without an empty line, all of `data` is the header."""
    if not exact:
        end = data.find(b"\r\n\r\n") if len(data) <= SLICE else find(data, b"\r\n\r\n")
    else:
        found = HEADER_END.search(data)
        end = found.start() if found else -1
    return data if end < 0 else data[: end + 2]
