"""Owed replies and single commands: the part of a conversation that holds outside transactions, too.

Strategy: a FIFO of owed replies. Every command that is written appends an entry that knows what it belongs to; every
reply takes the first entry; nothing else pairs them. A reply that arrives before its command was handed to the
transport answers nothing: except for 421 it is a violation, and a violation ends the connection, because from there
on no pairing can be trusted.

`machine.py` adds the transactions: how they are written, answered and settled.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Collection
from typing import Final, NamedTuple

from ..errors import PlaintextInjected, ProtocolViolation, UsageError
from ..model.reply import Reply
from ..model.secret import MASKED
from . import commands
from .extensions import NO_EXTENSIONS, Extensions
from .parser import MAX_LINE, ReplyParser
from .states import Connection, Stage, Verb
from .transaction import Transaction

__all__ = ["Dialogue", "Exchange", "TrailLine"]

#: verb → field of `Timeouts`
_CLOCKS: Final = {
    Verb.GREETING: "greeting",
    Verb.EHLO: "hello",
    Verb.LHLO: "hello",
    Verb.HELO: "hello",
    Verb.STARTTLS: "command",
    Verb.AUTH: "auth",
    Verb.RESPONSE: "auth",
    Verb.MAIL: "mail",
    Verb.RSET: "mail",
    Verb.RCPT: "rcpt",
    Verb.DATA: "data",
    Verb.BDAT: "block",
    Verb.BDAT_LAST: "end_of_data",
    Verb.QUIT: "quit",
}

#: The fields of `Timeouts` that `expected` may name.
LIMITS: Final = frozenset({*_CLOCKS.values(), "probe", "command"})

# RFC 5321 section 4.2.1 and RFC 4954: what a 3xx may answer. A command of the user's may be one that asks, too.
_ASKING: Final = frozenset({Verb.DATA, Verb.AUTH, Verb.RESPONSE, Verb.OTHER})


class Exchange:
    """One command outside a transaction and, once it was read, its reply."""

    __slots__ = ("reply", "verb")

    def __init__(self, verb: Verb) -> None:
        self.verb = verb
        self.reply: Reply | None = None


class TrailLine(NamedTuple):
    """One line for those who watch: a command as it may be shown, or a reply."""

    verb: Verb
    line: bytes
    reply: Reply | None
    transaction: Transaction | None


def written(verb: Verb, line: bytes, transaction: Transaction | None) -> TrailLine:
    """Return what is recorded of a command."""
    if verb is Verb.BDAT or verb is Verb.BDAT_LAST:
        # The octets of the chunk follow in the same write.
        line = line[: line.index(b"\n")]
    return TrailLine(verb, line.rstrip(b"\r\n"), None, transaction)


class Dialogue(ABC):
    """Bytes in and out, the FIFO of owed replies, and commands of one line and one reply.

    Arguments and attributes are those of `ClientProtocol`, which adds the transactions.
    """

    def __init__(self, *, lmtp: bool, pipelining: bool, max_line: int = MAX_LINE) -> None:
        self.lmtp = lmtp
        self.extensions: Extensions = NO_EXTENSIONS
        self.goodbye: Reply | None = None
        self.writing: Transaction | None = None
        self.trail: list[TrailLine] | None = None
        self.answered = 0
        self.greeting = Exchange(Verb.GREETING)
        self._pipelining = pipelining
        self._name = ""
        self._connection = Connection()
        self._parser = ReplyParser(max_line=max_line)
        # (verb, what it belongs to)
        self._owed: deque[tuple[Verb, Exchange | Transaction]] = deque([(Verb.GREETING, self.greeting)])
        # Replies that arrived and are not answered yet.
        self._unread = 0
        # How many of the owed replies belong to commands that were handed to the transport.
        self._answerable = 1
        self._out: list[bytes] = []
        # Transactions whose end of data is written but not handed to the transport.
        self._ending: list[Transaction] = []
        self._settled: list[Exchange | Transaction] = []
        # Set when the connection must not carry another transaction.
        self._exhausted = False

    # --- what is so ------------------------------------------------------------------------------------------

    @property
    def stage(self) -> Stage:
        """Where the connection stands, by what was written last."""
        return self._connection.stage

    @property
    def idle(self) -> bool:
        """No reply is owed, nothing waits to be written and no body is on its way."""
        return not self._owed and not self._out and self.writing is None

    @property
    def reset_needed(self) -> bool:
        """May the server have a transaction open?"""
        return self._connection.reset_needed

    @property
    def may_quit(self) -> bool:
        """Would QUIT be understood: are both sides in step, and has the server not said goodbye itself?"""
        return self.idle and self.goodbye is None and self._connection.may_write(Verb.QUIT)

    @property
    def has_output(self) -> bool:
        """Does `data_to_send` have anything?"""
        return bool(self._out)

    @property
    def pipelining(self) -> bool:
        """May commands be written before earlier ones are answered?"""
        return self.extensions.pipelining

    @property
    def expected(self) -> str | None:
        """The field of `Timeouts` that limits the next reply, or None when none is owed."""
        if not self._owed:
            return None
        verb, subject = self._owed[0]
        if verb is Verb.END_OF_DATA:
            return "end_of_data" if isinstance(subject, Transaction) and subject.ended else "block"
        if verb is Verb.RSET and isinstance(subject, Transaction) and subject.probes:
            return "probe"
        return _CLOCKS.get(verb, "command")

    @property
    def awaiting_reply(self) -> bool:
        """Is a reply owed to something that was handed to the transport?"""
        return self._answerable > 0

    @property
    def body_open(self) -> bool:
        """Is the next reply owed that to a body behind DATA whose end is not written? It comes early only to refuse."""
        return bool(self._owed) and self._owed[0][0] is Verb.END_OF_DATA and self.expected == "block"

    @property
    def answering(self) -> str | None:
        """The command whose reply is the next one owed, in words."""
        return self._owed[0][0].value if self._owed else None

    # --- bytes -----------------------------------------------------------------------------------------------

    def receive_data(self, data: bytes) -> None:
        """Take what arrived and pair every complete reply.

        Raises:
            ProtocolViolation: the server broke the protocol; call `fail` with it and close.
        """
        parser = self._parser
        replies = parser.take(data)
        count = self._unread = len(replies)
        at = 0
        while at < count:
            at += self._answer_group(replies, at) or self._answer(replies[at])
            self._unread = count - at
        if parser.failed:
            parser.take(b"")

    def data_to_send(self) -> bytes:
        """Return what is to be handed to the transport, in one piece; from then on it counts as handed."""
        out = self._out
        if not out:
            return b""
        data = out[0] if len(out) == 1 else b"".join(out)
        out.clear()
        self._answerable = len(self._owed)
        if self._ending:
            for transaction in self._ending:
                transaction.handed = True
            self._ending.clear()
        return data

    def take_settled(self) -> list[Exchange | Transaction]:
        """Return the exchanges that were answered and the transactions that have a receipt, in order."""
        settled, self._settled = self._settled, []
        return settled

    # --- single commands -------------------------------------------------------------------------------------

    def hello(self, name: str) -> Exchange:
        """Write EHLO, or LHLO under LMTP."""
        self._name = name
        self._parser.keep_plain()
        if self.lmtp:
            return self._write(Verb.LHLO, commands.lhlo(name))
        return self._write(Verb.EHLO, commands.ehlo(name))

    def forgo_pipelining(self) -> None:
        """Write one command at a time from here on, whatever the server offers, now or when it is asked again."""
        self._pipelining = False
        self.extensions = self.extensions.without("PIPELINING")

    def hello_again(self) -> Exchange:
        """Write EHLO or LHLO once more, with the same name; a refusal leaves `extensions` as they are."""
        return self.hello(self._name)

    def helo(self, name: str) -> Exchange:
        """Write HELO, for a server that refuses EHLO."""
        return self._write(Verb.HELO, commands.helo(name))

    def starttls(self) -> Exchange:
        """Write STARTTLS; nothing may be written before its reply."""
        return self._write(Verb.STARTTLS, commands.STARTTLS)

    def tls_established(self) -> None:
        """The handshake ended well: forget everything learnt before it, RFC 3207 section 4.2.

        Raises:
            PlaintextInjected: plaintext is left in the buffer.
        """
        if not self._parser.empty:
            raise PlaintextInjected("plaintext was left over when TLS came up", stage="STARTTLS")
        self.extensions = NO_EXTENSIONS
        self._connection.tls_established()

    def demand(self, verb: Verb) -> None:
        """Raise where `verb` must not be written: asked before there is a line, which a traceback would show.

        Raises:
            UsageError: the table does not allow it.
        """
        if not self._connection.may_write(verb):
            self._connection.wrote(verb)

    def auth(self, mechanism: str, initial: bytes | None, secrets: Collection[bytes] = ()) -> Exchange:
        """Write AUTH, RFC 4954 section 4.

        Args:
            mechanism: its name.
            initial: the initial response, None to send none.
            secrets: what in it must not show: masked in every later reply, and so is then the base64 of all of it.
        """
        line = commands.auth(mechanism, initial)
        shown = b"AUTH %b" % mechanism.encode("ascii", "replace")
        if initial and secrets:
            self._parser.conceal(line.split()[-1], secrets)
        if initial is not None:
            shown += b" " + MASKED
        return self._write(Verb.AUTH, line, shown)

    def auth_response(self, response: bytes | None, secrets: Collection[bytes] = ()) -> Exchange:
        """Answer a challenge, or give the authentication up with None; `secrets` as for `auth`."""
        if response is None:
            return self._write(Verb.RESPONSE, commands.AUTH_CANCEL)
        line = commands.auth_response(response)
        if secrets:
            self._parser.conceal(line.rstrip(), secrets)
        return self._write(Verb.RESPONSE, line, MASKED)

    def reset(self) -> Exchange:
        """Write RSET."""
        return self._write(Verb.RSET, commands.RSET)

    def noop(self) -> Exchange:
        """Write NOOP."""
        return self._write(Verb.NOOP, commands.NOOP)

    def verify(self, argument: str) -> Exchange:
        """Write VRFY."""
        return self._write(Verb.VRFY, commands.vrfy(argument, utf8=self.extensions.smtputf8))

    def expand(self, argument: str) -> Exchange:
        """Write EXPN."""
        return self._write(Verb.EXPN, commands.expn(argument, utf8=self.extensions.smtputf8))

    def command(self, line: str) -> Exchange:
        """Write any other command of one line and one reply.

        Raises:
            UsageError: the verb would change what this object knows about the connection.
        """
        verb, data = commands.free(line)
        if verb in _REFUSED:
            raise UsageError(f"{verb} is the library's own to write", stage=self.stage.value)
        return self._write(_FREE.get(verb, Verb.OTHER), data)

    def quit(self) -> Exchange:
        """Write QUIT."""
        return self._write(Verb.QUIT, commands.QUIT)

    # --- answers ---------------------------------------------------------------------------------------------

    @abstractmethod
    def _answer_group(self, replies: list[Reply], at: int) -> int:
        """Pair several replies from place `at` in one go; return how many, 0 if each has to be looked at."""

    def _answer(self, reply: Reply) -> int:
        """Pair one reply; return 1."""
        if not self._answerable:
            return self._unsolicited(reply)
        self._answerable -= 1
        self.answered += 1
        verb, subject = self._owed.popleft()
        if self.trail is not None:
            owner = subject if isinstance(subject, Transaction) else None
            self.trail.append(TrailLine(verb, b"", reply, owner))
        klass = reply.code // 100
        if klass == 3 and verb not in _ASKING:
            # No answer at all: replies and commands have come apart. This one is still owed.
            self._owed.appendleft((verb, subject))
            raise ProtocolViolation(f"{verb.value} was answered with {reply}", reply=reply, stage=verb.value)
        if reply.code == 421:
            self.goodbye = reply
            self._exhausted = True
        if isinstance(subject, Transaction):
            self._answer_transaction(verb, subject, reply)
        else:
            self._connection.answered(verb, klass)
            self._answer_exchange(subject, reply)
        return 1

    def _unsolicited(self, reply: Reply) -> int:
        """RFC 5321 section 3.8: only 421 may come unasked."""
        if reply.code != 421:
            raise ProtocolViolation(
                f"a reply that no command asked for: {reply}", reply=reply, stage=self.stage.value
            )
        self.goodbye = reply
        self._exhausted = True
        if self.trail is not None:
            self.trail.append(TrailLine(Verb.OTHER, b"", reply, None))
        return 1

    def _answer_exchange(self, exchange: Exchange, reply: Reply) -> None:
        exchange.reply = reply
        if exchange.verb in (Verb.EHLO, Verb.LHLO):
            plain = self._parser.plain(reply)
            if reply.positive:
                offered = Extensions.parse(plain)
                self.extensions = offered if self._pipelining else offered.without("PIPELINING")
        elif reply.positive and exchange.verb is Verb.HELO:
            self.extensions = NO_EXTENSIONS
        elif exchange.verb is Verb.RSET and not reply.positive:
            self._exhausted = True
        elif (
            exchange.verb is Verb.STARTTLS
            and reply.positive
            and not (self._unread == 1 and self._parser.empty)
        ):
            # The stream judges its own buffer; these are bytes that came in the same read.
            raise PlaintextInjected("plaintext followed the reply to STARTTLS", reply=reply, stage="STARTTLS")
        self._settled.append(exchange)

    @abstractmethod
    def _answer_transaction(self, verb: Verb, transaction: Transaction, reply: Reply) -> None:
        """A command of a transaction was answered."""

    # --- writing ---------------------------------------------------------------------------------------------

    def _write(self, verb: Verb, line: bytes, shown: bytes | None = None) -> Exchange:
        self._connection.wrote(verb)
        exchange = Exchange(verb)
        self._owed.append((verb, exchange))
        self._out.append(line)
        if self.trail is not None:
            self.trail.append(written(verb, line if shown is None else shown, None))
        return exchange


#: `command()` refuses these: they would change what the machine knows.
_REFUSED: Final = frozenset({"DATA", "BDAT", "EHLO", "HELO", "LHLO", "STARTTLS", "AUTH", "XCLIENT"})
_FREE: Final = {
    "MAIL": Verb.MAIL,
    # RFC 821 section 3.4: they open a transaction as MAIL does.
    "SEND": Verb.MAIL,
    "SOML": Verb.MAIL,
    "SAML": Verb.MAIL,
    "RCPT": Verb.RCPT,
    "RSET": Verb.RSET,
    "NOOP": Verb.NOOP,
    "VRFY": Verb.VRFY,
    "EXPN": Verb.EXPN,
    "QUIT": Verb.QUIT,
}
