"""What happened, for hooks: values only, no dispatch.

Every event names the session it happened on, and the job (the message) it belongs to where there is one. Numbers
count from 1 within a client. Events are made only when a hook asked for their class.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from .model.envelope import Recipient
from .model.receipt import Receipt
from .model.reply import Reply

__all__ = [
    "Abandoned",
    "ConnectionKind",
    "ConnectionStatus",
    "Direction",
    "EndTransfer",
    "Error",
    "Event",
    "JobDeferred",
    "JobFailed",
    "JobQueued",
    "JobSent",
    "JobStarted",
    "JobUnreadable",
    "Negotiated",
    "Notification",
    "PITrail",
    "QueuePaused",
    "QueueResumed",
    "SSLStatus",
    "StartTransfer",
    "Transfer",
]


class Direction(Enum):
    """Who a line or a byte came from."""

    CLIENT = 0
    SERVER = 1
    INFO = 2


class ConnectionKind(Enum):
    """What happened to a connection; the values are the numbers of the components' connection events."""

    PROXY_UP = 0
    TLS_UP = 1
    CONNECTED = 2
    DISCONNECTED = 3
    TLS_BROKEN = 4
    PROXY_DOWN = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened on a session.

    Attributes:
        session: number of the session within its client, from 1; 0 outside any session.
        job: number of the message within its client, if it is about one.
    """

    session: int = 0
    job: int | None = None


class Negotiated(Protocol):
    """What was negotiated, as an event tells it; the object is the connection's whole `ConnectionInfo`."""

    @property
    def id(self) -> str: ...
    @property
    def host(self) -> str: ...
    @property
    def port(self) -> int | None: ...
    @property
    def tls_version(self) -> str | None: ...
    @property
    def suite(self) -> str | None: ...
    @property
    def cipher(self) -> str | None: ...
    @property
    def bits(self) -> int | None: ...
    @property
    def key_exchange(self) -> str | None: ...
    @property
    def group(self) -> str | None: ...
    @property
    def signature_algorithm(self) -> str | None: ...
    @property
    def session_resumed(self) -> bool: ...
    @property
    def client_auth_requested(self) -> bool | None: ...
    @property
    def client_authenticated(self) -> bool | None: ...
    @property
    def verified(self) -> bool | None: ...
    @property
    def verification_error(self) -> str | None: ...
    @property
    def chain(self) -> tuple[bytes, ...]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionStatus(Event):
    """A connection, its TLS layer or its proxy came up or went down, or could not be made.

    Attributes:
        kind: what happened; a connection that could not be made is told as DISCONNECTED.
        status_code: 0 without an error; the number of the system's error behind it, in Winsock's numbering as in
            `SocketError`; else the `code` of the exception that ended it.
        description: the error in words, or what came up.
        info: what was negotiated, a `ConnectionInfo`, when TLS came up or was broken; None otherwise.
    """

    kind: ConnectionKind
    status_code: int = 0
    description: str = ""
    info: Negotiated | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PITrail(Event):
    """One line of the dialogue, secrets masked.

    Attributes:
        direction: who said it; INFO is the library itself.
        message: the line without its end.
        command: the verb of the line, or the one that a server's line answers.
        reply: the whole reply, on its last line.
    """

    direction: Direction
    message: str
    command: str | None = None
    reply: Reply | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SSLStatus(Event):
    """A step of the TLS negotiation, in words."""

    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StartTransfer(Event):
    """The bytes of a part of a message begin to leave; a message without a text has none."""

    direction: Direction = Direction.CLIENT
    part: str = "message"


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer(Event):
    """A slice left.

    Attributes:
        part: whose slice: the message's, or that of an attachment, by its file name; an attachment that is in memory
            is told of behind the slice of the message that it was in.
        sent: bytes so far, before framing.
        total: bytes in all, if known.
        percent: 0 to 100, -1 when the total is unknown.
        data: the slice, of the message only.
    """

    direction: Direction = Direction.CLIENT
    part: str = "message"
    sent: int
    total: int | None = None
    percent: int = -1
    data: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class EndTransfer(Event):
    """The bytes of a part of a message have left."""

    direction: Direction = Direction.CLIENT
    part: str = "message"


@dataclass(frozen=True, slots=True, kw_only=True)
class Error(Event):
    """Something failed, also where no exception tells it, for example a refused Bcc recipient."""

    code: int
    description: str
    recipient: Recipient | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Notification(Event):
    """An internal step that has no event of its own.

    Attributes:
        name: `mechanism` (a way to log in was chosen), `helo` (EHLO was refused, HELO follows), `pipelining-off`
            (the server cannot take commands in groups; for ten minutes this client sends them one after the other) or
            `pipelining-reduced` (the server does not answer what is written behind an end of data; for ten minutes
            nothing is).
        parameter: the mechanism, or the step in words.
    """

    name: str
    parameter: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Abandoned(Event):
    """The receipt of a message whose caller had gone away when it came to its end."""

    receipt: Receipt


# --- of a queue processor: `session` is 0, the job in the spool has a name -------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class JobQueued(Event):
    """A job is in the spool: it was put there through the processor, or its worker had died.

    Attributes:
        id: its name in the spool.
        recovered: its worker had died.
    """

    id: str
    recovered: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class JobStarted(Event):
    """A job is about to be tried; `attempt` counts from 1, `flagged` says that it may have been delivered before."""

    id: str
    attempt: int
    recipients: tuple[Recipient, ...]
    flagged: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSent(Event):
    """A job has come to its end, and everybody got the message."""

    id: str
    receipt: Receipt


@dataclass(frozen=True, slots=True, kw_only=True)
class JobDeferred(Event):
    """A job waits for its next try; `not_before` is when, in seconds of the epoch, `reason` why."""

    id: str
    receipt: Receipt
    not_before: float
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFailed(Event):
    """A job has come to its end, and somebody did not get the message; without a receipt it was not tried."""

    id: str
    receipt: Receipt | None
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobUnreadable(Event):
    """Something in the spool cannot be read as a job, so nobody gets its message.

    Attributes:
        id: its name in the spool.
        reason: what is wrong with it, in words.
        kept: it was left where it is, because a later version of this library wrote it; else it was put aside.
    """

    id: str
    reason: str
    kept: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class QueuePaused(Event):
    """Nothing is sent for a while: the server cannot be used, or the spool cannot be written.

    Attributes:
        error: why.
        until: when it is tried again, in seconds of the epoch.
    """

    error: Exception = field(compare=False)
    until: float


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueResumed(Event):
    """Mail flows again."""
