"""pytest fixtures of the test kit. In your `conftest.py`:

    pytest_plugins = ["smtp_async.testing.plugin"]

The servers run in threads of their own, so the fixtures are not async: synchronous tests can use them, and asynchronous
tests with pytest-asyncio (either mode) or anyio's plugin.

    async def test_welcome_mail(mail_server, outbox):
        await register(ann, smtp_url=mail_server.url)
        assert "Hello Ann" in outbox.one(to="ann@example.org", subject="Welcome").text

    def test_full_mailbox(scripted_server):
        server = scripted_server(lmtp=True)
        server.on("RCPT", reply(452, "4.2.2 mailbox full"))
        ...
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from .outbox import Outbox
from .server import ScriptedServer
from .sink import RecordingSink
from .thread import ServerThread


@pytest.fixture
def mail_server() -> Iterator[ServerThread[RecordingSink]]:
    """A server that accepts everything, on a free port of 127.0.0.1: `mail_server.url`."""
    with ServerThread(RecordingSink()) as server:
        yield server


@pytest.fixture
def outbox(mail_server: ServerThread[RecordingSink]) -> Outbox:
    """The messages that `mail_server` has accepted."""
    return Outbox(mail_server.server.messages)


@pytest.fixture
def scripted_server() -> Iterator[Callable[..., ServerThread[ScriptedServer]]]:
    """A factory of `ScriptedServer`s, called with their options; each server is stopped after the test."""
    with ExitStack() as stack:

        def start(**options: Any) -> ServerThread[ScriptedServer]:
            return stack.enter_context(ServerThread(ScriptedServer(**options)))

        yield start
