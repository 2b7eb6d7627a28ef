"""The contestant of `attachment.py`: a `Message` with a file, given by its path."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.ours import Ours
from benchmarks.sender import Task, serve
from benchmarks.watch import Watch
from smtp_async import Attachment, Message


class Large(Ours):
    """Sends one message after the other."""

    def __init__(self, task: Task) -> None:
        super().__init__(task._replace(mode="send"))
        self._path = Path(task.mode)
        self._small = self._path.with_suffix(".small")
        self._small.write_bytes(bytes(2**20))

    async def open(self) -> None:
        """Send a smaller message of the same kind, so that everything is loaded."""
        await self._client.send(_message(self._small))

    async def send(self, count: int) -> dict[str, Any]:
        """Send and watch."""
        async with Watch() as watch:
            for _ in range(count):
                await self._client.send(_message(self._path))
        return watch.told()


def _message(path: Path) -> Message:
    attachment = Attachment(path, filename="large.bin")
    return Message(
        sender="ann@example.com",
        to="bob@lab.test",
        subject="large",
        text="See the file.\n",
        attachments=[attachment],
    )


if __name__ == "__main__":
    serve(Large)
