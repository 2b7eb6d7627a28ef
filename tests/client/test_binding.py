"""binding.py: one client in one event loop after the other, and clients that nobody closes."""

import asyncio
import gc
import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from smtp_async import (
    ClientOptions,
    Credentials,
    Outcome,
    RateLimits,
    Security,
    SMTPClient,
    TLSOptions,
    Token,
    TrustOptions,
)
from smtp_async.errors import NotConnected, NotSent, UsageError
from smtp_async.testing import RecordingSink, ServerThread
from tests.auth.servers import xoauth2
from tests.lab import LOOPS, client_of, mail, speaking, until
from tests.servers.pki import Pki

#: Closes an event loop while its client waits for a token, and uses the client in the next loop.
CARELESS = """
import asyncio, sys
from smtp_async import Credentials, Message, Security, SMTPClient, Token

asked = []

async def token():
    asked.append(1)
    if len(asked) == 1:
        asyncio.get_running_loop().call_soon(asyncio.get_running_loop().stop)
        await asyncio.get_running_loop().create_future()
    return Token("access-1")

account = Credentials(username="ann", token=token, allow_cleartext=True)
client = SMTPClient("127.0.0.1", int(sys.argv[1]), credentials=account, security=Security.PLAINTEXT)

def message(subject):
    return Message(sender="ann@example.com", to="bob@example.org", subject=subject, text="Hi")

loop = asyncio.new_event_loop()
task = loop.create_task(client.send(message("never")))
loop.run_forever()
loop.close()
print(asyncio.run(client.send(message("later"))).outcome.value)
"""


@pytest.fixture
def sink() -> Iterator[Any]:
    with ServerThread(RecordingSink()) as server:
        yield server
        assert server.violations == []


def run(client: SMTPClient, n: int = 1, loop: Callable[[], asyncio.AbstractEventLoop] | None = None) -> None:
    """Send a message in an event loop of its own, and leave the client open."""
    with asyncio.Runner(loop_factory=loop) as runner:
        assert runner.run(client.send(mail(n))).outcome is Outcome.ACCEPTED


class TestClosedLoops:
    @pytest.mark.parametrize("name", LOOPS)
    def test_a_client_goes_on_in_the_next_loop(self, name: str, sink: Any) -> None:
        client = client_of(sink)
        for n in range(3):
            run(client, n, LOOPS[name])
        asyncio.run(client.close())
        assert [message.subject for message in sink.messages] == [f"message {n}" for n in range(3)]
        with pytest.raises(NotConnected, match="the client is closed"):
            run(client)

    def test_the_block_of_a_later_loop_closes_it(self, sink: Any) -> None:
        client = client_of(sink)
        run(client)

        async def enter() -> None:
            async with client:
                await client.send(mail(2))

        asyncio.run(enter())
        assert len(sink.messages) == 2 and "closed" in repr(client)

    def test_every_call_works_in_the_next_loop(self, sink: Any) -> None:
        client = client_of(sink)
        run(client)

        async def others() -> list[Any]:
            async with client.session() as session:
                await session.connect()
                receipts = [await session.send(mail(2))]
            receipts += [receipt async for _, receipt in client.send_all([mail(3)])]
            assert (await client.check()).ok
            return receipts

        assert {receipt.outcome for receipt in asyncio.run(others())} == {Outcome.ACCEPTED}
        run(client, 4)

    def test_tokens_and_tls_sessions_are_kept(self, pki: Pki) -> None:
        calls: list[int] = []

        async def token() -> Token:
            calls.append(1)
            return Token("access-1")

        server = RecordingSink(
            ssl_context=pki.server_context(), users={"ann": "access-1"}, mechanisms={"XOAUTH2": xoauth2()}
        )
        options = ClientOptions(tls=TLSOptions(trust=TrustOptions(ca_file=pki.ca_file)))
        with ServerThread(server) as sink:
            client = SMTPClient("localhost", sink.port, username="ann", token=token, options=options)
            for n in range(3):
                run(client, n)
        assert len(calls) == 1 and len(server.messages) == 3

    def test_a_loop_that_was_closed_in_the_middle_of_everything(self) -> None:
        """Its tasks were never cancelled: a later connection must not wait for a token that can never come."""
        server = RecordingSink(users={"ann": "access-1"}, mechanisms={"XOAUTH2": xoauth2()})
        with ServerThread(server) as sink:
            # In a process of its own: the interpreter complains of the tasks, and rightly so.
            done = subprocess.run(
                [sys.executable, "-c", CARELESS, str(sink.port)],
                capture_output=True,
                text=True,
                timeout=18,
            )
        assert done.stdout == "accepted\n", done.stderr
        assert [message.subject for message in server.messages] == ["later"]

    def test_limits_of_messages_outlive_a_loop(self, sink: Any) -> None:
        client = client_of(sink, rates=RateLimits(messages_per_hour=2))
        run(client, 1)
        run(client, 2)

        async def third() -> None:
            with pytest.raises(NotSent, match="RateLimits"):
                await client.send(mail(3), deadline=0.1)

        asyncio.run(third())

    def test_a_loop_that_only_stands_still_is_no_closed_one(self, sink: Any) -> None:
        client = client_of(sink)
        with asyncio.Runner() as first, asyncio.Runner() as second:
            first.run(client.send(mail(1)))
            with pytest.raises(
                UsageError, match="which is not closed: make one client for each loop, or use"
            ):
                second.run(client.send(mail(2)))
            first.run(client.close())

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
    @pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
    def test_a_child_may_use_it_if_the_loop_was_closed_before_the_fork(self, sink: Any) -> None:
        client = client_of(sink)
        run(client)
        child = os.fork()
        if child == 0:  # pragma: no cover
            status = 1
            try:
                run(client, 2)
                status = 0
            finally:
                os._exit(status)
        assert os.waitpid(child, 0)[1] == 0
        assert [message.subject for message in sink.messages] == ["message 1", "message 2"]


def warnings_of(client: list[SMTPClient]) -> list[str]:
    """Drop the only client in a list, and return what it warns of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        client.clear()
        gc.collect()
    return [text for one in caught if "SMTPClient" in (text := str(one.message))]


class TestUnclosedClients:
    async def test_one_with_open_connections_gives_a_warning_and_is_closed(self) -> None:
        async with speaking() as server:
            client = client_of(server)
            await client.send(mail())
            with pytest.warns(ResourceWarning, match="not closed: <SMTPClient 127.0.0.1.* 1 open"):
                del client
                gc.collect()
            await until(lambda: server.commands[-1].verb == "QUIT")

    async def test_a_loop_that_ends_at_once_leaves_nothing_open(self, sink: Any) -> None:
        async def forget() -> None:
            client = client_of(sink)
            await client.send(mail())
            with pytest.warns(ResourceWarning, match="not closed"):
                del client
                gc.collect()

        await asyncio.to_thread(asyncio.run, forget())

    @pytest.mark.parametrize("used", [False, True])
    async def test_a_closed_one_and_an_unused_one_give_none(self, used: bool) -> None:
        async with speaking() as server:
            client = client_of(server)
            if used:
                await client.send(mail())
                await client.close()
            last = [client]
            del client
            assert warnings_of(last) == []

    def test_one_whose_loop_is_closed_gives_none(self, sink: Any) -> None:
        client = client_of(sink)
        run(client)
        last = [client]
        del client
        assert warnings_of(last) == []

    async def test_a_message_under_way_holds_its_client(self) -> None:
        async with speaking() as server:
            client = client_of(server)
            sending = asyncio.ensure_future(client.send(mail()))
            del client
            gc.collect()
            with pytest.warns(ResourceWarning, match="1 sent"):
                assert (await sending).outcome is Outcome.ACCEPTED
                del sending
                gc.collect()
            await until(lambda: server.commands[-1].verb == "QUIT")

    def test_one_that_was_never_made_gives_none(self) -> None:
        with pytest.raises(UsageError):
            SMTPClient("mx.test", credentials=Credentials(username="ann", password="x"), username="bob")
        with pytest.raises(UsageError):
            SMTPClient("", security=Security.PLAINTEXT)
        gc.collect()
