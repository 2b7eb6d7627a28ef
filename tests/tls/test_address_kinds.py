"""Which addresses a certificate may name."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtp_async.tls.address_kinds import AddressKind, allowed_kinds, kind_of

PUBLIC, PRIVATE, LINK_LOCAL, LOOPBACK, UNUSABLE = AddressKind


@pytest.mark.parametrize(
    ("address", "kind"),
    [
        ("8.8.8.8", PUBLIC),
        ("2001:4860:4860::8888", PUBLIC),
        ("10.1.2.3", PRIVATE),
        ("172.31.0.1", PRIVATE),
        ("192.168.0.1", PRIVATE),
        ("100.64.0.1", PRIVATE),
        ("192.0.2.1", PRIVATE),
        ("240.0.0.1", PRIVATE),
        ("255.255.255.255", PRIVATE),
        ("fd00:ec2::254", PRIVATE),
        ("169.254.169.254", LINK_LOCAL),
        ("fe80::1", LINK_LOCAL),
        ("fe80::1%eth0", LINK_LOCAL),
        ("127.0.0.1", LOOPBACK),
        ("127.255.0.9", LOOPBACK),
        ("::1", LOOPBACK),
        ("0.0.0.0", UNUSABLE),
        ("0.1.2.3", UNUSABLE),
        ("::", UNUSABLE),
        ("224.0.0.1", UNUSABLE),
        ("ff02::1", UNUSABLE),
        # IPv6 that stands for IPv4: mapped, compatible, NAT64, 6to4, Teredo (the client's address is inverted).
        ("::ffff:127.0.0.1", LOOPBACK),
        ("::ffff:8.8.8.8", PUBLIC),
        ("::ffff:169.254.169.254", LINK_LOCAL),
        ("::10.0.0.1", PRIVATE),
        ("64:ff9b::127.0.0.1", LOOPBACK),
        ("64:ff9b::808:808", PUBLIC),
        ("2002:a00:1::1", PRIVATE),
        ("2001:0:4136:e378:8000:63bf:80ff:fffe", LOOPBACK),
    ],
)
def test_addresses_are_told_apart(address: str, kind: AddressKind) -> None:
    assert kind_of(address) is kind


@pytest.mark.parametrize(
    ("peer", "allowed"),
    [
        (None, {PUBLIC}),
        ("", {PUBLIC}),
        ("/run/mail.sock", {PUBLIC}),
        ("8.8.8.8", {PUBLIC}),
        (("2001:4860:4860::8888", 25), {PUBLIC}),
        ("0.0.0.0", {PUBLIC}),
        (("192.168.0.7", 587), {PUBLIC, PRIVATE}),
        (("::ffff:10.0.0.1", 587), {PUBLIC, PRIVATE}),
        ("fe80::1%eth0", {PUBLIC, PRIVATE, LINK_LOCAL}),
        (("127.0.0.1", 25), {PUBLIC, PRIVATE, LOOPBACK}),
        (("::1", 25), {PUBLIC, PRIVATE, LOOPBACK}),
    ],
)
def test_what_may_be_named_depends_on_the_mail_server(peer, allowed: set[AddressKind]) -> None:
    assert allowed_kinds(peer) == allowed


@given(st.ip_addresses())
def test_every_address_is_of_some_kind(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    kind = kind_of(str(address))
    assert PUBLIC in allowed_kinds(str(address))
    if address.version == 4:
        assert kind_of(f"::ffff:{address}") is kind
    if kind is PUBLIC:
        assert not address.is_loopback and not address.is_link_local


def test_a_name_is_no_address() -> None:
    with pytest.raises(ValueError):
        kind_of("localhost")
