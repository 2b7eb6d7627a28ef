"""S/MIME on the command line: the options of `send` that sign and encrypt a message for its readers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from ..errors import InvalidArgument
from ..message.smime import SMIMEEncryption, SMIMESignature
from ..tls.stores import CertificateStore
from .options import SMIME_PASSWORD_VARIABLE
from .server import identity_from

__all__ = ["SMIMEOptions"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SMIMEOptions:
    """How the message is signed and encrypted for its readers."""

    smime_cert: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Sign with S/MIME, with this certificate of the author and its key: a PFX or PEM file. The password "
            f"is read from {SMIME_PASSWORD_VARIABLE}.",
        ),
    ] = None
    smime_key: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The private key of --smime-cert, if that file does not hold it."),
    ] = None
    encrypt_to: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="Encrypt with S/MIME for the certificates in this file, and for nobody else: not for the recipients, "
            "nor for the author, unless theirs are given, too. May be repeated.",
        ),
    ] = None

    def ways(self) -> tuple[SMIMESignature | SMIMEEncryption, ...]:
        """Return how the message is signed and then encrypted; nothing without options.

        Raises:
            InvalidArgument: an option is missing, or a certificate is not for mail.
            SMTPError: a file cannot be read, or has no key for the certificate.
        """
        if self.smime_cert is None and self.smime_key is not None:
            raise InvalidArgument("--smime-key needs --smime-cert")
        found: list[SMIMESignature | SMIMEEncryption] = []
        if self.smime_cert is not None:
            ann = identity_from(self.smime_cert, self.smime_key, SMIME_PASSWORD_VARIABLE)
            found.append(SMIMESignature(ann.certificate, ann.key, chain=ann.chain))
        if self.encrypt_to:
            stores = [CertificateStore.load(path) for path in self.encrypt_to]
            found.append(SMIMEEncryption([one for store in stores for one in store.certificates]))
        return tuple(found)
