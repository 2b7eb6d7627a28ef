"""The header of the PROXY protocol, by its specification and by Postfix."""

import ipaddress
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtp_async import ClientOptions, Security, SMTPClient, SocketOptions
from smtp_async.errors import InvalidArgument
from smtp_async.transport.proxy_protocol import ProxyProtocol
from tests.lab import mail, trusting

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
pairs = st.tuples(st.ip_addresses().map(str), st.integers(0, 65535))


def read(header):
    """Read a header of version 2 as a server does."""
    assert header[:12] == SIGNATURE
    version, family, length = struct.unpack("!BBH", header[12:16])
    assert version == 0x21 and len(header) == 16 + length
    size = {0x11: 4, 0x21: 16}[family]
    body = header[16:]
    ports = struct.unpack("!HH", body[2 * size :])
    return tuple((ipaddress.ip_address(body[i * size : (i + 1) * size]), ports[i]) for i in (0, 1))


def test_the_examples_of_the_specification():
    one = ProxyProtocol(version=1, source=("192.168.0.1", 56324), destination=("192.168.0.11", 443))
    assert one.header(None, None) == b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n"
    six = ProxyProtocol(version=1, source=("2001:db8::1", 1), destination=("2001:db8::2", 2))
    assert six.header(None, None) == b"PROXY TCP6 2001:db8::1 2001:db8::2 1 2\r\n"
    two = ProxyProtocol(source=("192.0.2.1", 0x1234), destination=("192.0.2.2", 25))
    expected = SIGNATURE + b"\x21\x11\0\x0c" + bytes((192, 0, 2, 1, 192, 0, 2, 2)) + b"\x12\x34\0\x19"
    assert two.header(("127.0.0.1", 1), ("127.0.0.1", 2)) == expected


def test_without_addresses_they_are_those_of_the_connection():
    header = ProxyProtocol(version=1).header(("127.0.0.1", 40000), ("127.0.0.2", 25))
    assert header == b"PROXY TCP4 127.0.0.1 127.0.0.2 40000 25\r\n"


@pytest.mark.parametrize("local", [None, "/run/lmtp"])
def test_over_a_unix_socket_the_connection_speaks_for_itself(local):
    assert ProxyProtocol(version=1).header(local, "/run/lmtp") == b"PROXY UNKNOWN\r\n"
    assert ProxyProtocol().header(local, "/run/lmtp") == SIGNATURE + b"\x20\0\0\0"


@given(pairs, pairs)
def test_any_addresses(source, destination):
    two = ProxyProtocol(source=source, destination=destination).header(None, None)
    for (address, port), (host, number) in zip(read(two), (source, destination), strict=True):
        wanted = ipaddress.ip_address(host)
        assert number == port and (address == wanted or address.ipv4_mapped == wanted)
    one = ProxyProtocol(version=1, source=source, destination=destination).header(None, None)
    # The specification bounds the line, so that one read takes it.
    assert one.endswith(b"\r\n") and len(one) <= 107 and one.count(b" ") == 5


@pytest.mark.parametrize(
    "options",
    [
        {"version": 0},
        {"version": 3},
        {"source": ("localhost", 25)},
        {"source": ("127.0.0.1", 65536)},
        {"destination": ("127.0.0.1\r\nEHLO x", 25)},
        {"destination": "127.0.0.1"},
    ],
)
def test_what_is_no_address(options):
    with pytest.raises(InvalidArgument, match="PROXY protocol"):
        ProxyProtocol(**options)


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("security", [Security.PLAINTEXT, Security.STARTTLS])
async def test_postfix_takes_the_clients_address_from_it(postfix, pki, version, security):
    """The address of the header, not of the connection, is the client's in the Received field."""
    header = ProxyProtocol(version=version, source=("192.0.2.77", 4321), destination=("192.0.2.25", 25))
    options = ClientOptions(socket=SocketOptions(proxy_protocol=header), tls=trusting(pki))
    subject = f"proxied {version} {security.value}"
    async with SMTPClient("localhost", postfix.proxied_port, security=security, options=options) as client:
        await client.send(mail(text="Hello", to="user@lab.test", subject=subject))
    (delivered,) = postfix.wait_for_message(subject)
    assert b"[192.0.2.77]" in delivered
