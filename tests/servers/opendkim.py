"""OpenDKIM as a verifier of files: nothing is started that stays."""

import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.servers.machine import program

#: Messages that are handed over in one call.
MOST = 100


class OpenDKIM:
    """Verifies messages in `directory` with public keys from a file instead of the DNS.

    Args:
        directory: an empty directory.
        records: the text of the record at each name.
    """

    def __init__(self, directory: Path, records: Mapping[str, str]) -> None:
        self._program = program("opendkim")
        self._directory = directory
        keys = directory / "keys"
        keys.write_text("".join(f"{name} {text}\n" for name, text in records.items()))
        self._configuration = directory / "opendkim.conf"
        self._configuration.write_text(f"Mode v\nBackground no\nLogWhy yes\nTestPublicKeys {keys}\n")

    def verdicts(self, messages: Sequence[bytes]) -> list[list[str]]:
        """Return what was found of each signature of each message: pass, fail, or another word of RFC 8601.

        There is nothing for what it does not take for a message.
        """
        found: list[list[str]] = []
        for start in range(0, len(messages), MOST):
            found += self._verdicts(messages[start : start + MOST])
        return found

    def _verdicts(self, messages: Sequence[bytes]) -> list[list[str]]:
        paths = [self._directory / f"{number}.eml" for number in range(len(messages))]
        for path, message in zip(paths, messages, strict=True):
            path.write_bytes(message)
        command = [str(self._program), "-x", str(self._configuration), "-t", ",".join(map(str, paths)), "-vv"]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace")
        # The field that it would add to each message.
        fields = done.stdout.split("### INSHEADER")[1:]
        if len(fields) == len(messages):
            return [re.findall(r"dkim=(\w+)", field) for field in fields]
        # It stops at what it does not take for a message.
        return [[]] if len(messages) == 1 else [self._verdicts([one])[0] for one in messages]
