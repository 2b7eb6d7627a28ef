"""OpenSSL's verdict and that of this library on chains drawn at random: each way of being wrong, alone and together.

Two differences are meant, see docs/how-to/tls-problems.md: a trusted certificate ends the path here, whatever else was
sent; and where several authorities have one name, all ways are tried here, and one in OpenSSL.
"""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given
from hypothesis import strategies as st

from smtp_async.tls import ChainProblem, TLSOptions, TrustOptions, make_context
from smtp_async.tls.chain_validation import validate_chain
from smtp_async.tls.paths import Anchors
from tests.tls.authority import DAY, NOW, SERVER, Entity, ec_key, make, rsa_key

P = ChainProblem
#: The number of OpenSSL's error → what must be among the problems.
NAMED = {
    7: P.INVALID_SIGNATURE,
    9: P.NOT_YET_VALID,
    10: P.EXPIRED,
    2: P.UNKNOWN_AUTHORITY,
    18: P.UNKNOWN_AUTHORITY,
    19: P.UNKNOWN_AUTHORITY,
    # OpenSSL takes no certificate for the issuer whose key is of another kind than the signature, or may not sign.
    20: P.UNKNOWN_AUTHORITY | P.INVALID_SIGNATURE | P.NOT_AUTHORIZED,
    21: P.UNKNOWN_AUTHORITY,
    24: P.NOT_AUTHORIZED,
    25: P.NOT_AUTHORIZED,
    79: P.NOT_AUTHORIZED,
    26: P.USAGE,
    32: P.NOT_AUTHORIZED,
    34: P.UNKNOWN_EXTENSION,
    47: P.NAME_CONSTRAINTS,
    48: P.NAME_CONSTRAINTS,
    62: P.HOST_NAME,
    64: P.HOST_NAME,
    66: P.WEAK,
    67: P.WEAK,
    68: P.WEAK,
}


class Drawn(NamedTuple):
    """A chain, what the client trusts, and the name that it asks for."""

    server: Entity
    trusted: tuple[Entity, ...]
    name: str


def mostly(good: Any, *others: Any) -> st.SearchStrategy[Any]:
    """Draw `good` eleven times of twelve."""
    return st.integers(0, 11).flatmap(lambda n: st.sampled_from(others) if n == 5 else st.just(good))


@cache
def key_number(number: int) -> Any:
    return ec_key()


def subtrees(*names: str) -> list[x509.GeneralName]:
    return [x509.DNSName(name) for name in names]


CONSTRAINTS = [
    x509.NameConstraints(subtrees("example"), None),
    x509.NameConstraints(subtrees(".example"), None),
    x509.NameConstraints(subtrees("mail.example", "localhost"), None),
    x509.NameConstraints(None, subtrees("example")),
    x509.NameConstraints(None, subtrees("other.example")),
    x509.NameConstraints(None, [x509.RFC822Name("example")]),
]
NAMES = ["mail.example", "*.example", "*.mail.example", "other.example", "xn--bcher-kva.example", "192.0.2.1"]
DATES = {"begin": NOW - 9 * DAY, "end": NOW + 30 * DAY}
PAST = {"begin": NOW - 9 * DAY, "end": NOW - DAY}
FUTURE = {"begin": NOW + DAY, "end": NOW + 30 * DAY}
PURPOSES: Sequence[Any] = (
    None,
    [ExtendedKeyUsageOID.CLIENT_AUTH],
    [ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE],
    [ExtendedKeyUsageOID.CLIENT_AUTH, *SERVER],
)
UNKNOWN = (x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.99999.1"), b"\x05\x00"), True)


@st.composite
def authorities(draw: Any, number: int, issuer: Entity | None) -> Entity:
    """Draw an authority, or what only looks like one."""
    return make(
        f"Authority {draw(mostly(number, 0))}",
        issuer,
        key=draw(mostly(key_number(number), key_number(9), rsa_key(1024), rsa_key(2048))),
        ca=draw(mostly(True, False)),
        basic=draw(mostly(True, False)),
        names=None,
        path_length=draw(st.sampled_from([None, None, None, 0, 1, 2])) if draw(st.booleans()) else None,
        usage=draw(mostly(["key_cert_sign"], [], ["digital_signature"], ["key_cert_sign", "key_agreement"])),
        purposes=draw(mostly(SERVER, *PURPOSES)),
        constraints=draw(mostly(None, *CONSTRAINTS)),
        identifiers=draw(mostly(True, False)),
        signer=draw(mostly(None, key_number(8))),
        others=draw(mostly([], [UNKNOWN])),
        **draw(mostly(DATES, PAST, FUTURE)),
    )


@st.composite
def chains(draw: Any) -> Drawn:
    """Draw a root, authorities below it, a server's certificate, and what of them is sent in which order."""
    above: list[Entity] = []
    for number in range(draw(st.integers(1, 4))):
        above.append(draw(authorities(number, above[-1] if above else None)))
    leaf = make(
        "Server",
        above[-1] if draw(mostly(True, False)) else None,
        key=draw(mostly(key_number(7), rsa_key(1024))),
        names=draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=3))
        + draw(mostly(["mail.example"], [])),
        purposes=draw(mostly(SERVER, *PURPOSES)),
        usage=draw(mostly(["digital_signature"], [], ["content_commitment"], ["key_agreement"])),
        identifiers=draw(mostly(True, False)),
        signer=draw(mostly(None, key_number(8))),
        others=draw(mostly([], [UNKNOWN])),
        **draw(mostly(DATES, PAST, FUTURE)),
    )
    sent = draw(mostly(above[1:], above[1:-1], above, []))
    stranger = make("Authority 0", ca=True, key=key_number(6))
    sent = draw(st.permutations([*sent, *draw(st.sampled_from([[], [], [stranger]]))]))
    trusted = draw(mostly((above[0],), (leaf,), (above[-1],), (stranger,), (above[0], stranger)))
    if trusted == (leaf,):
        sent = []
    elif trusted == (above[-1],):
        sent = [one for one in sent if one is stranger]
    name = draw(mostly("mail.example", *NAMES[3:], "a.mail.example", "MAIL.example", "bcher.example"))
    return Drawn(leaf.sending(*sent), trusted, name)


def openssl_says(drawn: Drawn, trust: TrustOptions) -> int:
    """Return the number of OpenSSL's error, 0 if it believes the server."""
    client = make_context(TLSOptions(trust=trust))
    ours, theirs = ssl.MemoryBIO(), ssl.MemoryBIO()
    one = client.wrap_bio(ours, theirs, server_hostname=drawn.name)
    other = drawn.server.server_context().wrap_bio(theirs, ours, server_side=True)
    for _ in range(10):
        for side in (one, other):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLCertVerificationError as error:
                return int(error.verify_code)
            if side is one:
                return 0
    raise AssertionError("the handshake does not end")


def _names_of_authorities(drawn: Drawn) -> list[x509.Name]:
    return [one.subject for one in {*(one.x509 for one in drawn.trusted), *drawn.server.chain}]


def compare(drawn: Drawn) -> None:
    trust = TrustOptions(trusted=[one.certificate for one in drawn.trusted])
    code = openssl_says(drawn, trust)
    ours = validate_chain(
        drawn.server.ders,
        drawn.name,
        trust=trust,
        anchors=Anchors(one.der for one in drawn.trusted),
        level=2,
    )
    names = _names_of_authorities(drawn)
    if code and len(set(names)) < len(names):
        return
    assert bool(code) == bool(ours.problems), (code, ours)
    assert not code or NAMED[code] & ours.problems, (code, ours)


@pytest.mark.timeout(180)
@given(chains())
def test_openssl_and_this_library_agree(drawn: Drawn) -> None:
    compare(drawn)
