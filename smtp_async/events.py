"""The events that hooks receive: values only. `hooks` dispatches them.

Every event names its session, and its job (the message) if it has one. Both are numbered from 1 within a client. Events
are made only when a hook is registered for their class.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from .errors import ValidationLike
from .model.address import Address
from .model.envelope import Recipient
from .model.receipt import Receipt
from .model.reply import Reply

__all__ = [
    "Abandoned",
    "BeforeAuth",
    "ConnectionKind",
    "ConnectionStatus",
    "Direction",
    "EndTransfer",
    "Error",
    "Event",
    "Expand",
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
    """The origin of a line or a byte: the client, the server, or the library itself (INFO)."""

    CLIENT = 0
    SERVER = 1
    INFO = 2


class ConnectionKind(Enum):
    """A change of a connection; the values are the numbers of the replaced components' connection events."""

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
        job: number of the message within its client, None if the event concerns no message.
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
    def validation(self) -> ValidationLike | None: ...
    @property
    def chain(self) -> tuple[bytes, ...]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionStatus(Event):
    """A connection, its TLS layer or its proxy came up, went down, or could not be established.

    Attributes:
        kind: what happened; DISCONNECTED also for a connection that could not be established.
        status_code: 0 without an error; the number of the operating system's error, in Winsock's numbering as in
            `SocketError`, if one was the cause; otherwise the `code` of the exception that ended the connection.
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
        direction: who wrote the line; INFO is the library itself.
        message: the line without its line end.
        command: the verb of the line, or of the command that the server answers.
        reply: the whole reply, in the event of its last line only.
        size: octets of the body, before framing, in the event of the lone dot that ends it; None for every other line.
            BDAT names the size of its chunk itself.
    """

    direction: Direction
    message: str
    command: str | None = None
    reply: Reply | None = None
    size: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SSLStatus(Event):
    """A step of the TLS negotiation, in words."""

    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StartTransfer(Event):
    """The transfer of a part of a message begins. A message without a text has no such event."""

    direction: Direction = Direction.CLIENT
    part: str = "message"


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer(Event):
    """A slice of a part was handed to the connection.

    Attributes:
        part: `message`, or the file name of an attachment. The event of an attachment in memory follows the event of
            the message's slice that contained it.
        sent: bytes so far, before framing.
        total: bytes in all, None if unknown.
        percent: 0 to 100, -1 when the total is unknown.
        data: the slice itself; empty for attachments.
    """

    direction: Direction = Direction.CLIENT
    part: str = "message"
    sent: int
    total: int | None = None
    percent: int = -1
    data: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class EndTransfer(Event):
    """The transfer of a part of a message is complete."""

    direction: Direction = Direction.CLIENT
    part: str = "message"


@dataclass(frozen=True, slots=True, kw_only=True)
class BeforeAuth(Event):
    """A login begins: nothing of it was sent yet. `ClientOptions(before_auth=…)` may change or refuse it.

    Attributes:
        host: the server.
        mechanism: the one that would be used with the credentials as they are; empty if none fits.
        username: the account of the credentials as they are.
        offered: the mechanisms that the server offers.
    """

    host: str
    mechanism: str
    username: str
    offered: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Error(Event):
    """A failure, also one that raises no exception, for example a refused Bcc recipient."""

    code: int
    description: str
    recipient: Recipient | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Notification(Event):
    """An internal step that has no event of its own.

    Attributes:
        name: `mechanism` (a way to log in was chosen), `downgrade` (it is weaker than what the server once offered),
            `helo` (EHLO was refused, HELO follows), `pipelining-off` (the server cannot take commands in groups; for
            ten minutes this client sends them one after the other) or `pipelining-reduced` (the server does not answer
            what is written behind an end of data; for ten minutes nothing is).
        parameter: the mechanism, or the step in words.
    """

    name: str
    parameter: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Expand(Event):
    """A member of the mailing list that `expand` asked for; told of each, before `expand` returns all of them."""

    address: Address


@dataclass(frozen=True, slots=True, kw_only=True)
class Abandoned(Event):
    """The receipt of a message whose caller was cancelled before the server had answered."""

    receipt: Receipt


# --- events of a queue processor: `session` is 0, `id` names the job in the spool -----------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class JobQueued(Event):
    """A job was queued: put into the spool by the processor, or recovered because its worker had died.

    Attributes:
        id: the job's name in the spool.
        recovered: the worker of the job had died.
    """

    id: str
    recovered: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class JobStarted(Event):
    """An attempt begins; `attempt` counts from 1, and `flagged` jobs may have been delivered before."""

    id: str
    attempt: int
    recipients: tuple[Recipient, ...]
    flagged: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSent(Event):
    """A job is finished: every recipient got the message."""

    id: str
    receipt: Receipt


@dataclass(frozen=True, slots=True, kw_only=True)
class JobDeferred(Event):
    """A job waits for its next attempt at `not_before`, in seconds of the epoch; `reason` says why."""

    id: str
    receipt: Receipt
    not_before: float
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFailed(Event):
    """A job is finished: at least one recipient did not get the message. Without a receipt it was not tried."""

    id: str
    receipt: Receipt | None
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobUnreadable(Event):
    """A file of the spool cannot be read as a job, so its message is not sent.

    Attributes:
        id: the file's name in the spool.
        reason: what is wrong with the file, in words.
        kept: the file was left in place, because a later version of this library wrote it; otherwise it was put aside.
    """

    id: str
    reason: str
    kept: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class QueuePaused(Event):
    """Nothing is sent for a while: the server cannot be used, or the spool cannot be written.

    Attributes:
        error: the reason.
        until: time of the next attempt, in seconds of the epoch.
        host: the server that cannot be used; mail over other routes goes on. Empty if the spool is the reason.
    """

    error: Exception = field(compare=False)
    until: float
    host: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueResumed(Event):
    """Mail is sent again after a `QueuePaused`, to the same `host`."""

    host: str = ""
