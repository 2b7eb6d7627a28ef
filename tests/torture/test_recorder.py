"""recorder.py: no connection stays open, whenever the recorder is closed."""

import asyncio
import socket

import pytest

from tests.torture.recorder import Recorder


@pytest.mark.parametrize("turns", range(8))
async def test_it_closes_a_connection_that_is_being_made(turns: int) -> None:
    async with Recorder() as recorder:
        client = socket.create_connection((recorder.host, recorder.port), timeout=5.0)
        for _ in range(turns):
            await asyncio.sleep(0)
    with client:
        try:
            while client.recv(100):
                pass
        except ConnectionResetError:
            pass
