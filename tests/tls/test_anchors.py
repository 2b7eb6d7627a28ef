"""anchors.py: what is trusted, as OpenSSL and as this library know it."""

from __future__ import annotations

import ssl
import subprocess
from pathlib import Path
from typing import Any

import pytest

from smtp_async.errors import CertificateStoreError
from smtp_async.tls import TLSOptions, TrustOptions, make_context
from smtp_async.tls.anchors import anchors_of, load_trust, trusted_by, trusts_system
from tests.tls.authority import make, root


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder as `openssl rehash` makes it, with a link to nowhere and a file that holds no certificate."""
    path = tmp_path_factory.mktemp("anchors")
    (path / "root.pem").write_bytes(root().pem)
    subprocess.run(["openssl", "rehash", str(path)], check=True, capture_output=True)
    (path / "0badc0de.0").symlink_to(path / "nowhere")
    (path / "0badc0de.1").write_bytes(b"-----BEGIN CERTIFICATE-----\nxx\xff\n-----END CERTIFICATE-----\n")
    return path


def known(trust: TrustOptions) -> tuple[bytes, ...]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    load_trust(context, trust)
    return trusted_by(context, trust)


def test_a_folder(folder: Path) -> None:
    assert known(TrustOptions(ca_path=folder)) == (root().der,)


def test_a_folder_that_is_none(folder: Path) -> None:
    with pytest.raises(CertificateStoreError, match="is no folder: ca_path names one") as caught:
        known(TrustOptions(ca_path=folder / "root.pem"))
    assert caught.value.code == 271


def test_the_first_candidate_that_exists(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.pem"
    other.write_bytes(make("Other", ca=True).pem)
    found = TrustOptions(ca_search_paths=[folder / "none.pem", folder / "root.pem", other])
    assert known(found) == (root().der,)
    assert not trusts_system(found)


def test_no_candidate_exists(folder: Path) -> None:
    assert trusts_system(TrustOptions(ca_search_paths=[folder / "none.pem"]))


def test_all_that_are_named_count(folder: Path, tmp_path: Path) -> None:
    server, one, two = make("S"), make("One", ca=True), make("Two", ca=True)
    path = tmp_path / "one.pem"
    path.write_bytes(one.pem)
    trust = TrustOptions(ca_file=path, ca_path=folder, ca=[two.certificate], trusted=[server.certificate])
    assert set(known(trust)) == {server.der, one.der, two.der, root().der}


def test_the_certificate_of_a_server_in_a_file(tmp_path: Path) -> None:
    # Python shows only authorities among what a context has read.
    server = make("S")
    path = tmp_path / "server.pem"
    path.write_bytes(b"what comes before\n" + server.pem)
    assert known(TrustOptions(ca_file=path)) == (server.der,)


@pytest.mark.parametrize(
    ("setting", "trusted"),
    [
        ({}, True),
        ({"use_system": False}, False),
        ({"ca": [root().certificate]}, False),
        ({"ca": [root().certificate], "use_system": True}, True),
        ({"trusted": [root().certificate]}, False),
        ({"known": [root().certificate]}, True),
    ],
)
def test_the_system(setting: dict[str, Any], trusted: bool) -> None:
    trust = TrustOptions(**setting)
    assert trusts_system(trust) is trusted
    assert (len(known(trust)) > 10) is trusted


def test_they_are_read_once_for_each_context() -> None:
    trust = TrustOptions(ca=[root().certificate])
    context = make_context(TLSOptions(trust=trust))
    first = anchors_of(context, None, trust)
    assert first and anchors_of(context, None, trust) is first
    assert root().certificate in first
    assert not anchors_of(
        make_context(TLSOptions(trust=TrustOptions(use_system=False))),
        None,
        trust=TrustOptions(use_system=False),
    )
