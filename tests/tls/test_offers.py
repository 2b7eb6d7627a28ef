"""Names of suites, groups and signature schemes as users write them."""

import csv
import shutil
import ssl
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtp_async.errors import FeatureUnavailable, InvalidArgument, SMTPError, TLSLibraryError
from smtp_async.tls import offers
from smtp_async.tls.offers import (
    CipherChoice,
    TLSProfile,
    openssl_group,
    read_ciphers,
    read_groups,
    read_key_shares,
    read_schemes,
)
from smtp_async.tls.suites import find_suite

PARITY = Path(__file__).parents[2] / "docs" / "parity.csv"
NAMES = "ipworks.enum.SSLEnabledCipherSuites."


def named_suites(status_class: str) -> list[str]:
    with PARITY.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    names = (
        row["id"].rsplit(".", 1)[1]
        for row in rows
        if row["id"].startswith(NAMES) and row["status_class"] == status_class
    )
    return sorted({name for name in names if name.startswith("TLS_")})


@cache
def openssl_names() -> dict[str, str]:
    """Return OpenSSL's names of the suites that it knows itself, by IANA's; nothing without its command."""
    if (command := shutil.which("openssl")) is None:
        return {}
    known = [command, "ciphers", "-stdname", "ALL:COMPLEMENTOFALL:@SECLEVEL=0"]
    lines = subprocess.run(known, capture_output=True, text=True, check=True).stdout
    return {words[0]: words[2] for line in lines.splitlines() if len(words := line.split()) > 2}


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Python before 3.15."""
    for name in ("set_ciphersuites", "set_groups", "set_server_sigalgs"):
        monkeypatch.delattr(ssl.SSLContext, name, raising=False)


@pytest.fixture
def newer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python 3.15."""
    for name in ("set_ciphersuites", "set_groups", "set_server_sigalgs"):
        monkeypatch.setattr(ssl.SSLContext, name, lambda self, text: None, raising=False)


class TestCiphers:
    @pytest.mark.parametrize(
        ("given", "expected"),
        [
            (None, CipherChoice()),
            ("ECDHE+AESGCM:!aNULL", CipherChoice("ECDHE+AESGCM:!aNULL")),
            (
                "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384; tls_rsa_with_aes_128_cbc_sha",
                CipherChoice("ECDHE-RSA-AES256-GCM-SHA384:AES128-SHA"),
            ),
            (("HIGH", "!TLS_RSA_WITH_AES_128_CBC_SHA"), CipherChoice("HIGH:!AES128-SHA")),
            (["TLS_AES_256_GCM_SHA384"], CipherChoice(None, ("TLS_AES_256_GCM_SHA384",))),
            (
                "TLS_AES_256_GCM_SHA384, ECDHE-RSA-AES256-GCM-SHA384",
                CipherChoice("ECDHE-RSA-AES256-GCM-SHA384", ("TLS_AES_256_GCM_SHA384",)),
            ),
        ],
    )
    def test_lists(self, given: Any, expected: CipherChoice) -> None:
        assert read_ciphers(given) == expected

    @pytest.mark.parametrize("name", named_suites("required"))
    def test_every_name_of_the_components_resolves(self, name: str) -> None:
        suite = find_suite(name)
        assert suite is not None and suite.name.upper() == name.upper()
        try:
            choice = read_ciphers(name)
        except FeatureUnavailable as error:
            # Of TLS 1.3, and not offered by OpenSSL on its own.
            assert suite.key_exchange is None and error.needs == "Python 3.15"
        else:
            assert suite.openssl_name in (choice.up_to_tls12, *(choice.tls13 or ()))
            assert openssl_names().get(name, suite.openssl_name) == suite.openssl_name

    @pytest.mark.parametrize("name", named_suites("obsolete"))
    def test_what_openssl_does_not_speak_any_more_is_named(self, name: str) -> None:
        with pytest.raises((FeatureUnavailable, TLSLibraryError)) as caught:
            read_ciphers(name)
        assert caught.value.code == 270

    @pytest.mark.parametrize("bad", ["NONSENSE", "TLS_NONSENSE_WITH_ROT_13", ["@SECLEVEL=9"], "A\0B", "\x80"])
    def test_a_bad_list_is_error_270(self, bad: Any) -> None:
        with pytest.raises(TLSLibraryError) as caught:
            read_ciphers(bad)
        assert caught.value.code == 270

    @pytest.mark.parametrize("bad", ["", " : ", [], "!TLS_AES_128_GCM_SHA256"])
    def test_a_list_that_says_nothing(self, bad: Any) -> None:
        with pytest.raises(InvalidArgument):
            read_ciphers(bad)

    @pytest.mark.usefixtures("without")
    def test_other_suites_of_tls13_need_a_newer_python(self) -> None:
        with pytest.raises(FeatureUnavailable) as caught:
            read_ciphers("TLS_AES_128_CCM_SHA256")
        assert (caught.value.needs, caught.value.code) == ("Python 3.15", 270)

    @pytest.mark.usefixtures("newer")
    def test_there_they_are_offered(self) -> None:
        assert read_ciphers("TLS_AES_128_CCM_SHA256").tls13 == ("TLS_AES_128_CCM_SHA256",)

    @given(st.text() | st.lists(st.text(), max_size=3))
    def test_anything_is_read_or_refused(self, text: Any) -> None:
        try:
            assert read_ciphers(text) != CipherChoice()
        except SMTPError as error:
            assert error.code in (270, 20001)

    @pytest.mark.parametrize("profile", TLSProfile)
    def test_profiles_are_lists_that_openssl_knows(self, profile: TLSProfile) -> None:
        assert (read_ciphers(profile.ciphers) == CipherChoice()) is (profile.ciphers is None)


class TestGroups:
    @pytest.mark.parametrize(
        ("given", "name", "openssl"),
        [
            ("x25519", "x25519", "X25519"),
            ("X25519", "x25519", "X25519"),
            ("P-256", "secp256r1", "prime256v1"),
            ("prime256v1", "secp256r1", "prime256v1"),
            ("ecdhe_secp521r1", "secp521r1", "secp521r1"),
            ("ecdhe_secp256r1", "secp256r1", "prime256v1"),
            ("ecdhe_secp384r1", "secp384r1", "secp384r1"),
            ("ecdhe_x25519", "x25519", "X25519"),
            ("ecdhe_x448", "x448", "X448"),
            *((f"ffdhe_{bits}", f"ffdhe{bits}", f"ffdhe{bits}") for bits in (2048, 3072, 4096, 6144, 8192)),
            ("brainpoolP256r1", "brainpoolP256r1", "brainpoolP256r1"),
        ],
    )
    def test_names(self, given: str, name: str, openssl: str) -> None:
        assert read_groups([given]) == (name,)
        assert openssl_group(name) == openssl
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).set_ecdh_curve(openssl)

    @given(st.text())
    def test_anything_is_read_or_refused(self, text: str) -> None:
        try:
            assert len(read_groups([text])) == 1
        except InvalidArgument:
            pass

    @pytest.mark.usefixtures("without")
    def test_a_list_needs_a_newer_python(self) -> None:
        with pytest.raises(FeatureUnavailable) as caught:
            read_groups(["x25519", "secp256r1"])
        assert caught.value.needs == "Python 3.15"

    @pytest.mark.usefixtures("newer")
    def test_there_it_is_read(self) -> None:
        assert read_groups(["x25519", "P-384"]) == ("x25519", "secp384r1")


class TestKeyShares:
    @pytest.mark.usefixtures("without")
    def test_the_first_group_has_one_in_any_case(self) -> None:
        assert read_key_shares(["X25519"], ("x25519",)) == ("x25519",)
        assert read_key_shares([], ("x25519",)) == ()

    @pytest.mark.parametrize(
        ("given", "name"),
        [
            ("ecdhe_x25519", "x25519"),
            ("ecdhe_x448", "x448"),
            ("ecdhe_secp256r1", "secp256r1"),
            ("ecdhe_secp384r1", "secp384r1"),
            ("ecdhe_secp521r1", "secp521r1"),
            *((f"ffdhe_{bits}", f"ffdhe{bits}") for bits in (2048, 3072, 4096, 6144, 8192)),
        ],
    )
    @pytest.mark.usefixtures("newer")
    def test_names(self, given: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(ssl, "OPENSSL_VERSION_INFO", (3, 5, 0, 0, 0))
        assert read_key_shares([given], ("brainpoolP256r1", name)) == (name,)

    @pytest.mark.parametrize("version", [(3, 0, 19, 0, 0), (3, 5, 0, 0, 0)])
    @pytest.mark.usefixtures("newer")
    def test_others_need_a_newer_openssl(
        self, version: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(ssl, "OPENSSL_VERSION_INFO", version)
        groups = ("x25519", "secp256r1")
        if version >= (3, 5):
            assert read_key_shares(["P-256"], groups) == ("secp256r1",)
        else:
            with pytest.raises(FeatureUnavailable) as caught:
                read_key_shares(["P-256"], groups)
            assert caught.value.needs == "Python 3.15 with OpenSSL 3.5"

    @pytest.mark.usefixtures("without")
    def test_others_need_a_newer_python(self) -> None:
        with pytest.raises(FeatureUnavailable):
            read_key_shares(["x25519", "P-256"], ("x25519", "secp256r1"))


class TestSchemes:
    @pytest.mark.parametrize(
        ("given", "name"),
        [
            *((f"rsa_pss_sha{bits}", f"rsa_pss_rsae_sha{bits}") for bits in (256, 384, 512)),
            *((f"sha{bits}-rsa", f"rsa_pkcs1_sha{bits}") for bits in (1, 224, 256, 384, 512)),
            *((f"sha{bits}-dsa", f"dsa_sha{bits}") for bits in (1, 224, 256, 384, 512)),
            ("sha1-ecdsa", "ecdsa_sha1"),
            ("sha224-ecdsa", "ecdsa_sha224"),
            ("sha256-ecdsa", "ecdsa_secp256r1_sha256"),
            ("sha384-ecdsa", "ecdsa_secp384r1_sha384"),
            ("sha512-ecdsa", "ecdsa_secp521r1_sha512"),
            ("rsa_pkcs1_sha256", "rsa_pkcs1_sha256"),
            ("ecdsa_secp256r1_sha256", "ecdsa_secp256r1_sha256"),
            ("ed448", "ed448"),
            ("Ed25519", "ed25519"),
        ],
    )
    def test_names(self, given: str, name: str) -> None:
        assert read_schemes([given]) == (name,)

    @given(st.text())
    def test_anything_is_read_or_refused(self, text: str) -> None:
        try:
            assert len(read_schemes([text])) == 1
        except InvalidArgument:
            pass

    @pytest.mark.usefixtures("without")
    def test_where_nobody_can_see_them_they_need_a_newer_python(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # The callback is an attribute of the C class, too, and cannot be taken away.
        monkeypatch.setattr(offers, "can_see_schemes", lambda: False)
        with pytest.raises(FeatureUnavailable) as caught:
            read_schemes(["ed25519"])
        assert caught.value.needs == "Python 3.15"
