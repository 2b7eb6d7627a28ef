"""domain.py: two forms of a name, made by IDNA 2008 or refused."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtp_async.domain import MAX_DOMAIN, domain_forms, full_host_name
from smtp_async.errors import InvalidAddress


@pytest.mark.parametrize(
    ("domain", "forms"),
    [
        ("example.com", ("example.com", "example.com")),
        ("EXAMPLE.com", ("EXAMPLE.com", "EXAMPLE.com")),
        ("faß.de", ("xn--fa-hia.de", "faß.de")),
        ("BÜCHER.example", ("xn--bcher-kva.example", "bücher.example")),
        ("bu\u0308cher.example", ("xn--bcher-kva.example", "bücher.example")),
        ("xn--bcher-kva.example", ("xn--bcher-kva.example", "xn--bcher-kva.example")),
        ("ｅｘ．com", ("ex.com", "ex.com")),
        ("ex。com", ("ex.com", "ex.com")),
        ("βόλος.com", ("xn--nxasmm1c.com", "βόλος.com")),
        ("نامه‌ای.com", ("xn--mgba3gch31f060k.com", "نامه‌ای.com")),
        ("mail.例え.jp", ("mail.xn--r8jz45g.jp", "mail.例え.jp")),
        ("[192.0.2.1]", ("[192.0.2.1]", "[192.0.2.1]")),
        ("[IPv6:2001:db8::1]", ("[IPv6:2001:db8::1]", "[IPv6:2001:db8::1]")),
        ("a.a-b.c1", ("a.a-b.c1", "a.a-b.c1")),
    ],
)
def test_both_forms(domain, forms):
    assert domain_forms(domain) == forms
    assert domain_forms(domain) == forms


@pytest.mark.parametrize(
    "domain",
    [
        *(
            "",
            ".",
            "a.",
            ".a",
            "a..b",
            "-a",
            "a-",
            "a_b",
            "a b",
            "a!b",
            "a@b",
            "[",
            "[]",
            "[::1]",
            "[1.2.3.4]x",
        ),
        # Signs that IDNA 2003 mapped away or let pass: symbols, joiners out of context, a leading mark.
        *("☃.example", "a\u200cb.example", "a\u200d.example", "\u0301a.example", "ä--b.example\u2024com"),
        *("xn--", "xn--a", "xn--fass-.de", "xn--ls8h.example", "XN--BCHER-KVA1.example", "ä." + "x" * 64),
        *("ä.-b", "ä..b", "ä/b", "ä\\b", "ä<b", "ä>b.de", "1.2.3.4]", "ä" * 256, "日本" * 40 + ".jp"),
        # Signs that become separators when they are folded: a/c, c/o, a full stop with a digit, brackets.
        *(
            "ex\u2100evil.com",
            "a\u2105b.com",
            "\u2488com",
            "a\uff20b.com",
            "a\uff0fb.com",
            "\uff3b1.2.3.4\uff3d",
        ),
    ],
)
def test_what_is_no_domain(domain):
    with pytest.raises(InvalidAddress):
        domain_forms(domain)


@given(st.text(min_size=1, max_size=60))
def test_whatever_passes_is_a_host_name(domain):
    try:
        ascii_form, unicode_form = domain_forms(domain)
    except InvalidAddress as error:
        assert str(error).isprintable()
        return
    assert ascii_form.isascii()
    assert len(ascii_form) <= MAX_DOMAIN
    assert all(label.replace("-", "").isalnum() for label in ascii_form.strip("[]").split("."))
    assert domain_forms(ascii_form)[0] == ascii_form
    assert domain_forms(unicode_form)[0].lower() == ascii_form.lower()


def test_a_name_that_was_seen_costs_little():
    domain_forms("grüße.example")
    started = time.process_time()
    for _ in range(2000):
        domain_forms("grüße.example")
    assert time.process_time() - started < 0.1


@pytest.mark.parametrize(
    "name", ["mail.example.com", "mail.example.com.", "a.b", "MAIL.Example.COM", "x.local"]
)
def test_a_full_host_name_is_taken(name: str) -> None:
    assert full_host_name(name) == name.removesuffix(".")


@pytest.mark.parametrize(
    "name",
    [
        "", ".", "..", "mail", "mail.", "my_host.example.com", "localhost", "localhost.localdomain", "pc.LocalDomain",
        "localhost6.localdomain6", "pc.localhost", "192.0.2.1", "a..b", ".a.b", "a.b..", "-a.b", "a-.b",
        "bücher.example", "a b.c", "a.b\r\nQUIT", "a." * 130 + "b",
    ],
)  # fmt: skip
def test_what_strict_servers_refuse_is_no_full_host_name(name: str) -> None:
    assert full_host_name(name) is None


@given(st.text(max_size=300))
def test_a_full_host_name_is_one_that_an_address_may_have(name: str) -> None:
    found = full_host_name(name)
    if found is not None:
        assert "." in found and len(found) <= MAX_DOMAIN and domain_forms(found)[0] == found
