"""trust.py: what an application may say about trust, and what it may not."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtp_async import CertificateStore, ChainProblem, RevocationOptions, RevocationPolicy, TrustOptions
from smtp_async.errors import InvalidArgument
from smtp_async.tls.trust import read_pin
from tests.tls.authority import make, root

PIN = "0f" * 32
LEAF = make("S").certificate


class TestPins:
    @pytest.mark.parametrize(
        "text",
        [
            PIN,
            PIN.upper(),
            ":".join(["0F"] * 32),
            f"sha256:{PIN}",
            f"SHA-256:{PIN}",
            f" sha256//{base64.b64encode(bytes.fromhex(PIN)).decode()} ",
            f"sha256/{base64.b64encode(bytes.fromhex(PIN)).decode()}",
        ],
    )
    def test_spellings(self, text: str) -> None:
        assert read_pin(text) == PIN
        assert TrustOptions(pins=[text]).pins == (PIN,)

    @pytest.mark.parametrize("text", ["", "0f" * 20, "0f" * 33, "xx" * 32, "sha256//AAAA", "ü" * 64])
    def test_what_is_none(self, text: str) -> None:
        with pytest.raises(InvalidArgument, match="is no pin: it is the SHA-256"):
            TrustOptions(pins=[text])

    @given(st.text(max_size=90))
    def test_anything(self, text: str) -> None:
        try:
            assert len(read_pin(text)) == 64
        except InvalidArgument:
            pass


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ({"pins": PIN}, "pins is a sequence"),
        ({"ca_search_paths": "/etc/ssl/x.pem"}, "ca_search_paths is a sequence"),
        ({"trusted": LEAF}, "trusted is a sequence"),
        ({"blocked": [LEAF.der]}, "blocked takes objects of Certificate"),
        ({"ca": [make("S", root()).certificate]}, "CN=S is no authority: .*`trusted`"),
        ({"ignore": ChainProblem.BLOCKED}, "BLOCKED.* cannot be ignored"),
        ({"ignore": ChainProblem.TIME | ChainProblem.WEAK}, "WEAK.* cannot be ignored"),
        ({"max_asn1_length": 0}, "at least 1"),
        ({"max_asn1_depth": 0}, "at least 1"),
        ({"max_asn1_depth": "32"}, "max_asn1_depth is an integer, not str"),
        ({"max_asn1_length": True}, "max_asn1_length is an integer, not bool"),
        ({"ignore": "time"}, "ignore is a ChainProblem, not str"),
        ({"ignore": 0xC}, "ignore is a ChainProblem, not int"),
        ({"pins": [bytes.fromhex(PIN)]}, "pins holds bytes"),
        ({"pins": None}, "pins is a sequence, not NoneType"),
        ({"ca": 1}, "ca is a sequence, not int"),
        ({"revocation": True}, "revocation is a RevocationOptions or None, not bool"),
        ({"ca_file": ["ca.pem"]}, "ca_file is a path, not list"),
        ({"ca_path": b"/etc/ssl"}, "ca_path is a path, not bytes"),
        ({"ca_search_paths": [None]}, "ca_search_paths holds NoneType"),
        ({"use_system": "yes"}, "use_system is True, False or None, not str"),
        ({"validate": "no"}, "validate is True or False, not str"),
        ({"validate": None}, "validate is True or False, not NoneType"),
        ({"tolerate_minor": 0}, "tolerate_minor is True or False, not int"),
        ({"shared_system_store": 1}, "shared_system_store is True or False, not int"),
    ],
)
def test_what_makes_no_sense(setting: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidArgument, match=says):
        TrustOptions(**setting)


@pytest.mark.parametrize(
    ("setting", "afterwards"),
    [
        ({}, False),
        ({"ca_file": "x", "ca_path": "y", "ca_search_paths": ["z"], "use_system": True}, False),
        ({"ca": [root().certificate], "trusted": [LEAF]}, False),
        ({"tolerate_minor": False}, True),
        ({"known": [LEAF]}, True),
        ({"accepted": [LEAF]}, True),
        ({"blocked": [LEAF]}, True),
        ({"pins": [PIN]}, True),
        ({"ignore": ChainProblem.TIME}, True),
        ({"validate": False}, True),
        ({"max_asn1_length": 1000}, True),
        ({"max_asn1_depth": 10}, True),
        ({"revocation": RevocationOptions()}, True),
        ({"revocation": RevocationOptions(policy=RevocationPolicy.NONE)}, False),
    ],
)
def test_openssl_judges_what_it_can(setting: dict[str, Any], afterwards: bool) -> None:
    assert TrustOptions(**setting).after_handshake is afterwards


def test_options_do_not_change_with_the_lists_that_they_were_made_from() -> None:
    blocked = [LEAF]
    options = TrustOptions(blocked=blocked)
    blocked.clear()
    assert options.blocked == (LEAF,)
    assert hash(options) == hash(TrustOptions(blocked=[LEAF]))


def test_a_certificate_by_its_subject() -> None:
    made = [make(name) for name in ("mail.example", "other.example")]
    store = CertificateStore.load(b"".join(one.pem for one in made))
    for one in made:
        found = store.find(one.certificate.subject)
        assert TrustOptions(accepted=[found]).accepted == (one.certificate,)


def test_a_certificate_from_a_store() -> None:
    """Stores take the place of properties that name one certificate."""
    store = CertificateStore.load(make("mail.example").pem + make("other.example").pem)
    options = TrustOptions(accepted=[store.find("CN=mail.example")])
    assert [one.common_name for one in options.accepted] == ["mail.example"]
