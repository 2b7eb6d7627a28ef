"""Certificates that an attacker made to cost time or memory: refused in less than 100 ms and 20 MiB."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
from cryptography import x509

from smtp_async.connection.route import SharedResources
from smtp_async.errors import TLSError
from smtp_async.tls import ChainProblem, ChainValidation, Security, TLSOptions, TrustOptions
from smtp_async.tls.chain_validation import validate_chain
from smtp_async.tls.paths import Anchors, forget_certificates
from tests.tls.authority import Entity, ec_key, make, root
from tests.tls.smtp_server import connect, served

P = ChainProblem
ANCHORS = Anchors([root().der])


def der_length(size: int) -> bytes:
    return bytes([size]) if size < 128 else b"\x83" + size.to_bytes(3)


def nested(depth: int) -> bytes:
    value = b"\x05\x00"
    for _ in range(depth):
        value = b"\x30" + der_length(len(value)) + value
    return value


def with_extension(value: bytes) -> Entity:
    odd = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.99999.1"), value)
    return make("Server", root(), others=[(odd, False)])


def many_names() -> tuple[bytes, ...]:
    return make("Server", root(), names=[f"n{number}.example" for number in range(10_000)]).ders


def many_constraints() -> tuple[bytes, ...]:
    excluded = [x509.DNSName(f"n{number}.example") for number in range(1500)]
    issuer = make("Authority", root(), ca=True, constraints=x509.NameConstraints(None, excluded))
    names = [f"m{number}.example" for number in range(1500)]
    return make("Server", issuer, names=["localhost", *names]).sending(issuer).ders


def cyclic(count: int) -> Entity:
    """Return a server's certificate below authorities that have all issued each other."""
    keys = [ec_key() for _ in range(count)]
    heads = [make(f"A{number}", ca=True, key=key) for number, key in enumerate(keys)]
    crossed = [
        make(one.x509.subject.rfc4514_string()[3:], two, ca=True, key=one.key)
        for one in heads
        for two in heads
        if one is not two
    ]
    return make("Server", crossed[0]).sending(*crossed[:31])


def twins(count: int) -> Entity:
    """Return a chain of authorities with one name and one key, so that each may have issued each other."""
    key = ec_key()
    first = make("Twin", ca=True, key=key)
    every = [make("Twin", first, ca=True, key=key) for _ in range(count)]
    return make("Server", first).sending(*every)


def long_chain(count: int) -> Entity:
    above = [make("A0", ca=True)]
    for number in range(1, count):
        above.append(make(f"A{number}", above[-1], ca=True))
    return make("Server", above[-1]).sending(*reversed(above))


HOSTILE: dict[str, tuple[Callable[[], tuple[bytes, ...]], ChainProblem]] = {
    "10,000 names": (many_names, P.BAD_DATA),
    "1 MiB of an extension": (lambda: with_extension(bytes(1 << 20)).ders, P.BAD_DATA),
    "1 MiB of values": (
        lambda: with_extension(b"\x30\x83\x0f\xff\xfe" + b"\x05\x00" * 0x7FFFF).ders,
        P.BAD_DATA,
    ),
    "nested 10,000 deep": (lambda: with_extension(nested(10_000)).ders, P.BAD_DATA),
    "1,500 names and constraints": (many_constraints, P.NAME_CONSTRAINTS),
    "issuers in circles": (lambda: cyclic(8).ders, P.UNKNOWN_AUTHORITY),
    "issuers that are all alike": (lambda: twins(31).ders, P.UNKNOWN_AUTHORITY),
    "31 intermediates": (lambda: long_chain(31).ders, P.UNKNOWN_AUTHORITY),
    "200 intermediates": (lambda: long_chain(200).ders, P.BAD_DATA),
}


def judged(chain: tuple[bytes, ...]) -> ChainValidation:
    return validate_chain(chain, "localhost", trust=TrustOptions(), anchors=ANCHORS)


@pytest.fixture(scope="module")
def chains() -> dict[str, tuple[bytes, ...]]:
    judged(make("Warm-up", root()).ders)
    return {name: make_chain() for name, (make_chain, _) in HOSTILE.items()}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_chain_is_refused_cheaply(chains: dict[str, tuple[bytes, ...]], name: str) -> None:
    began = time.process_time()
    found = judged(chains[name])
    took = time.process_time() - began
    assert found.counted & HOSTILE[name][1], found
    assert took < 0.5


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_chain_takes_little_memory(chains: dict[str, tuple[bytes, ...]], name: str) -> None:
    forget_certificates()
    tracemalloc.start()
    try:
        judged(chains[name])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 20 << 20


def test_what_is_said_of_it_is_short(chains: dict[str, tuple[bytes, ...]]) -> None:
    for name, chain in chains.items():
        found = judged(chain)
        assert len(found.status) < 5000, name
        assert len("".join(found.log)) < 20_000, name


IN_A_HANDSHAKE = {
    "issuers in circles": lambda: cyclic(8),
    "issuers that are all alike": lambda: twins(31),
    "31 intermediates": lambda: long_chain(31),
    "100 intermediates": lambda: long_chain(100),
}


@pytest.mark.parametrize("name", IN_A_HANDSHAKE)
def test_a_hostile_chain_in_a_real_handshake(run: Any, name: str) -> None:
    """It is sent and refused, and the server hears nothing of SMTP."""

    async def scenario() -> None:
        server, serve = served(IN_A_HANDSHAKE[name]())
        trust = TrustOptions(ca=[root().certificate], blocked=[make("Blocked").certificate])
        async with serve as listening:
            options = TLSOptions(trust=trust, server_hostname="localhost")
            with pytest.raises(TLSError) as caught:
                await connect(listening.port, SharedResources(), options, Security.IMPLICIT)
            await listening.quiet()
        found = caught.value.validation
        assert found is not None
        assert found.problems & (P.UNKNOWN_AUTHORITY | P.BAD_DATA)
        assert server.seen == b""

    run(scenario())
