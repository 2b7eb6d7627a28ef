"""Keeps caught messages in a folder: for each an `.eml` file, as received, and a `.json` file with the rest."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from ...errors import FileError
from ...model.reply import printable
from ...testing.records import ReceivedMessage
from .mailbox import Caught
from .server import DialogueLine

__all__ = ["Folder"]

_NAME: Final = re.compile(r"[0-9a-f]{14}")


class Folder:
    """A folder of messages.

    The `.json` file is written last, so a message without it was never accepted.

    Args:
        path: the folder; it is made, for its owner only, if it does not exist.

    Raises:
        FileError: the folder cannot be made.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise FileError(f"cannot keep mail in {path}: {error.strerror}") from error

    def save(self, message: Caught) -> None:
        """Write a message.

        Raises:
            FileError: it cannot be written.
        """
        received = message.received
        facts = {
            "at": message.at,
            "mail_from": received.mail_from,
            "rcpt_tos": received.rcpt_tos,
            "mail_parameters": received.mail_parameters,
            "rcpt_parameters": received.rcpt_parameters,
            "tls": received.tls,
            "user": received.user,
            "chunked": received.chunked,
            "dialogue": message.dialogue,
        }
        try:
            self._write(f"{message.id}.eml", received.data)
            self._write(f"{message.id}.json", json.dumps(facts).encode())
        except OSError as error:
            raise FileError(f"cannot keep mail in {self._path}: {error.strerror}") from error

    def _write(self, name: str, data: bytes) -> None:
        unfinished = self._path / f"{name}.unfinished"
        with open(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(data)
        os.replace(unfinished, self._path / name)

    def forget(self, id: str) -> None:
        """Delete a message."""
        for ending in ("json", "eml"):
            (self._path / f"{id}.{ending}").unlink(missing_ok=True)

    def messages(self) -> Iterator[Caught]:
        """Read the messages, the oldest first; what is none is left alone.

        Raises:
            FileError: a file cannot be read.
        """
        for path in sorted(self._path.glob("*.json")):
            if _NAME.fullmatch(path.stem):
                try:
                    message = _read(path)
                except OSError as error:
                    raise FileError(f"cannot read {path}: {error.strerror}") from error
                except (ValueError, KeyError, TypeError) as error:
                    raise FileError(f"{path} is not of a caught message: {printable(str(error))}") from error
                yield message


def _read(path: Path) -> Caught:
    facts: dict[str, Any] = json.loads(path.read_bytes())
    at, dialogue = float(facts.pop("at")), [DialogueLine(*line) for line in facts.pop("dialogue")]
    received = ReceivedMessage(data=path.with_suffix(".eml").read_bytes(), **facts)
    return Caught(path.stem, at, received, dialogue)
