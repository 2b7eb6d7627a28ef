"""Mail addresses: whom a message comes from and goes to.

Strategy. One address is parsed once, by one strict grammar (RFC 5321 section 4.1.2 with the UTF-8 of RFC
6531 and the display names of RFC 5322 section 3.4), and the object that comes out serves both the envelope
and the header: two parsers that disagree about one text are how mail gets to somebody else. What is unusual
is refused, never repaired: comments, source routes, blanks and angle brackets outside quotes, controls.

The plain case, `ann@example.com`, is one regular expression. The bytes for the wire are made at parse time,
because they are asked for once per recipient of every message.

Every expression here is linear: alternatives exclude each other and repetitions are possessive (`++`, `*+`);
and every text is cut to a bounded length before anything of more than linear cost (IDNA) sees it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import Enum
from typing import TYPE_CHECKING, Final, NoReturn

from .domain import domain_forms
from .errors import InvalidAddress, MissingRecipient
from .reply import printable

if TYPE_CHECKING:
    from .dsn import DSN

__all__ = ["EVERYONE", "NOBODY", "Address", "Envelope", "Kind", "Recipient", "parse_list"]

# RFC 5321 section 4.5.3.1: octets of a local part, and of both parts with the sign between.
MAX_LOCAL: Final = 64
MAX_ADDRESS: Final = 320
#: Characters of a display name. No RFC limits it; nobody's name is longer, and an attack's is.
MAX_NAME: Final = 1000

# Controls (C0, DEL, C1), line separators, and halves of surrogate pairs, which no encoding can express.
_CONTROL: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")

_ATEXT = r"A-Za-z0-9!#$%&'*+/=?^_`{|}~\-"
# RFC 6531 section 3.3 adds all of UTF-8 to atext. Its blanks are left out: outside quotes they are a slip.
_WIDE = (
    _ATEXT + "\u00a1-\u167f\u1681-\u1fff\u200b-\u2027\u202a-\u202e\u2030-\u205e"
    "\u2060-\u2fff\u3001-\ud7ff\ue000-\U0010ffff"
)
_QUOTED = r'"(?:[^"\\]|\\.)*+"'

# The usual: `a@b` in ASCII, alone or as `Name <a@b>`. Neither limits lengths, so whoever uses them sees that all of
# `a@b` is within the shortest limit. "--" is left to the full grammar: it may be the prefix of an A-label.
_HOST = r"[A-Za-z0-9]++(?:-[A-Za-z0-9]++)*+(?:\.[A-Za-z0-9]++(?:-[A-Za-z0-9]++)*+)*+"
_MAILBOX = rf"[{_ATEXT}]++(?:\.[{_ATEXT}]++)*+@{_HOST}"
_PLAIN: Final = re.compile(_MAILBOX)
_USUAL: Final = re.compile(rf"([{_WIDE}.]++(?: [{_WIDE}.]++)*+) <({_MAILBOX})>")
_DOT_ATOM: Final = re.compile(rf"[{_WIDE}]++(?:\.[{_WIDE}]++)*+")
_SPEC: Final = re.compile(rf'({_QUOTED}|[^"@]++)@([^@]++)')
_ESCAPED: Final = re.compile(r"\\(.)")
_SPECIAL: Final = re.compile(r'(["\\])')
# A phrase also takes dots (RFC 5322 section 4.1, obs-phrase): "Ann B." without quotes is everywhere.
_WORD: Final = re.compile(rf'({_QUOTED})|([^ ()<>@,;:\\"\[\]]++)')
_NAMED: Final = re.compile(rf'((?:{_QUOTED}|[^()<>@,;:\\"\[\]]++)*+)<((?:{_QUOTED}|[^"<>]++)*+)>')
# One element of a list and what ends it. Quoted strings and literals may hold separators.
_ELEMENT: Final = re.compile(rf'[ ,]*+((?:{_QUOTED}|\[[^\[\]]*+\]|[^",;:\[]++)*+)(:|;[ ]*+(?:,|\Z)|,|\Z)')


class Kind(Enum):
    """How a recipient takes part; the value is the name of the header field."""

    TO = "To"
    CC = "Cc"
    BCC = "Bcc"


#: All kinds of recipients, and none.
EVERYONE: Final[frozenset[Kind]] = frozenset(Kind)
NOBODY: Final[frozenset[Kind]] = frozenset()


class Address:
    """A mailbox, RFC 5321 section 4.1.2, perhaps with a display name.

    Immutable. Two addresses are equal when their local parts are the same code points and their domains the
    same name (as A-labels, in either case); the display name does not count. The local part is never lowered
    or normalised: only the receiving host knows what it means (RFC 5321 section 2.4).

    Args:
        local: the part before the sign, without quotes: `ann`, `ann b`.
        domain: a host name in U- or A-labels, or a literal: `[192.0.2.1]`, `[IPv6:2001:db8::1]`.
        name: the display name, without quotes.

    Raises:
        InvalidAddress: too long, empty, or with characters that an address cannot hold.
    """

    __slots__ = ("_ascii_domain", "_domain", "_local", "_name", "_needs_utf8", "_wire")

    _local: str
    _domain: str
    _name: str
    _ascii_domain: str
    _needs_utf8: bool
    _wire: bytes

    def __init__(self, local: str, domain: str, name: str = "") -> None:
        if _CONTROL.search(local) or _CONTROL.search(domain) or _CONTROL.search(name):
            _refuse(f"{name} <{local}@{domain}>", "it holds a control character")
        if len(name) > MAX_NAME:
            _refuse(name, f"its display name is longer than {MAX_NAME} characters")
        quoted = _quoted_local(local)
        self._local = local
        self._domain = domain
        self._name = name.strip(" ")
        self._needs_utf8 = not local.isascii()
        self._ascii_domain, unicode_domain = domain_forms(domain)
        # RFC 6531 section 3.2: U-labels may travel only where SMTPUTF8 is in use, that is when the local part
        # needs it; beside an ASCII local part A-labels reach every server.
        wired = unicode_domain if self._needs_utf8 else self._ascii_domain
        self._wire = f"{quoted}@{wired}".encode()
        if len(self._wire) > MAX_ADDRESS:
            _refuse(f"{local}@{domain}", f"it is longer than {MAX_ADDRESS} octets")

    @classmethod
    def parse(cls, text: str | Address) -> Address:
        """Read one mailbox: `a@b`, `<a@b>`, `Name <a@b>`, `"N, M" <a@b>`.

        An `Address` is returned as it is.

        Raises:
            InvalidAddress: not exactly one mailbox, or not one that is safe to send.
        """
        if not isinstance(text, str):
            if isinstance(text, Address):
                return text
            raise InvalidAddress(f"an address is a text, not {type(text).__name__}")
        name, spec = "", text
        if _PLAIN.fullmatch(text) is None:
            named = _USUAL.fullmatch(text)
            if named is None:
                return _parse_mailbox(text)
            name, spec = named.groups()
        if len(spec) > MAX_LOCAL or len(name) > MAX_NAME:
            return _parse_mailbox(text)
        self = object.__new__(cls)
        self._local, _, domain = spec.partition("@")
        self._domain = self._ascii_domain = domain
        self._name = name
        self._needs_utf8 = False
        self._wire = spec.encode()
        return self

    @property
    def local(self) -> str:
        """The part before the sign, without quotes and escapes."""
        return self._local

    @property
    def domain(self) -> str:
        """The domain as it was given: U-labels, A-labels or a literal in brackets."""
        return self._domain

    @property
    def ascii_domain(self) -> str:
        """The domain in A-labels: what the DNS is asked for."""
        return self._ascii_domain

    @property
    def name(self) -> str:
        """The display name, without quotes; empty if there is none."""
        return self._name

    @property
    def addr_spec(self) -> str:
        """`local@domain`, quoted where needed, the domain as it was given."""
        return f"{_quoted_local(self._local)}@{self._domain}"

    @property
    def needs_utf8(self) -> bool:
        """The local part is not ASCII, so only SMTPUTF8 can carry it (RFC 6531)."""
        return self._needs_utf8

    def wire(self, *, utf8: bool) -> bytes:
        """Return what stands between the angle brackets of MAIL and RCPT.

        Args:
            utf8: the transaction uses SMTPUTF8.

        Raises:
            InvalidAddress: the local part needs SMTPUTF8 and the transaction does not use it.
        """
        if self._needs_utf8 and not utf8:
            _refuse(self.addr_spec, "its local part needs SMTPUTF8 (RFC 6531), which is not in use here")
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
        name = f", name={self._name!r}" if self._name else ""
        return f"Address({self._local!r}, {self._domain!r}{name})"


class Recipient:
    """One recipient of a message. Immutable.

    Args:
        address: whom; a text is parsed.
        kind: To, Cc or Bcc.
        name: a display name in place of the one that `address` has.
        dsn: what is to be reported to the sender about this recipient (RFC 3461); needs the server's DSN.

    Raises:
        InvalidAddress: the text is not one mailbox, or the name cannot stand before one.
    """

    __slots__ = ("_address", "_dsn", "_kind")

    def __init__(
        self, address: str | Address, kind: Kind = Kind.TO, *, name: str | None = None, dsn: DSN | None = None
    ) -> None:
        self._address = Address.parse(address)
        self._kind = kind
        self._dsn = dsn
        if name is not None:
            self._address = Address(self._address.local, self._address.domain, name)

    @classmethod
    def of(cls, value: str | Address | Recipient, kind: Kind = Kind.TO) -> Recipient:
        """Return `value` if it is a recipient already, else one of this kind.

        Raises:
            InvalidAddress: the text is not one mailbox.
        """
        return value if isinstance(value, Recipient) else cls(value, kind)

    @property
    def address(self) -> Address:
        """The mailbox."""
        return self._address

    @property
    def kind(self) -> Kind:
        """To, Cc or Bcc."""
        return self._kind

    @property
    def name(self) -> str:
        """The display name of the mailbox, empty if there is none."""
        return self._address.name

    @property
    def dsn(self) -> DSN | None:
        """What is to be reported about it, None if nothing was said."""
        return self._dsn

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Recipient):
            return NotImplemented
        return (self._address, self._kind, self._dsn) == (other._address, other._kind, other._dsn)

    def __hash__(self) -> int:
        return hash((self._address, self._kind))

    def __repr__(self) -> str:
        dsn = f", dsn={self._dsn!r}" if self._dsn is not None else ""
        return f"Recipient({self._address!r}, {self._kind}{dsn})"


class Envelope:
    """Where bounces go and who gets the message: what MAIL and RCPT say. Immutable.

    Args:
        sender: the return path; `None` or `"<>"` is the null one, to which nothing bounces.
        recipients: at least one; texts and addresses count as To.

    Raises:
        MissingRecipient: there is no recipient.
        InvalidAddress: a text is not one mailbox.
    """

    __slots__ = ("_recipients", "_sender")

    def __init__(self, sender: str | Address | None, recipients: Iterable[str | Address | Recipient]) -> None:
        if isinstance(recipients, str):
            raise InvalidAddress("recipients are a list, not one text; parse_list() makes one of it")
        self._sender = None if sender is None or sender == "<>" else Address.parse(sender)
        self._recipients = tuple([Recipient.of(recipient) for recipient in recipients])
        if not self._recipients:
            raise MissingRecipient("the message has no recipient")

    @property
    def sender(self) -> Address | None:
        """The return path, `None` for the null one."""
        return self._sender

    @property
    def recipients(self) -> tuple[Recipient, ...]:
        """Everybody who gets the message, in the order of RCPT."""
        return self._recipients

    @property
    def needs_utf8(self) -> bool:
        """A local part in it is not ASCII, so the transaction needs SMTPUTF8."""
        if self._sender is not None and self._sender.needs_utf8:
            return True
        for recipient in self._recipients:
            if recipient._address._needs_utf8:
                return True
        return False

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Envelope):
            return NotImplemented
        return self._sender == other._sender and self._recipients == other._recipients

    def __hash__(self) -> int:
        return hash((self._sender, self._recipients))

    def __repr__(self) -> str:
        return f"Envelope({self._sender!r}, {list(self._recipients)!r})"


def parse_list(text: str) -> list[Address]:
    """Read a comma list of mailboxes, RFC 5322 section 3.4; the members of groups stand in its place.

    Empty elements are skipped (section 4.4). Time is linear in the length of the text.

    Raises:
        InvalidAddress: an element is not a mailbox or a group, or the text holds a control character.
    """
    if _CONTROL.search(text):
        _refuse(text, "it holds a control character")
    found: list[Address] = []
    position, in_group = 0, False
    while position < len(text):
        match = _ELEMENT.match(text, position)
        if match is None:
            _refuse(text[position:], "a quote or a bracket is not closed")
        element, end = match[1].strip(" "), match[2]
        position = match.end()
        if end == ":":
            # A group within a group does not exist; neither does a group named by an address.
            if in_group or _phrase(element) is None:
                _refuse(element, "it is not the name of a group")
            in_group = True
            continue
        if element:
            found.append(Address.parse(element))
        if end.startswith(";"):
            if not in_group:
                _refuse(element, "a semicolon ends a group, and there is none")
            in_group = False
    if in_group:
        _refuse(text, "a group is not closed by a semicolon")
    return found


def _refuse(text: str, reason: str) -> NoReturn:
    raise InvalidAddress(f"“{printable(text, 80)}” is not a mail address that can be sent to: {reason}")


def _parse_mailbox(text: str) -> Address:
    """Read the unusual: names, quotes, literals, other scripts; and say what is wrong."""
    if len(text) > MAX_NAME + MAX_ADDRESS + 80:
        _refuse(text, "it is too long")
    if _CONTROL.search(text):
        _refuse(text, "it holds a control character")
    spec, name = text.strip(" "), ""
    if spec.endswith(">"):
        named = _NAMED.fullmatch(spec)
        name_read = None if named is None else _phrase(named[1].strip(" "), empty=True)
        if named is None or name_read is None:
            _refuse(text, "a display name with other signs than letters, digits and dots needs quotes")
        name, spec = name_read, named[2]
    match = _SPEC.fullmatch(spec)
    if match is None:
        _refuse(text, _reason(spec))
    local = match[1]
    if local.startswith('"'):
        local = _ESCAPED.sub(r"\1", local[1:-1])
    elif _DOT_ATOM.fullmatch(local) is None:
        _refuse(text, _reason(spec))
    return Address(local, match[2], name)


def _phrase(text: str, *, empty: bool = False) -> str | None:
    """Return the words of a phrase without their quotes, `None` if it is not one."""
    words = []
    position = 0
    for match in _WORD.finditer(text):
        if text[position : match.start()].strip(" "):
            return None
        quoted, plain = match.groups()
        words.append(plain if quoted is None else _ESCAPED.sub(r"\1", quoted[1:-1]))
        position = match.end()
    if text[position:].strip(" ") or not (words or empty):
        return None
    return " ".join(words)


def _reason(spec: str) -> str:
    """Say what is wrong with an addr-spec that does not fit the grammar."""
    if not spec:
        return "it is empty"
    if "(" in spec or ")" in spec:
        return "comments do not belong in an address"
    if spec.startswith("@"):
        return "source routes are obsolete (RFC 5321 appendix F.2)"
    if "@" not in spec:
        return "it has no @"
    if any(sign in spec for sign in "<> "):
        return "blanks and angle brackets need quotes"
    return "the part before the @ needs quotes, or there is more than one @"


def _quoted_local(local: str) -> str:
    """Return the local part as it is written, in quotes if it must be (RFC 5321 section 4.1.2)."""
    if not local:
        _refuse("@", "the part before the @ is empty")
    quoted = local if _DOT_ATOM.fullmatch(local) else '"' + _SPECIAL.sub(r"\\\1", local) + '"'
    if len(quoted) > MAX_LOCAL or len(quoted.encode()) > MAX_LOCAL:
        _refuse(local, f"the part before the @ is longer than {MAX_LOCAL} octets")
    return quoted
