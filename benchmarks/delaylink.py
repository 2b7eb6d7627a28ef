"""A slow link on one machine: two network namespaces, and a process that carries packets between them late.

Each namespace gets a TUN device; what comes out of one goes into the other `delay` seconds later, so SYN, ACK and TLS
records are late as on a real path (a proxy's handshakes would be local). Nothing is lost or reordered. Needs root, `ip`
and /dev/net/tun; the kernel's own delay (tc netem) is often not built.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import select
import shutil
import struct
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple

from benchmarks.rivals import ROOT, Unavailable

_DEVICE: Final = "/dev/net/tun"
# linux/if_tun.h
_TUNSETIFF: Final = 0x400454CA
_IFF_TUN_NO_PI: Final = 0x1001
#: Packets taken from a device before others get their turn.
_BURST: Final = 64

CLIENT_ADDRESS: Final = "198.51.100.1"
SERVER_ADDRESS: Final = "198.51.100.2"


class Link(NamedTuple):
    """Two ends that see each other only through the delay.

    Attributes:
        client: what to put before a command that is to run at the client's end.
        server: the same for the server's end.
    """

    client: tuple[str, ...]
    server: tuple[str, ...]

    def round_trip(self, port: int) -> float:
        """Return the median seconds that a TCP connection to the server's `port` takes: one round trip."""
        code = (
            "import socket, statistics, sys, time\n"
            "def once():\n"
            "    start = time.perf_counter()\n"
            f"    socket.create_connection(({SERVER_ADDRESS!r}, {port})).close()\n"
            "    return time.perf_counter() - start\n"
            "print(statistics.median(once() for _ in range(9)))"
        )
        command = [*self.client, sys.executable, "-c", code]
        return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


@contextmanager
def delayed(delay: float) -> Iterator[Link]:
    """Make the link; it is gone when the block ends, or when this process does.

    Args:
        delay: seconds in each direction.

    Raises:
        Unavailable: no root, no `ip`, or no TUN devices.
    """
    if os.geteuid() != 0 or shutil.which("ip") is None or not os.path.exists(_DEVICE):
        raise Unavailable(f"a delayed link needs root, the program ip and {_DEVICE}")
    names = [f"bench{os.getpid()}{end}" for end in "cs"]
    command = [sys.executable, "-m", "benchmarks.delaylink", *names, "--delay", str(delay)]
    carrier = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, text=True)
    assert carrier.stdin is not None and carrier.stdout is not None
    try:
        if carrier.stdout.readline() != "ready\n":
            raise Unavailable("the delayed link could not be made")
        client, server = (("ip", "netns", "exec", name) for name in names)
        yield Link(client, server)
    finally:
        carrier.stdin.close()
        carrier.wait()
        carrier.stdout.close()


# --- the carrier's process ------------------------------------------------------------------------------------


def main() -> None:
    """Make two namespaces and carry packets until standard input ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("namespaces", nargs=2)
    parser.add_argument("--delay", type=float, required=True)
    chosen = parser.parse_args()
    made: list[str] = []
    try:
        ends = []
        for name, address in zip(chosen.namespaces, (CLIENT_ADDRESS, SERVER_ADDRESS), strict=True):
            _ip("netns", "add", name)
            made.append(name)
            ends.append(_device(name, address))
        print("ready", flush=True)
        _carry(ends[0], ends[1], chosen.delay)
    finally:
        for name in made:
            _ip("netns", "del", name)


def _device(namespace: str, address: str) -> int:
    """Make a TUN device, move it to a namespace and return its file descriptor."""
    fd = os.open(_DEVICE, os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH22x", namespace.encode(), _IFF_TUN_NO_PI))
    _ip("link", "set", namespace, "netns", namespace)
    inside = ("-n", namespace)
    _ip(*inside, "address", "add", f"{address}/24", "dev", namespace)
    _ip(*inside, "link", "set", namespace, "txqueuelen", "5000", "up")
    _ip(*inside, "link", "set", "lo", "up")
    return fd


def _carry(one: int, other: int, delay: float) -> None:
    opposite = {one: other, other: one}
    # The delay is the same for all, so the first that came is the first that goes.
    on_the_way: deque[tuple[float, int, bytes]] = deque()
    stdin = sys.stdin.fileno()
    while True:
        wait = max(0.0, on_the_way[0][0] - time.monotonic()) if on_the_way else None
        ready, _, _ = select.select([one, other, stdin], [], [], wait)
        if stdin in ready:
            return
        for fd in ready:
            for packet in _packets(fd):
                on_the_way.append((time.monotonic() + delay, opposite[fd], packet))
        now = time.monotonic()
        while on_the_way and on_the_way[0][0] <= now:
            _, fd, packet = on_the_way.popleft()
            os.write(fd, packet)


def _packets(fd: int) -> Iterator[bytes]:
    for _ in range(_BURST):
        try:
            yield os.read(fd, 65536)
        except BlockingIOError:
            return


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


if __name__ == "__main__":
    main()
