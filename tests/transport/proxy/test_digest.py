"""digest.py: the digests of RFC 7616, against its own examples and an independent computation."""

import hashlib
import re

import pytest

from smtp_async import Secret
from smtp_async.transport.proxy.digest import answer_digest, digest_strength

NONCE = "7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v"
CNONCE = "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ"
TARGET = "mail.example.org:587"


def answer(password: str = "Circle of Life", username: str = "Mufasa", **parameters: str) -> dict[str, str]:
    text = answer_digest(
        {"realm": "lab", "nonce": NONCE, **parameters}, username, Secret(password), TARGET, cnonce=CNONCE
    )
    assert text.startswith("Digest ")
    found = re.findall(r'([a-z]+)=(?:"((?:[^"\\]|\\.)*)"|([^,"]*))', text.removeprefix("Digest "))
    return {name: quoted or token for name, quoted, token in found}


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


class TestAnswer:
    def test_sha_256_with_qop(self) -> None:
        fields = answer(qop="auth, auth-int", algorithm="SHA-256", opaque="o\\p")
        key, request = sha256("Mufasa:lab:Circle of Life"), sha256(f"CONNECT:{TARGET}")
        assert fields["response"] == sha256(f"{key}:{NONCE}:00000001:{CNONCE}:auth:{request}")
        assert (fields["qop"], fields["nc"], fields["uri"]) == ("auth", "00000001", TARGET)
        assert (fields["algorithm"], fields["opaque"]) == ("SHA-256", "o\\\\p")

    def test_a_session_key(self) -> None:
        fields = answer(qop="auth", algorithm="SHA-256-sess")
        key = sha256(f"{sha256('Mufasa:lab:Circle of Life')}:{NONCE}:{CNONCE}")
        request = sha256(f"CONNECT:{TARGET}")
        assert fields["response"] == sha256(f"{key}:{NONCE}:00000001:{CNONCE}:auth:{request}")

    def test_without_qop_as_in_rfc_2069(self) -> None:
        fields = answer()
        md5 = lambda text: hashlib.md5(text.encode()).hexdigest()  # noqa: E731
        assert fields["response"] == md5(
            f"{md5('Mufasa:lab:Circle of Life')}:{NONCE}:{md5(f'CONNECT:{TARGET}')}"
        )
        assert not {"qop", "nc", "cnonce", "algorithm"} & set(fields)

    def test_a_hashed_user_name(self) -> None:
        fields = answer(qop="auth", algorithm="SHA-256", userhash="true")
        assert fields["username"] == sha256("Mufasa:lab")
        assert fields["userhash"] == "true"

    def test_texts_beyond_ascii(self) -> None:
        latin = answer(username="Jürgen", password="ä", algorithm="SHA-256")
        utf8 = answer(username="Jürgen", password="ä", algorithm="SHA-256", charset="UTF-8")
        assert latin["response"] != utf8["response"]
        key, request = sha256("Jürgen:lab:ä"), sha256(f"CONNECT:{TARGET}")
        assert utf8["response"] == sha256(f"{key}:{NONCE}:{request}")
        assert utf8["username"] == "Jürgen".encode().decode("latin-1")

    def test_no_quote_ends_a_value(self) -> None:
        assert answer(username='a"b', algorithm="SHA-256")["username"] == 'a\\"b'

    def test_each_client_nonce_is_new(self) -> None:
        parameters = {"nonce": "n", "qop": "auth"}
        one, two = (answer_digest(parameters, "u", Secret("p"), TARGET) for _ in range(2))
        assert one != two


@pytest.mark.parametrize(
    "parameters, usable",
    [
        ({"nonce": "n"}, True),
        ({"nonce": "n", "algorithm": "md5-sess"}, True),
        ({"nonce": "n", "algorithm": "sha-256", "qop": "auth-int,AUTH"}, True),
        ({"nonce": "n", "qop": "auth-int"}, False),
        ({"nonce": "n", "algorithm": "SHA-1"}, False),
        ({"nonce": ""}, False),
        ({}, False),
    ],
)
def test_which_challenges_can_be_answered(parameters: dict[str, str], usable: bool) -> None:
    assert bool(digest_strength(parameters)) is usable


def test_the_stronger_hash_is_preferred() -> None:
    strength = [
        digest_strength({"nonce": "n", "algorithm": name}) for name in ("MD5", "SHA-256", "SHA-512-256")
    ]
    assert strength == sorted(strength)
