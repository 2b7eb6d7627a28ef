"""Every test here runs on asyncio's loop and on uvloop; those of TLS that meet a server do, too."""

import asyncio
import gc
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest

from smtp_async.transport.resolve import DNSOptions, DNSResolver

Run = Callable[[Coroutine[Any, Any, Any]], Any]


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Iterator[Run]:
    """Return a function that runs a coroutine; whatever was not closed is reported when it is collected."""
    factory = None
    if request.param == "uvloop":
        factory = pytest.importorskip("uvloop").new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        yield runner.run
    gc.collect()


@pytest.fixture
def ask(dns, run):
    """Ask Unbound, and close the resolver."""

    def ask(work, **options):
        async def scenario():
            resolver = DNSResolver(DNSOptions(**{"servers": (dns.server,), **options}))
            try:
                return await work(resolver)
            finally:
                resolver.close()

        return run(scenario())

    return ask
