"""Both event loops, a certificate, and a client whose every byte the test writes."""

import asyncio
import ssl
from contextlib import asynccontextmanager

import pytest
import trustme
import uvloop


def pytest_asyncio_loop_factories():
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture(scope="session")
def authority():
    return trustme.CA()


@pytest.fixture(scope="session")
def server_context(authority):
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost", "127.0.0.1").configure_cert(context)
    return context


@pytest.fixture(scope="session")
def client_context(authority):
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


class Talk:
    """One connection, byte by byte under the test's control."""

    def __init__(self, reader, writer):
        self.reader = reader
        self.writer = writer

    async def reply(self):
        """Return the code of the next reply, and its lines of text."""
        lines = []
        while True:
            line = (await self.reader.readuntil(b"\r\n")).decode()
            lines.append(line[4:-2])
            if line[3] != "-":
                return int(line[:3]), lines

    async def ask(self, *lines):
        """Send lines in one write; return the code of each reply."""
        self.write(*lines)
        return [(await self.reply())[0] for _ in lines]

    def write(self, *lines):
        self.writer.write(b"".join(line.encode() + b"\r\n" for line in lines))

    async def start_tls(self, context):
        await self.writer.start_tls(context, server_hostname="localhost")


@pytest.fixture
def talk():
    """A context manager function that opens a `Talk` to a server."""

    @asynccontextmanager
    async def opened(server, **options):
        if server.path is not None:
            reader, writer = await asyncio.open_unix_connection(server.path)
        else:
            reader, writer = await asyncio.open_connection(server.host, server.port, **options)
        try:
            yield Talk(reader, writer)
        finally:
            writer.transport.abort()

    return opened


@pytest.fixture
def greeted(talk):
    """A context manager function that opens a `Talk` and reads greeting and EHLO."""

    @asynccontextmanager
    async def opened(server, hello="EHLO me", **options):
        async with talk(server, **options) as client:
            assert (await client.reply())[0] == 220
            assert await client.ask(hello) == [250]
            yield client

    return opened
