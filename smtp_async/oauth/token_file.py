"""The file that `smtp-async token` writes and `RefreshToken.from_file` reads: JSON that only its owner may read.

It is made with mode 0600, never made first and restricted later, and replaced as a whole, so that a process that dies
leaves the old file or the new one.
"""

from __future__ import annotations

import json
import os
import stat
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final

from ..errors import FileError, InvalidArgument
from ..model.secret import Secret
from .endpoints import Endpoints, checked_url

__all__ = [
    "TokenFile",
    "demand_owner",
    "parse_token_file",
    "read_token_file",
    "regular_opener",
    "write_token_file",
]

#: The form of the file; a later one is refused.
_VERSION: Final = 1
#: Octets; a refresh token has some thousands at most.
_LARGEST: Final = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenFile:
    """What the file says.

    Attributes:
        provider: the provider's name.
        token_endpoint: where the refresh token is exchanged.
        client_id: the application's id.
        client_secret: its secret; empty: it has none.
        refresh_token: what stands for the account's consent.
        scope: what was consented to.
        username: the account; empty: not told.
    """

    provider: str
    token_endpoint: str
    client_id: str
    client_secret: Secret
    refresh_token: Secret
    scope: str = ""
    username: str = ""

    @property
    def endpoints(self) -> Endpoints:
        """The endpoints that a refresh needs."""
        return Endpoints(name=self.provider, token=self.token_endpoint, scope=self.scope)


_REQUIRED: Final = frozenset({"token_endpoint", "client_id", "refresh_token"})
_SECRETS: Final = frozenset({"client_secret", "refresh_token"})


def read_token_file(path: Path) -> TokenFile:
    """Read a file.

    Raises:
        FileError: it cannot be read, other users can read it, or it belongs to another user.
        InvalidArgument: it is no such file.
    """
    try:
        with open(path, "rb", opener=regular_opener) as file:
            _demand_private(os.fstat(file.fileno()), path)
            content = file.read(_LARGEST + 1)
    except OSError as error:
        if isinstance(error, FileError):
            raise
        raise FileError(f"cannot read the token file {path}: {error.strerror}") from error
    found, problem = parse_token_file(content)
    del content
    if found is None:
        raise InvalidArgument(f"{path} is no token file of smtp-async token: {problem}")
    return found


def parse_token_file(content: bytes) -> tuple[TokenFile | None, str]:
    """Return what a file's content says, or None and what is wrong with it."""
    if len(content) > _LARGEST:
        return None, f"it is larger than {_LARGEST} octets"
    try:
        found: Any = json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError):
        return None, "it holds no JSON"
    if not isinstance(found, dict) or "version" not in found:
        return None, "it has no version"
    if found["version"] != _VERSION:
        return None, "it was written by another version of this library"
    values: dict[str, Any] = {}
    for field in fields(TokenFile):
        value = found.get(field.name, "")
        if not isinstance(value, str) or (field.name in _REQUIRED and not value):
            return None, f"{field.name} is missing or no text"
        values[field.name] = Secret(value) if field.name in _SECRETS else value
    try:
        checked_url(values["token_endpoint"], "token endpoint")
    except InvalidArgument as error:
        return None, str(error)
    return TokenFile(**values), ""


def write_token_file(path: Path, content: TokenFile) -> None:
    """Write the file, or replace it.

    Raises:
        FileError: it cannot be written; a file that was there before is as it was.
    """
    # A symbolic link stays one: the file it leads to is replaced.
    path = Path(os.path.realpath(path))
    try:
        # mkstemp makes the file with mode 0600.
        descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
        try:
            with open(descriptor, "wb") as file:
                file.write(_encoded(content))
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            with suppress(OSError):
                os.unlink(temporary)
            raise
    except OSError as error:
        problem = f"cannot write the token file {path}: {error.strerror}"
    else:
        return
    # Not chained: the frames above hold the secrets.
    raise FileError(problem)


def _encoded(content: TokenFile) -> bytes:
    values: dict[str, Any] = {"version": _VERSION}
    for field in fields(content):
        value = getattr(content, field.name)
        values[field.name] = value.reveal() if isinstance(value, Secret) else value
    return json.dumps(values, indent=2).encode("ascii") + b"\n"


def regular_opener(path: str, flags: int) -> int:
    """Open a file for `open`, without waiting if it is no regular one."""
    # A named pipe would wait for a writer.
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _demand_private(status: os.stat_result, path: Path) -> None:
    demand_owner(status, path)
    if sys.platform != "win32" and status.st_mode & 0o077:
        mode = stat.S_IMODE(status.st_mode)
        raise FileError(f"other users may use the token in {path}: its mode is {mode:o} (chmod 600 {path})")


def demand_owner(status: os.stat_result, path: Path) -> None:
    """Demand a regular file of this process's user or of root; another owner could put other secrets into it.

    Raises:
        FileError: it is another file.
    """
    if not stat.S_ISREG(status.st_mode):
        raise FileError(f"{path} is no regular file")
    if sys.platform != "win32" and status.st_uid not in (os.geteuid(), 0):
        raise FileError(f"{path} belongs to another user (uid {status.st_uid}), who could change it")
