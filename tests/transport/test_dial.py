"""From a name to a connection, on loopback."""

import asyncio
import errno
import os
import pickle
import socket

import pytest

from smtp_async.errors import (
    FeatureUnavailable,
    InvalidHost,
    InvalidPort,
    MissingHost,
    ResolveError,
    SocketError,
    Timeout,
)
from smtp_async.transport import AddressFamily, SocketOptions, dial, dial_unix
from smtp_async.transport import dial as module_dial  # noqa: F401
from tests.transport.lab import MANNERS, black_hole, cancelled_everywhere, echo, serving, sink


def info(host, port=25):
    """What getaddrinfo returns for an address."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return (family, socket.SOCK_STREAM, 6, "", (host, port, 0, 0)[: 4 if ":" in host else 2])


@pytest.fixture
def resolver(monkeypatch):
    """Let every loop's getaddrinfo give a fixed answer; asked for names are noted."""

    class Resolver:
        def __init__(self):
            self.asked = []
            self.answer = []

        async def __call__(self, host, port, **kwargs):
            self.asked.append(host)
            if isinstance(self.answer, Exception):
                raise self.answer
            return self.answer

    found = Resolver()

    async def resolve(name, port, family, *, flags=0):
        loop = asyncio.get_running_loop()
        return await original(Loop(loop), name, port, family, flags)

    class Loop:
        def __init__(self, loop):
            self.getaddrinfo = found

    from smtp_async.transport import dial as _  # noqa: F401

    import sys

    dial_module = sys.modules["smtp_async.transport.dial"]
    source = dial_module._resolve

    async def original(loop, name, port, family, flags):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(dial_module.asyncio, "get_running_loop", lambda: loop)
            coroutine = source(name, port, family, flags=flags)
            return await coroutine

    monkeypatch.setattr(dial_module, "_resolve", resolve)
    return found
