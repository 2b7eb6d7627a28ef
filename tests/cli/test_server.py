"""Clients made from the options: the server."""

import pytest

from smtp_async import ClientOptions
from smtp_async.cli.options import Access
from smtp_async.cli.server import client_for


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("mail.test", "mail.test", 587),
        ("mail.test:25", "mail.test", 25),
        ("192.0.2.1:25", "192.0.2.1", 25),
        ("2001:db8::1", "2001:db8::1", 587),
        ("[2001:db8::1]", "2001:db8::1", 587),
        ("[2001:db8::1]:25", "2001:db8::1", 25),
        ("/run/lmtp", "/run/lmtp", 0),
    ],
)
def test_host_and_port_are_parsed(text, host, port):
    client = client_for(text, Access(), ClientOptions())
    assert (client.host, client.port) == (host, port)
