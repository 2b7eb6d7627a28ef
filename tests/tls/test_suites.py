"""Names of suites, groups and signature schemes, and what they mean."""

from __future__ import annotations

import csv
import ssl
import warnings
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtp_async.tls.suites import find_group, find_suite, group_numbered, scheme_numbered

PARITY = Path(__file__).parents[2] / "docs" / "parity.csv"


def listed(status: str) -> list[str]:
    with PARITY.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["status_class"] == status]
    names = [row["id"].rpartition(".")[2] for row in rows if ".SSLEnabledCipherSuites." in row["id"]]
    return [name for name in names if name.startswith("TLS_")]


def openssl() -> list[dict[str, object]]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = ssl.TLSVersion.TLSv1
    context.set_ciphers("ALL:COMPLEMENTOFALL:@SECLEVEL=0")
    # Passwords in place of keys (SRP) were dropped by everybody, OpenSSL included.
    return [dict(one) for one in context.get_ciphers() if not str(one["name"]).startswith("SRP-")]


class TestSuites:
    @pytest.mark.parametrize("name", listed("required"))
    def test_what_must_be_known_has_a_name_that_openssl_takes(self, name: str) -> None:
        suite = find_suite(name)
        assert suite is not None and suite.name == name and suite.openssl_name
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        if "_WITH_" in name:
            context.set_ciphers(f"{suite.openssl_name}:@SECLEVEL=0")
        assert suite.openssl_name in {one["name"] for one in context.get_ciphers()}

    @pytest.mark.parametrize("name", listed("obsolete"))
    def test_what_openssl_has_dropped_is_understood(self, name: str) -> None:
        suite = find_suite(name)
        assert suite is not None and suite.openssl_name is None

    def test_whatever_openssl_speaks_is_known(self) -> None:
        for one in openssl():
            suite = find_suite(str(one["name"]))
            assert suite is not None, one
            assert suite.openssl_name == one["name"]
            assert (suite.bits, suite.aead) == (one["alg_bits"], one["aead"])
            assert find_suite(suite.name) == suite
            exchange, authentication = str(one["kea"]), str(one["auth"])
            if exchange == "kx-any":
                assert suite.key_exchange is suite.authentication is None
                continue
            assert suite.authentication is not None and suite.key_exchange is not None
            assert {"auth-null": "anon"}.get(
                authentication, authentication[5:]
            ) == suite.authentication.lower() or (suite.name.startswith("TLS_RSA_PSK_"))
            assert exchange.removeprefix("kx-").removesuffix("-psk") == suite.key_exchange.lower()
            if one["digest"] is not None:
                assert str(one["digest"]).upper() == suite.digest.replace("-", "")

    @pytest.mark.parametrize(
        ("name", "facts"),
        [
            ("TLS_RSA_EXPORT_WITH_RC4_40_MD5", ("RSA", "RSA", "RC4", 40, 0, False, "MD5", True)),
            ("TLS_RSA_WITH_3DES_EDE_CBC_SHA", ("RSA", "RSA", "3DES-EDE-CBC", 168, 8, False, "SHA-1", False)),
            ("TLS_DHE_RSA_EXPORT_WITH_DES40_CBC_SHA", ("DHE", "RSA", "DES-CBC", 40, 8, False, "SHA-1", True)),
            ("TLS_AES_128_CCM_8_SHA256", (None, None, "AES-128-CCM-8", 128, 16, True, "SHA-256", False)),
            (
                "TLS_DH_anon_WITH_AES_128_CBC_SHA",
                ("DHE", "anon", "AES-128-CBC", 128, 16, False, "SHA-1", False),
            ),
        ],
    )
    def test_by_their_names(self, name: str, facts: tuple[object, ...]) -> None:
        suite = find_suite(name)
        assert suite is not None and suite[0] == name and suite[2:] == facts

    def test_in_any_case(self) -> None:
        assert (
            find_suite("ecdhe-rsa-aes128-sha") == find_suite("tls_ecdhe_rsa_with_aes_128_cbc_sha") is not None
        )

    @given(st.text(max_size=60) | st.from_regex(r"\ATLS_[A-Z0-9_]{0,40}\Z"))
    def test_anything_else_is_none_or_a_suite(self, name: str) -> None:
        suite = find_suite(name)
        assert suite is None or suite.name.upper() == name.upper()


class TestNumbers:
    def test_groups(self) -> None:
        assert group_numbered(0x001D) == "x25519"
        assert group_numbered(0xFE00) == "0xfe00"
        assert find_group("X25519") == ("x25519", "ECDHE", 253)
        assert find_group("0xfe00") is None

    def test_schemes(self) -> None:
        assert scheme_numbered(0x0804) == "rsa_pss_rsae_sha256"
        assert scheme_numbered(0xFE00) == "0xfe00"
