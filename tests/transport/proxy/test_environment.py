"""environment.py: the variables that name a proxy."""

import pytest

from smtp_async import ProxyOptions, ProxyType


def read(**variables: str) -> ProxyOptions:
    options = ProxyOptions.from_environment(variables)
    assert options is not None
    return options


@pytest.mark.parametrize(
    "variables, host",
    [
        ({"SMTP_PROXY": "http://a", "ALL_PROXY": "http://b"}, "a"),
        ({"ALL_PROXY": "http://b"}, "b"),
        ({"all_proxy": "http://c", "ALL_PROXY": "http://b"}, "c"),
        ({"smtp_proxy": "http://d", "ALL_PROXY": "http://b"}, "d"),
        ({"smtp_proxy": "", "ALL_PROXY": "http://b"}, "b"),
    ],
)
def test_which_variable_counts(variables: dict[str, str], host: str) -> None:
    assert read(**variables).host == host


@pytest.mark.parametrize(
    "url, there",
    [
        ("socks5://p", False),
        ("SOCKS5://p", False),
        ("socks5h://p", True),
        ("socks4://p", False),
        ("socks4a://p", True),
        ("http://p", True),
    ],
)
def test_the_scheme_says_who_resolves_names(url: str, there: bool) -> None:
    assert read(ALL_PROXY=url).resolves_names is there


def test_no_scheme_means_http() -> None:
    options = read(ALL_PROXY="ann:pw@p.example:3128")
    assert (options.type, options.host, options.port) == (ProxyType.HTTP_CONNECT, "p.example", 3128)
    assert options.username == "ann"


def test_no_proxy_lists_domains_addresses_and_networks() -> None:
    options = read(
        ALL_PROXY="http://p", NO_PROXY="localhost, .example.com example.org,10.0.0.0/8,::1,*,192.0.2.1"
    )
    assert options.exceptions == (
        ".localhost", ".example.com", ".example.org", "10.0.0.0/8", "::1", "*", "192.0.2.1",
    )  # fmt: skip
