"""What may be wrong with the certificates of a server, and what came of judging them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from enum import IntEnum, IntFlag
from typing import Final, NamedTuple, Self

from .certificate import Certificate
from .revocation_options import RevocationStatus

__all__ = ["ABSOLUTE", "IGNORABLE", "ChainProblem", "ChainResult", "ChainValidation", "Fault", "by_gravity"]


class ChainProblem(IntFlag):
    """What is wrong with a chain of certificates; flags, because every problem is found.

    The values below 0x10000 are those of the components that this library replaces.
    """

    #: A certificate cannot be read, is larger or nested more deeply than allowed, or there is none.
    BAD_DATA = 0x1
    REVOKED = 0x2
    NOT_YET_VALID = 0x4
    EXPIRED = 0x8
    INVALID_SIGNATURE = 0x10
    #: No chain leads to a trusted certificate.
    UNKNOWN_AUTHORITY = 0x20
    #: An issuer is no authority, or has more authorities below it than it may have.
    NOT_AUTHORIZED = 0x40
    #: The certificate is for other host names or addresses.
    HOST_NAME = 0x200
    #: The certificate, or an issuer, is not for servers.
    USAGE = 0x400
    BLOCKED = 0x800
    #: A critical extension that is not understood.
    UNKNOWN_EXTENSION = 0x1000
    #: Certificates have issued each other in a circle.
    LOOP = 0x2000
    #: A key is too short, or a signature made with a hash that is broken.
    WEAK = 0x4000
    #: The application's `authenticate_server` refused.
    REFUSED = 0x8000
    #: An issuer may not issue for these names (RFC 5280 section 4.2.1.10).
    NAME_CONSTRAINTS = 0x1_0000
    #: None of the pins is that of a certificate in the chain, or of its key.
    PIN = 0x2_0000
    #: The validity of a certificate is not within that of its issuer. Counts with `tolerate_minor=False`.
    NESTED_TIMES = 0x4_0000
    #: A formal fault. Counts with `tolerate_minor=False`.
    MINOR = 0x8_0000
    #: Whether the server's certificate was revoked could not be found out, and must be.
    UNKNOWN_REVOCATION = 0x10_0000
    #: The same of an authority between the server's certificate and the trusted one.
    UNKNOWN_AUTHORITY_REVOCATION = 0x20_0000
    #: The same of the trusted certificate.
    UNKNOWN_ROOT_REVOCATION = 0x40_0000
    #: Both kinds of wrong dates.
    TIME = NOT_YET_VALID | EXPIRED


#: What `TrustOptions.ignore` may name.
IGNORABLE: Final = (
    ChainProblem.TIME
    | ChainProblem.NESTED_TIMES
    | ChainProblem.UNKNOWN_AUTHORITY
    | ChainProblem.HOST_NAME
    | ChainProblem.USAGE
    | ChainProblem.UNKNOWN_REVOCATION
    | ChainProblem.UNKNOWN_AUTHORITY_REVOCATION
    | ChainProblem.UNKNOWN_ROOT_REVOCATION
)
#: What nothing excuses: no policy, no accepted certificate, not even OPPORTUNISTIC.
ABSOLUTE: Final = ChainProblem.BLOCKED | ChainProblem.PIN | ChainProblem.REFUSED
_UNKNOWN_REVOCATIONS: Final = (
    ChainProblem.UNKNOWN_REVOCATION
    | ChainProblem.UNKNOWN_AUTHORITY_REVOCATION
    | ChainProblem.UNKNOWN_ROOT_REVOCATION
)
#: The class of the error is that of the first of these that counts, and its sentence comes first.
_GRAVITY: Final = (
    ChainProblem.BLOCKED,
    ChainProblem.REFUSED,
    ChainProblem.REVOKED,
    ChainProblem.PIN,
    ChainProblem.BAD_DATA,
    ChainProblem.INVALID_SIGNATURE,
    ChainProblem.LOOP,
    ChainProblem.NOT_AUTHORIZED,
    ChainProblem.NAME_CONSTRAINTS,
    ChainProblem.UNKNOWN_AUTHORITY,
    ChainProblem.TIME,
    ChainProblem.HOST_NAME,
    ChainProblem.USAGE,
    ChainProblem.WEAK,
)
_NONE: Final = ChainProblem(0)


class ChainResult(IntEnum):
    """The verdict on a chain."""

    VALID = 0
    #: Nothing is wrong except that it ends with an authority that is not trusted.
    VALID_BUT_UNTRUSTED = 1
    INVALID = 2
    #: An issuer is missing, the state of revocation is unknown, or nothing was judged.
    CANNOT_BE_ESTABLISHED = 3


class Fault(NamedTuple):
    """One thing that is wrong.

    Attributes:
        problem: its kind.
        text: the sentence for people, without its full stop.
        place: of the certificate in the path; 0 is the server's own.
    """

    problem: ChainProblem
    text: str
    place: int = 0


def by_gravity(faults: Iterable[Fault]) -> list[Fault]:
    """Return faults with the gravest first."""

    def gravity(fault: Fault) -> int:
        return next((place for place, one in enumerate(_GRAVITY) if fault.problem & one), len(_GRAVITY))

    return sorted(faults, key=gravity)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainValidation:
    """What came of judging the certificates of a server. It can be pickled.

    Attributes:
        faults: everything that is wrong, the gravest first, those that are excused included.
        excused: problems that do not count, because the application said so.
        log: what was done, one sentence each.
        path_der: the path from the server's certificate to the last issuer that was found, in DER.
        revocation: what was found out about each certificate in the path except the last; empty if nothing was asked.
        judged: was the chain judged at all?
        complete: does the path end with a trusted certificate, or with one that signed itself?
        trusted: does it end with a trusted one, and was each certificate signed by the next?
    """

    faults: tuple[Fault, ...] = ()
    excused: ChainProblem = _NONE
    log: tuple[str, ...] = ()
    path_der: tuple[bytes, ...] = field(default=(), repr=False)
    revocation: tuple[RevocationStatus, ...] = ()
    judged: bool = True
    complete: bool = True
    trusted: bool = True

    @property
    def problems(self) -> ChainProblem:
        """All problems, those that are excused included."""
        found = _NONE
        for fault in self.faults:
            found |= fault.problem
        return found

    @property
    def counted(self) -> ChainProblem:
        """The problems that are not excused."""
        # Nothing is wrong with most servers, and operations on flags are slow.
        return self.problems & ~self.excused if self.faults else _NONE

    @property
    def accepted(self) -> bool:
        """Do the rules of the application let the server pass?"""
        return not self.counted

    @property
    def verified(self) -> bool:
        """Is the identity of the server proved, with nothing excused?"""
        return self.judged and not self.faults

    @property
    def result(self) -> ChainResult:
        """The verdict, as far as problems count."""
        counted = self.counted
        if counted & ~(ChainProblem.UNKNOWN_AUTHORITY | _UNKNOWN_REVOCATIONS):
            return ChainResult.INVALID
        if counted == ChainProblem.UNKNOWN_AUTHORITY and self.complete:
            return ChainResult.VALID_BUT_UNTRUSTED
        return ChainResult.VALID if self.judged and not counted else ChainResult.CANNOT_BE_ESTABLISHED

    @property
    def status(self) -> str:
        """`"OK"`, or what is wrong, in words; what is excused does not count."""
        return "; ".join(fault.text for fault in self.faults if fault.problem & self.counted) or "OK"

    @property
    def reason(self) -> str | None:
        """Why the server is not `verified`, in words; None if it is."""
        if self.verified:
            return None
        return "; ".join(fault.text for fault in self.faults) or self.log[-1]

    @property
    def path(self) -> tuple[Certificate, ...]:
        """The path from the server's certificate to the last issuer that was found; read anew at each call."""
        return tuple(found for der in self.path_der if (found := Certificate.of(der)) is not None)

    def plus(self, *faults: Fault) -> Self:
        """Return this with more faults."""
        return replace(self, faults=tuple(by_gravity((*self.faults, *faults))))

    def noting(self, *lines: str) -> Self:
        """Return this with more lines in the log."""
        return replace(self, log=(*self.log, *lines))

    def excusing(self, problems: ChainProblem) -> Self:
        """Return this with more problems excused; what is `ABSOLUTE` never is."""
        return replace(self, excused=(self.excused | problems) & ~ABSOLUTE)
