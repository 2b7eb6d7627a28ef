"""The records of a test server: the facts that a test compares a client's claims with."""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator
from dataclasses import dataclass, field
from email.message import EmailMessage
from functools import cached_property
from html import unescape
from typing import Final, NamedTuple

from ..web.catcher.parts import Part, ReadMessage

_HREF: Final = re.compile(r"<a\b[^<>]*?\shref\s*=\s*(?:\"([^\"]*)\"|'([^']*)')", re.IGNORECASE)
_ADDRESS: Final = re.compile(r"https?://[^\s<>\"]+")
#: What ends a sentence is seldom a part of the address before it.
_BEHIND_ADDRESS: Final = ".,;:!?)'"


@dataclass
class ReceivedMessage:
    """One message that the server accepted; it is recorded before its 250 is written.

    Attributes:
        mail_from: Reverse path without angle brackets, `""` for the null sender.
        rcpt_tos: Accepted recipients; under LMTP those with a 2xx reply after end-of-data.
        data: Content exactly as received, dot-stuffing undone, end-of-data removed.
        mail_parameters: ESMTP parameters of MAIL, keyword in upper case; `""` for a keyword without a value.
        rcpt_parameters: The parameters of RCPT for each of `rcpt_tos`.
        connection: Number of the connection, from 0.
        tls: Whether the message came over TLS.
        user: The authenticated user.
        chunked: Whether the message came by BDAT.
    """

    mail_from: str
    rcpt_tos: list[str]
    data: bytes
    mail_parameters: dict[str, str] = field(default_factory=dict)
    rcpt_parameters: list[dict[str, str]] = field(default_factory=list)
    connection: int = 0
    tls: bool = False
    user: str | None = None
    chunked: bool = False

    @cached_property
    def parsed(self) -> EmailMessage:
        """The content as an `email.message.EmailMessage`, parsed on first use; its lines end with LF."""
        from email import message_from_bytes, policy

        return message_from_bytes(self.data.replace(b"\r\n", b"\n"), policy=policy.default)

    @property
    def subject(self) -> str:
        """The Subject header, decoded; `""` when there is none."""
        return str(self.parsed["Subject"] or "")

    @cached_property
    def _read(self) -> ReadMessage:
        return ReadMessage(self.data)

    @property
    def text(self) -> str:
        """The plain text, decoded, its lines ending with LF; `""` when there is none."""
        return self._read.text or ""

    @property
    def html(self) -> str:
        """The HTML, decoded; `""` when there is none."""
        return self._read.html or ""

    @property
    def links(self) -> list[str]:
        """The addresses of all links of the HTML, in order, then those of the text that the HTML does not have."""
        found = [unescape(one[0] or one[1]) for one in _HREF.findall(self.html)]
        found += [one.rstrip(_BEHIND_ADDRESS) for one in _ADDRESS.findall(self.text)]
        return list(dict.fromkeys(found))

    @property
    def attachments(self) -> list[Part]:
        """The attached files, each with `filename`, `content_type` and `data`; not what the HTML shows."""
        return [part for part in self._read.files if not part.inline]


class ReceivedLine(NamedTuple):
    """A line that the client sent, without its line end; the dot that ends DATA counts as a line."""

    connection: int
    line: bytes
    time: float
    tls: bool

    @property
    def verb(self) -> str:
        """The first word in upper case, also of a SASL response or garbage."""
        return self.line.split(b" ", 1)[0].decode("ascii", "replace").upper()


@dataclass(eq=False)
class ConnectionLog:
    """One accepted connection.

    Attributes:
        number: Counted from 0; also the index in `ScriptedServer.connections`.
        raw: Every byte received on the socket, before decryption. Empty with `keep_raw=False`.
        clear: Every byte received, after decryption. Empty with `keep_raw=False`.
        bytes_received: Number of bytes received on the socket.
        flights: How often the client sent bytes after the server had written some: the round trips of the dialogue,
            without those of a TLS handshake.
        open: Whether the client has not ended the connection yet, by FIN or RST. (Not noticed while the script stalls.)
        quit: Whether the client sent QUIT.
        user: The authenticated user.
        tls: The TLS object after a completed handshake (`version()`, `getpeercert()`, …).
        tls_error: The error that failed the handshake, or broke TLS later.
    """

    number: int
    raw: bytearray = field(default_factory=bytearray, repr=False)
    clear: bytearray = field(default_factory=bytearray, repr=False)
    bytes_received: int = 0
    flights: int = 0
    open: bool = True
    quit: bool = False
    user: str | None = None
    tls: ssl.SSLObject | None = None
    tls_error: ssl.SSLError | None = None


class ConnectionLogs:
    """All connections of a server: a sequence of `ConnectionLog` with three counters."""

    def __init__(self) -> None:
        """Start empty."""
        self._logs: list[ConnectionLog] = []
        self.closed = 0

    @property
    def opened(self) -> int:
        """Number of accepted connections."""
        return len(self._logs)

    @property
    def open(self) -> int:
        """Number of connections that their clients have not ended, even if the server has."""
        return self.opened - self.closed

    def add(self) -> ConnectionLog:
        """Make the log of a new connection."""
        log = ConnectionLog(len(self._logs))
        self._logs.append(log)
        return log

    def end(self, log: ConnectionLog) -> None:
        """Record that the client has ended the connection."""
        self.closed += log.open
        log.open = False

    def __len__(self) -> int:
        return len(self._logs)

    def __getitem__(self, number: int) -> ConnectionLog:
        return self._logs[number]

    def __iter__(self) -> Iterator[ConnectionLog]:
        return iter(self._logs)
