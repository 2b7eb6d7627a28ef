"""Signing on the command line: the options of `send`, and `smtp-async dkim-key`."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from ..errors import FileError, InvalidArgument
from ..message.dkim import DKIM
from ..message.dkim_record import dkim_record
from ..message.sign import KeySigner
from ..model.address import parse_list
from .configuration import Account
from .options import DKIM_PASSWORD_VARIABLE
from .output import Output

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

__all__ = ["SigningOptions", "dkim_key", "signing_of"]

#: Octets of one character string of a TXT record.
_STRING: Final = 255


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningOptions:
    """How the message is signed."""

    dkim_key: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Sign with DKIM, with this private key: PEM or DER. The password of an encrypted one is read from "
            f"{DKIM_PASSWORD_VARIABLE}.",
        ),
    ] = None
    dkim_selector: Annotated[
        str | None, typer.Option(metavar="NAME", help="The selector of the key, as the DNS has it.")
    ] = None
    dkim_domain: Annotated[
        str | None,
        typer.Option(
            metavar="DOMAIN",
            help="The domain that signs; by default that of the author: --from, or from of the account.",
        ),
    ] = None
    dkim_check: Annotated[
        bool,
        typer.Option("--dkim-check", help="First look whether the DNS has this key for the selector."),
    ] = False

    def signatures(self, sender: str | None, *, unless_signed: bool = False) -> tuple[DKIM, ...]:
        """Return how the message is signed; nothing without a key.

        Args:
            sender: the author, whose domain signs if no other is named.
            unless_signed: leave messages alone that this key has signed before.

        Raises:
            InvalidArgument: an option is missing, or invalid.
            SigningError: the key cannot be read.
        """
        if self.dkim_key is None:
            if self.dkim_selector or self.dkim_domain or self.dkim_check:
                raise InvalidArgument("--dkim-selector, --dkim-domain and --dkim-check need --dkim-key")
            return ()
        if self.dkim_selector is None:
            raise InvalidArgument("--dkim-key needs --dkim-selector")
        domain = self.dkim_domain or _domain_of(sender)
        key = KeySigner.load(self.dkim_key, os.environ.get(DKIM_PASSWORD_VARIABLE))
        check = self.dkim_check
        return (DKIM(domain, self.dkim_selector, key, check_record=check, unless_signed=unless_signed),)


def signing_of(account: Account) -> SigningOptions:
    """Return how messages of an account are signed."""
    names = [field.name for field in fields(SigningOptions)]
    given: dict[str, Any] = {name: account.defaults[name] for name in names if name in account.defaults}
    if "dkim_key" in given:
        given["dkim_key"] = Path(given["dkim_key"])
    return SigningOptions(**given)


def _domain_of(sender: str | None) -> str:
    authors = parse_list(sender or "")
    if not authors:
        raise InvalidArgument("--dkim-key needs --dkim-domain, or an author: --from, or an account with from")
    return authors[0].ascii_domain


class KeyType(Enum):
    """The kinds of keys, as they are written on a command line."""

    RSA = "rsa"
    ED25519 = "ed25519"


def dkim_key(
    domain: Annotated[str, typer.Option(metavar="DOMAIN", help="The domain that signs.")],
    selector: Annotated[str, typer.Option(metavar="NAME", help="The name of the key within the domain.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="The new file for the private key.")],
    key_type: Annotated[
        KeyType,
        typer.Option("--type", help="RSA, or Ed25519 (RFC 8463), which not every verifier knows."),
    ] = KeyType.RSA,
    bits: Annotated[int, typer.Option(min=1024, max=8192, help="The size of an RSA key.")] = 2048,
) -> None:
    """Make a key for DKIM, and print the DNS record that publishes it.

    The key is encrypted if the environment variable SMTP_ASYNC_DKIM_PASSWORD has a password.

    Example: smtp-async dkim-key --domain example.com --selector 2026a --out dkim.pem
    """
    output = Output()
    with output.errors_as_sentences():
        key = _made(key_type, bits)
        name = DKIM(domain, selector, key).record_name
        _write(out, _pem(key, os.environ.get(DKIM_PASSWORD_VARIABLE)))
        output.line(f"{name}. IN TXT {_quoted(dkim_record(key))}")
        if output.is_terminal:
            output.success(f"The private key is in {out}. Publish the record above, then sign.")


def _made(key_type: KeyType, bits: int) -> Any:
    from cryptography.hazmat.primitives.asymmetric import ed25519, rsa

    if key_type is KeyType.ED25519:
        return ed25519.Ed25519PrivateKey.generate()
    return rsa.generate_private_key(65537, bits)


def _pem(key: PrivateKeyTypes, password: str | None) -> bytes:
    from cryptography.hazmat.primitives.serialization import (
        BestAvailableEncryption,
        Encoding,
        NoEncryption,
        PrivateFormat,
    )

    encryption = BestAvailableEncryption(password.encode()) if password else NoEncryption()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)


def _write(path: Path, data: bytes) -> None:
    """Write a new file that no other user can read.

    Raises:
        FileError: there is such a file, or it cannot be written.
    """
    try:
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(data)
    except FileExistsError as error:
        raise FileError(f"{path} exists already, and a key is not overwritten") from error
    except OSError as error:
        raise FileError(f"cannot write {path}: {error.strerror}") from error


def _quoted(text: str) -> str:
    """Return a text as the character strings of a zone file."""
    strings = [f'"{text[start : start + _STRING]}"' for start in range(0, len(text), _STRING)]
    return strings[0] if len(strings) == 1 else f"( {' '.join(strings)} )"
