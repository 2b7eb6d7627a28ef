"""The rival of `attachment.py`: `EmailMessage` with the bytes of the file, sent by `send_message`."""

from __future__ import annotations

from email.message import EmailMessage
from pathlib import Path
from typing import Any

# Run as a script in the rival's own environment, which has neither this project nor its tools.
from rival_aiosmtplib import Rival  # type: ignore[import-not-found]
from sender import Task, serve  # type: ignore[import-not-found]
from watch import Watch  # type: ignore[import-not-found]


class Large(Rival):  # type: ignore[misc]
    """Sends one message after the other."""

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        self._path = Path(task.mode)

    async def send(self, count: int) -> dict[str, Any]:
        """Send and watch; before the first round only connect."""
        if not self._started:
            self._started = True
            return {}
        async with Watch() as watch:
            for _ in range(count):
                await self._clients[0].send_message(_message(self._path))
        return watch.told()

    _started = False


def _message(path: Path) -> EmailMessage:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "ann@example.com", "bob@lab.test", "large"
    message.set_content("See the file.\n")
    message.add_attachment(
        path.read_bytes(), maintype="application", subtype="octet-stream", filename="large.bin"
    )
    return message


if __name__ == "__main__":
    serve(Large)
