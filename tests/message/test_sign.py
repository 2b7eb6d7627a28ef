"""sign.py: keys in this process, keys elsewhere, and what is made of a signer's answer."""

from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from smtp_async.errors import InvalidArgument, SigningError
from smtp_async.message.sign import ExternalSigner, KeySigner, TokenSigner, public_key_of, signer_of, verifies
from smtp_async.model.secret import Secret
from smtp_async.model.signing import LocalSigner, RemoteSigner, SignAnswer, SignRequest, ToSign

RSA = rsa.generate_private_key(65537, 2048)
ED25519 = ed25519.Ed25519PrivateKey.generate()
EC = ec.generate_private_key(ec.SECP256R1())


async def nothing(request: SignRequest) -> bytes:
    return b"never called"


def wanted(signer: Any = None, **details: Any) -> ToSign:
    return ToSign(signer, b"what is signed", **details)


class TestKeysInThisProcess:
    @pytest.mark.parametrize("key", [RSA, ED25519, EC], ids=["rsa", "ed25519", "ec"])
    @pytest.mark.parametrize("name", ["sha256", "sha384", "sha512"])
    def test_a_signature_verifies(self, key, name) -> None:
        signer = KeySigner(key)
        signature = signer.sign(wanted(hash_algorithm=name))
        assert verifies(key.public_key(), signature, wanted(hash_algorithm=name))
        assert not verifies(key.public_key(), signature, ToSign(signer, b"something else", name))
        assert not verifies(key.public_key(), signature[:-1], wanted(hash_algorithm=name))

    def test_ed25519_signs_a_hash_where_that_is_asked_for(self) -> None:
        signature = KeySigner(ED25519).sign(wanted(of_hash=True))
        ED25519.public_key().verify(signature, wanted().hash())

    def test_only_ed25519_is_quick(self) -> None:
        assert [KeySigner(key).quick for key in (RSA, ED25519, EC)] == [False, True, False]

    def test_the_key_never_shows(self) -> None:
        assert repr(KeySigner(RSA)) == "<KeySigner rsa>"

    @pytest.mark.parametrize(
        "key",
        [ed448.Ed448PrivateKey.generate(), dsa.generate_private_key(1024), RSA.public_key(), "a path", None],
    )
    def test_what_is_no_key(self, key) -> None:
        with pytest.raises(InvalidArgument, match="is no key to sign with"):
            signer_of(key)

    def test_a_key_on_a_token(self) -> None:
        class Key:
            public_key_der = RSA.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

            def sign(self, data: bytes, *, hash_name: str = "SHA256", pss: bool = False) -> bytes:
                assert (hash_name, pss) == ("SHA256", False)
                return RSA.sign(data, padding.PKCS1v15(), SHA256())

        signer = signer_of(Key())
        assert isinstance(signer, TokenSigner) and isinstance(signer, LocalSigner) and not signer.quick
        assert signer.key_algorithm == "rsa"
        assert verifies(public_key_of(signer), signer.sign(wanted()), wanted())


class TestKeysElsewhere:
    def test_a_callable_has_an_rsa_key(self) -> None:
        signer = signer_of(nothing)
        assert isinstance(signer, ExternalSigner) and isinstance(signer, RemoteSigner)
        assert signer.key_algorithm == "rsa" and signer.ask is nothing
        assert signer_of(signer) is signer

    def test_it_is_asked_with_a_hash_or_with_the_data(self) -> None:
        assert ExternalSigner(ask=nothing).request(wanted()) == SignRequest(None, wanted().hash())
        assert ExternalSigner(ask=nothing, hash_outside=True).request(wanted()) == SignRequest(
            b"what is signed", None
        )
        elliptic = ExternalSigner(ask=nothing, key_algorithm="ec")
        assert elliptic.request(wanted(hash_algorithm="sha512")) == SignRequest(
            None, wanted(hash_algorithm="sha512").hash(), "sha512", "ec"
        )

    def test_ed25519_is_asked_with_a_hash_only_where_it_signs_one(self) -> None:
        signer = ExternalSigner(ask=nothing, key_algorithm="ed25519")
        assert signer.request(wanted()).data == b"what is signed"
        assert signer.request(wanted(of_hash=True)).hash == wanted().hash()

    def test_params_are_passed_on_as_they_are(self) -> None:
        signer = ExternalSigner(ask=nothing, params="tenant=3; größe")
        assert signer.request(wanted()).params == "tenant=3; größe"
        assert ExternalSigner(ask=nothing).request(wanted()).params == ""

    def test_the_key_id_is_passed_on(self) -> None:
        assert ExternalSigner(ask=nothing, key_id="alias/dkim").request(wanted()).key_id == "alias/dkim"

    def test_the_secret_makes_the_mac_and_is_not_sent(self) -> None:
        request = ExternalSigner(ask=nothing, key_secret="shared", key_id="k").request(wanted())
        assert request.is_authentic("shared") and not request.is_authentic("another")
        assert not any(b"shared" in one for one in request if isinstance(one, bytes))
        assert ExternalSigner(ask=nothing).request(wanted()).mac == b""

    def test_the_echo_has_to_come_back(self) -> None:
        signer = ExternalSigner(ask=nothing, echo="request 12")
        request = signer.request(wanted())
        assert request.echo == "request 12"
        assert signer.accepted(wanted(), request, SignAnswer(b"signature", request.echo)) == b"signature"
        for answer in (b"signature", SignAnswer(b"signature", "request 13")):
            with pytest.raises(SigningError, match="does not repeat the echo"):
                signer.accepted(wanted(), request, answer)

    @pytest.mark.parametrize("method", ["pkcs1", "pkcs7"])
    def test_the_method_says_what_comes_back(self, method: Any) -> None:
        """What is in a container is not for this class to judge, a bare signature is verified."""
        signer = ExternalSigner(ask=nothing, method=method, public_key=RSA.public_key())
        request = signer.request(wanted())
        assert request.method == method
        if method == "pkcs7":
            assert signer.accepted(wanted(), request, b"a container") == b"a container"
        else:
            with pytest.raises(SigningError, match="does not verify"):
                signer.accepted(wanted(), request, b"a container")

    @pytest.mark.parametrize("kind", ["rsa", "ec", "ed25519"])
    def test_the_kind_of_the_key_is_told(self, kind: Any) -> None:
        signer = ExternalSigner(ask=nothing, key_algorithm=kind)
        assert signer.request(wanted()).key_algorithm == signer.key_algorithm == kind

    @pytest.mark.parametrize("name", ["sha256", "sha384", "sha512"])
    def test_the_hash_is_that_which_is_asked_for(self, name: Any) -> None:
        signer = ExternalSigner(ask=nothing, hash_algorithm=name)
        request = signer.request(wanted(hash_algorithm=name))
        assert (request.hash_algorithm, request.hash) == (name, wanted(hash_algorithm=name).hash())

    def test_the_secret_never_shows(self) -> None:
        signer = ExternalSigner(ask=nothing, key_secret=Secret("hunter2"))
        assert "hunter2" not in repr(signer) + repr(signer.request(wanted()))

    @pytest.mark.parametrize(
        ("details", "answer", "complaint"),
        [
            ({}, None, "NoneType instead of bytes"),
            ({}, "text", "str instead of bytes"),
            ({}, b"", "0 octets"),
            ({}, bytes(2 << 20), "2097152 octets"),
            ({"key_algorithm": "ed25519"}, bytes(63), "63 octets; Ed25519 makes 64"),
            ({"echo": "e"}, b"signature", "does not repeat the echo"),
            ({"echo": "e"}, SignAnswer(b"signature", "f"), "does not repeat the echo"),
            ({"echo": "e"}, SignAnswer("signature", "e"), "str instead of bytes"),  # type: ignore[arg-type]
            ({"public_key": RSA.public_key()}, bytes(256), "does not verify"),
        ],
    )
    def test_rubbish_is_refused(self, details, answer, complaint) -> None:
        signer = ExternalSigner(ask=nothing, **details)
        with pytest.raises(SigningError, match=complaint):
            signer.accepted(wanted(), signer.request(wanted()), answer)

    def test_a_good_answer_is_accepted(self) -> None:
        signature = KeySigner(RSA).sign(wanted())
        signer = ExternalSigner(ask=nothing, echo="e", public_key=RSA.public_key())
        answer = SignAnswer(signature, "e")
        assert signer.accepted(wanted(), signer.request(wanted()), answer) == signature
        container = ExternalSigner(ask=nothing, method="pkcs7", public_key=RSA.public_key())
        assert container.accepted(wanted(), container.request(wanted()), b"a container") == b"a container"

    @pytest.mark.parametrize(
        "details",
        [
            {"ask": b"no callable"},
            {"key_algorithm": "dsa"},
            {"hash_algorithm": "sha1"},
            {"method": "pkcs12"},
            {"public_key": EC.public_key()},
        ],
    )
    def test_what_is_not_allowed(self, details) -> None:
        with pytest.raises(InvalidArgument):
            ExternalSigner(**{"ask": nothing, **details})
