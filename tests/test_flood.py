"""Replies without end: the client gives up in less than a second, and its memory hardly grows.

The client runs in a process of its own, because the memory of the tests' process tells nothing.
"""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from smtp_async.testing import Action, ScriptedServer, endless

ROOT = Path(__file__).parents[1]
#: Seconds until the error, and MiB by which the most resident memory may exceed that of an undisturbed message.
SOON, GROWTH = 1.0, 5.0
FLOODS: dict[str, Action] = {
    "a line": endless(b"x" * 65_536, start=b"250 "),
    "lines": endless(b"250-more\r\n" * 1000),
    "empty lines": endless(b"250-\r\n" * 1000),
    "long lines": endless((b"250-" + b"x" * 500 + b"\r\n") * 100),
    "octets that are no reply": endless(b"\0" * 65_536),
    "challenges": endless(b"334 " + b"QUJD" * 10_000),
}
POINTS = ("GREETING", "EHLO", "AUTH", "MAIL", "RCPT", "DATA", ".")
#: One message to a correct server, then one to the server that floods, in three rounds.
CLIENT = """
import asyncio, json, re, sys, time
from pathlib import Path
from smtp_async import ClientOptions, Credentials, Security, SMTPClient, SMTPError

def resident(field):
    return int(re.search(field + r":\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024

async def send(port):
    key = Credentials(username="ann", password="secret", mechanisms=("LOGIN",), allow_cleartext=True)
    options = ClientOptions(hello="client.test")
    async with SMTPClient(
        "127.0.0.1", port, security=Security.PLAINTEXT, credentials=key, options=options
    ) as client:
        began = time.monotonic()
        try:
            await client.send_raw(b"Subject: x\\r\\n\\r\\ny\\r\\n", sender="a@b.test", recipients=["c@d.test"])
        except SMTPError as error:
            names = []
            while error is not None:
                names.append(type(error).__name__)
                error = error.__cause__
            return time.monotonic() - began, names
        return time.monotonic() - began, []

good, bad = map(int, sys.argv[1:])
for port in (good, bad):
    asyncio.run(send(port))
# From here on the kernel counts the highest resident memory anew.
Path("/proc/self/clear_refs").write_text("5")
before = resident("VmRSS")
rounds = [asyncio.run(send(bad)) for _ in range(3)]
seconds = min(seconds for seconds, _ in rounds)
print(json.dumps({"seconds": seconds, "names": rounds[0][1], "growth": resident("VmHWM") - before}))
"""


async def flooded(point: str, flood: Action) -> dict[str, Any]:
    """Let a client in a process of its own send to a server that floods at a point; return what it measured."""
    users = {"ann": "secret"}
    async with ScriptedServer(users=users) as good, ScriptedServer(users=users) as bad:
        bad.on(point, flood)
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            CLIENT,
            str(good.port),
            str(bad.port),
            cwd=ROOT,
            stdout=asyncio.subprocess.PIPE,
        )
        output, _ = await process.communicate()
    assert process.returncode == 0
    return dict(json.loads(output))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc tells the memory")
@pytest.mark.timeout(60)
@pytest.mark.parametrize("flood", FLOODS)
async def test_a_reply_without_end_costs_a_second_and_five_mebibytes_at_most(flood: str) -> None:
    # Each flood meets two of the points, and all of them together every point.
    place = list(FLOODS).index(flood)
    for point in {POINTS[place], POINTS[(place + 3) % len(POINTS)]}:
        found = await flooded("AUTH" if flood == "challenges" else point, FLOODS[flood])
        assert found["seconds"] < SOON, (point, found)
        assert found["growth"] < GROWTH, (point, found)
        assert {"ReplyTooLong", "ProtocolViolation"} & set(found["names"]), (point, found)
