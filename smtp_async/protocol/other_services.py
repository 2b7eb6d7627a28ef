"""Services that stand where a mail server was expected, recognised by what they say first, and by their ports."""

from __future__ import annotations

import re
from typing import Final

from .extensions import Extensions

__all__ = ["MASKED_STARTTLS", "masks_starttls", "not_smtp", "service_of_port", "spoken_by"]

#: None of them begins like a reply of SMTP, which has three digits.
_FIRST_WORDS: Final = (
    (b"HTTP/", "HTTP"),
    (b"SSH-", "SSH"),
    (b"* OK", "IMAP"),
    (b"* PREAUTH", "IMAP"),
    (b"* BYE", "IMAP"),
    (b"+OK", "POP3"),
    (b"-ERR", "POP3"),
)
#: Web servers, which are silent until they are asked.
_SILENT: Final = dict.fromkeys((80, 443, 3000, 5000, 8000, 8080, 8443), "a web server")
#: The inspection of SMTP in Cisco's firewalls overwrites what it does not know, STARTTLS with these letters.
_MASKED: Final = re.compile(r"X{7}[A-Z]")
MASKED_STARTTLS: Final = (
    "A firewall on the way has overwritten the offer (with XXXXXXXA, as the SMTP inspection of Cisco PIX and ASA does) "
    "and must be told to let STARTTLS pass"
)


def spoken_by(first: bytes) -> str | None:
    """Return the name of the protocol whose server says `first`; None if it may be SMTP or is not known."""
    return next((name for words, name in _FIRST_WORDS if first.startswith(words)), None)


def not_smtp(where: str, protocol: str) -> str:
    """Return the sentence about a port that speaks another protocol."""
    return (
        f"{where} speaks {protocol}, not SMTP: mail is usually sent to port 587 (STARTTLS) or 465 (TLS from the "
        "first byte)"
    )


def service_of_port(port: int | None) -> str | None:
    """Return what usually listens on a port and says nothing; None if nothing is known."""
    return _SILENT.get(port or 0)


def masks_starttls(extensions: Extensions) -> bool:
    """Tell whether a firewall on the way has overwritten the offer of STARTTLS."""
    return not extensions.starttls and any(map(_MASKED.fullmatch, extensions))
