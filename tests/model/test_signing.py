"""signing.py: what signers are asked, and how they know who asks."""

import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtp_async.model.secret import Secret
from smtp_async.model.signing import SignRequest, ToSign

DATA = SignRequest(b"what is signed", None, key_id="7", params="p", echo="e")
HASH = SignRequest(None, b"\x07" * 32)


def test_the_mac_is_an_hmac_of_every_field() -> None:
    request = DATA.with_mac(Secret("shared"))
    fields = [b"sha256", b"rsa", b"pkcs1", b"7", b"p", b"e", b"data", b"what is signed"]
    octets = b"".join(len(field).to_bytes(8, "big") + field for field in fields)
    assert request.mac == hmac.digest(b"shared", octets, "sha256")
    assert request.is_authentic("shared")


@pytest.mark.parametrize(
    "change",
    [
        {"data": b"something else"},
        {"data": None, "hash": b"what is signed"},
        {"hash_algorithm": "sha512"},
        {"key_algorithm": "ec"},
        {"method": "pkcs7"},
        {"key_id": "8"},
        {"params": ""},
        {"echo": "f"},
        {"key_id": "7p", "params": ""},
        {"mac": b""},
    ],
)
def test_a_changed_request_is_not_authentic(change) -> None:
    assert not DATA.with_mac(Secret("shared"))._replace(**change).is_authentic("shared")
    assert not DATA.with_mac(Secret("shared")).is_authentic("another")


@given(
    st.lists(st.text(max_size=5), min_size=3, max_size=3),
    st.lists(st.text(max_size=5), min_size=3, max_size=3),
)
def test_no_two_requests_have_the_same_octets(one, other) -> None:
    first, second = (SignRequest(b"", None, key_id=a, params=b, echo=c) for a, b, c in (one, other))
    assert (first.canonical() == second.canonical()) is (one == other)


def test_what_a_log_shows_of_a_request() -> None:
    assert repr(DATA.with_mac(Secret("shared"))) == "<SignRequest for 14 octets, rsa, pkcs1, key '7'>"
    assert repr(HASH) == "<SignRequest for a sha256 hash, rsa, pkcs1, key ''>"


@pytest.mark.parametrize("name", ["sha256", "sha384", "sha512"])
def test_the_hash_of_what_is_signed(name) -> None:
    assert ToSign(None, b"x", name).hash() == hashlib.new(name, b"x").digest()  # type: ignore[arg-type]
