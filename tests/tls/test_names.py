"""names.py: which names a certificate is for."""

from __future__ import annotations

import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from smtp_async.tls.names import covers, matches
from tests.tls.authority import make


@pytest.mark.parametrize(
    ("pattern", "name", "fits"),
    [
        ("mail.example", "mail.example", True),
        ("Mail.Example", "mAIL.eXAMPLE", True),
        ("mail.example", "mail.example.org", False),
        ("mail.example", "xmail.example", False),
        ("*.b.example", "a.b.example", True),
        ("*.b.example", "A.B.example", True),
        ("*.b.example", "a.a.b.example", False),
        ("*.b.example", "b.example", False),
        ("*.b.example", ".b.example", False),
        ("*.example", "mail.example", False),
        ("*", "mail", False),
        ("*.", "mail.", False),
        ("a*.b.example", "ab.b.example", False),
        ("a.*.example", "a.b.example", False),
        ("*.b.example", "a_c.b.example", False),
        ("*.b.example", "xn--bcher-kva.b.example", True),
        ("*.b.example", "*.b.example", True),
        ("", "", False),
        ("mail.example", "", False),
    ],
)
def test_patterns(pattern: str, name: str, fits: bool) -> None:
    assert matches(pattern, name) is fits


@given(st.text(max_size=20), st.text(max_size=20))
def test_anything(pattern: str, name: str) -> None:
    assert matches(pattern, name) in (True, False)
    assert not matches(pattern, name) or pattern.startswith("*.") or pattern.lower() == name.lower()


@given(
    st.from_regex(r"[a-z0-9-]{1,9}", fullmatch=True), st.from_regex(r"[a-z]{1,5}\.[a-z]{1,5}", fullmatch=True)
)
def test_a_wildcard_stands_for_any_one_label(label: str, rest: str) -> None:
    assert matches(f"*.{rest}", f"{label}.{rest}")
    assert not matches(f"*.{rest}", f"{label}.x.{rest}")


def test_addresses_and_names_are_two_things() -> None:
    both = make("S", names=["mail.example", "192.0.2.1", "2001:db8::1"]).certificate
    assert covers(both, "mail.example") and covers(both, "192.0.2.1") and covers(both, "2001:DB8:0::1")
    assert not covers(both, "192.0.2.2")
    in_words = make("S", names=[x509.DNSName("192.0.2.1")]).certificate
    assert not covers(in_words, "192.0.2.1")


def test_without_alternative_names_it_is_for_no_name() -> None:
    assert not covers(make("mail.example", names=None).certificate, "mail.example")
