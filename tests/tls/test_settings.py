"""What the options set in an `ssl.SSLContext`."""

import logging
import ssl
import warnings
from pathlib import Path
from typing import Any

import pytest

from smtp_async import PreSharedKey, TLSOptions, TLSProfile, TrustOptions, legacy_context
from smtp_async.errors import TLSLibraryError
from smtp_async.tls import context as context_module
from smtp_async.tls import make_context
from smtp_async.tls.suites import find_suite

V10, V11 = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
V12, V13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3


@pytest.fixture
def made(pki: Any) -> Any:
    """Returns the context for options, without the system's certificates."""

    def make(*, verify: bool = True, **options: Any) -> ssl.SSLContext:
        return make_context(TLSOptions(trust=TrustOptions(ca_file=pki.ca_file), **options), verify=verify)

    return make


def suites(context: ssl.SSLContext) -> list[str]:
    return [one["name"] for one in context.get_ciphers()]


@pytest.mark.parametrize("verify", [True, False])
class TestVersions:
    @pytest.mark.parametrize(
        ("options", "oldest", "newest"),
        [
            ({}, V12, ssl.TLSVersion.MAXIMUM_SUPPORTED),
            ({"minimum_version": V13}, V13, ssl.TLSVersion.MAXIMUM_SUPPORTED),
            ({"maximum_version": V12}, V12, V12),
            ({"minimum_version": V10}, V10, ssl.TLSVersion.MAXIMUM_SUPPORTED),
            ({"minimum_version": V11, "maximum_version": V11}, V11, V11),
            (
                {"ciphers": "TLS_AES_256_GCM_SHA384", "minimum_version": V12},
                V13,
                ssl.TLSVersion.MAXIMUM_SUPPORTED,
            ),
            ({"ciphers": "TLS_AES_256_GCM_SHA384"}, V13, ssl.TLSVersion.MAXIMUM_SUPPORTED),
        ],
    )
    def test_between(self, made: Any, verify: bool, options: Any, oldest: Any, newest: Any) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            context = made(verify=verify, **options)
        assert (context.minimum_version, context.maximum_version) == (oldest, newest)

    def test_old_ones_come_with_old_suites(self, made: Any, verify: bool) -> None:
        context = made(verify=verify, minimum_version=V10)
        assert context.security_level == 0 and "AES128-SHA" in suites(context)
        context = made(verify=verify, minimum_version=V10, ciphers="AES256-SHA")
        assert context.security_level == 0
        assert [name for name in suites(context) if not name.startswith("TLS_")] == ["AES256-SHA"]


class TestSuites:
    def test_a_list(self, made: Any) -> None:
        context = made(ciphers="TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256")
        assert [name for name in suites(context) if not name.startswith("TLS_")] == [
            "ECDHE-RSA-AES128-GCM-SHA256"
        ]

    def test_short_keys_are_dropped(self, made: Any) -> None:
        context = made(minimum_bits=256)
        old = [find_suite(name) for name in suites(context) if not name.startswith("TLS_")]
        assert old and all(suite is not None and suite.bits >= 256 for suite in old)

    def test_without_a_long_one_only_tls13_is_left(self, made: Any) -> None:
        assert made(ciphers="AES128-SHA", minimum_bits=256).minimum_version is V13
        with pytest.raises(TLSLibraryError) as caught:
            made(ciphers="AES128-SHA", minimum_bits=256, maximum_version=V12)
        assert caught.value.code == 270

    def test_without_ffdhe(self, made: Any) -> None:
        assert any(name.startswith("DHE-") for name in suites(made()))
        assert not any(name.startswith("DHE-") for name in suites(made(ffdhe=False)))

    def test_profiles(self, made: Any) -> None:
        default, compatible, secure = (
            set(suites(made(profile=profile)))
            for profile in (TLSProfile.DEFAULT, TLSProfile.COMPATIBLE, TLSProfile.HIGHLY_SECURE)
        )
        assert secure < default < compatible
        assert all("ECDHE" in name or name.startswith("TLS_") for name in secure)
        assert "AES128-SHA" in compatible
        one = made(profile=TLSProfile.HIGHLY_SECURE, ciphers="AES128-SHA")
        assert "AES128-SHA" in suites(one)


class TestFlags:
    def test_extended_master_secret(self, made: Any) -> None:
        assert not made().options & 0x1
        assert made(extended_master_secret=False).options & 0x1

    def test_renegotiation(self, made: Any) -> None:
        assert made().options & ssl.OP_NO_RENEGOTIATION
        assert not made(renegotiation=True).options & ssl.OP_NO_RENEGOTIATION

    def test_legacy_renegotiation(self, made: Any) -> None:
        assert not made().options & 0x4
        assert made(legacy_renegotiation=True).options & 0x4

    def test_random_numbers_are_added_once_a_context(
        self, made: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        added: list[Any] = []
        monkeypatch.setattr(ssl, "RAND_add", lambda *given: added.append(given))
        made(prng_seed=b"dice")
        made()
        assert added == [(b"dice", 0.0)]


class TestKeyLog:
    def test_a_file(self, made: Any, tmp_path: Path) -> None:
        assert made(key_log=tmp_path / "keys").keylog_filename == str(tmp_path / "keys")

    def test_a_file_that_cannot_be_written(self, made: Any, tmp_path: Path) -> None:
        with pytest.raises(TLSLibraryError, match="keys cannot be logged") as caught:
            made(key_log=tmp_path / "none" / "keys")
        assert caught.value.code == 270


class TestNewerPythons:
    """A stand-in records the calls that only newer versions have."""

    @pytest.fixture
    def calls(self, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
        recorded: list[Any] = []
        for name in ("set_ciphersuites", "set_groups", "set_server_sigalgs", "set_psk_client_callback"):

            def call(self: Any, given: Any, *, name: str = name) -> None:
                recorded.append((name, given))

            monkeypatch.setattr(ssl.SSLContext, name, call, raising=False)
        monkeypatch.setattr(ssl, "HAS_PSK", True, raising=False)
        names = ["x25519", "secp256r1", "ffdhe2048"]
        monkeypatch.setattr(ssl.SSLContext, "get_groups", lambda self: names, raising=False)
        return recorded

    def test_groups_and_schemes(self, made: Any, calls: list[Any]) -> None:
        made(groups=["x25519", "P-256"], signature_algorithms=["ed25519", "rsa_pss_sha256"])
        assert calls == [
            ("set_groups", "X25519:prime256v1"),
            ("set_server_sigalgs", "ed25519:rsa_pss_rsae_sha256"),
        ]

    @pytest.mark.parametrize(
        ("shares", "called"),
        [
            ((), "X25519:prime256v1:ffdhe2048"),
            (["x25519"], "X25519:prime256v1:ffdhe2048"),
            (["P-256"], "X25519:*prime256v1:ffdhe2048"),
            (["ffdhe2048", "x25519"], "*X25519:prime256v1:*ffdhe2048"),
        ],
    )
    def test_key_shares(
        self, made: Any, calls: list[Any], shares: Any, called: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(ssl, "OPENSSL_VERSION_INFO", (3, 5, 0, 0, 0))
        made(groups=["x25519", "P-256", "ffdhe2048"], key_share_groups=shares)
        assert calls == [("set_groups", called)]

    def test_without_ffdhe(self, made: Any, calls: list[Any]) -> None:
        made(ffdhe=False)
        assert calls == [("set_groups", "x25519:secp256r1")]

    def test_suites(self, made: Any, calls: list[Any]) -> None:
        made(ciphers="TLS_AES_128_CCM_SHA256:TLS_AES_256_GCM_SHA384:HIGH")
        made(minimum_bits=256)
        assert calls == [
            ("set_ciphersuites", "TLS_AES_128_CCM_SHA256:TLS_AES_256_GCM_SHA384"),
            ("set_ciphersuites", "TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"),
        ]

    def test_shared_keys(self, made: Any, calls: list[Any]) -> None:
        context = made(psk=PreSharedKey(identity="client", key=b"secret"))
        ((name, callback),) = calls
        assert (name, callback("hint")) == ("set_psk_client_callback", ("client", b"secret"))
        without = made(psk=PreSharedKey(identity="client", key=b"secret"), ffdhe=False)
        assert "PSK-AES256-GCM-SHA384" in suites(without)
        assert not any(name.startswith("DHE-") for name in suites(without))
        assert "DHE-PSK-AES256-GCM-SHA384" in suites(context) and "ECDHE-ECDSA-AES256-GCM-SHA384" in suites(
            context
        )


class TestLegacy:
    def test_old_versions_warn_once(
        self, made: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        context_module.old_versions_warned_of.clear()
        for version in (V12, V11, V10):
            made(minimum_version=version)
        assert [one.levelno for one in caplog.records] == [logging.WARNING]

    def test_it_warns_once(
        self, pki: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        context_module.old_versions_warned_of.clear()
        for _ in range(2):
            made = legacy_context(TrustOptions(ca_file=pki.ca_file))
        assert [one.levelno for one in caplog.records] == [logging.WARNING]
        assert "before 1.2" in caplog.text
        assert made.minimum_version is V10 and made.verify_mode is ssl.CERT_REQUIRED and made.check_hostname
        assert "AES128-SHA" in suites(made) and made.options & 0x4
