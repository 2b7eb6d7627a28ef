"""The library's own streams keep the contract of a transport, on asyncio's loop and on uvloop."""

import asyncio
import contextlib
import inspect
import itertools

import pytest

from smtp_async.errors import ConnectionLost, PlaintextInjected
from smtp_async.testing import StreamContract, UpgradeContract
from smtp_async.transport import Stream, dial, dial_unix


def connects_over_tcp(before=None, **options):
    """Return what connects a stream over TCP; `before(stream)` is awaited before the test has it."""

    @contextlib.asynccontextmanager
    async def connected(peer):
        async with await asyncio.start_server(peer, "127.0.0.1", 0, **options) as server:
            stream = await dial("127.0.0.1", server.sockets[0].getsockname()[1])
            if before is not None:
                await before(stream)
            yield stream

    return connected


class TestPlainStream(StreamContract, UpgradeContract):
    @pytest.fixture
    def connected(self):
        return connects_over_tcp()


class TestUnixStream(StreamContract, UpgradeContract):
    @pytest.fixture
    def connected(self, tmp_path):
        paths = (str(tmp_path / str(number)) for number in itertools.count())

        @contextlib.asynccontextmanager
        async def connected(peer):
            path = next(paths)
            async with await asyncio.start_unix_server(peer, path):
                yield await dial_unix(path)

        return connected


class TestTLSStream(StreamContract):
    half_close = False

    @pytest.fixture
    def connected(self, server_context, client_context):
        async def encrypt(stream):
            await stream.start_tls(client_context, "localhost")

        return connects_over_tcp(encrypt, ssl=server_context)


class LosesBytes(Stream):
    __slots__ = ()

    async def read(self, n=65536):
        data = await super().read(n)
        await asyncio.sleep(0)
        return data


class NeverWaits(Stream):
    __slots__ = ()

    async def drain(self):
        pass


class RaisesSystemErrors(Stream):
    __slots__ = ()

    async def read(self, n=65536):
        try:
            return await super().read(n)
        except ConnectionLost as error:
            raise (error.__cause__ or error) from None


class TakesPlaintext(Stream):
    __slots__ = ()

    async def start_tls(self, context, server_hostname, *, deadline=None, to_proxy=False):
        with contextlib.suppress(PlaintextInjected):
            await super().start_tls(context, server_hostname, deadline=deadline, to_proxy=to_proxy)


@pytest.mark.parametrize(
    ("broken", "contract", "test", "error"),
    [
        (LosesBytes, StreamContract, "test_cancelling_a_read_loses_nothing", TimeoutError),
        (NeverWaits, StreamContract, "test_drain_waits_for_the_peer_in_any_number_of_tasks", AssertionError),
        (
            RaisesSystemErrors,
            StreamContract,
            "test_bytes_before_a_failure_are_read_first",
            ConnectionResetError,
        ),
        (TakesPlaintext, UpgradeContract, "test_plaintext_behind_the_reply_is_refused", AssertionError),
    ],
)
async def test_a_transport_that_breaks_the_contract_fails(
    server_context, client_context, broken, contract, test, error
):
    async def change(stream):
        stream.__class__ = broken

    arguments = {"server_context": server_context, "client_context": client_context}
    wanted = inspect.signature(getattr(contract, test)).parameters
    # Bytes that are lost are waited for.
    patience = 0.5 if error is TimeoutError else None
    with pytest.raises(error):
        async with asyncio.timeout(patience):
            await getattr(contract(), test)(
                connects_over_tcp(change),
                **{name: value for name, value in arguments.items() if name in wanted},
            )
