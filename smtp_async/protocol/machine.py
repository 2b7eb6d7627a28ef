"""The client side of SMTP and LMTP, without I/O.

Strategy: bytes go in by `receive_data`, bytes come out by `data_to_send`, and `take_settled` returns the commands that
were answered and the transactions that have ended. The work is done by the parts of a `ClientProtocol`:

* `parser.py` cuts what arrives into replies;
* `exchange.py` holds the FIFO of owed replies, which pairs each reply with the command it answers;
* `states.py` says what may be written in which stage;
* `writer.py` writes, and appends an entry to the FIFO for each command;
* `pipeline.py` decides how far each transaction is written and how it ends.

This module holds the commands outside transactions, and the pairing itself. A reply that no command asked for is
a violation, except for 421. A violation ends the connection, because from there on no pairing can be trusted.

Where a 421 is handled. The server may send it at any time, to announce that it closes the connection (RFC 5321 section
3.8). `_answer` and `_answer_unsolicited` below notice it, and `states.ConnectionState.note_421` records it as
`reply_421`. From that state follows everything else:

| what | where |
|---|---|
| no other transaction begins, and no QUIT is written | `states`: `note_421` sets `exhausted`; `may_quit` below |
| the transactions under way get their receipts | `pipeline`: `answer`, `_conclude`, `fail`; `transaction`: `give_up` |
| it says nothing about pipelining | `pipelining_history.diagnose` |
| the server has five seconds to close the connection | `connection/clock` |
| the end of the connection is reported with this reply | `connection/channel`, `connection/connection` |
| the pool tries its unsent messages again | `pool/pool.Pool.retry_unsent` |
| the pool allows fewer connections | `pool/dialling`, `pool/adaptive.is_congestion` |
| no other login is tried | `connection/login` |
| an error with this reply says that its connection cannot be used | `errors.SMTPError.connection_usable` |
| a queue pauses for the server and tries the message later | `processor/policy` |
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from ..errors import PlaintextInjected, ProtocolViolation, SMTPError, UsageError
from ..model.reply import Reply
from ..model.secret import MASKED
from . import commands
from .exchange import Exchange, OwedReplies
from .extensions import NO_EXTENSIONS, Extensions
from .line_recorder import LineRecorder
from .parser import MAX_LINE, ReplyParser
from .pipeline import Pipeline
from .pipelining_history import PipeliningHistory
from .states import ConnectionState, Stage, Verb
from .transaction import Transaction
from .writer import Writer

__all__ = ["ClientProtocol", "Exchange"]

# RFC 5321 section 4.2.1 and RFC 4954: what a 3xx may answer. A command of the caller's own may ask for more, too.
_ASKING: Final = frozenset({Verb.DATA, Verb.AUTH, Verb.RESPONSE, Verb.OTHER})
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


class ClientProtocol:
    """The conversation of one connection.

    Args:
        lmtp: speak LMTP (RFC 2033).
        pipelining: use PIPELINING where offered.
        send_rset: write RSET after an aborted transaction; without it such a connection is not used again.
        window: the most messages on their way unanswered.
        pipelining_history: what earlier connections have shown about the server's pipelining.
        max_line: the longest reply line accepted, in bytes.
        known_replies: replies that connections to the same server have read (`ReplyParser`).

    Attributes:
        lmtp: as given.
        pipeline: the transactions; everything about messages is asked of it.
        owed: the replies that the server owes.
        recorder: set its `recording` to have every line recorded, secrets masked.
        greeting: the server's greeting, which comes without a command.
        answered: how many replies were paired so far.
    """

    __slots__ = (
        "_name",
        "_parser",
        "_state",
        "_use_pipelining",
        "_writer",
        "answered",
        "greeting",
        "lmtp",
        "owed",
        "pipeline",
        "recorder",
    )

    def __init__(
        self,
        *,
        lmtp: bool = False,
        pipelining: bool = True,
        send_rset: bool = True,
        window: int = 1,
        pipelining_history: PipeliningHistory | None = None,
        max_line: int = MAX_LINE,
        known_replies: dict[bytes, Reply] | None = None,
    ) -> None:
        self.lmtp = lmtp
        self.greeting = Exchange(Verb.GREETING)
        self.answered = 0
        self.recorder = LineRecorder()
        self.owed = OwedReplies()
        self.owed.entries.append((Verb.GREETING, self.greeting))
        self.owed.answerable = 1
        self._use_pipelining = pipelining
        # The client's name, as the last EHLO told it.
        self._name = ""
        self._state = ConnectionState()
        self._parser = ReplyParser(max_line=max_line, known=known_replies)
        self._writer = Writer(self._state, self.owed, self.recorder)
        self.pipeline = Pipeline(
            self._state,
            self.owed,
            self._writer,
            lmtp=lmtp,
            send_rset=send_rset,
            window=window,
            history=PipeliningHistory() if pipelining_history is None else pipelining_history,
        )

    # --- state -----------------------------------------------------------------------------------------------

    @property
    def stage(self) -> Stage:
        """Where the connection stands, by what was written last."""
        return self._state.stage

    @property
    def extensions(self) -> Extensions:
        """What the server offers; forgotten when TLS is established (RFC 3207 section 4.2)."""
        return self._state.extensions

    @extensions.setter
    def extensions(self, extensions: Extensions) -> None:
        self._state.extensions = extensions

    @property
    def pipelining(self) -> bool:
        """May commands be written before earlier ones are answered?"""
        return self._state.extensions.pipelining

    @property
    def reply_421(self) -> Reply | None:
        """The 421 that announced the end of the connection, None if none was read."""
        return self._state.reply_421

    @property
    def reset_needed(self) -> bool:
        """May the server have a transaction open?"""
        return self._state.reset_needed

    @property
    def idle(self) -> bool:
        """Is no reply owed, nothing waiting to be handed over and no body on its way?"""
        return not self.owed.entries and not self._writer.out and self.pipeline.writing is None

    @property
    def may_quit(self) -> bool:
        """Would QUIT be understood: are both sides in step, and has the server not announced its end with 421?"""
        return self.idle and self.reply_421 is None and self._state.may_write(Verb.QUIT)

    @property
    def expected(self) -> str | None:
        """The field of `Timeouts` that limits the next reply, None if no reply is owed."""
        return self.owed.expected

    @property
    def answering(self) -> str | None:
        """The name of the command whose reply is owed next, for messages."""
        return self.owed.entries[0][0].value if self.owed.entries else None

    @property
    def awaiting_reply(self) -> bool:
        """Does the server owe a reply to something that was handed to the transport?"""
        return self.owed.answerable > 0

    @property
    def body_open(self) -> bool:
        """Does the next reply answer a body behind DATA whose end is not written? Such a reply can only refuse."""
        return self.owed.body_open

    # --- bytes -----------------------------------------------------------------------------------------------

    def receive_data(self, data: bytes) -> None:
        """Take what arrived and pair every complete reply.

        Raises:
            ProtocolViolation: the server broke the protocol; call `fail` with it and close.
        """
        parser, answer_group = self._parser, self.pipeline.answer_group
        replies = parser.take(data)
        at, count = 0, len(replies)
        # A recorder records every reply by itself.
        grouping = not self.recorder.recording
        while at < count:
            if grouping and (paired := answer_group(replies, at)):
                self.answered += paired
                at += paired
                continue
            at += 1
            self._answer(replies[at - 1], last=at == count)
        if parser.failed:
            parser.take(b"")

    @property
    def has_output(self) -> bool:
        """Does `data_to_send` have anything?"""
        return bool(self._writer.out)

    @property
    def output_size(self) -> int:
        """How many bytes `data_to_send` would return."""
        return sum(map(len, self._writer.out))

    def data_to_send(self) -> bytes:
        """Return what is to be handed to the transport, in one piece; from then on it counts as handed."""
        writer, owed = self._writer, self.owed
        out, ending = writer.out, writer.ending
        if not out:
            return b""
        data = out[0] if len(out) == 1 else b"".join(out)
        out.clear()
        owed.answerable = len(owed.entries)
        if ending:
            for transaction in ending:
                transaction.handed = True
            ending.clear()
        return data

    def take_settled(self) -> list[Exchange | Transaction]:
        """Return, in order, the exchanges that were answered and the transactions that have a receipt or their turn."""
        settled, self.pipeline.settled = self.pipeline.settled, []
        return settled

    def fail(self, error: SMTPError) -> None:
        """End the conversation: what is owed will not come. Transactions on their way get their receipts.

        Args:
            error: what ended the connection.
        """
        self._state.closed()
        self._writer.discard()
        self.pipeline.fail(error)

    # --- single commands -------------------------------------------------------------------------------------

    def hello(self, name: str) -> Exchange:
        """Write EHLO, or LHLO under LMTP."""
        self._name = name
        self._parser.keep_plain()
        if self.lmtp:
            return self._writer.command(Verb.LHLO, commands.lhlo(name))
        return self._writer.command(Verb.EHLO, commands.ehlo(name))

    def hello_again(self) -> Exchange:
        """Write EHLO or LHLO once more, with the same name; a refusal leaves `extensions` as they are."""
        return self.hello(self._name)

    def helo(self, name: str) -> Exchange:
        """Write HELO, for a server that refuses EHLO."""
        return self._writer.command(Verb.HELO, commands.helo(name))

    def forgo_pipelining(self) -> None:
        """Write one command at a time from here on, whatever the server offers, now or when it is asked again."""
        self._use_pipelining = False
        self.extensions = self.extensions.without("PIPELINING")

    def starttls(self) -> Exchange:
        """Write STARTTLS; nothing may be written before its reply."""
        return self._writer.command(Verb.STARTTLS, commands.STARTTLS)

    def tls_established(self) -> None:
        """Forget the extensions offered before the handshake, RFC 3207 section 4.2.

        Raises:
            PlaintextInjected: plaintext is left in the buffer.
        """
        if not self._parser.empty:
            raise PlaintextInjected("plaintext was left over when TLS was established", stage="STARTTLS")
        self._state.tls_established()

    def require_writable(self, verb: Verb) -> None:
        """Raise if `verb` may not be written now; call before making a line with a secret, which a traceback shows.

        Raises:
            UsageError: the table does not allow it.
        """
        if not self._state.may_write(verb):
            self._state.wrote(verb)

    def auth(self, mechanism: str, initial: bytes | None, secrets: Collection[bytes] = ()) -> Exchange:
        """Write AUTH, RFC 4954 section 4.

        Args:
            mechanism: its name.
            initial: the initial response, None to send none.
            secrets: the parts of `initial` that must not show. They are masked in every later reply, and so is then
                the base64 of the whole response.
        """
        line = commands.auth(mechanism, initial)
        self._parser.expect_challenge()
        shown = b"AUTH %b" % mechanism.encode("ascii", "replace")
        if initial and secrets:
            self._parser.conceal(line.split()[-1], secrets)
        if initial is not None:
            shown += b" " + MASKED
        return self._writer.command(Verb.AUTH, line, shown)

    def auth_response(self, response: bytes | None, secrets: Collection[bytes] = ()) -> Exchange:
        """Answer a challenge, or cancel the authentication with None; `secrets` as for `auth`."""
        if response is None:
            return self._writer.command(Verb.RESPONSE, commands.AUTH_CANCEL)
        line = commands.auth_response(response)
        self._parser.expect_challenge()
        if secrets:
            self._parser.conceal(line.rstrip(), secrets)
        return self._writer.command(Verb.RESPONSE, line, MASKED)

    def challenge(self, reply: Reply) -> bytes:
        """Return the text of a challenge as it arrived; in `reply` it is masked."""
        found = self._parser.challenge
        return reply.raw[0] if found is None else found

    def reset(self) -> Exchange:
        """Write RSET."""
        return self._writer.command(Verb.RSET, commands.RSET)

    def noop(self) -> Exchange:
        """Write NOOP."""
        return self._writer.command(Verb.NOOP, commands.NOOP)

    def verify(self, argument: str) -> Exchange:
        """Write VRFY."""
        return self._writer.command(Verb.VRFY, commands.vrfy(argument, utf8=self.extensions.smtputf8))

    def expand(self, argument: str) -> Exchange:
        """Write EXPN."""
        return self._writer.command(Verb.EXPN, commands.expn(argument, utf8=self.extensions.smtputf8))

    def command(self, line: str) -> Exchange:
        """Write any other command of one line and one reply.

        Raises:
            UsageError: the verb would change what this object knows about the connection.
        """
        verb, data = commands.free(line)
        if verb in _REFUSED:
            raise UsageError(
                f"{verb} cannot be sent by hand: the library writes it itself", stage=self.stage.value
            )
        return self._writer.command(_FREE.get(verb, Verb.OTHER), data)

    def quit(self) -> Exchange:
        """Write QUIT."""
        return self._writer.command(Verb.QUIT, commands.QUIT)

    # --- answers ---------------------------------------------------------------------------------------------

    def _answer(self, reply: Reply, *, last: bool) -> None:
        """Pair one reply with the command it answers; `last`: no other reply came in the same read."""
        if not self.owed.answerable:
            self._answer_unsolicited(reply)
            return
        self.answered += 1
        verb, subject = self.owed.entries[0]
        transaction = subject if isinstance(subject, Transaction) else None
        if self.recorder.recording:
            self.recorder.read(verb, reply, transaction)
        if reply.intermediate and verb not in _ASKING:
            # A 3xx that this command cannot have: replies no longer match commands. Its own reply is still owed.
            raise ProtocolViolation(f"{verb.value} was answered with {reply}", reply=reply, stage=verb.value)
        self.owed.take()
        if reply.code == 421:
            self._state.note_421(reply)
        if isinstance(subject, Exchange):
            self._state.answered(verb, reply.code // 100)
            self._answer_exchange(subject, reply, last=last)
        else:
            self.pipeline.answer(verb, subject, reply)

    def _answer_unsolicited(self, reply: Reply) -> None:
        """Take a reply that no command asked for: only 421 may come so, RFC 5321 section 3.8."""
        if reply.code != 421:
            raise ProtocolViolation(
                f"a reply that no command asked for: {reply}", reply=reply, stage=self.stage.value
            )
        self._state.note_421(reply)
        if self.recorder.recording:
            self.recorder.read(Verb.OTHER, reply)

    def _answer_exchange(self, exchange: Exchange, reply: Reply, *, last: bool) -> None:
        exchange.reply = reply
        verb = exchange.verb
        if verb is Verb.EHLO or verb is Verb.LHLO:
            self._learn(reply)
        elif verb is Verb.HELO and reply.positive:
            self.extensions = NO_EXTENSIONS
        elif verb is Verb.RSET and not reply.positive:
            self._state.exhausted = True
        elif verb is Verb.STARTTLS and reply.positive and not (last and self._parser.empty):
            # The stream checks its own buffer; these are bytes that came in the same read.
            raise PlaintextInjected("plaintext followed the reply to STARTTLS", reply=reply, stage="STARTTLS")
        self.pipeline.settled.append(exchange)

    def _learn(self, reply: Reply) -> None:
        """Read the extensions from the reply to EHLO; a refusal leaves them unchanged."""
        plain = self._parser.plain(reply)
        if reply.positive:
            offered = Extensions.parse(plain)
            self.extensions = offered if self._use_pipelining else offered.without("PIPELINING")
