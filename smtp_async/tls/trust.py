"""Which certificates are trusted, and what else decides about a server: options that are checked when made."""

from __future__ import annotations

import base64
import binascii
import os
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import NoneType
from typing import Final, TypeAlias

from ..errors import InvalidArgument
from .certificate import Certificate
from .problems import IGNORABLE, ChainProblem, ChainValidation
from .revocation_options import RevocationOptions, RevocationPolicy

__all__ = ["AuthenticateServer", "ServerAuthentication", "TrustOptions", "read_pin"]

_Path: TypeAlias = str | os.PathLike[str]
_SETS: Final = ("ca", "trusted", "known", "accepted", "blocked")
#: A certificate has no value of so many bytes, and none is nested so deeply.
_MAX_LENGTH, _MAX_DEPTH = 64 * 1024, 32
_HEX_PIN: Final = re.compile(r"[0-9a-f]{64}")
_PIN_PREFIX: Final = re.compile(r"(?:sha256//|sha256/|sha-?256:)", re.IGNORECASE)


_PATHS: Final = (str, os.PathLike)
_BOOL: Final = ((bool,), "True or False")
_PATH: Final = ((*_PATHS, NoneType), "a path")
_BOUND: Final = ((int,), "an integer")
#: Option → the types that it may have, and what they are called.
_KINDS: Final[Mapping[str, tuple[tuple[type, ...], str]]] = {
    "use_system": ((bool, NoneType), "True, False or None"),
    "ca_file": _PATH,
    "ca_path": _PATH,
    "ignore": ((ChainProblem,), "a ChainProblem"),
    "tolerate_minor": _BOOL,
    "max_asn1_length": _BOUND,
    "max_asn1_depth": _BOUND,
    "validate": _BOOL,
    "revocation": ((RevocationOptions, NoneType), "a RevocationOptions or None"),
    "shared_system_store": _BOOL,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustOptions:
    """Which certificates are trusted, and what else decides about a server.

    Certificates to trust come from `use_system`, `ca_file`, `ca_path`, `ca_search_paths`, `ca` and `trusted`; all that
    are named count together. What OpenSSL can judge is judged within the handshake. `known`, `accepted`, `pins`,
    `blocked`, `ignore`, `validate`, `revocation`, `tolerate_minor=False` and other bounds than the default ones it
    cannot: then the chain is judged when the handshake is over, before the first byte of SMTP; a client certificate
    was shown by then.

    Attributes:
        use_system: trust what the system trusts; None does where none of the others is named.
        ca_file: PEM file with the certificates that are trusted: authorities, or the very certificate of a server.
            Host name and dates are checked all the same.
        ca_path: folder with such certificates in files that are named by the hash of their subject, as
            `openssl rehash` makes them.
        ca_search_paths: candidates for a `ca_file`; the first that exists is taken, and none of them need exist.
        ca: certificates of authorities.
        trusted: certificates that are trusted as they are, those of servers and of intermediate authorities included.
        known: certificates that help to find the way to a trusted one; they are not trusted themselves.
        accepted: certificates of servers: one that shows exactly one of these is taken, whatever else is wrong with
            it. For others the rules stand.
        pins: SHA-256 fingerprints of certificates or public keys: in hexadecimal, with or without colons, or as
            `sha256//` and base64. One of the chain must have one of them, in addition to everything else.
        blocked: certificates; a chain with one of them, or with its key, is refused whatever else says yes.
        ignore: problems that do not count: TIME, NESTED_TIMES, UNKNOWN_AUTHORITY, HOST_NAME, USAGE and the three kinds
            of unknown revocation.
        tolerate_minor: formal faults of a chain, as OpenSSL looks for with X509_V_FLAG_X509_STRICT, do not count.
        max_asn1_length: most bytes of a single value in a certificate.
        max_asn1_depth: how deeply its values may be nested.
        validate: False takes every certificate that is neither `blocked` nor excluded by `pins`, unless
            `authenticate_server` refuses it: an attacker on the network can be the server. A warning is logged for
            each connection.
        revocation: how to find out whether certificates were revoked; None does not ask.
        shared_system_store: read certificates once per process for all clients with equal options; they are read again
            when their file or folder has changed. False reads them for this client alone.

    Raises:
        InvalidArgument: a value is of another kind, a pin is none, a problem cannot be ignored, or a certificate in
            `ca` is no authority.
    """

    use_system: bool | None = None
    ca_file: _Path | None = None
    ca_path: _Path | None = None
    ca_search_paths: Sequence[_Path] = ()
    ca: Sequence[Certificate] = ()
    trusted: Sequence[Certificate] = ()
    known: Sequence[Certificate] = ()
    accepted: Sequence[Certificate] = ()
    pins: Sequence[str] = ()
    blocked: Sequence[Certificate] = ()
    ignore: ChainProblem = ChainProblem(0)
    tolerate_minor: bool = True
    max_asn1_length: int = _MAX_LENGTH
    max_asn1_depth: int = _MAX_DEPTH
    validate: bool = True
    revocation: RevocationOptions | None = None
    shared_system_store: bool = True

    def __post_init__(self) -> None:
        for name in (*_SETS, "pins", "ca_search_paths"):
            if isinstance(getattr(self, name), str | bytes | Certificate):
                raise InvalidArgument(f"{name} is a sequence: put the one that you have into a list")
            object.__setattr__(self, name, _as_tuple(name, getattr(self, name)))
        self._check_kinds()
        for name in _SETS:
            if not all(isinstance(one, Certificate) for one in getattr(self, name)):
                raise InvalidArgument(f"{name} takes objects of Certificate: see Certificate.load")
        object.__setattr__(self, "pins", tuple(read_pin(one) for one in self.pins))
        if strange := self.ignore & ~IGNORABLE:
            raise InvalidArgument(f"{ChainProblem(strange)!r} cannot be ignored")
        for one in self.ca:
            if not (one.is_authority or one.self_issued):
                raise InvalidArgument(
                    f"{one.subject} is no authority: a certificate that is trusted as it is belongs into `trusted`"
                )
        if self.max_asn1_length < 1 or self.max_asn1_depth < 1:
            raise InvalidArgument("max_asn1_length and max_asn1_depth are at least 1")

    def _check_kinds(self) -> None:
        for name, (kinds, what) in _KINDS.items():
            value = getattr(self, name)
            if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
                raise InvalidArgument(f"{name} is {what}, not {type(value).__name__}")
        for name, kind in (("pins", str), ("ca_search_paths", _PATHS)):
            for one in getattr(self, name):
                if not isinstance(one, kind):
                    raise InvalidArgument(f"{name} holds {type(one).__name__}, which is of the wrong type")

    @property
    def after_handshake(self) -> bool:
        """Must the chain be judged after the handshake, because OpenSSL cannot do it?"""
        settings = (self.known, self.accepted, self.pins, self.blocked, self.ignore)
        bounds = (self.max_asn1_length, self.max_asn1_depth)
        asks = self.revocation is not None and self.revocation.policy is not RevocationPolicy.NONE
        # OpenSSL's strict checks do not look for validity that is not nested.
        formal = not self.validate or not self.tolerate_minor
        return any(settings) or asks or formal or bounds != (_MAX_LENGTH, _MAX_DEPTH)

    @property
    def only_system(self) -> bool:
        """Is nothing trusted but what the system trusts, read as all clients read it?"""
        named = (self.ca_file, self.ca_path, self.ca_search_paths, self.ca, self.trusted)
        return (
            not any(named)
            and self.use_system is not False
            and self.tolerate_minor
            and self.shared_system_store
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerAuthentication:
    """What `TLSOptions.authenticate_server` is asked about.

    Attributes:
        host: the name that the certificate must be for.
        chain: the certificates from the server's own to the last issuer that was found; empty if the server's cannot be
            read.
        subject, issuer: of the server's certificate.
        problems: what is wrong, 0 if nothing; what `TrustOptions.ignore` names is left out.
        status: `"OK"` where the server would be taken, otherwise what is wrong, in words.
        validation: all that was found.
        session_resumed: did the connection resume an earlier session? The chain is that session's.
    """

    host: str
    chain: tuple[Certificate, ...] = field(repr=False)
    subject: str
    issuer: str
    problems: ChainProblem
    status: str
    validation: ChainValidation = field(repr=False)
    session_resumed: bool = False

    @property
    def certificate(self) -> Certificate | None:
        """The server's certificate; None if it cannot be read."""
        return self.chain[0] if self.chain else None


#: A function of the application that may overturn a verdict; None is no opinion.
AuthenticateServer: TypeAlias = Callable[[ServerAuthentication], bool | None | Awaitable[bool | None]]


def _as_tuple(name: str, value: object) -> tuple[object, ...]:
    if not isinstance(value, Iterable):
        raise InvalidArgument(f"{name} is a sequence, not {type(value).__name__}")
    return tuple(value)


def read_pin(text: str) -> str:
    """Return a SHA-256 fingerprint in hexadecimal.

    Args:
        text: hexadecimal with or without colons, or base64 behind `sha256/` or `sha256//`.

    Raises:
        InvalidArgument: it is none.
    """
    bare = _PIN_PREFIX.sub("", text.strip(), count=1)
    digits = bare.replace(":", "").lower()
    if _HEX_PIN.fullmatch(digits):
        return digits
    try:
        digest = base64.b64decode(bare, validate=True)
    except (binascii.Error, ValueError):
        digest = b""
    if len(digest) != 32:
        raise InvalidArgument(
            f"{text!r} is no pin: it is the SHA-256 fingerprint of a certificate or of a public key, 64 hexadecimal "
            "digits, or sha256// and base64"
        )
    return digest.hex()
