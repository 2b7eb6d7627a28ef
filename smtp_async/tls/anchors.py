"""The certificates that are trusted: how OpenSSL gets to know them, and how this library does.

OpenSSL reads a folder of certificates file by file, when a chain asks for one, and Python shows only what was read. So
for judging a chain here all files of such folders are read.
"""

from __future__ import annotations

import base64
import contextlib
import os
import re
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from weakref import WeakKeyDictionary

from ..errors import CertificateStoreError
from .paths import Anchors
from .trust import TrustOptions

__all__ = ["anchors_of", "load_trust", "trusted_by", "trusts_system"]

_PEM: Final = re.compile(rb"-----BEGIN CERTIFICATE-----(.+?)-----END CERTIFICATE-----", re.DOTALL)
#: What each context trusts; reading the certificates takes tens of milliseconds.
_anchors: Final[WeakKeyDictionary[ssl.SSLContext, Anchors]] = WeakKeyDictionary()


def anchors_of(context: ssl.SSLContext, ders: tuple[bytes, ...] | None, trust: TrustOptions) -> Anchors:
    """Return what `context` trusts; read once for each context, which takes tens of milliseconds.

    Args:
        context: the context.
        ders: the certificates in DER where they are known; None asks the context.
        trust: what it was made from.
    """
    known = _anchors.get(context)
    if known is None:
        known = _anchors[context] = Anchors(trusted_by(context, trust) if ders is None else ders)
    return known


def trusts_system(trust: TrustOptions) -> bool:
    """Is what the system trusts trusted, too?"""
    if trust.use_system is not None:
        return trust.use_system
    return not (trust.ca_file or trust.ca_path or trust.ca or trust.trusted or _found(trust))


def load_trust(context: ssl.SSLContext, trust: TrustOptions) -> None:
    """Have `context`, which is not in use yet, trust what `trust` names.

    Raises:
        CertificateStoreError: a file or folder cannot be read, or a file holds no certificate.
    """
    if trusts_system(trust):
        context.load_default_certs()
    for path in (trust.ca_file, _found(trust)):
        if path is not None:
            try:
                context.load_verify_locations(cafile=path)
            except (OSError, ValueError) as error:  # SSLError is an OSError
                raise _unreadable(path, error) from error
    if trust.ca_path is not None:
        if not os.path.isdir(trust.ca_path):
            raise CertificateStoreError(f"{trust.ca_path} is no folder: ca_path names one with certificates")
        context.load_verify_locations(capath=trust.ca_path)
    if given := (*trust.ca, *trust.trusted):
        context.load_verify_locations(cadata=b"".join(one.der for one in given))


def trusted_by(context: ssl.SSLContext, trust: TrustOptions) -> tuple[bytes, ...]:
    """Return the certificates in DER that `context`, which was made from `trust`, trusts."""
    found = context.get_ca_certs(binary_form=True)
    # Python shows only authorities among what a context has read, and only what was asked for of folders.
    for path in _files(trust):
        found += _certificates_in(path)
    return tuple(dict.fromkeys((*found, *(one.der for one in (*trust.ca, *trust.trusted)))))


def _files(trust: TrustOptions) -> Iterator[str | os.PathLike[str]]:
    yield from (path for path in (trust.ca_file, _found(trust)) if path is not None)
    system = ssl.get_default_verify_paths().capath if trusts_system(trust) else None
    for folder in (system, trust.ca_path):
        if folder is not None:
            yield from sorted(Path(folder).glob("[0-9a-f]*.[0-9]*"))


def _certificates_in(path: str | os.PathLike[str]) -> list[bytes]:
    """Return the certificates of a PEM file. As in OpenSSL, what cannot be read is passed over in a folder."""
    found = []
    with contextlib.suppress(OSError):
        for block in _PEM.findall(Path(path).read_bytes()):
            with contextlib.suppress(ValueError):
                found.append(base64.b64decode(block))
    return found


def _found(trust: TrustOptions) -> str | os.PathLike[str] | None:
    return next((path for path in trust.ca_search_paths if os.path.isfile(path)), None)


def _unreadable(path: str | os.PathLike[str], error: Exception) -> CertificateStoreError:
    if isinstance(error, ssl.SSLError):
        return CertificateStoreError(f"{path} holds no certificate in PEM form: {error.reason}")
    reason = getattr(error, "strerror", None) or str(error)
    return CertificateStoreError(f"cannot read the certificates in {path}: {reason}")
