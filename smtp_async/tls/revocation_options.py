"""How to find out whether certificates were revoked, as an application says it, and what was found out."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import Final

from ..errors import FeatureUnavailable, InvalidArgument
from ..model.reply import printable
from .revocation_proofs import HASHES, crl_octets, response_octets

__all__ = ["RevocationOptions", "RevocationPolicy", "RevocationState", "RevocationStatus"]

_DEADLINE: Final = 5.0
_MAX_SIZE: Final = 10 * 1024 * 1024
_EXTRA: Final = "smtp-async[revocation]"


class RevocationPolicy(Enum):
    """Which sources are asked.

    Attributes:
        NONE: none.
        AUTO: OCSP first, and CRLs, too, as soon as that fails or is slow; the first definite answer counts.
        CRL: CRLs alone.
        OCSP: OCSP alone.
        CRL_THEN_OCSP: CRLs; OCSP if they fail, or have not answered after half the deadline.
        OCSP_THEN_CRL: OCSP; CRLs if it fails, or has not answered after half the deadline.
        ALL: every source that the certificate names, and each must answer. One that says revoked is enough.
            Evidence that the application has stands for the sources of its kind.
    """

    NONE = "none"
    AUTO = "auto"
    CRL = "crl"
    OCSP = "ocsp"
    CRL_THEN_OCSP = "crl then ocsp"
    OCSP_THEN_CRL = "ocsp then crl"
    ALL = "all"


@dataclass(frozen=True, slots=True, kw_only=True)
class RevocationOptions:
    """How to find out whether certificates were revoked. Needs the extra `smtp-async[revocation]`.

    CRLs and OCSP responses are fetched directly: `ClientOptions.proxy` is for SMTP only. Where HTTP may not leave this
    machine, give them as `crls` and `responses`. Behind a proxy the server's address is not known, and nothing is
    fetched from private addresses.

    Attributes:
        policy: which sources are asked.
        hard_fail: refuse a server whose state cannot be found out. By default it is accepted.
        deadline: seconds for all certificates of a connection together.
        max_size: most bytes of a CRL or an OCSP response that is fetched.
        crls: CRLs that the application has, PEM or DER; they are asked before others are fetched. Signature and dates
            count as always.
        responses: OCSP responses that the application has, in DER; likewise.
        ocsp_hash: the hash that identifies issuers in OCSP requests: `"sha1"`, which every responder knows, and
            which needs no strength here, or `"sha256"`.
        user_agent: the User-Agent of HTTP requests for CRLs and OCSP responses (RFC 9110 section 10.1.5): printable
            ASCII.

    Raises:
        InvalidArgument: a value is out of range, or an entry of `crls` or `responses` cannot be read.
        FeatureUnavailable: the extra is not installed.
    """

    policy: RevocationPolicy = RevocationPolicy.AUTO
    hard_fail: bool = False
    deadline: float = _DEADLINE
    max_size: int = _MAX_SIZE
    crls: Sequence[bytes] = field(default=(), repr=False)
    responses: Sequence[bytes] = field(default=(), repr=False)
    ocsp_hash: str = "sha1"
    user_agent: str = "smtp-async"

    def __post_init__(self) -> None:
        if not self.deadline > 0 or self.max_size < 1:
            raise InvalidArgument("deadline and max_size are more than 0")
        if not re.fullmatch(r"[!-~](?:[ -~]*[!-~])?", self.user_agent):
            raise InvalidArgument(f"user_agent is printable ASCII, not {self.user_agent!r}")
        name = re.sub(r"[-_ ]", "", self.ocsp_hash).lower()
        if name not in HASHES:
            raise InvalidArgument(f"{self.ocsp_hash!r} is neither {' nor '.join(HASHES)}")
        object.__setattr__(self, "ocsp_hash", name)
        if self.policy is not RevocationPolicy.NONE:
            _demand_extra()
        object.__setattr__(self, "crls", _read("crls", self.crls, crl_octets))
        object.__setattr__(self, "responses", _read("responses", self.responses, response_octets))


class RevocationState(Enum):
    """What is known about a certificate."""

    GOOD = "good"
    REVOKED = "revoked"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class RevocationStatus:
    """What was found out about one certificate.

    Attributes:
        state: good, revoked or unknown.
        text: a sentence that says so, with the source, or with the reason why it is not known.
        reason: why it was revoked, in words; empty otherwise.
        revoked_at: when, UTC; None otherwise.
        source: where the answer came from: a URL, or the option that had it; empty if unknown.
        valid_until: until when the answer is valid, UTC; None if unknown.
    """

    state: RevocationState
    text: str
    reason: str = ""
    revoked_at: datetime | None = None
    source: str = ""
    valid_until: datetime | None = None


def _demand_extra() -> None:
    for package in ("pyhanko_certvalidator", "asn1crypto", "aiohttp"):
        if importlib.util.find_spec(package) is None:
            raise FeatureUnavailable(f"revocation is checked with {package}", needs=_EXTRA)


def _read(name: str, given: object, reader: Callable[[bytes], bytes]) -> tuple[bytes, ...]:
    if isinstance(given, bytes | str) or not isinstance(given, Iterable):
        raise InvalidArgument(f"{name} is a sequence: put the one that you have into a list")
    found = []
    for place, data in enumerate(given):
        try:
            found.append(reader(bytes(data)))
        except (ValueError, TypeError) as error:
            raise InvalidArgument(f"{name}[{place}] cannot be read: {printable(str(error))}") from error
    return tuple(found)
