"""TLS of the test server on memory buffers, against Python's own client."""

import ssl

import pytest

from smtp_async.testing.tls import TLSLayer


class Client:
    """A TLS client on memory buffers."""

    def __init__(self, context):
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname="localhost")

    def shake(self, wire=b""):
        """Continue the handshake with bytes of the server; return what to send."""
        self.incoming.write(wire)
        try:
            self.tls.do_handshake()
        except ssl.SSLWantReadError:
            pass
        return self.outgoing.read()


@pytest.fixture
def ends(server_context, client_context):
    """Both ends of a connection, after the handshake."""
    server, client = TLSLayer(server_context), Client(client_context)
    wire = client.shake()
    while not server.ready:
        assert server.receive(wire) == b""
        wire = client.shake(server.pending())
    assert server.receive(wire) == b""
    client.shake(server.pending())
    return server, client


def test_clear_bytes_travel_both_ways(ends):
    server, client = ends
    client.tls.write(b"EHLO me\r\n")
    assert server.receive(client.outgoing.read()) == b"EHLO me\r\n" and not server.ended
    client.incoming.write(server.encrypt(b"250 hi\r\n"))
    assert client.tls.read() == b"250 hi\r\n"


def test_bytes_may_come_one_by_one(ends):
    server, client = ends
    client.tls.write(b"NOOP\r\n")
    wire = client.outgoing.read()
    assert b"".join(server.receive(wire[at : at + 1]) for at in range(len(wire))) == b"NOOP\r\n"


def test_the_end_of_the_client_is_seen_and_answered(ends):
    server, client = ends
    with pytest.raises(ssl.SSLWantReadError):
        client.tls.unwrap()
    assert server.receive(client.outgoing.read()) == b"" and server.ended
    client.incoming.write(server.end())
    client.tls.unwrap()


def test_what_is_no_tls_is_an_error(server_context, ends):
    with pytest.raises(ssl.SSLError):
        TLSLayer(server_context).receive(b"EHLO me\r\n")
    server, _ = ends
    with pytest.raises(ssl.SSLError):
        server.receive(b"QUIT\r\n")
