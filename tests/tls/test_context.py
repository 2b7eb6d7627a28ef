"""When TLS starts and what is trusted."""

import logging
import ssl
from dataclasses import FrozenInstanceError
from typing import Any

import pytest
import trustme

from smtp_async.errors import CertificateStoreError, InvalidArgument
from smtp_async.tls import (
    Security,
    TLSOptions,
    TrustOptions,
    UnverifiedContext,
    default_port,
    make_context,
    reference_name,
    resolve_security,
)
from smtp_async.tls.context import key_logs_warned_of
from smtp_async.tls.system import shared_contexts

AUTO, IMPLICIT, STARTTLS = Security.AUTO, Security.IMPLICIT, Security.STARTTLS
OPPORTUNISTIC, PLAINTEXT = Security.OPPORTUNISTIC, Security.PLAINTEXT


@pytest.fixture
def ca_file(tmp_path):
    path = tmp_path / "ca.pem"
    trustme.CA().cert_pem.write_to_path(str(path))
    return path


@pytest.mark.parametrize(
    ("port", "credentials", "meant"),
    [
        (465, False, IMPLICIT),
        (465, True, IMPLICIT),
        (587, False, STARTTLS),
        (587, True, STARTTLS),
        (25, False, OPPORTUNISTIC),
        (25, True, STARTTLS),
        (24, False, OPPORTUNISTIC),
        (2525, False, OPPORTUNISTIC),
        (2525, True, STARTTLS),
        (1, False, OPPORTUNISTIC),
        (65535, True, STARTTLS),
    ],
)
def test_auto(port, credentials, meant):
    assert resolve_security(AUTO, port, credentials=credentials) is meant


@pytest.mark.parametrize("security", [IMPLICIT, STARTTLS, PLAINTEXT])
@pytest.mark.parametrize("port", [25, 465, 587])
@pytest.mark.parametrize("credentials", [False, True])
def test_named_security_is_kept(security, port, credentials):
    assert resolve_security(security, port, credentials=credentials) is security


def test_opportunistic_never_carries_credentials():
    assert resolve_security(OPPORTUNISTIC, 25, credentials=False) is OPPORTUNISTIC
    with pytest.raises(InvalidArgument, match="never carries credentials"):
        resolve_security(OPPORTUNISTIC, 25, credentials=True)


@pytest.mark.parametrize(
    ("security", "port"),
    [(AUTO, 587), (IMPLICIT, 465), (STARTTLS, 587), (OPPORTUNISTIC, 25), (PLAINTEXT, 25)],
)
def test_default_port(security, port):
    assert default_port(security) == port
    assert default_port(security, lmtp=True) == 24


def test_options_are_values():
    assert TLSOptions() == TLSOptions(trust=TrustOptions())
    cls: Any = TLSOptions
    with pytest.raises(FrozenInstanceError):
        cls().server_hostname = "x"
    with pytest.raises(TypeError):
        cls(None)


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("mail.example.com", "mail.example.com"),
        ("mail.example.com.", "mail.example.com"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("fe80::1%eth0", "fe80::1"),
        ("192.0.2.1", "192.0.2.1"),
        ("Bücher.example", "xn--bcher-kva.example"),
    ],
)
def test_reference_name(host, name):
    assert reference_name(host, TLSOptions()) == name
    assert reference_name("other", TLSOptions(server_hostname=host)) == name


def test_reference_name_that_is_none():
    with pytest.raises(InvalidArgument):
        reference_name("ü" * 70, TLSOptions())


@pytest.fixture(autouse=True)
def nothing_read_before():
    """What an earlier test read of the system's certificates is not used."""
    shared_contexts.clear()


class TestContext:
    def test_verifies(self):
        made = make_context(TLSOptions())
        assert made.verify_mode is ssl.CERT_REQUIRED
        assert made.check_hostname
        assert made.minimum_version is ssl.TLSVersion.TLSv1_2
        assert not made.hostname_checks_common_name

    def test_ca_file_replaces_the_system(self, ca_file):
        made = make_context(TLSOptions(trust=TrustOptions(ca_file=ca_file)))
        assert made.cert_store_stats()["x509"] == 1
        assert made.verify_mode is ssl.CERT_REQUIRED
        assert made.check_hostname

    def test_opportunistic_knows_the_anchors(self, ca_file):
        made: Any = make_context(TLSOptions(trust=TrustOptions(ca_file=ca_file)), verify=False)
        assert isinstance(made, UnverifiedContext)
        assert made.verify_mode is ssl.CERT_NONE
        assert made.minimum_version is ssl.TLSVersion.TLSv1_2
        assert made.anchors == (ssl.PEM_cert_to_DER_cert(ca_file.read_text()),)

    def test_opportunistic_knows_the_system(self):
        made: Any = make_context(TLSOptions(), verify=False)
        in_files = ssl.create_default_context().cert_store_stats()["x509"]
        assert len(made.anchors) >= in_files
        trust = TrustOptions(shared_system_store=False)
        again: Any = make_context(TLSOptions(trust=trust), verify=False)
        assert again is not made and again.anchors == made.anchors

    def test_what_cannot_be_read_in_the_systems_directory_is_passed_over(
        self, monkeypatch, tmp_path, ca_file
    ):
        """OpenSSL does the same: a link to nowhere takes away one authority, not all of TLS."""
        folder = tmp_path / "certs"
        folder.mkdir()
        (folder / "0a0a0a0a.0").symlink_to(tmp_path / "gone")
        (folder / "0b0b0b0b.0").write_text("no certificate")
        (folder / "0c0c0c0c.0").mkdir()
        (folder / "0d0d0d0d.0").symlink_to(ca_file)
        monkeypatch.setenv("SSL_CERT_DIR", str(folder))
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none"))
        made: Any = make_context(TLSOptions(), verify=False)
        assert made.anchors == (ssl.PEM_cert_to_DER_cert(ca_file.read_text()),)
        assert make_context(TLSOptions()).verify_mode is ssl.CERT_REQUIRED

    def test_a_system_without_certificates(self, monkeypatch, tmp_path):
        paths: Any = ssl.get_default_verify_paths()
        paths = paths._replace(capath=None)
        monkeypatch.setattr(ssl, "get_default_verify_paths", lambda: paths)
        monkeypatch.setattr(ssl.SSLContext, "load_default_certs", lambda *args: None)
        made: Any = make_context(TLSOptions(), verify=False)
        assert made.anchors == ()

    def test_the_applications_context(self, ca_file):
        own = ssl.create_default_context(cafile=str(ca_file))
        assert make_context(TLSOptions(context=own)) is own
        made: Any = make_context(TLSOptions(context=own), verify=False)
        assert made.anchors == (ssl.PEM_cert_to_DER_cert(ca_file.read_text()),)
        assert own.verify_mode is ssl.CERT_REQUIRED

    @pytest.mark.parametrize("verify", [True, False])
    def test_bad_ca_files(self, tmp_path, verify):
        empty = tmp_path / "empty.pem"
        empty.write_bytes(b"no certificate")
        for path, words in [
            (tmp_path / "none.pem", "No such file"),
            (empty, "no certificate"),
            (str(tmp_path), "cannot read|no certificate"),
            ("nul\0byte", "cannot read"),
        ]:
            with pytest.raises(CertificateStoreError, match=words) as caught:
                make_context(TLSOptions(trust=TrustOptions(ca_file=path)), verify=verify)
            assert caught.value.code == 271
            assert not caught.value.remote


class TestKeyLog:
    @pytest.fixture(autouse=True)
    def forget(self):
        key_logs_warned_of.clear()

    @pytest.mark.parametrize("verify", [True, False])
    def test_one_warning(self, monkeypatch, tmp_path, caplog, verify):
        monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys"))
        for _ in range(2):
            made = make_context(TLSOptions(), verify=verify)
        assert made.keylog_filename == str(tmp_path / "keys")
        assert [(one.levelno, one.name) for one in caplog.records] == [(logging.WARNING, "smtp_async")]
        assert str(tmp_path / "keys") in caplog.text

    def test_the_applications_context(self, tmp_path, caplog):
        own = ssl.create_default_context()
        own.keylog_filename = str(tmp_path / "keys")
        make_context(TLSOptions(context=own))
        assert len(caplog.records) == 1

    @pytest.mark.parametrize("verify", [True, False])
    def test_silence_without(self, monkeypatch, caplog, verify):
        monkeypatch.delenv("SSLKEYLOGFILE", raising=False)
        make_context(TLSOptions(), verify=verify)
        assert not caplog.records
