"""What the messages of a handshake say, and that nothing else makes them say anything."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from smtp_async.tls.handshake_messages import (
    ServerHello,
    ServerKeyExchange,
    certificates_in,
    read_server_hello,
    read_server_key_exchange,
    scheme_in,
)


def uint24(number):
    return number.to_bytes(3, "big")


def message(chain, *, tls13):
    """Return a Certificate message, RFC 5246 section 7.4.2 or RFC 8446 section 4.4.2."""
    entries = b"".join(uint24(len(one)) + one + (b"\0\0" if tls13 else b"") for one in chain)
    body = (b"\0" if tls13 else b"") + uint24(len(entries)) + entries
    return b"\x0b" + uint24(len(body)) + body


chains = st.lists(st.binary(min_size=1, max_size=300), min_size=1, max_size=4)


class TestCertificateMessage:
    @given(chains, st.booleans())
    def test_round_trip(self, chain, tls13):
        assert certificates_in(message(chain, tls13=tls13)) == tuple(chain)

    @given(chains, st.booleans(), st.data())
    def test_cut_anywhere_is_nothing(self, chain, tls13, data):
        whole = message(chain, tls13=tls13)
        assert certificates_in(whole[: data.draw(st.integers(0, len(whole) - 1))]) == ()

    @given(st.binary(max_size=200))
    def test_anything(self, data):
        for found in (certificates_in(data), certificates_in(b"\x0b" + uint24(len(data)) + data)):
            assert isinstance(found, tuple)

    @given(chains, st.booleans(), st.data())
    def test_damaged(self, chain, tls13, data):
        whole = bytearray(message(chain, tls13=tls13))
        whole[data.draw(st.integers(0, len(whole) - 1))] ^= data.draw(st.integers(1, 255))
        assert sum(map(len, certificates_in(bytes(whole)))) <= len(whole)

    def test_with_extensions(self):
        entries = uint24(2) + b"ab" + b"\0\x03ext"
        body = b"\0" + uint24(len(entries)) + entries
        assert certificates_in(b"\x0b" + uint24(len(body)) + body) == (b"ab",)


numbers = st.integers(0, 0xFFFF)


def uint16(number: int) -> bytes:
    return number.to_bytes(2, "big")


def vector(octets: int, content: bytes) -> bytes:
    return len(content).to_bytes(octets, "big") + content


def of_type(kind: int, body: bytes) -> bytes:
    return bytes((kind,)) + vector(3, body)


def server_hello(version: int, suite: int, group: int | None, *, resumes: bool, share: bytes = b"") -> bytes:
    """Return a ServerHello, RFC 8446 section 4.1.3; `group` and `resumes` make one of TLS 1.3."""
    extensions = b""
    if version > 0x0303:
        extensions += uint16(43) + vector(2, uint16(version))
    if group is not None:
        extensions += uint16(51) + vector(2, uint16(group) + vector(2, share))
    if resumes:
        extensions += uint16(41) + vector(2, b"\0\0")
    legacy = uint16(min(version, 0x0303))
    return of_type(
        2, legacy + bytes(32) + vector(1, bytes(32)) + uint16(suite) + b"\0" + vector(2, extensions)
    )


class TestServerHello:
    @given(numbers, numbers, st.none() | numbers, st.booleans(), st.binary(max_size=100))
    def test_round_trip(
        self, version: int, suite: int, group: int | None, resumes: bool, share: bytes
    ) -> None:
        whole = server_hello(version, suite, group, resumes=resumes, share=share)
        assert read_server_hello(whole) == ServerHello(version, suite, group, resumes)

    def test_without_extensions(self) -> None:
        whole = of_type(2, b"\x03\x03" + bytes(32) + b"\0" + b"\xc0\x2f" + b"\0")
        assert read_server_hello(whole) == ServerHello(0x0303, 0xC02F, None, resumes=False)

    @given(st.data())
    def test_cut_anywhere_is_nothing(self, data: Any) -> None:
        whole = server_hello(0x0304, 0x1301, 29, resumes=True)
        assert read_server_hello(whole[: data.draw(st.integers(0, len(whole) - 1))]) is None


def key_exchange(parameters: bytes, *, hint: bytes | None = None, scheme: int | None = None) -> bytes:
    signature = b"" if scheme is None else uint16(scheme) + vector(2, b"signed")
    return of_type(12, (b"" if hint is None else vector(2, hint)) + parameters + signature)


def on_a_curve(group: int) -> bytes:
    return b"\x03" + uint16(group) + vector(1, b"point")


def with_a_prime(prime: int) -> bytes:
    return (
        vector(2, prime.to_bytes((prime.bit_length() + 7) // 8, "big")) + vector(2, b"\2") + vector(2, b"y")
    )


class TestServerKeyExchange:
    def read(
        self, whole: bytes, key_exchange: str, authentication: str, version: int = 0x0303
    ) -> ServerKeyExchange | None:
        return read_server_key_exchange(
            whole, key_exchange=key_exchange, authentication=authentication, version=version
        )

    @given(numbers, numbers)
    def test_on_a_curve(self, group: int, scheme: int) -> None:
        whole = key_exchange(on_a_curve(group), scheme=scheme)
        assert self.read(whole, "ECDHE", "ECDSA") == ServerKeyExchange(
            group, None, signed=True, scheme=scheme
        )

    @given(st.integers(1, 1 << 4096), numbers)
    def test_with_a_prime(self, prime: int, scheme: int) -> None:
        whole = key_exchange(with_a_prime(prime), scheme=scheme)
        expected = ServerKeyExchange(None, prime.bit_length(), signed=True, scheme=scheme)
        assert self.read(whole, "DHE", "RSA") == expected

    @given(st.binary(max_size=200), numbers)
    def test_with_a_hint(self, hint: bytes, group: int) -> None:
        whole = key_exchange(b"", hint=hint)
        assert self.read(whole, "PSK", "PSK") == ServerKeyExchange(hint=hint)
        whole = key_exchange(on_a_curve(group), hint=hint)
        assert self.read(whole, "ECDHE", "PSK") == ServerKeyExchange(group, hint=hint)
        whole = key_exchange(with_a_prime(0x80), hint=hint)
        assert self.read(whole, "DHE", "PSK") == ServerKeyExchange(prime_bits=8, hint=hint)

    def test_that_nobody_signed(self) -> None:
        assert self.read(key_exchange(on_a_curve(23)), "ECDHE", "anon") == ServerKeyExchange(23)

    def test_before_schemes_had_numbers(self) -> None:
        whole = of_type(12, on_a_curve(23) + vector(2, b"signed"))
        assert self.read(whole, "ECDHE", "RSA", 0x0302) == ServerKeyExchange(23, signed=True)

    def test_another_kind_of_curve(self) -> None:
        assert self.read(of_type(12, b"\x01" + on_a_curve(23)[1:]), "ECDHE", "anon") is None

    @given(st.data())
    def test_cut_anywhere_is_nothing(self, data: Any) -> None:
        whole = key_exchange(on_a_curve(23), scheme=0x0403)
        assert self.read(whole[: data.draw(st.integers(0, len(whole) - 1))], "ECDHE", "RSA") is None


class TestCertificateVerify:
    @given(numbers, st.binary(max_size=300))
    def test_round_trip(self, scheme: int, signature: bytes) -> None:
        assert scheme_in(of_type(15, uint16(scheme) + vector(2, signature))) == scheme

    @given(st.data())
    def test_cut_anywhere_is_nothing(self, data: Any) -> None:
        whole = of_type(15, uint16(0x0804) + vector(2, bytes(256)))
        assert scheme_in(whole[: data.draw(st.integers(0, len(whole) - 1))]) is None


@given(st.binary(max_size=300), st.sampled_from([2, 11, 12, 13, 15]), st.booleans())
def test_anything_is_read_without_complaint(data: bytes, kind: int, framed: bool) -> None:
    whole = of_type(kind, data) if framed else data
    # A message of one kind is never taken for one of another kind.
    first = whole[0] if whole else None
    assert read_server_hello(whole) is None or first == 2
    assert certificates_in(whole) == () or first == 11
    assert scheme_in(whole) is None or first == 15
    for exchange in ("ECDHE", "DHE", "PSK", "RSA"):
        for authentication in ("RSA", "PSK", "anon"):
            found = read_server_key_exchange(
                whole, key_exchange=exchange, authentication=authentication, version=0x0303
            )
            assert found is None or first == 12
