"""Which command may be written when: the only writer of a connection's state.

Rules, in prose:

1. A stage says what was WRITTEN last, not what was answered: with pipelining the answers come later, and each
   transaction keeps its own (`transaction.py`). An answer changes the stage only if nothing may be written before it
   (the greeting, EHLO, STARTTLS, AUTH, DATA).
2. A command that is not in the table must not be written: `wrote` raises before a byte leaves. It is a fault of this
   library or of its user.
3. MAIL follows RSET unless the client *knows* that the server has no transaction open (`reset_needed`). The client
   knows it if the connection is fresh; if the last MAIL was refused; if the reply to the last end of data was READ and
   was 2xx; if RSET was written. Without this rule a server that answers 503 to a nested MAIL takes the next recipient
   and body under the old sender, and another server crashes at MAIL behind a dot that it has not answered.
4. QUIT may be written wherever a command may; CLOSED is final.

`docs/design.md` draws the diagram from `WRITES` and `ANSWERS`.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType
from typing import Final

from ..errors import UsageError
from ..model.reply import Reply
from .extensions import NO_EXTENSIONS, Extensions

__all__ = ["ANSWERS", "MAY_BEGIN", "WRITES", "ConnectionState", "Stage", "Verb"]


class Stage(Enum):
    """Where a connection stands."""

    #: The server speaks first.
    GREETING = "greeting"
    #: Greeted with a refusal: the server waits for QUIT (RFC 5321 section 3.1).
    REFUSED = "refused"
    #: Greeted, or TLS is established: EHLO comes next.
    HELLO = "hello"
    #: EHLO was written.
    GREETED = "greeted"
    #: EHLO was written again: a refusal changes nothing.
    REGREETED = "regreeted"
    #: STARTTLS was written; from its 220 on the handshake owns the connection.
    STARTTLS = "starttls"
    #: AUTH was written; only responses may follow.
    AUTH = "auth"
    #: No transaction is being written.
    READY = "ready"
    #: MAIL was written.
    MAIL = "mail"
    #: At least one RCPT was written.
    RCPT = "rcpt"
    #: DATA was written.
    DATA = "data"
    #: 354 was read: only the content may be written.
    BODY = "body"
    #: DATA or BDAT was refused: the transaction is still open.
    ABORTED = "aborted"
    #: BDAT without LAST was written.
    CHUNKS = "chunks"
    #: QUIT was written.
    QUIT = "quit"
    #: The connection is over.
    CLOSED = "closed"


class Verb(Enum):
    """The commands that the table tells apart."""

    GREETING = "greeting"
    EHLO = "EHLO"
    LHLO = "LHLO"
    HELO = "HELO"
    STARTTLS = "STARTTLS"
    AUTH = "AUTH"
    RESPONSE = "AUTH response"
    MAIL = "MAIL"
    RCPT = "RCPT"
    DATA = "DATA"
    END_OF_DATA = "end of data"
    BDAT = "BDAT"
    BDAT_LAST = "BDAT LAST"
    RSET = "RSET"
    NOOP = "NOOP"
    VRFY = "VRFY"
    EXPN = "EXPN"
    OTHER = "command"
    QUIT = "QUIT"

    # Enum hashes a member by its name, in Python code. By identity saves 1.3 of 21 µs
    # per message in lock-step (`benchmarks/core.py`, with and without these two lines).
    __hash__ = object.__hash__


Stage.__hash__ = object.__hash__  # type: ignore[method-assign]

_HELLO: Final = {Verb.EHLO: Stage.GREETED, Verb.LHLO: Stage.GREETED, Verb.HELO: Stage.GREETED}
_BDAT: Final = {Verb.BDAT: Stage.CHUNKS, Verb.BDAT_LAST: Stage.READY}
_END: Final = {Verb.RSET: Stage.READY, Verb.QUIT: Stage.QUIT}

#: stage → what may be written → the stage that it leads to.
WRITES: Final[Mapping[Stage, Mapping[Verb, Stage]]] = MappingProxyType(
    {
        Stage.GREETING: {},
        Stage.REFUSED: {Verb.QUIT: Stage.QUIT},
        Stage.HELLO: {**_HELLO, Verb.QUIT: Stage.QUIT},
        Stage.GREETED: {},
        Stage.REGREETED: {},
        Stage.STARTTLS: {},
        Stage.AUTH: {Verb.RESPONSE: Stage.AUTH},
        Stage.READY: {
            **_END,
            Verb.EHLO: Stage.REGREETED,
            Verb.LHLO: Stage.REGREETED,
            Verb.STARTTLS: Stage.STARTTLS,
            Verb.AUTH: Stage.AUTH,
            Verb.MAIL: Stage.MAIL,
            Verb.NOOP: Stage.READY,
            Verb.VRFY: Stage.READY,
            Verb.EXPN: Stage.READY,
            Verb.OTHER: Stage.READY,
        },
        Stage.MAIL: {**_END, Verb.RCPT: Stage.RCPT},
        Stage.RCPT: {**_END, **_BDAT, Verb.RCPT: Stage.RCPT, Verb.DATA: Stage.DATA},
        Stage.DATA: {},
        Stage.BODY: {Verb.END_OF_DATA: Stage.READY},
        Stage.ABORTED: _END,
        Stage.CHUNKS: {**_END, **_BDAT},
        Stage.QUIT: {},
        Stage.CLOSED: {},
    }
)

#: stage → class digit of the answer to the command that led there → next stage; absent: the stage stays.
ANSWERS: Final[Mapping[tuple[Stage, Verb], Mapping[int, Stage]]] = MappingProxyType(
    {
        (Stage.GREETING, Verb.GREETING): {2: Stage.HELLO, 4: Stage.REFUSED, 5: Stage.REFUSED},
        (Stage.GREETED, Verb.EHLO): {2: Stage.READY, 4: Stage.HELLO, 5: Stage.HELLO},
        (Stage.GREETED, Verb.LHLO): {2: Stage.READY, 4: Stage.HELLO, 5: Stage.HELLO},
        (Stage.GREETED, Verb.HELO): {2: Stage.READY, 4: Stage.HELLO, 5: Stage.HELLO},
        (Stage.REGREETED, Verb.EHLO): {2: Stage.READY, 4: Stage.READY, 5: Stage.READY},
        (Stage.REGREETED, Verb.LHLO): {2: Stage.READY, 4: Stage.READY, 5: Stage.READY},
        (Stage.STARTTLS, Verb.STARTTLS): {4: Stage.READY, 5: Stage.READY},
        (Stage.AUTH, Verb.AUTH): {2: Stage.READY, 4: Stage.READY, 5: Stage.READY},
        (Stage.AUTH, Verb.RESPONSE): {2: Stage.READY, 4: Stage.READY, 5: Stage.READY},
        (Stage.DATA, Verb.DATA): {3: Stage.BODY, 4: Stage.ABORTED, 5: Stage.ABORTED},
        (Stage.CHUNKS, Verb.BDAT): {4: Stage.ABORTED, 5: Stage.ABORTED},
    }
)

#: Where RSET, and with it a transaction, may be written.
MAY_BEGIN: Final = frozenset(stage for stage, writes in WRITES.items() if Verb.RSET in writes)
_IN_TRANSACTION: Final = frozenset({Stage.MAIL, Stage.RCPT, Stage.ABORTED, Stage.CHUNKS})
_WAITS: Final = frozenset(stage for stage, _ in ANSWERS)

# Where an envelope and a whole body lead, read from the table once.
_AFTER_RCPT: Final = WRITES[WRITES[Stage.READY][Verb.MAIL]][Verb.RCPT]
_AFTER_DATA: Final = WRITES[_AFTER_RCPT][Verb.DATA]
_AFTER_BODY: Final = WRITES[ANSWERS[_AFTER_DATA, Verb.DATA][3]][Verb.END_OF_DATA]


class ConnectionState:
    """What is known of one connection; only its own methods move the stage.

    Attributes:
        stage: where the connection stands.
        reset_needed: may the server have a transaction open?
        exhausted: must the connection not carry another transaction?
        reply_421: the 421 that announced the end of the connection, if one was read.
        extensions: what the server offers.
    """

    __slots__ = ("exhausted", "extensions", "reply_421", "reset_needed", "stage")

    def __init__(self) -> None:
        self.stage = Stage.GREETING
        self.reset_needed = False
        self.exhausted = False
        self.reply_421: Reply | None = None
        self.extensions: Extensions = NO_EXTENSIONS

    def may_write(self, verb: Verb) -> bool:
        """Is `verb` allowed now?"""
        return verb in WRITES[self.stage]

    def wrote(self, verb: Verb) -> None:
        """Note that `verb` is being written.

        Raises:
            UsageError: the table does not allow it.
        """
        following = WRITES[self.stage].get(verb)
        if following is None:
            raise UsageError(
                f"{verb.value} cannot be written in stage {self.stage.value}", stage=self.stage.value
            )
        self.stage = following
        if verb is Verb.MAIL:
            self.reset_needed = True
        elif verb is Verb.RSET:
            self.reset_needed = False

    def wrote_envelope(self, *, data: bool) -> None:
        """Note that MAIL and every RCPT are being written in one group, behind RSET if `reset_needed`.

        Args:
            data: does the group end with DATA?

        Raises:
            UsageError: the table does not allow it.
        """
        if self.stage is not Stage.READY:
            # Where both RSET and MAIL may be written, which is nearly always, the table need not be asked.
            self.wrote(Verb.RSET if self.reset_needed else Verb.MAIL)
        self.stage = _AFTER_DATA if data else _AFTER_RCPT
        self.reset_needed = True

    def body_written(self) -> None:
        """Note that 354 was read and that the whole body with its end is being written: two steps in one.

        Raises:
            UsageError: DATA was not what was written last.
        """
        if self.stage is not Stage.DATA and self.stage is not Stage.BODY:
            raise UsageError(f"no body can be written in stage {self.stage.value}", stage=self.stage.value)
        self.stage = _AFTER_BODY

    def answered(self, verb: Verb, klass: int) -> None:
        """Note the class digit of the reply to `verb`; only a stage that waits for this reply changes."""
        if self.stage in _WAITS:
            self.stage = ANSWERS.get((self.stage, verb), {}).get(klass, self.stage)

    def note_421(self, reply: Reply) -> None:
        """Note a 421: the server is closing the connection, RFC 5321 section 3.8."""
        self.reply_421 = reply
        self.exhausted = True

    def transaction_closed(self) -> None:
        """Note that the newest MAIL was refused or its end of data accepted: the server has no transaction open."""
        self.reset_needed = False
        if self.stage in _IN_TRANSACTION:
            self.stage = Stage.READY

    def tls_established(self) -> None:
        """Forget the extensions offered before the TLS handshake that ended STARTTLS, RFC 3207 section 4.2."""
        self.stage = Stage.HELLO
        self.extensions = NO_EXTENSIONS

    def closed(self) -> None:
        """Note that the connection is over."""
        self.stage = Stage.CLOSED
        self.exhausted = True
