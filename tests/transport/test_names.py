"""Host names, addresses, and which of them are tried first."""

import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtp_async.errors import InvalidHost, MissingHost
from smtp_async.transport.names import AddressFamily, address_of, host_name, is_address, ordered, permitted


def info(address):
    if ":" in address:
        return (socket.AF_INET6, socket.SOCK_STREAM, 6, "", (address, 25, 0, 0))
    return (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 25))


def in_order(addresses, family):
    return [one[4][0] for one in ordered([info(address) for address in addresses], family)]


@pytest.mark.parametrize(
    ("host", "name"),
    [("mail.example", "mail.example"), ("[::1]", "::1"), ("Bücher.example", "xn--bcher-kva.example")],
)
def test_host_names(host, name):
    assert host_name(host) == name


@given(st.text(max_size=30))
def test_any_text_is_a_printable_name_or_refused(host):
    try:
        name = host_name(host)
    except (InvalidHost, MissingHost):
        return
    assert name.isascii() and name.isprintable() and " " not in name


@pytest.mark.parametrize(
    ("text", "yes"), [("::1", True), ("fe80::1%eth0", True), ("127.0.0.1", True), ("0", False)]
)
def test_addresses(text, yes):
    assert is_address(text) is yes


@pytest.mark.parametrize(
    ("address", "reached"), [("::ffff:127.0.0.1", "127.0.0.1"), ("fe80::1%eth0", "fe80::1"), ("::1", "::1")]
)
def test_the_address_that_would_be_reached(address, reached):
    assert str(address_of(info(address))) == reached


def test_a_preferred_family_alternates_with_the_other():
    addresses = ["10.0.0.1", "10.0.0.2", "10.0.0.3", "fd00::1", "fd00::2"]
    assert in_order(addresses, AddressFamily.AUTO) == addresses
    assert in_order(addresses, AddressFamily.PREFER_IPV6) == [
        *("fd00::1", "10.0.0.1", "fd00::2", "10.0.0.2", "10.0.0.3")
    ]
    assert in_order(addresses, AddressFamily.PREFER_IPV4) == [
        *("10.0.0.1", "fd00::1", "10.0.0.2", "fd00::2", "10.0.0.3")
    ]


@given(st.lists(st.ip_addresses().map(str), max_size=8), st.sampled_from(AddressFamily))
def test_no_address_is_lost(addresses, family):
    assert sorted(in_order(addresses, family)) == sorted(addresses)


def test_the_all_zero_address_behind_a_tunnel():
    with pytest.raises(InvalidHost, match="all-zero"):
        permitted([info("0.0.0.0")], "x", address_filter=None)
    assert permitted([info("0.0.0.0")], "x", address_filter=None, any_address=True)
