"""assertion.py: keys and key files, and no key in what is said of them."""

import json
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from hypothesis import given
from hypothesis import strategies as st

from smtp_async import Secret
from smtp_async.errors import FileError, InvalidArgument
from smtp_async.oauth.assertion import KeyFile, SigningKey, parse_key_file
from tests.oauth.owners import owned_by
from tests.servers.machine import needs_modes


def pem(key: Any, encryption: Any = None, form: PrivateFormat = PrivateFormat.PKCS8) -> str:
    text: bytes = key.private_bytes(Encoding.PEM, form, encryption or NoEncryption())
    return text.decode()


def test_a_statement_is_verified_by_cryptography() -> None:
    from joserfc import jwt
    from joserfc.jwk import RSAKey

    key = rsa.generate_private_key(65537, 2048)
    for form in (PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL):
        stated = SigningKey(Secret(pem(key, form=form))).sign({"iss": "ä"}, 1000)
        found = jwt.decode(stated.reveal(), RSAKey.import_key(key.public_key()), algorithms=["RS256"])
        assert found.claims == {"iss": "ä", "iat": 1000, "exp": 4600}
        assert found.header == {"alg": "RS256", "typ": "JWT"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("-----BEGIN PRIVATE KEY-----\ncanary\n-----END PRIVATE KEY-----", "cannot be read"),
        (pem(ec.generate_private_key(ec.SECP256R1())), "not an RSA key"),
        (pem(rsa.generate_private_key(65537, 2048), BestAvailableEncryption(b"x")), "cannot be read"),
    ],
    ids=["garbage", "elliptic", "encrypted"],
)
def test_a_key_that_cannot_sign(text: str, said: str) -> None:
    with pytest.raises(InvalidArgument, match=said) as caught:
        SigningKey(Secret(text)).sign({}, 0)
    assert caught.value.__context__ is None


def test_it_cannot_be_pickled() -> None:
    with pytest.raises(TypeError):
        pickle.dumps(SigningKey(Secret("-----BEGIN PRIVATE KEY-----")))


GOOD = {"type": "service_account", "client_email": "r@p.test", "private_key": "k", "token_uri": "https://a/"}


def test_a_key_file(tmp_path: Path) -> None:
    path = tmp_path / "key.json"
    path.write_text(json.dumps({**GOOD, "private_key_id": "7", "project_id": "p"}))
    assert SigningKey.read_file(path) == KeyFile("r@p.test", Secret("k"), "7", "https://a/")


@pytest.mark.parametrize(
    "found",
    [
        "",
        "[]",
        json.dumps({**GOOD, "type": "authorized_user"}),
        *(json.dumps({**GOOD, name: value}) for name in GOOD for value in ("", 7)),
    ],
)
def test_another_file(tmp_path: Path, found: str) -> None:
    path = tmp_path / "key.json"
    path.write_text(found)
    with pytest.raises(InvalidArgument, match="no key file"):
        SigningKey.read_file(path)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="No such file"):
        SigningKey.read_file(tmp_path / "key.json")


@given(
    st.binary(max_size=100)
    | st.dictionaries(st.sampled_from([*GOOD, "private_key_id"]), st.none() | st.text())
)
def test_any_content(found: Any) -> None:
    content = found if isinstance(found, bytes) else json.dumps({"type": "service_account", **found}).encode()
    key = parse_key_file(content)
    assert key is None or (isinstance(found, dict) and key.client_email == found["client_email"])


@needs_modes
class TestOwners:
    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        path = tmp_path / "key.json"
        path.write_text(json.dumps(GOOD))
        path.chmod(0o600)
        return path

    @pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
    def test_a_file_that_others_may_change(self, path: Path, mode: int) -> None:
        """It says where the signed statements are sent."""
        path.chmod(mode)
        with pytest.raises(FileError, match=f"its mode is {mode:o}"):
            SigningKey.read_file(path)

    @pytest.mark.parametrize(("mode", "warned"), [(0o600, False), (0o440, False), (0o644, True)])
    def test_a_file_that_others_may_read(self, path: Path, mode: int, warned: bool, caplog: Any) -> None:
        path.chmod(mode)
        assert SigningKey.read_file(path).private_key == Secret("k")
        assert ("every user may read" in caplog.text) is warned

    def test_a_file_of_another_user(self, path: Path, monkeypatch: Any) -> None:
        monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
        monkeypatch.setattr(os, "fstat", owned_by(os.getuid() + 2))
        with pytest.raises(FileError, match="belongs to another user"):
            SigningKey.read_file(path)

    def test_a_file_of_root(self, path: Path, monkeypatch: Any) -> None:
        monkeypatch.setattr(os, "geteuid", lambda: 1000)
        monkeypatch.setattr(os, "fstat", owned_by(0))
        assert SigningKey.read_file(path).private_key == Secret("k")

    @pytest.mark.timeout(5)
    def test_a_named_pipe_is_not_waited_for(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(FileError, match="no regular file"):
            SigningKey.read_file(tmp_path / "pipe")
