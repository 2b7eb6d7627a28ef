"""What programs of this machine hand to `sendmail`, made into a message that a server takes.

Strategy. The header is read by the library's parser of fields, and addresses by its parser of addresses: before that,
names of local users get a domain, in the envelope by way of the aliases. Date, Message-ID and From are added where they
are missing. A message that not every server takes as it is (8-bit octets, NUL, long lines) becomes an `email.message`
object, whose parts the library encodes; one that is signed or encrypted stays as it is, because another encoding would
break it.
"""

from __future__ import annotations

import email
import email.policy
import os
import re
import secrets
import socket
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from email.message import Message as EmailMessage
from functools import cached_property
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

from ..errors import MissingRecipient
from ..message.dates import clock_date
from ..message.header_parser import Field, fields_of
from ..message.headers import author_field
from ..model.address import Address, parse_list
from ..model.dsn import DSN
from ..model.envelope import Kind, Recipient

__all__ = ["Letter", "Origin", "complete", "read_message"]

#: Octets of a line, without its end, that every server takes (RFC 5322 section 2.1.1).
_MAX_LINE: Final = 998
_MAILNAME: Final = Path("/etc/mailname")
#: A line of a mailbox file, before the header.
_FROM_LINE: Final = re.compile(rb"From [^\n]*\n")
_FIELD: Final = re.compile(rb"[!-9;-~]+[ \t]*:")
_LINE: Final = re.compile(rb"[^\n]*(?:\n|\Z)")
_SEALED: Final = re.compile(rb"\s*(?:multipart/(?:signed|encrypted)|application/(?:x-)?pkcs7-mime)\b", re.I)
_LONG_LINE: Final = re.compile(rb"[^\r\n]{%d}" % (_MAX_LINE + 1))
#: The items of a list of addresses: commas in quotes, comments and angle brackets do not separate.
_ITEM: Final = re.compile(r'(?:"(?:[^"\\]|\\.)*+"|\([^()]*+\)|<[^<>]*+>|[^,"(<])++')
#: An item that is the name of a local user: `root`, `<root>`, `Cron <root>`, `root (Cron Daemon)`.
_LOCAL: Final = re.compile(
    r'\s*+(?:(?:(?P<phrase>[^<>()"@:;]++|"(?:[^"\\]|\\.)*+")\s*+)?<(?P<angle>[\w.+-]++)>|(?P<bare>[\w.+-]++))'
    r"\s*+(?:\((?P<comment>[^()]*+)\)\s*+)?",
    re.ASCII,
)
_MAILBOXES: Final = frozenset({"from", "sender", "reply-to", "to", "cc"})
_RECIPIENTS: Final = {"to": Kind.TO, "cc": Kind.CC, "bcc": Kind.BCC}


class Letter(NamedTuple):
    """A message with its envelope.

    Attributes:
        message: as bytes, or as an object if the library has to encode its parts.
        sender: an address, or `<>`.
    """

    message: bytes | EmailMessage
    sender: str | Address
    recipients: list[Recipient]


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Who sends from where.

    Attributes:
        domain_name: the domain of local users; None: that of /etc/mailname or of this machine.
        address: the address of an author who is not named; None: that of the user.
        aliases: addresses by the names of local users, `*` for all others.
    """

    domain_name: str | None = None
    address: Address | None = None
    aliases: Mapping[str, tuple[str, ...]]

    @cached_property
    def domain(self) -> str:
        """The domain of local users."""
        if self.domain_name is not None:
            return self.domain_name
        try:
            if named := _MAILNAME.read_text(encoding="ascii", errors="replace").strip():
                return named
        except OSError:
            pass
        name = socket.getfqdn()
        # What stands for "this machine" on each machine says nothing to others.
        return socket.gethostname() if name.startswith("localhost") else name

    @cached_property
    def author(self) -> Address:
        """The address of who calls the program, with the name that the system has for the user."""
        if self.address is not None:
            return self.address
        user, name = _user()
        return Address(user, self.domain).with_name(name)

    def recipients(self, text: str, kind: Kind = Kind.TO, *, dsn: DSN | None = None) -> list[Recipient]:
        """Parse a list of addresses and names of local users, in whose place are the addresses of their aliases.

        Raises:
            InvalidAddress: an item is neither.
        """
        return [Recipient(one, kind, dsn=dsn) for one in parse_list(self.with_domains(text, aliases=True))]

    def mailbox(self, text: str) -> Address:
        """Parse an address, or the name of a local user.

        Raises:
            InvalidAddress: it is neither.
        """
        return Address.parse(self.with_domains(text, aliases=False))

    def with_domains(self, text: str, *, aliases: bool) -> str:
        """Return a list in which each name of a local user is an address; everything else as it was."""
        items = _ITEM.findall(text)
        if ",".join(items) != text:  # quotes or brackets without an end: the parser will say so
            return text
        return ",".join([self._with_domain(item, aliases) for item in items])

    def _with_domain(self, item: str, aliases: bool) -> str:
        found = _LOCAL.fullmatch(item)
        if found is None:
            return item
        name = found["angle"] or found["bare"]
        if aliases and (targets := self.aliases.get(name) or self.aliases.get("*")):
            return ",".join(targets)
        label = found["phrase"] or (f'"{found["comment"]}"' if found["comment"] else "")
        return f" {label.strip()} <{name}@{self.domain}>" if label else f" {name}@{self.domain}"


def _user() -> tuple[str, str]:
    """Return the login name and the full name of the user of this process."""
    if sys.platform == "win32":
        return os.environ.get("USERNAME") or "user", ""
    import pwd

    try:
        entry = pwd.getpwuid(os.getuid())
    except KeyError:  # as in a container
        return os.environ.get("LOGNAME") or f"uid{os.getuid()}", ""
    # The field of the full name has parts; & is the login name with a capital letter.
    full = entry.pw_gecos.partition(",")[0].replace("&", entry.pw_name.capitalize())
    return entry.pw_name, "" if not full.isprintable() else full


# --- reading ---------------------------------------------------------------------------------------------------


def read_message(stream: BinaryIO, *, dots: bool) -> bytes:
    """Read a message.

    Args:
        dots: a line with only a dot belongs to the message, and does not end it.
    """
    if dots:
        return stream.read()
    lines = []
    for line in stream:
        if line.rstrip(b"\r\n") == b".":
            break
        lines.append(line)
    return b"".join(lines)


def complete(
    data: bytes,
    origin: Origin,
    *,
    recipients: Iterable[Recipient] = (),
    header: bool = False,
    sender: str | None = None,
    name: str | None = None,
    dsn: DSN | None = None,
) -> Letter:
    """Return a message with what it lacks, and its envelope.

    Args:
        data: the message; without a field in its first line, all of it is the text.
        recipients: those that are given.
        header: add the recipients that To, Cc and Bcc name, or the Resent- fields if there are such.
        sender: the envelope sender; empty or `<>` for none; None for the author.
        name: the full name of an author who is not in the header.
        dsn: which reports to request about the recipients in the header.

    Raises:
        InvalidAddress: an address is invalid.
        MissingRecipient: there is no recipient.
    """
    head, body = _split(data)
    fields = fields_of(head)[0]
    by: str | Address = origin.author if sender is None else "<>"
    if sender and sender != "<>":
        by = origin.mailbox(sender)
    found = [*recipients]
    if header:
        found += _recipients_of(fields, origin, dsn)
    if not found:
        raise MissingRecipient(
            "there is no recipient: give addresses, or -t with a message that has To, Cc or Bcc"
        )
    head = b"".join(_qualified(one, origin) for one in fields)
    head += _missing(fields, body, origin, by, name)
    return Letter(_sendable(head + b"\n" + body, head, fields), by, found)


def _split(data: bytes) -> tuple[bytes, bytes]:
    """Return the header and the text, without the empty line between them."""
    if (mailbox_line := _FROM_LINE.match(data)) is not None:
        data = data[mailbox_line.end() :]
    position = 0
    for line in _LINE.finditer(data):
        text = line[0]
        folded = position and text[:1] in (b" ", b"\t") and text.strip()
        if not folded and not _FIELD.match(text):
            # A line that is no field ends the header, too.
            return data[:position], data[line.end() if text in (b"\n", b"\r\n") else position :]
        position = line.end()
    return data, b""


def _recipients_of(fields: list[Field], origin: Origin, dsn: DSN | None) -> list[Recipient]:
    resent = any(one.name in ("resent-to", "resent-cc", "resent-bcc") for one in fields)
    prefix = "resent-" if resent else ""
    return [
        recipient
        for one in fields
        if one.name.startswith(prefix) and one.name.removeprefix(prefix) in _RECIPIENTS
        for recipient in origin.recipients(one.text, _RECIPIENTS[one.name.removeprefix(prefix)], dsn=dsn)
    ]


def _qualified(field: Field, origin: Origin) -> bytes:
    """Return a field in which names of local users have a domain."""
    if field.name not in _MAILBOXES or not field.value.strip():
        return _ended(field.octets)
    text = field.value.decode("utf-8", "surrogateescape")
    written = origin.with_domains(text, aliases=False)
    if written == text:
        return _ended(field.octets)
    return f"{field.label}: {written.strip()}\n".encode("utf-8", "surrogateescape")


def _ended(octets: bytes) -> bytes:
    return octets if octets.endswith((b"\n", b"\r")) else octets + b"\n"


def _missing(fields: list[Field], body: bytes, origin: Origin, by: str | Address, name: str | None) -> bytes:
    """Return the fields that the header lacks."""
    names = {one.name for one in fields}
    author = by if isinstance(by, Address) else origin.author
    if name is not None:
        author = author.with_name(name)
    elif not author.name:
        author = author.with_name(origin.author.name)
    lines = []
    if "from" not in names:
        lines.append(author_field(author, utf8=author.needs_utf8))
    if "date" not in names:
        lines.append(f"Date: {clock_date(time.time())}")
    if "message-id" not in names:
        lines.append(f"Message-ID: <{secrets.token_hex(16)}@{author.ascii_domain}>")
    if "content-type" not in names and not body.isascii():
        charset = "utf-8" if _is_utf8(body) else "unknown-8bit"
        lines += [] if "mime-version" in names else ["MIME-Version: 1.0"]
        lines.append(f"Content-Type: text/plain; charset={charset}")
    return "".join(f"{line}\n" for line in lines).encode()


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _sendable(data: bytes, head: bytes, fields: list[Field]) -> bytes | EmailMessage:
    if data.isascii() and b"\0" not in data and not _LONG_LINE.search(data):
        return data
    if any(one.name == "content-type" and _SEALED.match(one.value) for one in fields):
        return data
    return email.message_from_bytes(data, policy=email.policy.compat32)
