"""Mail that was made elsewhere: `email.message.Message`, and whole messages as bytes.

Strategy. An `email.message` object is copied, checked, written by the standard library, and then its header
is read back: it must hold the fields that were set, no more, no less and in their order. So an injected field
is refused even where the installed Python would write it. Address fields are read by our own parser from the
text that the caller set; where the standard library would write another address than that (it puts encoded
words into local parts and domains), the field is written anew.

Bcc and Resent-Bcc are cut out of the header of the outermost message, after the envelope was read from it. A whole
message as bytes is often sent by the thousand, with its envelope given: then nothing is read of its header but
whether it might hold one of these fields.

Nothing here imports `email`: whoever has a message of it has imported it already.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from ..address import Address, Envelope, Kind, Recipient, parse_list
from ..content import MAX_LINE, Content, longest_line_exceeds, normalised
from ..errors import InvalidAddress, InvalidArgument, InvalidHeader, MissingSender
from ..reply import printable
from .headers import address_field, check_name

if TYPE_CHECKING:
    from email.message import Message as EmailMessage

__all__ = ["HEADER_END", "ForeignMail", "content_of", "content_of_raw", "set_text"]

#: Fields that hold mailboxes (RFC 5322 section 3.6, RFC 8098), in lower case.
_MAILBOXES: Final = frozenset(
    "from sender reply-to to cc bcc disposition-notification-to return-receipt-to resent-from resent-sender "
    "resent-to resent-cc resent-bcc".split()
)
_HIDDEN: Final = frozenset(("bcc", "resent-bcc"))
_KINDS: Final = tuple((kind.value.lower(), kind) for kind in Kind)
#: Fields that writing a body may add behind the others.
_ADDED: Final = frozenset(("content-transfer-encoding", "content-type"))

_LINE: Final = re.compile(rb"[^\r\n]*(?:\r\n|\r|\n|\Z)")
_LINE_END: Final = re.compile("\r\n|\r|\n")
# A line end inside a value that is not a fold, or NUL.
_BREAK: Final = re.compile("\r\n(?![ \t])|\r(?!\n)|(?<!\r)\n(?![ \t])|\0")


#: What ends a header, whatever ends its lines.
HEADER_END: Final = re.compile(rb"\r\n\r?\n|\n\r?\n|\r\r|\n\r\Z")
_MESSAGE_ID: Final = re.compile(rb"^message-id[ \t]*:[ \t]*(?:\r\n[ \t]+)?(<[^<>\r\n]*>)", re.I | re.M)


class ForeignMail:
    """A message that somebody else made: a `Mail` whose envelope can be given or read from its header.

    Args:
        fields: asked for once, when the header has to be read: (name in lower case, unfolded value).
        write: makes the content for a server with or without 8BITMIME and SMTPUTF8.
        resent: False if it is known that there is no Resent- field.
    """

    __slots__ = ("_fields", "_read", "_resent", "_write")

    def __init__(
        self,
        fields: Callable[[], list[tuple[str, str]]],
        write: Callable[[bool, bool], Content],
        *,
        resent: bool = True,
    ) -> None:
        self._fields: list[tuple[str, str]] | None = None
        self._read = fields
        self._write = write
        self._resent = resent

    def envelope(
        self,
        sender: str | Address | None = None,
        recipients: Iterable[str | Address | Recipient] | None = None,
    ) -> Envelope:
        """Return the envelope; what is not given comes from Sender or From, and from To, Cc and Bcc.

        Args:
            sender: `"<>"` for the null return path.
            recipients: texts and addresses count as To.

        Raises:
            InvalidArgument: it was resent (RFC 5322 section 3.6.6), so its header says nothing certain.
            InvalidAddress: the field that is needed holds what is not a mailbox.
            MissingSender, MissingRecipient: the fields are not there.
        """
        given = sender is not None and recipients is not None
        if not given and self._resent and any(name.startswith("resent-") for name, _ in self._header()):
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

        Nothing is made of `binary`: the encodings are those that somebody else chose.

        Raises:
            InvalidHeader: a header field would change the structure of the message.
            ExtensionMissing: an address in the header needs SMTPUTF8 and `utf8` is false.
        """
        return self._write(eightbit, utf8)

    def _header(self) -> list[tuple[str, str]]:
        if self._fields is None:
            self._fields = self._read()
        return self._fields

    def _addresses(self, name: str) -> list[Address]:
        return [address for field, text in self._header() if field == name for address in parse_list(text)]


def content_of_raw(data: bytes, *, exact: bool = False, remove_bcc: bool = True) -> ForeignMail:
    """Take a whole message as bytes.

    Args:
        data: header, empty line, body.
        exact: change nothing but the removal of Bcc; else bare CR and LF become CRLF.
        remove_bcc: cut Bcc and Resent-Bcc out, folded lines included.
    """
    data = bytes(data) if exact else normalised(bytes(data))
    # What is not so much as named in the header need not be looked for field by field.
    head = _head(data, exact=exact).lower()
    hidden = remove_bcc and b"bcc" in head

    def fields() -> list[tuple[str, str]]:
        return [(field.name, field.text(data)) for field in _header_fields(data) if _is_read(field.name)]

    kept = _without_hidden(data, _header_fields(data)) if hidden else data
    content = Content.of_bytes(kept, exact=True) if exact else _canonical(kept)
    return ForeignMail(fields, lambda eightbit, utf8: content, resent=b"resent-" in head)


def _head(data: bytes, *, exact: bool) -> bytes:
    """Return the header and perhaps more, never less."""
    if not exact:
        end = data.find(b"\r\n\r\n")
    else:
        found = HEADER_END.search(data)
        end = found.end() if found else -1
    return data if end < 0 else data[: end + 2]


def _canonical(data: bytes) -> Content:
    """Return content of octets whose line ends are all CRLF."""
    end = data.find(b"\r\n\r\n")
    head = data if end < 0 else data[: end + 2]
    plain = data.isascii()
    # Searching without regard to case is slow, so it begins where there is something to find.
    place = head.lower().find(b"message-id")
    found = _MESSAGE_ID.search(head, place) if place >= 0 else None
    return Content(
        (data,),
        size=len(data),
        eightbit=not plain,
        utf8=not plain and not head.isascii(),
        binary=b"\0" in data or longest_line_exceeds(data, MAX_LINE),
        message_id=found[1].decode("utf-8", "backslashreplace") if found else None,
        canonical=True,
    )


def content_of(message: EmailMessage) -> ForeignMail:
    """Take a message of the standard library's `email` package; the object is not changed.

    Raises:
        InvalidHeader: a field name or value in it would change its structure.
    """
    twin = _copied(message)
    _check_parts(twin)
    texts = [(name.lower(), set_text(name, value)) for name, value in twin.raw_items()]

    def write(eightbit: bool, utf8: bool) -> Content:
        data = _written(twin, eightbit=eightbit)
        if eightbit and not data.partition(b"\r\n\r\n")[0].isascii():
            # A field that was parsed from bytes in no known charset: 8BITMIME does not cover it.
            data = _written(twin, eightbit=False)
        return Content.of_bytes(_with_our_mailboxes(data, texts, utf8=utf8))

    return ForeignMail(lambda: [(name, text) for name, text in texts if _is_read(name)], write)


# --- the header, read back ----------------------------------------------------------------------------------


class _Field(NamedTuple):
    """Where a header field stands in a message, from its name to its last line end."""

    name: str
    start: int
    end: int

    def text(self, data: bytes) -> str:
        """Return the value unfolded; octets that are not UTF-8 become what no address may hold."""
        value = data[self.start : self.end].partition(b":")[2].decode("utf-8", "surrogateescape")
        return _LINE_END.sub("", value).replace("\t", " ").strip(" ")


def _header_fields(data: bytes) -> list[_Field]:
    """Find the fields before the first empty line, names in lower case; without a colon there is no name."""
    fields: list[_Field] = []
    for match in _LINE.finditer(data):
        line = match[0].rstrip(b"\r\n")
        if not line:
            break
        if line[:1] in b" \t" and fields:
            fields[-1] = fields[-1]._replace(end=match.end())
            continue
        name = line.partition(b":")[0].rstrip(b" \t") if b":" in line else b""
        fields.append(_Field(name.decode("latin-1").lower(), match.start(), match.end()))
    return fields


def _without_hidden(data: bytes, fields: list[_Field]) -> bytes:
    pieces = []
    position = 0
    for field in fields:
        if field.name in _HIDDEN:
            pieces.append(data[position : field.start])
            position = field.end
    return b"".join([*pieces, data[position:]]) if pieces else data


def _is_read(name: str) -> bool:
    return name in _MAILBOXES or name.startswith("resent-")


# --- email.message ------------------------------------------------------------------------------------------


def _copied(message: EmailMessage) -> EmailMessage:
    """Return a copy: writing sets boundaries, and the caller may go on to change the message that waits."""
    import copy

    # What cannot change need not be copied; header values keep their parse trees, so that counts.
    memo: dict[int, Any] = {}
    for part in message.walk():
        memo[id(part.policy)] = part.policy
        memo.update({id(value): value for _, value in part.raw_items() if isinstance(value, str)})
    return copy.deepcopy(message, memo)


def _check_parts(message: EmailMessage) -> None:
    """Refuse names and values that would begin another field, in the message and in its parts."""
    for part in message.walk():
        for name, value in part.raw_items():
            if part is message:
                check_name(name)
            # What is attached may be an old mail with strange names; only a new line is of danger there.
            elif _LINE_END.search(name) or "\0" in name:
                raise InvalidHeader(f"“{printable(name, 80)}” is not the name of a header field")
            if _BREAK.search(_plain(value)):
                raise InvalidHeader(f"the value of {printable(name, 80)} holds a line end or NUL")


def _plain(value: Any) -> str:
    """Return a header value as text: a str, a subclass of it, or an old `email.header.Header`."""
    return value if isinstance(value, str) else str(value.encode())


def set_text(name: str, value: Any) -> str:
    """Return the value that the caller set, unfolded, not in encoded words if it was not given so."""
    text = _plain(value)
    # A modern header object keeps addresses apart; writing it as UTF-8 quotes the names that need quotes.
    if hasattr(value, "addresses"):
        from email.policy import SMTPUTF8

        text = SMTPUTF8.fold(name, value).partition(":")[2]
    return _LINE_END.sub("", text).replace("\t", " ").strip(" ")


def _written(message: EmailMessage, *, eightbit: bool) -> bytes:
    """Write the message by its own policy, but with CRLF and an ASCII header."""
    from email.generator import BytesGenerator
    from io import BytesIO

    buffer = BytesIO()
    policy = message.policy.clone(linesep="\r\n", cte_type="8bit" if eightbit else "7bit")
    if getattr(policy, "utf8", False):  # encoded words reach every server; addresses are looked after below
        policy = policy.clone(utf8=False)  # type: ignore[call-arg]  # EmailPolicy has it
    BytesGenerator(buffer, mangle_from_=False, policy=policy).flatten(message)
    return buffer.getvalue()


def _with_our_mailboxes(data: bytes, texts: list[tuple[str, str]], *, utf8: bool) -> bytes:
    """Check the header that was written against the one that was set, correct addresses, cut Bcc."""
    fields = _header_fields(data)
    names = [field.name for field in fields]
    if names[: len(texts)] != [name for name, _ in texts] or not _ADDED.issuperset(names[len(texts) :]):
        raise InvalidHeader("the header that was written does not hold the fields that were set")
    pieces = []
    position = 0
    for field, (name, text) in zip(fields, texts, strict=False):
        anew = _rewritten(field, data, text, utf8=utf8) if name in _MAILBOXES - _HIDDEN else None
        if anew is not None or name in _HIDDEN:
            pieces += [data[position : field.start], anew or b""]
            position = field.end
    return b"".join([*pieces, data[position:]])


def _rewritten(field: _Field, data: bytes, text: str, *, utf8: bool) -> bytes | None:
    """Return a field of mailboxes anew if it was not written with the addresses that were set."""
    try:
        addresses = parse_list(text)
    except InvalidAddress:
        return None  # not ours to judge: only the fields of the envelope must be readable
    try:
        if parse_list(field.text(data)) == addresses and not any(a.needs_utf8 for a in addresses):
            return None
    except InvalidAddress:
        pass
    name = data[field.start : field.end].partition(b":")[0].decode("ascii")
    return address_field(name, addresses, utf8=utf8).encode() + b"\r\n" if addresses else None
