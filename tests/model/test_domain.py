"""domain.py: two forms of a name, made by IDNA 2008 or refused."""

import sys
import time
import unicodedata

import idna
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtp_async.errors import InvalidAddress, InvalidArgument
from smtp_async.model.domain import MAX_DOMAIN, domain_forms, full_host_name, hello_name
from smtp_async.protocol import commands


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


@pytest.mark.parametrize("domain", ["mail_host.example", "_dmarc.example", "a_._b", "A_B"])
def test_underscores_are_refused_by_name_and_taken_leniently(domain):
    with pytest.raises(InvalidAddress, match=r"underscore.*lenient=True"):
        domain_forms(domain)
    assert domain_forms(domain, lenient=True) == (domain, domain)


@pytest.mark.parametrize(
    "domain", ["a_b!", "-a_b", "a_b.", "a_b..c", "a_b c", "a" * 63 + "_", "ü_b.de", "a_b.xn--bcher-kva.de"]
)
def test_leniency_is_about_underscores_alone(domain):
    with pytest.raises(InvalidAddress):
        domain_forms(domain, lenient=True)


def test_no_character_disappears():
    """The mapping of UTS 46 drops what cannot be seen: another name would be asked for."""
    for code in range(0x80, sys.maxunicode + 1):
        char = chr(code)
        if unicodedata.category(char) in ("Cf", "Mn", "Lo", "Cn", "Zs", "So") and (
            code < 0x3200 or code > 0xF000
        ):
            if code > 0x20000 and not 0xE0000 <= code < 0xE1000:
                continue
            try:
                mapped = idna.uts46_remap(f"a{char}b", True, False)
            except idna.IDNAError:
                continue
            if mapped == "ab":
                with pytest.raises(InvalidAddress, match=rf"U\+{code:04X}"):
                    domain_forms(f"a{char}b.example")


def test_blanks_and_what_cannot_be_seen_are_called_by_name():
    for char, name in (
        ("\u200b", r"ZERO WIDTH SPACE \(U\+200B\)"),
        ("\u00a0", r"NO-BREAK SPACE \(U\+00A0\)"),
    ):
        for domain in (f"{char}a.example", f"a.example{char}", f"a{char}b.example"):
            with pytest.raises(InvalidAddress, match=name):
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
    assert time.process_time() - started < 0.3


class TestHelloName:
    @pytest.mark.parametrize(
        ("name", "said"),
        [
            ("mail.example.com", "mail.example.com"),
            ("bücher.example", "xn--bcher-kva.example"),
            ("192.0.2.1", "[192.0.2.1]"),
            ("::1", "[IPv6:::1]"),
            ("[192.0.2.1]", "[192.0.2.1]"),
        ],
    )
    def test_what_strict_servers_take(self, name: str, said: str) -> None:
        assert hello_name(name) == said

    @pytest.mark.parametrize("name", ["", "a b", "x\r\nDATA", "[::1]", "-x.test", "x" * 300])
    def test_what_they_refuse(self, name: str) -> None:
        with pytest.raises(InvalidArgument, match="cannot be sent in EHLO"):
            hello_name(name)

    def test_an_underscore_has_its_own_sentence(self) -> None:
        with pytest.raises(InvalidArgument, match="an underscore, which no host name has"):
            hello_name("under_score.example")

    @given(st.text() | st.ip_addresses().map(str) | st.from_regex(r"[a-z0-9._\[\]:-]{1,20}", fullmatch=True))
    def test_any_text_is_refused_or_can_be_sent(self, name: str) -> None:
        try:
            said = hello_name(name)
        except InvalidArgument:
            return
        assert commands.ehlo(said) == f"EHLO {said}\r\n".encode("ascii")
        assert hello_name(said) == said


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
