"""What `start_tls` of a transport must do, as tests that any stream runs beside those of `StreamContract`.

The class needs three fixtures: `connected`, which connects a stream without TLS; `server_context`, the `ssl.SSLContext`
of a server named localhost; and `client_context`, one that trusts that server. trustme makes both in a few lines.
"""

from __future__ import annotations

import asyncio
import itertools
import ssl
from collections.abc import Callable, Coroutine
from typing import Any

from ..errors import ConnectionLost, DecryptionFailed, HandshakeFailed, PlaintextInjected, Timeout
from ..transport.stream import Stream
from .faults import run_cancelled_at
from .stream_contract import CANCELLATIONS
from .stream_peers import Connected, Peer, collect, echo, exactly, expected, talking, turns, until
from .tls import TLSLayer

__all__ = ["UpgradeContract"]


class EncryptedPeer:
    """The server's end of a connection after its handshake, with TLS on memory buffers."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, layer: TLSLayer) -> None:
        self._reader = reader
        self._writer = writer
        self._layer = layer
        #: Clear bytes that came in one packet with the last of the handshake.
        self._unread = b""

    async def handshake(self) -> None:
        """Answer the client's handshake."""
        while not self._layer.ready:
            self._unread = await self._receive()

    async def read(self) -> bytes:
        """Return clear bytes as they come.

        Raises:
            ConnectionResetError: the client has ended the connection.
        """
        while not self._unread:
            self._unread = await self._receive()
        data, self._unread = self._unread, b""
        return data

    async def _receive(self) -> bytes:
        wire = await self._reader.read(65536)
        if not wire:
            raise ConnectionResetError
        try:
            clear = self._layer.receive(wire)
        except ssl.SSLError as error:
            raise ConnectionResetError from error
        finally:
            self._writer.write(self._layer.pending())
        if self._layer.ended:
            self._writer.write(self._layer.end())
            self._writer.close()
            await self._writer.wait_closed()
            raise ConnectionResetError
        return clear

    def write(self, clear: bytes) -> None:
        """Send bytes encrypted."""
        self._writer.write(self._layer.encrypt(clear))

    async def echo(self) -> None:
        """Send everything back until the client closes."""
        while True:
            self.write(await self.read())


def upgrading(
    context: ssl.SSLContext,
    then: Callable[[EncryptedPeer], Coroutine[Any, Any, Any]],
    *,
    reply: bytes = b"220 go\r\n",
) -> Peer:
    """Return a peer that answers one line with `reply`, does its part of the handshake and goes on with `then`."""

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Any:
        await reader.readline()
        writer.write(reply)
        encrypted = EncryptedPeer(reader, writer, TLSLayer(context))
        await encrypted.handshake()
        return await then(encrypted)

    return peer


async def ask_for_tls(stream: Stream) -> None:
    """Send STARTTLS and read the reply, no byte more."""
    stream.write(b"STARTTLS\r\n")
    assert await exactly(stream, 8) == b"220 go\r\n"


class UpgradeContract:
    """Tests of a transport that can be encrypted: derive from it, with three fixtures."""

    # --- success ---

    async def test_an_upgraded_stream_is_encrypted(
        self, connected: Connected, server_context: ssl.SSLContext, client_context: ssl.SSLContext
    ) -> None:
        async with talking(connected, upgrading(server_context, EncryptedPeer.echo)) as (stream, _):
            await ask_for_tls(stream)
            before = stream.traffic.sent, stream.traffic.received
            await stream.start_tls(client_context, "localhost")
            assert stream.encrypted
            stream.write(b"x" * 300_000)
            await stream.drain()
            assert await exactly(stream, 300_000) == b"x" * 300_000
            assert (stream.traffic.sent - before[0], stream.traffic.received - before[1]) == (
                300_000,
                300_000,
            )

    async def test_the_tls_layer_can_be_asked_after_the_end(
        self, connected: Connected, server_context: ssl.SSLContext, client_context: ssl.SSLContext
    ) -> None:
        async with talking(connected, upgrading(server_context, EncryptedPeer.echo)) as (stream, _):
            await ask_for_tls(stream)
            await stream.start_tls(client_context, "localhost")
            await stream.close()
            assert await stream.read() == b""
            assert stream.ssl_object is not None
            assert stream.ssl_object.cipher()

    async def test_the_server_may_speak_right_after_the_handshake(
        self, connected: Connected, server_context: ssl.SSLContext, client_context: ssl.SSLContext
    ) -> None:
        async def greet(peer: EncryptedPeer) -> None:
            peer.write(b"220 hello\r\n")
            await peer.echo()

        async with talking(connected, upgrading(server_context, greet)) as (stream, _):
            await ask_for_tls(stream)
            await stream.start_tls(client_context, "localhost")
            assert await exactly(stream, 11) == b"220 hello\r\n"

    async def test_bytes_are_handed_over_after_an_upgrade(
        self, connected: Connected, server_context: ssl.SSLContext, client_context: ssl.SSLContext
    ) -> None:
        async with talking(connected, upgrading(server_context, EncryptedPeer.echo)) as (stream, _):
            await ask_for_tls(stream)
            await stream.start_tls(client_context, "localhost")
            taken: list[bytes] = []
            stream.hand_over(lambda data: not taken.append(data))  # type: ignore[func-returns-value]
            stream.write(b"one")
            await until(lambda: b"".join(taken) == b"one")
            stream.hand_over(None)

    # --- an attack ---

    async def test_plaintext_behind_the_reply_is_refused(
        self, connected: Connected, server_context: ssl.SSLContext, client_context: ssl.SSLContext
    ) -> None:
        for extra in (b"X", b"250-AUTH PLAIN\r\n250 OK\r\n", b"\x16"):
            peer = upgrading(server_context, EncryptedPeer.echo, reply=b"220 go\r\n" + extra)
            async with talking(connected, peer) as (stream, ended):
                await ask_for_tls(stream)
                with expected(PlaintextInjected) as caught:
                    await stream.start_tls(client_context, "localhost")
                assert caught[0].stage == "STARTTLS"
                assert stream.early == extra
                await self._is_gone(stream, ended)

    async def test_plaintext_that_comes_later_breaks_the_handshake(
        self, connected: Connected, client_context: ssl.SSLContext
    ) -> None:
        go = asyncio.Event()

        async def late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readline()
            writer.write(b"220 go\r\n")
            await go.wait()
            writer.write(b"250-AUTH PLAIN\r\n250 OK\r\n")
            await reader.read(-1)

        async with talking(connected, late) as (stream, ended):
            await ask_for_tls(stream)
            upgrade = asyncio.ensure_future(stream.start_tls(client_context, "localhost"))
            await turns()
            go.set()
            with expected(HandshakeFailed):
                await upgrade
            await self._is_gone(stream, ended)

    # --- failures ---

    async def test_a_server_that_is_not_trusted_fails_the_handshake(
        self, connected: Connected, server_context: ssl.SSLContext
    ) -> None:
        async with talking(connected, upgrading(server_context, EncryptedPeer.echo)) as (stream, ended):
            await ask_for_tls(stream)
            stranger = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            with expected(HandshakeFailed) as caught:
                await stream.start_tls(stranger, "localhost")
            assert isinstance(caught[0].__cause__, ssl.SSLCertVerificationError)
            await self._is_gone(stream, ended)

    async def test_a_connection_that_ended_before_the_handshake_is_lost(
        self, connected: Connected, client_context: ssl.SSLContext
    ) -> None:
        async def leave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readline()
            writer.write(b"220 go\r\n")
            writer.close()
            await writer.wait_closed()

        async with talking(connected, leave) as (stream, ended):
            await ask_for_tls(stream)
            await until(lambda: stream.ended)
            with expected(ConnectionLost):
                await stream.start_tls(client_context, "localhost")
            await self._is_gone(stream, ended)

    async def test_a_connection_that_ends_in_the_handshake_fails_it(
        self, connected: Connected, client_context: ssl.SSLContext
    ) -> None:
        async def leave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(1)

        async with talking(connected, leave) as (stream, ended):
            with expected(HandshakeFailed) as caught:
                await stream.start_tls(client_context, "localhost")
            assert isinstance(caught[0].__cause__, ConnectionError)
            await self._is_gone(stream, ended)

    async def test_a_handshake_ends_at_its_deadline(
        self, connected: Connected, client_context: ssl.SSLContext
    ) -> None:
        async with talking(connected, collect) as (stream, ended):
            deadline = asyncio.get_running_loop().time() + 0.05
            with expected(Timeout) as caught:
                await stream.start_tls(client_context, "localhost", deadline=deadline)
            assert caught[0].stage == "tls"
            await self._is_gone(stream, ended)

    async def test_abort_ends_a_handshake(self, connected: Connected, client_context: ssl.SSLContext) -> None:
        async with talking(connected, collect) as (stream, ended):
            upgrade = asyncio.ensure_future(stream.start_tls(client_context, "localhost"))
            await turns()
            stream.abort()
            with expected(HandshakeFailed):
                await upgrade
            await self._is_gone(stream, ended)

    async def test_a_broken_record_is_an_error_of_decryption(
        self, connected: Connected, server_context: ssl.SSLContext, client_context: ssl.SSLContext
    ) -> None:
        async def garbage(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            peer = EncryptedPeer(reader, writer, TLSLayer(server_context))
            await peer.handshake()
            await peer.read()
            writer.write(b"\x17\x03\x03\x00\x20" + bytes(32))
            await echo(reader, writer)

        async with talking(connected, garbage) as (stream, _):
            await stream.start_tls(client_context, "localhost")
            stream.write(b"x")
            with expected(DecryptionFailed):
                await stream.read()

    async def test_a_cancelled_upgrade_ends_the_connection(
        self, connected: Connected, server_context: ssl.SSLContext, client_context: ssl.SSLContext
    ) -> None:
        for manner, moment in CANCELLATIONS:
            for at in itertools.count(1):
                async with talking(connected, upgrading(server_context, EncryptedPeer.echo)) as (
                    stream,
                    ended,
                ):
                    await ask_for_tls(stream)

                    async def upgrade(stream: Stream = stream) -> None:
                        await stream.start_tls(client_context, "localhost")

                    run = await run_cancelled_at(at, upgrade, manner=manner, moment=moment)
                    assert run.cancelled == run.injected
                    if not run.injected:
                        assert stream.encrypted
                        break
                    await self._is_gone(stream, ended)

    async def _is_gone(self, stream: Stream, ended: asyncio.Future[Any]) -> None:
        """Check that a failed upgrade has closed the connection, at both ends."""
        assert stream.is_closing()
        assert not stream.encrypted
        with expected(ConnectionLost):
            stream.write(b"x")
        assert await stream.read() == b""
        await ended
        await stream.close()
