"""Mail addresses: one mailbox, and lists of them.

Strategy. An address is parsed once, by one strict grammar (RFC 5321 section 4.1.2 with the UTF-8 of RFC
6531 and the display names of RFC 5322 section 3.4), and the result serves both the envelope and the header,
because two parsers that disagree about a text deliver mail to the wrong recipient. Comments are accepted
(RFC 5322 section 3.2.2). Other unusual syntax is refused, never repaired: source routes, blanks and angle
brackets outside quotes, control characters, invisible characters. `lenient=True` accepts two things that no RFC allows
and some hosts use: dots anywhere in a local part, underscores in host names.

A list is split into mailboxes before encoded words in display names are decoded, so that text hidden in a name cannot
become another mailbox.

The plain case, `ann@example.com`, is one regular expression. The bytes for MAIL and RCPT are made at parse time,
because they are needed once per recipient of every message.

Every expression here is linear: alternatives exclude each other and repetitions are possessive (`++`, `*+`).
The length of a text is limited before IDNA, which costs more than linear time, processes it.
"""

from __future__ import annotations

import re
from copy import copy
from functools import cache
from typing import Final

from ..errors import InvalidAddress
from .comments import MARK
from .domain import domain_forms
from .invisible import hidden_character, named
from .mailbox import (
    ATEXT,
    CFWS,
    CONTROL,
    MAX_ADDRESS,
    MAX_LOCAL,
    MAX_NAME,
    MAX_TEXT,
    QUOTED,
    WIDE,
    Mailbox,
    dot_atom,
    phrase,
    quoted,
    read_mailbox,
    refuse,
    shown,
    without_controls_and_comments,
    written_local,
)

__all__ = ["Address", "parse_list"]

# The usual forms: `a@b` in ASCII, alone or as `Name <a@b>`. The expressions limit no lengths, so their callers check
# that all of `a@b` is within the shortest limit. "--" is left to the full grammar: it may belong to an A-label.
_HOST = r"[A-Za-z0-9]++(?:-[A-Za-z0-9]++)*+(?:\.[A-Za-z0-9]++(?:-[A-Za-z0-9]++)*+)*+"
_MAILBOX = rf"[{ATEXT}]++(?:\.[{ATEXT}]++)*+@{_HOST}"
_plain_match: Final = re.compile(_MAILBOX).fullmatch
_new: Final = object.__new__
# The plain addresses that were parsed last, by their text: much mail comes from few senders. Emptied when it is full,
# which costs less per address than keeping the order of their use.
_plain: Final[dict[str, Address]] = {}
_MAX_PLAIN: Final = 1024
# An encoded word that was cut at a comma.
_OPEN_WORD: Final = re.compile(r"=\?[^?]*+\?[QqBb]\?[^?]*+")
# One element of a list and its separator. Quoted strings and literals may contain separators.
_ELEMENT: Final = re.compile(rf'[ ,]*+((?:{QUOTED}|\[[^\[\]]*+\]|[^",;:\[]++)*+)(:|;[ \t]*+(?:,|\Z)|,|\Z)')


@cache
def _usual() -> re.Pattern[str]:
    """Return the expression of `Name <a@b>`; compiled when it is needed first, because it takes long (`mailbox`)."""
    return re.compile(rf"([{WIDE}.]++(?: [{WIDE}.]++)*+) <({_MAILBOX})>")


class Address:
    """A mailbox, RFC 5321 section 4.1.2, optionally with a display name.

    Immutable. Two addresses are equal if their local parts are the same code points and their domains the
    same name (as A-labels, in either case); the display name is ignored. The local part is never lowered
    or normalised: only the receiving host knows what it means (RFC 5321 section 2.4).

    Args:
        local: the part before the @, without quotes: `ann`, `ann b`.
        domain: a host name in U- or A-labels, or a literal: `[192.0.2.1]`, `[IPv6:2001:db8::1]`.
        name: the display name, without quotes.

    Raises:
        InvalidAddress: the address is too long or empty, or has characters that an address cannot contain.
    """

    __slots__ = ("_ascii_domain", "_domain", "_local", "_name", "_needs_utf8", "_wire")

    _local: str
    _domain: str
    _name: str
    _ascii_domain: str
    _needs_utf8: bool
    _wire: bytes

    def __init__(self, local: str, domain: str, name: str = "") -> None:
        if CONTROL.search(local) or CONTROL.search(domain) or CONTROL.search(name):
            refuse(f"{name} <{local}@{domain}>", "it holds a control character")
        self._set(local, written_local(local), domain, name)

    def _set(self, local: str, written: str, domain: str, name: str, *, lenient: bool = False) -> None:
        """Set the parts, which were checked for control characters, and make all other checks.

        Args:
            written: the local part as it is sent.
            lenient: accept a host name with underscores.
        """
        if len(name) > MAX_NAME:
            refuse(name, f"its display name is longer than {MAX_NAME} characters")
        if len(written) > MAX_LOCAL or len(written.encode()) > MAX_LOCAL:
            refuse(local, f"the part before the @ is longer than {MAX_LOCAL} octets")
        hidden = hidden_character(local)
        if hidden is not None:
            refuse(
                f"{local}@{domain}", f"its local part holds a character that cannot be seen: {named(hidden)}"
            )
        self._local = local
        self._domain = domain
        self._name = name.strip(" ")
        self._needs_utf8 = not local.isascii()
        self._ascii_domain, unicode_domain = domain_forms(domain, lenient=lenient)
        # RFC 6531 section 3.2: U-labels require SMTPUTF8, which is used if the local part needs it; with an ASCII
        # local part, A-labels reach every server.
        wired = unicode_domain if self._needs_utf8 else self._ascii_domain
        self._wire = f"{written}@{wired}".encode()
        if len(self._wire) > MAX_ADDRESS:
            refuse(f"{local}@{domain}", f"it is longer than {MAX_ADDRESS} octets")

    @classmethod
    def parse(cls, text: str | Address, *, lenient: bool = False) -> Address:
        """Parse one mailbox: `a@b`, `<a@b>`, `Name <a@b>`, `"N, M" <a@b>`, `a@b (Name)`.

        An `Address` is returned unchanged. Encoded words (RFC 2047) in a display name are decoded, except in quotes.
        Without a display name, a comment behind the mailbox becomes the display name.

        Args:
            text: the mailbox.
            lenient: accept dots anywhere in the local part (`a..b@example.com`), which is then sent unchanged, without
                quotes, and underscores in an ASCII host name (`ops@mail_host`). RFC 5321 allows neither.

        Raises:
            InvalidAddress: the text is not exactly one mailbox, or the mailbox is not safe to send.
        """
        if not isinstance(text, str):
            if isinstance(text, Address):
                return text
            raise InvalidAddress(f"an address is a text, not {type(text).__name__}")
        known = _plain.get(text)
        if known is not None:
            return known
        name, spec = "", text
        plain = _plain_match(text) is not None
        if not plain:
            named = _usual().fullmatch(text)
            if named is None:
                return cls._read(text, lenient=lenient)
            name, spec = named.groups()
            if "=?" in name:
                name = shown(name)
        if len(spec) > MAX_LOCAL or len(name) > MAX_NAME:
            return cls._read(text, lenient=lenient)
        self = _new(cls)
        self._local, _, domain = spec.partition("@")
        self._domain = self._ascii_domain = domain
        self._name = name
        self._needs_utf8 = False
        self._wire = spec.encode()
        if plain:
            if len(_plain) >= _MAX_PLAIN:
                _plain.clear()
            _plain[text] = self
        return self

    @classmethod
    def _read(cls, text: str, *, lenient: bool) -> Address:
        """Parse one mailbox by the full grammar."""
        if len(text) > MAX_TEXT:
            refuse(text, "it is too long")
        bare, comments = without_controls_and_comments(text)
        return cls._of(read_mailbox(bare, comments, lenient=lenient), lenient)

    @classmethod
    def _of(cls, mailbox: Mailbox, lenient: bool) -> Address:
        self = _new(cls)
        self._set(*mailbox, lenient=lenient)
        return self

    @property
    def local(self) -> str:
        """The part before the @, without quotes and escapes."""
        return self._local

    @property
    def domain(self) -> str:
        """The domain as it was given: U-labels, A-labels or a literal in brackets."""
        return self._domain

    @property
    def ascii_domain(self) -> str:
        """The domain in A-labels, for DNS queries."""
        return self._ascii_domain

    @property
    def name(self) -> str:
        """The display name, without quotes; empty if there is none."""
        return self._name

    @property
    def addr_spec(self) -> str:
        """`local@domain`, quoted where needed, the domain as it was given."""
        # A domain contains no @.
        return f"{self._wire.decode().rpartition('@')[0]}@{self._domain}"

    @property
    def needs_utf8(self) -> bool:
        """The local part is not ASCII, so the transaction needs SMTPUTF8 (RFC 6531)."""
        return self._needs_utf8

    def with_name(self, name: str) -> Address:
        """Return the same mailbox with another display name, empty for none.

        Raises:
            InvalidAddress: the name is too long or contains a control character.
        """
        if CONTROL.search(name):
            refuse(f"{name} <{self.addr_spec}>", "it holds a control character")
        if len(name) > MAX_NAME:
            refuse(name, f"its display name is longer than {MAX_NAME} characters")
        twin = copy(self)
        twin._name = name.strip(" ")
        return twin

    def wire(self, *, utf8: bool) -> bytes:
        """Return the address for the angle brackets of MAIL and RCPT.

        Args:
            utf8: the transaction uses SMTPUTF8.

        Raises:
            InvalidAddress: the local part needs SMTPUTF8 and the transaction does not use it.
        """
        if self._needs_utf8 and not utf8:
            refuse(self.addr_spec, "its local part needs SMTPUTF8 (RFC 6531), which is not in use here")
        return self._wire

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Address):
            return NotImplemented
        return self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def _key(self) -> tuple[str, str]:
        return self._local, self._ascii_domain.lower()

    def __str__(self) -> str:
        return self.addr_spec

    def __repr__(self) -> str:
        if self._is_unusual():
            text = f"{quoted(self._name)} <{self.addr_spec}>" if self._name else self.addr_spec
            return f"Address.parse({text!r}, lenient=True)"
        name = f", name={self._name!r}" if self._name else ""
        return f"Address({self._local!r}, {self._domain!r}{name})"

    def _is_unusual(self) -> bool:
        """Tell whether only `lenient=True` accepts this address."""
        unquoted = not self._wire.startswith(b'"')
        return "_" in self._ascii_domain or (unquoted and dot_atom().fullmatch(self._local) is None)


def parse_list(text: str, *, lenient: bool = False) -> list[Address]:
    """Parse a list of mailboxes separated by commas, RFC 5322 section 3.4; a group is replaced by its members.

    Empty elements are skipped (section 4.4). Time is linear in the length of the text.

    Args:
        text: the list.
        lenient: as for `Address.parse`.

    Raises:
        InvalidAddress: an element is neither a mailbox nor a group, or the text contains a control character.
    """
    bare, comments = without_controls_and_comments(text)
    found: list[Address] = []
    position, in_group, read = 0, False, 0
    while position < len(bare):
        match = _ELEMENT.match(bare, position)
        if match is None:
            refuse(bare[position:], "a quote or a bracket is not closed")
        element, end = match[1].strip(CFWS), match[2]
        position = match.end()
        if _OPEN_WORD.fullmatch(element):
            refuse(element, "an encoded word has no end, so that readers disagree about the mailboxes")
        if end == ":":
            # A group cannot contain a group, nor have an address as its name.
            if in_group or "@" in element or phrase(element) is None:
                refuse(element, "it is not the name of a group")
            in_group = True
        elif MARK in match[1]:
            if element:
                first = read + match[1].count(MARK)
                found.append(
                    Address._of(read_mailbox(match[1], comments[read:first], lenient=lenient), lenient)
                )
        elif element:
            found.append(Address.parse(element, lenient=lenient))
        read += match[0].count(MARK)
        if end.startswith(";"):
            if not in_group:
                refuse(element, "a semicolon ends a group, and there is none")
            in_group = False
    if in_group:
        refuse(text, "a group is not closed by a semicolon")
    return found
