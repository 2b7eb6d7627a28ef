"""bypass.py: servers that are connected to without the proxy."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtp_async.errors import InvalidArgument
from smtp_async.transport.proxy.bypass import bypasses, read_patterns


@pytest.mark.parametrize(
    "pattern, host, fits",
    [
        ("mail.example.com", "MAIL.example.com.", True),
        ("Mail.Example.COM", "mail.example.com", True),
        ("mail.example.com", "mail.example.com.evil.test", False),
        ("example.com", "mail.example.com", False),
        (".example.com", "mail.example.com", True),
        (".example.com", "example.com", True),
        (".example.com", "badexample.com", False),
        ("*.example.com", "mail.example.com", True),
        ("*.example.com", "a.b.example.com", True),
        ("*.example.com", "example.com", False),
        ("mail-*.example.com", "mail-7.example.com", True),
        ("mail-*.example.com", "mail-.example.org", False),
        ("a*b*a", "aba", True),
        ("a*b*a", "aa", False),
        ("aa*aa", "aaa", False),
        ("*", "anything", True),
        ("*", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.10", False),
        ("[::1]", "::1", True),
        ("::1", "[0:0::1]", True),
        ("192.0.2.1", "::ffff:192.0.2.1", True),
        ("10.0.0.0/8", "10.9.9.9", True),
        ("10.0.0.0/8", "11.0.0.1", False),
        ("10.0.0.1/8", "10.0.0.9", True),
        ("10.0.0.0/8", "mail.example.com", False),
        ("fe80::/10", "fe80::1%eth0", True),
        ("::/0", "10.0.0.1", False),
    ],
)  # fmt: skip
def test_a_pattern_and_a_host(pattern: str, host: str, fits: bool) -> None:
    assert bypasses(read_patterns([pattern]), host) is fits


def test_addresses_count_where_they_are_known() -> None:
    patterns = read_patterns("10.0.0.0/8")
    assert not bypasses(patterns, "mail.example.com")
    assert bypasses(patterns, "mail.example.com", ["192.0.2.1", "10.0.0.1"])


def test_one_text_is_split() -> None:
    assert read_patterns("a.example; B.example,, 10.0.0.0/8 ;") == ("a.example", "b.example", "10.0.0.0/8")


@pytest.mark.parametrize("pattern", ["10.0.0.0/33", "example.com/24", "/"])
def test_a_network_that_is_none_is_refused(pattern: str) -> None:
    with pytest.raises(InvalidArgument):
        read_patterns([pattern])


@given(st.lists(st.text(alphabet="ab*.", min_size=1)), st.text(alphabet="ab.", max_size=20))
def test_it_never_fails(patterns: list[str], host: str) -> None:
    assert bypasses(read_patterns(patterns), host) in (True, False)


def test_many_wildcards_cost_no_time() -> None:
    begun = time.process_time()
    assert not bypasses(("*a" * 500 + "b",), "a" * 5000)
    assert time.process_time() - begun < 1
