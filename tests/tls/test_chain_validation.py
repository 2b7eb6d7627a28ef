"""chain_validation.py: what is read, which path is judged, and what the options of the application change."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
import trustme
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from smtp_async import ChainProblem, ChainResult, ChainValidation, TrustOptions
from smtp_async.tls.chain_validation import validate_chain
from smtp_async.tls.paths import Anchors
from tests.tls.authority import DAY, NOW, intermediate, key_usage, make, root
from tests.tls.certificates import der

P = ChainProblem
ANCHORS = Anchors([root().der])
LEAF = make("S", root(), names=["localhost"]).ders


def judge(chain: tuple[bytes, ...], name: str = "localhost", **kwargs: Any) -> ChainValidation:
    kwargs.setdefault("trust", TrustOptions())
    kwargs.setdefault("anchors", ANCHORS)
    return validate_chain(chain, name, **kwargs)


def test_the_log_tells_what_was_looked_at() -> None:
    found = judge((*make("S", intermediate()).sending(intermediate()).ders, b"garbage"))
    begin, end = f"{NOW - DAY:%Y-%m-%d}", f"{NOW + 30 * DAY:%Y-%m-%d}"
    assert found.log[0] == "certificate 3 of the chain is passed over: the end is missing"
    assert found.log[1] == f"CN=S, issued by CN=Intermediate, valid from {begin} to {end}"
    assert found.log[-1] == "CN=Root is trusted"
    assert [one.common_name for one in found.path] == ["S", "Intermediate", "Root"]


def test_the_time_may_be_another() -> None:
    chain = make("S", root()).ders
    assert judge(chain, now=NOW).verified
    late = judge(chain, now=NOW + 400 * DAY)
    assert late.problems == P.EXPIRED and len(late.faults) == 2
    assert [fault.place for fault in late.faults] == [0, 1]
    assert "1 day ago" in judge(chain, now=NOW + 31 * DAY + timedelta(hours=1)).status
    assert "less than a day ago" in judge(chain, now=NOW + 30 * DAY + timedelta(hours=1)).status
    assert judge(chain, now=NOW - 2 * DAY).problems == P.NOT_YET_VALID


@pytest.mark.parametrize("chain", [(), (b"garbage",), (root().der[:-1],)])
def test_no_certificate(chain: tuple[bytes, ...]) -> None:
    found = judge(chain)
    assert found.problems == P.BAD_DATA and not found.path and not found.trusted
    assert found.result is ChainResult.INVALID


def test_the_path_with_the_fewest_problems_counts() -> None:
    other = make("Other", ca=True)
    crossed = make("Intermediate", other, ca=True, key=intermediate().key, begin=NOW - 9 * DAY, end=NOW - DAY)
    chain = make("S", intermediate()).sending(crossed, intermediate()).ders
    assert judge(chain, anchors=Anchors([other.der, root().der])).verified
    assert judge(chain, anchors=Anchors([other.der])).problems == P.EXPIRED


def test_a_pin_on_another_path_counts() -> None:
    other = make("Other", ca=True)
    crossed = make("Intermediate", other, ca=True, key=intermediate().key)
    chain = make("S", intermediate()).sending(intermediate(), crossed).ders
    anchors = Anchors([root().der, other.der])
    for pinned in (root(), other):
        found = judge(chain, anchors=anchors, trust=TrustOptions(pins=[pinned.certificate.sha256]))
        assert found.verified, found.status
        assert found.path[-1] == pinned.certificate


def test_the_name_that_a_wildcard_stands_for_may_be_excluded() -> None:
    limits = x509.NameConstraints(None, [x509.DNSName("secret.example.com")])
    issuer = make("Authority", root(), ca=True, constraints=limits)
    chain = make("S", issuer, names=["*.example.com"]).sending(issuer).ders
    assert judge(chain, "secret.example.com").problems == P.NAME_CONSTRAINTS
    assert judge(chain, "open.example.com").verified


def test_a_key_that_may_be_used_for_nothing() -> None:
    nothing = (key_usage(), True)
    found = judge(make("S", root(), others=[nothing]).ders)
    assert found.problems == P.USAGE and "only for nothing" in found.status
    issuer = make("Authority", root(), ca=True, usage=(), others=[nothing])
    assert judge(make("S", issuer).sending(issuer).ders).problems == P.NOT_AUTHORIZED


def test_what_is_ignored_helps_to_choose_a_path() -> None:
    other = make("Other", ca=True)
    crossed = make("Intermediate", other, ca=True, key=intermediate().key, begin=NOW - 9 * DAY, end=NOW - DAY)
    chain = make("S", intermediate(), names=["x.example"]).sending(crossed).ders
    found = judge(chain, anchors=Anchors([other.der]), trust=TrustOptions(ignore=P.TIME | P.HOST_NAME))
    assert found.accepted and found.problems == P.EXPIRED | P.HOST_NAME


def test_an_accepted_certificate_passes_whatever_else_is_wrong() -> None:
    shown = make("S", names=["x.example"], begin=NOW - 9 * DAY, end=NOW - DAY)
    found = judge(shown.ders, trust=TrustOptions(accepted=[shown.certificate]))
    assert found.verified and found.result is ChainResult.VALID
    assert sum("it is accepted all the same" in line for line in found.log) == 3


def test_authorities_of_others() -> None:
    """Chains of another maker, below an intermediate authority."""
    authority = trustme.CA()
    chain = der(authority.create_child_ca().issue_cert("mail.example"))
    trusted = Anchors([trusted_der(authority)])
    assert judge(chain, "mail.example", anchors=trusted).verified
    assert judge(chain[:1], "mail.example", anchors=trusted).problems == P.UNKNOWN_AUTHORITY
    assert judge(chain, "mail.example", anchors=Anchors([])).result is ChainResult.CANNOT_BE_ESTABLISHED


def trusted_der(authority: trustme.CA) -> bytes:
    from smtp_async.tls import Certificate

    return Certificate.load(authority.cert_pem.bytes()).der


BLOCKED = make("Blocked", root())
UNREADABLE: dict[str, tuple[tuple[bytes, ...], str]] = {
    "no certificate": (
        (b"garbage",),
        "may show a certificate, or its key, which TrustOptions.blocked forbids",
    ),
    "too many": ((LEAF[0],) * 34, "may show a certificate, or its key, which TrustOptions.blocked forbids"),
    "too many, and a blocked one": (
        (*BLOCKED.ders, *LEAF * 33),
        "shows a certificate which TrustOptions.blocked",
    ),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_what_cannot_be_read_counts_as_forbidden(name: str) -> None:
    chain, says = UNREADABLE[name]
    found = judge(chain, trust=TrustOptions(blocked=[BLOCKED.certificate]))
    assert found.problems == P.BAD_DATA | P.BLOCKED
    assert found.excusing(P.BAD_DATA).counted == P.BLOCKED
    assert says in found.faults[0].text
    pinned = judge(chain, trust=TrustOptions(pins=["0f" * 32], validate=False))
    assert pinned.problems == P.BAD_DATA | P.PIN
    assert judge(chain).problems == P.BAD_DATA


def test_a_server_without_a_certificate_shows_no_blocked_one() -> None:
    trust = TrustOptions(blocked=[BLOCKED.certificate], pins=["0f" * 32])
    assert judge((), trust=trust).problems == P.BAD_DATA | P.PIN


@given(st.binary(max_size=300), st.text(max_size=20))
def test_anything(data: bytes, name: str) -> None:
    assert not judge((data,), name).accepted
    assert not judge((*LEAF, data), name).accepted or name == "localhost"


@given(st.text(max_size=30))
def test_any_name(name: str) -> None:
    found = judge(LEAF, name)
    assert found.accepted == (name.lower() == "localhost")
    assert found.status.isprintable() or not name.isprintable()
