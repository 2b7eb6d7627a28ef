"""DKIM signatures: RFC 6376, with the keys and hashes of RFC 8301 and RFC 8463.

Strategy. A signature covers a hash of the body, which is computed while the octets pass by, and the chosen header
fields. Every field is signed once more often than it is there (section 8.15), so that nothing can be added to those
that readers are shown. `l=` is never written, because it lets text be added behind a signed body (section 8.2).
"""

from __future__ import annotations

import hashlib
import re
from binascii import b2a_base64
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, Final, Literal, NamedTuple

from ..errors import InvalidArgument, SigningError, SMTPError
from ..model.domain import domain_forms
from ..model.signing import LocalSigner, RemoteSigner, Rewritten, Signer, ToSign, is_remote
from .body_hash import BodyHash
from .header_parser import Field, fields_of, mailboxes_in
from .sign import public_key_of, signer_of, verifies

__all__ = [
    "ALWAYS",
    "DKIM",
    "MOST_PLANS",
    "SIGNED",
    "Lookup",
    "folded",
    "header_lines",
    "plan_of",
    "relaxed_field",
    "relaxed_fields",
]

#: Returns the texts of all TXT records at a name, none if there are none.
Lookup = Callable[[str], Awaitable[Sequence[str]]]
Canonicalization = Literal["relaxed", "simple"]

#: Fields that are signed wherever they are (RFC 6376 section 5.4.1, and those of RFC 2045 and RFC 2369).
SIGNED: Final = tuple(
    "from sender reply-to to cc subject date message-id in-reply-to references mime-version content-type "
    "content-transfer-encoding content-id content-description resent-date resent-from resent-sender resent-to "
    "resent-cc resent-message-id list-id list-help list-unsubscribe list-unsubscribe-post list-subscribe list-post "
    "list-owner list-archive autocrypt importance priority x-priority".split()
)
#: Fields that are signed even where they are not, so that none can be added. Servers on the way add others that are
#: missing, Date and Message-ID among them.
ALWAYS: Final = tuple(
    "from reply-to to cc subject mime-version content-type content-transfer-encoding".split()
)
#: Fields that are changed on the way (section 5.4).
_NEVER: Final = frozenset(
    {"return-path", "received", "comments", "keywords", "bcc", "resent-bcc", "dkim-signature"}
)

_SELECTOR: Final = re.compile(
    r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)*\Z"
)
_NAME: Final = re.compile(r"[!-9;-~]+\Z")
_BLANKS: Final = re.compile(rb"[ \t]+")
#: A field of a header that has no folds, and nowhere more than one blank.
_FIELD: Final = re.compile(r"^([!-9;-~]++) ?: ?([^\r\n]*+)\r\n", re.M)
#: A name with a fold behind it.
_FOLDED_NAME: Final = re.compile(r"^[!-9;-~]++[ \t]*+\r\n[ \t]", re.M)
#: How many combinations of fields are remembered for each key.
MOST_PLANS: Final = 256
_QUOTED: Final = re.compile(r"[^!-:<>-~]")
#: The fewest bits of an RSA key (RFC 8301 section 3.2).
_RSA_BITS: Final = 1024
#: Octets of the name of the field, its colon and the blank behind it.
_OWN: Final = len("DKIM-Signature: ")
#: Characters of a line of the field.
_WIDTH: Final = 76


@dataclass(frozen=True, slots=True)
class DKIM:
    """A DKIM signature for the messages of a domain; the same object signs any number of messages.

    Attributes:
        domain: the domain that takes responsibility (`d=`).
        selector: which of the domain's keys it is (`s=`): its record is at `selector._domainkey.domain`.
        key: an RSA or Ed25519 key: what `KeySigner.load` returns, a private key of the package cryptography or on a
            token, an `ExternalSigner`, or an async callable. It never shows.
        only_for: sign only messages whose author (From) is of one of these domains, or below one. None signs all.
        header, body: the canonicalization: `"relaxed"` lets white space change on the way, `"simple"` nothing.
        sign: names of the fields that are signed, as often as they are there.
        oversign: names of the fields that are signed even if they are not there, so that none can be added.
        identity: the user or agent on whose behalf the message is signed (`i=`), `"ann@example.com"` or
            `"@news.example.com"`.
        timestamp: write when the message was signed (`t=`).
        expires: seconds after which the signature is not valid any more (`x=`).
        check_record: ask the DNS for the key's record before the first message is signed and once an hour, and refuse
            to sign where the record is missing or has another key. True asks the system's DNS servers; an async
            callable is given the name, and returns the texts of its TXT records.
        unless_signed: leave a message as it is that has a signature of this domain and selector about the same body.

    Raises:
        InvalidArgument: a value that is not allowed, or a key that is too short or of another kind.
    """

    domain: str
    selector: str
    key: Any = field(repr=False)
    _: KW_ONLY
    only_for: Sequence[str] | None = None
    header: Canonicalization = "relaxed"
    body: Canonicalization = "relaxed"
    sign: Sequence[str] = SIGNED
    oversign: Sequence[str] = ALWAYS
    identity: str | None = None
    timestamp: bool = True
    expires: float | None = None
    check_record: bool | Lookup = False
    unless_signed: bool = False
    signer: Signer = field(init=False, repr=False, compare=False)
    # What is the same in every signature.
    _fixed: str = field(init=False, repr=False, compare=False)
    _names: tuple[str, ...] = field(init=False, repr=False, compare=False)
    _local: LocalSigner | None = field(init=False, repr=False, compare=False)
    _always: frozenset[str] = field(init=False, repr=False, compare=False)
    # The public key of the DNS record and until when it is believed; a list, because the object is frozen.
    _record: list[tuple[float, Any]] = field(init=False, repr=False, compare=False, default_factory=list)
    # What is signed of a message with certain fields.
    _plans: dict[tuple[str, ...], _Plan] = field(init=False, repr=False, compare=False, default_factory=dict)

    #: The same octets can be given to several signatures.
    prepends = True

    def __post_init__(self) -> None:
        put = object.__setattr__
        put(self, "domain", _domain(self.domain))
        if not isinstance(self.selector, str) or not _SELECTOR.match(self.selector):
            raise InvalidArgument(f"not a selector: {self.selector!r}")
        for name in ("header", "body"):
            if getattr(self, name) not in ("relaxed", "simple"):
                raise InvalidArgument(f'{name} is "relaxed" or "simple", not {getattr(self, name)!r}')
        if self.only_for is not None:
            put(self, "only_for", tuple([_domain(one) for one in _texts("only_for", self.only_for)]))
        put(self, "sign", _field_names("sign", self.sign))
        put(self, "oversign", _field_names("oversign", self.oversign))
        put(self, "_always", frozenset(self.oversign))
        put(self, "_names", tuple(dict.fromkeys([*self.oversign, *self.sign])))
        if "from" not in self._names:
            raise InvalidArgument("From is always signed (RFC 6376 section 5.4)")
        if not isinstance(self.check_record, bool) and not callable(self.check_record):
            raise InvalidArgument(
                f"check_record is True, False or an async callable, not {self.check_record!r}"
            )
        if self.expires is not None and not self.expires >= 1:
            raise InvalidArgument(f"expires is a number of seconds, 1 or more, not {self.expires!r}")
        put(self, "signer", signer_of(self.key))
        _check_signer(self.signer)
        awaited = self.check_record or is_remote(self.signer)
        put(self, "_local", None if awaited else self.signer)
        put(self, "_fixed", self._first_lines())

    @property
    def record_name(self) -> str:
        """The name at which the DNS has the key's record."""
        return f"{self.selector}._domainkey.{self.domain}"

    @property
    def local_key(self) -> LocalSigner | None:
        """The key, if nothing has to be awaited to sign with it."""
        return self._local

    @property
    def identity_is_below(self) -> bool:
        """Whether `identity` is of a domain below `domain`."""
        return self.identity is not None and _domain(self.identity.rpartition("@")[2]) != self.domain

    @property
    def record(self) -> tuple[float, Any] | None:
        """Until when the key's record in the DNS is believed, and its public key; None if it was not looked up."""
        return self._record[0] if self._record else None

    def remember_record(self, until: float, public_key: Any) -> None:
        """Remember what the DNS has."""
        self._record[:] = [(until, public_key)]

    def begin(self, header: bytes, now: float) -> DKIMSigning | None:
        """Begin to sign a message; None if its author is of a domain that this signature is not for.

        Args:
            header: the message's header.
            now: seconds since the epoch.

        Raises:
            SigningError: there is no From.
        """
        relaxed = self.header == "relaxed"
        found = relaxed_fields(header) if relaxed else []
        if found:
            # Names and values, without a step for each field.
            names, values = zip(*found, strict=True)
            plan = self.plan(names)
            fields = plan.template.format(*values)
        else:
            names, lines = header_lines(header, relaxed=relaxed)
            plan = self.plan(names)
            fields = "".join([lines[place] for place in plan.places])
        if not plan.authored:
            raise SigningError("a message without From cannot be signed (RFC 6376 section 5.4)")
        if self.only_for is not None and not _is_by(fields_of(header)[0], self.only_for):
            return None
        return DKIMSigning(
            self, plan, fields, now, _signed_bodies(header, self) if self.unless_signed else ()
        )

    def _first_lines(self) -> str:
        algorithm = {"rsa": "rsa-sha256", "ed25519": "ed25519-sha256"}[self.signer.key_algorithm]
        tags = [
            "v=1",
            f"a={algorithm}",
            f"c={self.header}/{self.body}",
            f"d={self.domain}",
            f"s={self.selector}",
        ]
        if self.identity is not None:
            tags.append(f"i={_identity(self.identity, self.domain)}")
        return folded("DKIM-Signature:", [f" {tag};" for tag in tags])

    def times(self, now: float) -> str:
        """Return the line with the tags `t=` and `x=` of a signature made at `now`, empty without either."""
        text = f" t={int(now)};" if self.timestamp else ""
        if self.expires is not None:
            text += f" x={int(now + self.expires)};"
        return f"\r\n\t{text[1:]}" if text else ""

    def plan(self, present: tuple[str, ...]) -> _Plan:
        """Return what is signed of a message that has the fields `present`."""
        plan = self._plans.get(present)
        if plan is None:
            if len(self._plans) >= MOST_PLANS:
                self._plans.clear()
            # The messages of an application have the same few fields.
            plan = self._plans[present] = plan_of(self._fixed, present, self._names, self._always)
        return plan


class DKIMSigning:
    """The signing of one message by one key."""

    __slots__ = ("_body", "_dkim", "_fields", "_now", "_plan", "_signed_bodies", "_unsigned", "_wanted")

    def __init__(
        self, dkim: DKIM, plan: _Plan, fields: str, now: float, signed_bodies: Collection[str]
    ) -> None:
        self._dkim = dkim
        self._plan = plan
        # Those that are signed, as they are hashed.
        self._fields = fields
        self._now = now
        # Hashes of bodies for which the message has a signature of this kind.
        self._signed_bodies = signed_bodies
        self._body = BodyHash(hashlib.sha256(), relaxed=dkim.body == "relaxed")
        self._unsigned = ""
        self._wanted: ToSign | None = None

    def feed(self, data: bytes) -> None:
        """Take the next octets of the body."""
        self._body.feed(data)

    def end(self) -> list[ToSign]:
        """Take the end of the body, and return the one thing that has to be signed; nothing if it is signed already."""
        dkim, plan = self._dkim, self._plan
        body = b2a_base64(self._body.digest(), newline=False).decode()
        if body in self._signed_bodies:
            return []
        own = f"{plan.first}{dkim.times(self._now)}{plan.names}\r\n\tbh={body};\r\n\tb="
        self._unsigned = own
        if dkim.header == "relaxed":
            # There is one blank between two tags, or a fold in its place.
            own = "dkim-signature:" + own[_OWN:].replace("\r\n\t", " ")
        # The signature's own field comes last, without a line end (section 3.7).
        signed = f"{self._fields}{own}".encode("latin-1")
        of_hash = dkim.signer.key_algorithm == "ed25519"
        self._wanted = ToSign(dkim.signer, signed, of_hash=of_hash)
        return [self._wanted]

    def finish(self, signatures: Sequence[bytes]) -> Rewritten:
        """Return the field, which stands in front of the message; nothing if it is signed already.

        Raises:
            SigningError: the signature is not by the key of the DNS record, if that was looked up.
        """
        if not signatures:
            return Rewritten(b"")
        (signature,) = signatures
        record = self._dkim.record
        if record is not None and self._wanted is not None and public_key_of(self._dkim.signer) is None:
            if not verifies(record[1], signature, self._wanted):
                raise SigningError("the signature does not verify with the key of the DNS record")
        text = b2a_base64(signature, newline=False).decode()
        # Behind a fold and "b=".
        lines = [text[start : start + _WIDTH - 4] for start in range(0, len(text), _WIDTH - 4)]
        field = self._unsigned + "\r\n\t".join(lines)
        return Rewritten(f"{field}\r\n".encode())


# --- the field -----------------------------------------------------------------------------------------------


def folded(start: str, pieces: Iterable[str]) -> str:
    """Return a field that begins with `start`, with as many pieces on each line as fit, and without a line end.

    Args:
        start: what the first line begins with.
        pieces: each with the blank that stands before it on a line; a fold takes its place.
    """
    lines = [start]
    for piece in pieces:
        if len(lines[-1]) + len(piece) < _WIDTH:
            lines[-1] += piece
        else:
            lines.append("\t" + piece.lstrip(" "))
    return "\r\n".join(lines)


class _Plan(NamedTuple):
    """What is signed of a message with certain fields.

    Attributes:
        first: the beginning of the signature's field, the same in every signature.
        names: the lines of `h=`.
        places: the places of the fields that are signed, the last one of each name first.
        template: of these fields as "relaxed" hashes them: `str.format` puts in the values of all fields.
        authored: there is a From.
    """

    first: str
    names: str
    places: tuple[int, ...]
    template: str
    authored: bool


def plan_of(first: str, present: tuple[str, ...], names: tuple[str, ...], always: frozenset[str]) -> _Plan:
    """Return what is signed.

    Args:
        first: see `_Plan`.
        present: the names of the fields of a message, in either case.
        names: the names of the fields that may be signed.
        always: those of them that are signed even if they are not there.
    """
    present = tuple([name.lower() for name in present])
    where: dict[str, list[int]] = {}
    for place, name in enumerate(present):
        where.setdefault(name, []).append(place)
    chosen: list[str] = []
    places: list[int] = []
    for name in names:
        found = where.get(name, [])
        places += reversed(found)
        chosen += [name] * (len(found) + (bool(found) or name in always))
    # It may be folded before each name (section 3.5).
    pieces = [("" if not number else ":") + name for number, name in enumerate(chosen)]
    # A brace in a name stands for itself.
    marked = [name.replace("{", "{{").replace("}", "}}") for name in present]
    template = "".join([f"{marked[place]}:{{{place}}}\r\n" for place in places])
    text = folded("\r\n\th=", [*pieces[:-1], pieces[-1] + ";"])
    return _Plan(first, text, tuple(places), template, "from" in where)


def relaxed_fields(header: bytes) -> list[tuple[str, str]]:
    """Return the fields of an ordinary header, names in either case and values as "relaxed" hashes them; octets are
    Latin-1.

    It has no step for each field, and takes a tenth of those of `header_lines`. Empty for any other header: without an
    empty line at its end, with a line that is no field, a line end that is not CRLF, or a fold behind a name.
    """
    text = header.decode("latin-1")
    if "\t" in text or "\r\n " in text:
        if _FOLDED_NAME.search(text):
            return []
        text = text.replace("\r\n ", " ").replace("\r\n\t", " ").replace("\t", " ")
    while "  " in text:
        text = text.replace("  ", " ")
    if " \r\n" in text:
        text = text.replace(" \r\n", "\r\n")
    found: list[tuple[str, str]] = _FIELD.findall(text)
    ends = len(found) + 1
    if not text.endswith("\r\n\r\n") or text.count("\n") != ends or text.count("\r") != ends:
        return []
    return found


def header_lines(header: bytes, *, relaxed: bool) -> tuple[tuple[str, ...], list[str]]:
    """Return the names of the fields of a header, and each field as it is hashed; octets as Latin-1."""
    fields = fields_of(header)[0]
    octets = [relaxed_field(one.octets) if relaxed else one.octets for one in fields]
    return tuple([one.name for one in fields]), [one.decode("latin-1") for one in octets]


def relaxed_field(octets: bytes) -> bytes:
    """Return a field as it is hashed by "relaxed" (RFC 6376 section 3.4.2)."""
    name, _, value = octets.partition(b":")
    value = value.removesuffix(b"\r\n")
    if b"\r" in value or b"\t" in value or b"  " in value:
        value = _BLANKS.sub(b" ", value.replace(b"\r\n", b""))
    return b"%b:%b\r\n" % (name.rstrip(b" \t").lower(), value.strip(b" "))


def _signed_bodies(header: bytes, dkim: DKIM) -> set[str]:
    """Return the hashes of the body, as `bh=` has them, in the signatures of the domain and selector of `dkim`."""
    found = set()
    for one in fields_of(header)[0]:
        if one.name == "dkim-signature":
            text = b"".join(one.octets.partition(b":")[2].split()).decode("latin-1")
            tags = {name: value for name, _, value in [tag.partition("=") for tag in text.split(";")]}
            if (tags.get("d", "").lower(), tags.get("s", "").lower()) == (dkim.domain, dkim.selector.lower()):
                found.add(tags.get("bh", ""))
    return found


# --- the arguments -------------------------------------------------------------------------------------------


def _check_signer(signer: Signer) -> None:
    if signer.key_algorithm not in ("rsa", "ed25519"):
        raise InvalidArgument(f"DKIM signs with RSA or Ed25519 keys, not with {signer.key_algorithm}")
    if isinstance(signer, RemoteSigner):
        if signer.method != "pkcs1":
            raise InvalidArgument('DKIM needs a bare signature: method="pkcs1"')
        if signer.hash_algorithm not in (None, "sha256"):
            raise InvalidArgument(f"DKIM signs with SHA-256, not with {signer.hash_algorithm}")
    bits = getattr(public_key_of(signer), "key_size", _RSA_BITS)
    if bits < _RSA_BITS:
        raise InvalidArgument(
            f"an RSA key of {bits} bits is too short: RFC 8301 demands {_RSA_BITS}, better 2048"
        )


def _domain(text: str) -> str:
    """Return a domain as it stands in the DNS."""
    try:
        return domain_forms(text)[0].lower()
    except (SMTPError, TypeError, AttributeError) as error:
        raise InvalidArgument(f"not a domain: {text!r}") from error


def _texts(name: str, value: Iterable[str]) -> tuple[str, ...]:
    if isinstance(value, str | bytes):
        raise InvalidArgument(f"{name} is a sequence of texts, not one text")
    return tuple(value)


def _field_names(argument: str, names: Iterable[str]) -> tuple[str, ...]:
    found = tuple(dict.fromkeys([name.lower() for name in _texts(argument, names)]))
    for name in found:
        if not _NAME.match(name) or ";" in name:
            raise InvalidArgument(f"not the name of a header field: {name!r}")
        if name in _NEVER:
            raise InvalidArgument(f"{name} is changed on the way, and cannot be signed")
    return found


def _identity(text: str, domain: str) -> str:
    """Return the value of `i=`, in the quoted-printable of section 2.11."""
    local, at, of = text.rpartition("@")
    if not at or f".{_domain(of)}".removesuffix(f".{domain}") == f".{_domain(of)}":
        raise InvalidArgument(f"identity is of the domain {domain} or one below it, not {text!r}")
    quoted = _QUOTED.sub(lambda found: "".join([f"={octet:02X}" for octet in found[0].encode()]), local)
    return f"{quoted}@{_domain(of)}"


def _is_by(fields: Iterable[Field], domains: Iterable[str]) -> bool:
    """Tell whether the first author is of one of `domains`, or below one."""
    try:
        found = [address for one in fields if one.name == "from" for address in mailboxes_in(one)]
    except SMTPError as error:
        raise SigningError("From names no author whose domain could be told") from error
    of = "." + found[0].ascii_domain.lower() if found else ""
    return any([of.endswith("." + domain) for domain in domains])
