"""The client of `memory.py`: `send_all` with a look at the process's memory every 10,000 messages."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.ours import Ours
from benchmarks.sender import rss, serve

_STEP = 10_000


class Watched(Ours):
    """Sends by `send_all` and watches."""

    async def send(self, count: int) -> dict[str, Any]:
        """Send in one call; tell the memory after the first step, the most, and at the end."""
        looks = []
        done = 0
        async for _, receipt in self._client.send_all(self._mails(count)):
            assert receipt.accepted
            done += 1
            if done % _STEP == 0:
                looks.append(rss())
        return {"early": looks[0], "late": looks[-1], "most": max(looks)}


if __name__ == "__main__":
    serve(Watched)
