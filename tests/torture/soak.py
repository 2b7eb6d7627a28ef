"""Send for a long time while calls fail at random, and watch the memory and open files of the process."""

from __future__ import annotations

import asyncio
import os
import time
from functools import partial
from pathlib import Path

from smtp_async import ClientOptions, Security, SMTPClient, SMTPError
from smtp_async.processor import ProcessorOptions, QueueProcessor
from smtp_async.spool.directory.spool import DirectorySpool
from tests.servers.sink import Sink
from tests.spool.directory.made import Made
from tests.torture import letters
from tests.torture.children import BRISK
from tests.torture.faults import WornFiles

RATE = 50
_PAGE = os.sysconf("SC_PAGE_SIZE")


def held() -> tuple[int, int]:
    """Return the resident octets and the number of open files of this process."""
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE
    return resident, len(os.listdir("/proc/self/fd"))


async def soak(path: Path, *, seconds: float, odds: float = 0.01, every: float = 10.0) -> int:
    """Put `RATE` messages a second and deliver them to smtp-sink, printing a line every so often.

    Returns:
        0 if every acknowledged message left the spool and no files stayed open.
    """
    sink = Sink.start()
    options = ClientOptions(hello="soak.test")
    files = Made(partial(WornFiles, odds=odds))
    put = refused = 0
    try:
        async with (
            DirectorySpool(path / "soak", create=True, syscalls=files) as spool,
            SMTPClient(sink.host, sink.port, security=Security.PLAINTEXT, options=options) as client,
        ):
            processor = QueueProcessor(
                spool, client, retry=BRISK, options=ProcessorOptions(poll=0.1, heartbeat=1.0)
            )
            running = asyncio.create_task(processor.run())
            began = told = time.monotonic()
            print("seconds  put  sent  refused puts  MiB  files", flush=True)
            while (now := time.monotonic()) - began < seconds:
                try:
                    await spool.put(
                        letters.body(put), sender=letters.SENDER, recipients=[f"n{put}@torture.test"]
                    )
                    put += 1
                except SMTPError:
                    refused += 1
                if now - told >= every:
                    told = now
                    resident, fds = held()
                    sent = processor.statistics().sent
                    print(
                        f"{now - began:7.0f}  {put}  {sent}  {refused}  {resident / 2**20:.1f}  {fds}",
                        flush=True,
                    )
                await asyncio.sleep(max(0.0, began + (put + refused) / RATE - time.monotonic()))
            files.calls.failing = lambda call: None
            async with asyncio.timeout(60.0):
                while processor.statistics().sent < put:  # noqa: ASYNC110 - there is no event for all of them
                    await asyncio.sleep(0.1)
            processor.stop()
            await running
            left = await spool.statistics()
    finally:
        sink.stop()
    print(f"{put} put, {refused} refused, {processor.statistics()}, left: {left}")
    return 0 if left.queued + left.sending + left.failed == 0 else 1
