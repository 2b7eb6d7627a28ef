"""The task of a connection: what it does by itself when a connection does not come up as hoped."""

import asyncio
import gc
import warnings
from typing import Any

import pytest

from smtp_async import Outcome, PoolLimits, Security, errors, events
from smtp_async.testing import ScriptedServer, close, reply, stall
from tests.lab import client_of, mail, tls_server


async def test_opportunistic_goes_on_in_clear_when_the_handshake_fails(pki):
    told: list[events.SSLStatus] = []
    async with tls_server(pki) as server:
        server.on("STARTTLS", reply(220, "go ahead"), close(), connection=0)
        async with client_of(server, security=Security.OPPORTUNISTIC) as client:
            client.on(events.SSLStatus, told.append)
            receipt = await client.send(mail())
            assert client.statistics().open == 1
        assert receipt.outcome is Outcome.ACCEPTED
        assert [message.tls for message in server.messages] == [False]
        assert server.connections.opened == 2
        assert "STARTTLS" not in server.verbs(connection=1)
    assert "without TLS" in told[-1].message


async def test_opportunistic_does_not_dial_again_when_nothing_speaks_tls(pki):
    async with ScriptedServer() as server:
        async with client_of(server, security=Security.OPPORTUNISTIC) as client:
            await client.send(mail())
        assert server.connections.opened == 1


@pytest.mark.parametrize("security", [Security.STARTTLS])
async def test_required_tls_never_goes_on_in_clear(pki, security):
    async with tls_server(pki) as server:
        server.on("STARTTLS", reply(220, "go ahead"), close())
        async with client_of(server, security=security) as client:
            with pytest.raises(errors.SMTPError):
                await client.send(mail())
        assert server.messages == [] and "MAIL" not in server.verbs()


def test_a_loop_that_ends_is_not_left_with_a_new_connection(caplog):
    """It cancels every task at once; the end of a connection must not open another for callers about to go."""
    servers: list[Any] = []

    async def main():
        server = ScriptedServer()
        await server.__aenter__()
        server.on(".", stall())
        client = client_of(server, pool=PoolLimits(max_connections=2))
        servers.extend([server, client, [asyncio.create_task(client.send(mail(n))) for n in range(30)]])
        await server.wait_until(lambda: server.verbs().count(".") == 2)

    with warnings.catch_warnings():
        # Of the server, which nobody stops.
        warnings.simplefilter("ignore", ResourceWarning)
        asyncio.run(main())
        assert servers[0].connections.opened == 2
        assert servers[1].statistics()[1:3] == (0, 0)
        servers.clear()
        gc.collect()
    assert "destroyed" not in caplog.text
