"""certificate.py: a certificate for this machine."""

import ssl

from smtp_async import Message, Outcome, Security, SMTPClient
from smtp_async.web.catcher.certificate import own_context
from smtp_async.web.catcher.server import CatchingServer


async def test_a_client_that_does_not_verify_gets_tls():
    caught = []
    context = own_context()
    assert isinstance(context, ssl.SSLContext)
    async with CatchingServer(lambda *one: caught.append(one), ssl_context=context) as server:
        async with SMTPClient(server.host, server.port, security=Security.OPPORTUNISTIC) as client:
            letter = Message(sender="ann@example.com", to="bob@example.org", subject="x", text="x")
            assert (await client.send(letter)).outcome is Outcome.ACCEPTED
    assert caught[0][0].tls
