"""The statement with which a service account asks for a token: a JWT (RFC 7519) by RS256 (RFC 7518 section 3.3)."""

from __future__ import annotations

import base64
import json
import logging
import os
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, NoReturn

from ..errors import FileError, InvalidArgument
from ..model.secret import Secret
from .token_file import demand_owner, regular_opener

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

__all__ = ["KeyFile", "SigningKey"]

_log = logging.getLogger("smtp_async")

#: Seconds for which a statement is valid; Google takes an hour at most.
_LIFE: Final = 3600
#: Octets of a key file.
_LARGEST: Final = 64 * 1024


class KeyFile(NamedTuple):
    """What the JSON key file of a service account says."""

    client_email: str
    private_key: Secret
    key_id: str
    token_uri: str


class SigningKey:
    """An RSA key that signs statements.

    Args:
        pem: the key.
        key_id: its id, for the header; empty: none.
    """

    __slots__ = ("_key", "_key_id", "_pem")

    def __init__(self, pem: Secret, key_id: str = "") -> None:
        if "PRIVATE KEY-----" not in pem.reveal():
            raise InvalidArgument("the private key is no PEM key: it begins with -----BEGIN PRIVATE KEY-----")
        self._pem = pem
        self._key_id = key_id
        self._key: RSAPrivateKey | None = None

    def __reduce__(self) -> NoReturn:
        raise TypeError("a SigningKey cannot be pickled, because it holds a secret")

    @staticmethod
    def read_file(path: Path) -> KeyFile:
        """Read the JSON key file of a service account.

        Raises:
            FileError: it cannot be read, other users may write to it, or it belongs to another user.
            InvalidArgument: it is no such file.
        """
        try:
            with open(path, "rb", opener=regular_opener) as file:
                _demand_unchanged_by_others(os.fstat(file.fileno()), path)
                content = file.read(_LARGEST + 1)
        except OSError as error:
            if isinstance(error, FileError):
                raise
            raise FileError(f"cannot read the key file {path}: {error.strerror}") from error
        found = parse_key_file(content)
        del content
        if found is None:
            raise InvalidArgument(
                f"{path} is no key file of a service account: JSON with type, client_email, private_key and token_uri"
            )
        return found

    def sign(self, claims: dict[str, str | int], issued_at: int) -> Secret:
        """Return a signed statement; blocks for milliseconds.

        Args:
            claims: what is stated; the times are added.
            issued_at: seconds of the epoch.

        Raises:
            InvalidArgument: the key cannot be read, or is not an RSA key.
        """
        from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
        from cryptography.hazmat.primitives.hashes import SHA256

        if self._key is None:
            self._key = self._loaded()
        header = {"alg": "RS256", "typ": "JWT", **({"kid": self._key_id} if self._key_id else {})}
        stated = _part(header) + b"." + _part({**claims, "iat": issued_at, "exp": issued_at + _LIFE})
        signature = self._key.sign(stated, PKCS1v15(), SHA256())
        return Secret((stated + b"." + _base64url(signature)).decode("ascii"))

    def _loaded(self) -> RSAPrivateKey:
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        try:
            key = load_pem_private_key(self._pem.reveal().encode("utf-8"), None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            problem = "the private key of the service account cannot be read"
        else:
            if isinstance(key, RSAPrivateKey):
                return key
            problem = "the private key of the service account is not an RSA key"
        # Not chained: the frames above hold the key.
        raise InvalidArgument(problem)


def _demand_unchanged_by_others(status: os.stat_result, path: Path) -> None:
    """Demand that only this process's user or root may write to the file, which says where secrets are sent."""
    demand_owner(status, path)
    if sys.platform == "win32":
        return
    mode = stat.S_IMODE(status.st_mode)
    if mode & 0o022:
        raise FileError(
            f"other users may change the key file {path}: its mode is {mode:o} (chmod 600 {path})"
        )
    if mode & 0o004:
        # No error: that is how browsers store it.
        _log.warning("every user may read the key in %s: its mode is %o (chmod 600 %s)", path, mode, path)


def parse_key_file(content: bytes) -> KeyFile | None:
    """Return the key of a service account from its JSON; None if it is none."""
    try:
        found: Any = json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or found.get("type") != "service_account":
        return None
    names = ("client_email", "private_key", "private_key_id", "token_uri")
    values = [found.get(name, "") for name in names]
    if not all(isinstance(value, str) for value in values):
        return None
    email, key, key_id, token_uri = values
    return KeyFile(email, Secret(key), key_id, token_uri) if email and key and token_uri else None


def _part(value: dict[str, Any]) -> bytes:
    return _base64url(json.dumps(value, separators=(",", ":")).encode("ascii"))


def _base64url(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")
