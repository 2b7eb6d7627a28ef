"""threads.py: few threads of our own, for each event loop."""

import asyncio
import subprocess
import sys
import threading

from smtp_async.oauth.threads import in_oauth_thread
from tests.lab import gathered, until


def test_importing_the_package_loads_nothing_heavy() -> None:
    program = (
        "import sys, smtp_async.oauth;"
        "print(*{'httpx', 'anyio', 'cryptography', 'google', 'msal'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


async def test_no_more_than_four_at_once() -> None:
    gate = threading.Event()
    running: list[int] = []

    def work() -> int:
        running.append(threading.get_ident())
        gate.wait(10)
        return 1

    tasks = [asyncio.create_task(in_oauth_thread(work)) for _ in range(6)]
    try:
        await until(lambda: len(running) == 4)
        tasks[0].cancel()
        await asyncio.wait({tasks[0]})
        # A thread whose caller was cancelled still counts.
        assert len(running) == 4
    finally:
        gate.set()
    found = await gathered(*tasks[1:])
    assert found == [1] * 5 and threading.get_ident() not in running


def test_each_event_loop_has_its_own() -> None:
    for _ in range(2):
        assert asyncio.run(in_oauth_thread(lambda: 7)) == 7
