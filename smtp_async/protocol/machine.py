"""The client side of SMTP and LMTP, without I/O.

Strategy: bytes go in by `receive_data`, bytes come out by `data_to_send`, and what is settled is taken from
`take_settled`. In between stands a FIFO of owed replies. Every command that is written appends an entry that knows
what it belongs to; every reply takes the first entry; nothing else pairs them. A reply that arrives before its
command was handed to the transport answers nothing: except for 421 it is a violation, and a violation ends the
connection, because from there on no pairing can be trusted.

A message is a `Transaction`. At most one is being *written* at a time (`writing`); the others are fully written and
wait for their replies. How far one may be written unread is decided in `_continue`:

* without PIPELINING: one command, then its reply;
* with it: MAIL and every RCPT, and DATA too unless the transaction wants to decide first (`hold`);
* the body after 354; the next transaction's envelope may share its write.

Two details: an LMTP server owes one final reply per accepted recipient (RFC 2033 section 4.2), so its entry stays
at the head of the FIFO until all have come. And the entry of a body exists from its first byte, so that a refusal in
mid-body finds it.
"""

from __future__ import annotations

from collections import deque
from typing import Final, NamedTuple

from ..errors import PlaintextInjected, ProtocolViolation, SMTPError, UsageError
from ..reply import Reply
from . import commands
from .extensions import NO_EXTENSIONS, Extensions
from .framing import DotStuffer
from .parser import MAX_LINE, ReplyParser
from .states import Connection, Stage, Verb
from .transaction import Transaction

__all__ = ["ClientProtocol", "Exchange", "TrailLine"]

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
    Verb.BDAT: "data",
    Verb.BDAT_LAST: "end_of_data",
    Verb.END_OF_DATA: "end_of_data",
    Verb.QUIT: "quit",
}

_MASK: Final = b"***"


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


class ClientProtocol:
    """The conversation of one connection.

    Args:
        lmtp: speak LMTP (RFC 2033).
        pipelining: use PIPELINING where offered.
        send_rset: write RSET after an aborted transaction; without it such a connection is not used again.
        max_line: the longest reply line accepted, in bytes.

    Attributes:
        extensions: what the server offers; forgotten when TLS comes up (RFC 3207 section 4.2).
        goodbye: the 421 that announced the end, if one was read.
        writing: the transaction being written, if any.
        trail: set it to a list to have every line recorded, secrets masked.
        answered: how many replies were paired so far.
    """

    def __init__(
        self, *, lmtp: bool = False, pipelining: bool = True, send_rset: bool = True, max_line: int = MAX_LINE
    ) -> None:
        self.lmtp = lmtp
        self.extensions: Extensions = NO_EXTENSIONS
        self.goodbye: Reply | None = None
        self.writing: Transaction | None = None
        self.trail: list[TrailLine] | None = None
        self.answered = 0
        self.greeting = Exchange(Verb.GREETING)
        self._pipelining = pipelining
        self._send_rset = send_rset
        self._connection = Connection()
        self._parser = ReplyParser(max_line=max_line)
        # (verb, what it belongs to)
        self._owed: deque[tuple[Verb, Exchange | Transaction]] = deque([(Verb.GREETING, self.greeting)])
        # How many of the owed replies belong to commands that were handed to the transport.
        self._answerable = 1
        self._out: list[bytes] = []
        self._ending: list[Transaction] = []
        self._settled: list[Exchange | Transaction] = []
        self._stuffer: DotStuffer | None = None
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
    def has_output(self) -> bool:
        """Does `data_to_send` have anything?"""
        return bool(self._out)

    @property
    def pipelining(self) -> bool:
        """May commands be written before earlier ones are answered?"""
        return self._pipelining and self.extensions.pipelining

    @property
    def exhausted(self) -> bool:
        """Must this connection not carry another transaction?"""
        if self._exhausted or self.goodbye is not None or self._connection.stage is Stage.CLOSED:
            return True
        return not self._send_rset and self._connection.reset_needed and self.writing is None

    @property
    def can_begin(self) -> bool:
        """May a transaction be begun now?"""
        if self.writing is not None or self.exhausted or (self._owed and not self.pipelining):
            return False
        return self._connection.may_write(Verb.RSET)

    @property
    def expected(self) -> str | None:
        """The field of `Timeouts` that limits the next reply, or None when none is owed."""
        if not self._owed:
            return None
        verb, subject = self._owed[0]
        if verb is Verb.END_OF_DATA and isinstance(subject, Transaction) and not subject.ended:
            return "block"
        return _CLOCKS.get(verb, "command")

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
        parser.feed(data)
        while (reply := parser.next_reply()) is not None:
            self._answer(reply)

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

    def fail(self, error: SMTPError) -> None:
        """End the conversation: whatever is owed will not come. Open transactions get their receipts."""
        self._connection.closed()
        self._out.clear()
        self._ending.clear()
        owed, self._owed = self._owed, deque()
        self._answerable = 0
        open_transactions = dict.fromkeys(s for _, s in owed if isinstance(s, Transaction))
        if self.writing is not None:
            open_transactions[self.writing] = None
            self.writing = None
        for transaction in open_transactions:
            if transaction.receipt is None:
                transaction.give_up(error, goodbye=self.goodbye is not None, per_recipient=self.lmtp)
                self._settled.append(transaction)

    # --- single commands -------------------------------------------------------------------------------------

    def hello(self, name: str) -> Exchange:
        """Write EHLO, or LHLO under LMTP."""
        if self.lmtp:
            return self._write(Verb.LHLO, commands.lhlo(name))
        return self._write(Verb.EHLO, commands.ehlo(name))

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

    def auth(self, mechanism: str, initial: bytes | None) -> Exchange:
        """Write AUTH, RFC 4954 section 4."""
        shown = b"AUTH %b%b" % (
            mechanism.encode("ascii", "replace"),
            b"" if initial is None else b" " + _MASK,
        )
        return self._write(Verb.AUTH, commands.auth(mechanism, initial), shown)

    def auth_response(self, response: bytes | None) -> Exchange:
        """Answer a challenge, or give the authentication up with None."""
        if response is None:
            return self._write(Verb.RESPONSE, commands.AUTH_CANCEL)
        return self._write(Verb.RESPONSE, commands.auth_response(response), _MASK)

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

    # --- transactions ----------------------------------------------------------------------------------------

    def begin(self, transaction: Transaction, *, hold: bool = False) -> None:
        """Write as much of a transaction as may be written unread; call only if `can_begin`.

        Args:
            hold: wait for the envelope's replies before DATA.
        """
        connection = self._connection
        transaction.hold = hold or transaction.decides
        self.writing = transaction
        if connection.reset_needed:
            self._write_line(transaction, Verb.RSET, commands.RSET)
        if not self.pipelining:
            if not transaction.owed:
                self._write_envelope_line(transaction)
            return
        connection.wrote(Verb.MAIL)
        connection.wrote(Verb.RCPT)
        owed = self._owed
        owed.append((Verb.MAIL, transaction))
        count = len(transaction.rcpts)
        if count == 1:
            owed.append((Verb.RCPT, transaction))
        else:
            owed.extend([(Verb.RCPT, transaction)] * count)
        transaction.owed += count + 1
        transaction.written = count + 1
        self._put(transaction, transaction.envelope)
        if self.trail is not None:
            self._trace(Verb.MAIL, transaction.mail, transaction)
            for line in transaction.rcpts:
                self._trace(Verb.RCPT, line, transaction)
        if not transaction.hold:
            self._write_data(transaction)

    def withdraw(self, transaction: Transaction) -> bool:
        """Its caller has gone: see that it is not sent, and tell whether that can be promised.

        What is fully written runs to its end. What is not is concluded without its body when the replies to its
        envelope are in; after a 354 that takes the connection with it.
        """
        if transaction.ended or transaction.receipt is not None:
            return False
        transaction.withdrawn = True
        if self._stuffer is not None and self.writing is transaction:
            self._exhausted = True
        return True

    def write_body(self, transaction: Transaction, chunk: bytes) -> None:
        """Write a slice of a streamed body; the caller holds the turn to write."""
        if self._stuffer is None:
            self._stuffer = DotStuffer()
            self._owe_end(transaction)
        transaction.streamed += len(chunk)
        self._put(transaction, self._stuffer.frame(chunk))

    def end_body(self, transaction: Transaction) -> None:
        """Write the end of a streamed body."""
        if self._stuffer is None:
            self.write_body(transaction, b"")
        assert self._stuffer is not None
        self._put(transaction, self._stuffer.end())
        self._stuffer = None
        self._end_written(transaction)

    # --- answers ---------------------------------------------------------------------------------------------

    def _answer(self, reply: Reply) -> None:
        if not self._answerable:
            self._unsolicited(reply)
            return
        self._answerable -= 1
        self.answered += 1
        verb, subject = self._owed.popleft()
        if self.trail is not None:
            owner = subject if isinstance(subject, Transaction) else None
            self.trail.append(TrailLine(verb, b"", reply, owner))
        code = reply.code
        if code == 421:
            self.goodbye = reply
        self._connection.answered(verb, code // 100)
        if isinstance(subject, Transaction):
            self._answer_transaction(verb, subject, reply)
        else:
            self._answer_exchange(subject, reply)

    def _unsolicited(self, reply: Reply) -> None:
        """RFC 5321 section 3.8: only 421 may come unasked."""
        if reply.code != 421:
            raise ProtocolViolation(
                f"a reply that no command asked for: {reply}", reply=reply, stage=self.stage.value
            )
        self.goodbye = reply
        if self.trail is not None:
            self.trail.append(TrailLine(Verb.OTHER, b"", reply, None))

    def _answer_exchange(self, exchange: Exchange, reply: Reply) -> None:
        exchange.reply = reply
        if reply.positive and exchange.verb in (Verb.EHLO, Verb.LHLO):
            self.extensions = Extensions.parse(reply)
        elif reply.positive and exchange.verb is Verb.HELO:
            self.extensions = NO_EXTENSIONS
        elif exchange.verb is Verb.RSET and not reply.positive:
            self._exhausted = True
        elif exchange.verb is Verb.STARTTLS and reply.positive and not self._parser.empty:
            # The stream judges its own buffer; these are bytes that came in the same read.
            raise PlaintextInjected("plaintext followed the reply to STARTTLS", reply=reply, stage="STARTTLS")
        self._settled.append(exchange)

    def _answer_transaction(self, verb: Verb, transaction: Transaction, reply: Reply) -> None:
        if verb is Verb.RSET:
            # The server may still have the old transaction open: nothing more may be begun here.
            self._exhausted = self._exhausted or not reply.positive
        elif verb is Verb.MAIL:
            transaction.mail_answer = reply
        elif verb is Verb.RCPT:
            transaction.answers.append(reply)
            transaction.accepted += reply.positive
        elif verb is Verb.DATA:
            transaction.data_answer = reply
        else:
            self._answer_end(verb, transaction, reply)
        transaction.owed -= 1
        if not transaction.owed and transaction.receipt is None:
            self._continue(transaction)

    def _answer_end(self, verb: Verb, transaction: Transaction, reply: Reply) -> None:
        transaction.final.append(reply)
        if not transaction.ended:
            self._answered_early(transaction, reply)
        elif self.lmtp and len(transaction.final) < transaction.accepted:
            self._owed.appendleft((verb, transaction))
            self._answerable += 1
            transaction.owed += 1

    def _answered_early(self, transaction: Transaction, reply: Reply) -> None:
        """A final reply in mid-body: the refusal stands, and the connection cannot be used again."""
        if reply.positive or reply.intermediate:
            raise ProtocolViolation(
                f"the body was answered before its end: {reply}", reply=reply, stage="body"
            )
        self._exhausted = True
        self._stuffer = None
        transaction.ended = True
        transaction.owed = 1
        if self.lmtp:
            transaction.final *= transaction.accepted

    # --- how a transaction goes on ---------------------------------------------------------------------------

    def _continue(self, transaction: Transaction) -> None:
        """Every reply owed so far was read: write what comes next, or conclude."""
        if transaction.ended:
            self._conclude(transaction)
        elif transaction.withdrawn and transaction.data_answer is None:
            self._conclude(transaction)
        elif self.exhausted and not transaction.mail_refused:
            # A 421, or a refused RSET: nothing more may be written here. `fail` says that it was not sent.
            return
        elif transaction.data_answer is not None:
            self._after_data(transaction, transaction.data_answer)
        elif transaction.mail_refused:
            self._conclude(transaction)
        elif transaction.written <= len(transaction.rcpts):
            self._write_envelope_line(transaction)
        elif not transaction.accepted or transaction.vetoed:
            self._conclude(transaction)
        else:
            self._write_data(transaction)

    def _after_data(self, transaction: Transaction, reply: Reply) -> None:
        if reply.positive:
            raise ProtocolViolation(f"DATA was answered with {reply}", reply=reply, stage="DATA")
        if not reply.intermediate:
            self._conclude(transaction)
        elif transaction.mail_refused:
            raise ProtocolViolation(
                "the server refused the sender and asks for the message", reply=reply, stage="DATA"
            )
        elif transaction.withdrawn:
            # Only a dropped connection stops a message now.
            self._exhausted = True
        elif not transaction.accepted:
            self._write_nothing(transaction)
        elif transaction.payload is not None:
            self._owe_end(transaction)
            self._put(transaction, transaction.payload)
            self._end_written(transaction)
        else:
            # The caller streams it: the transaction stays `writing`, and is settled twice.
            self._settled.append(transaction)

    def _write_nothing(self, transaction: Transaction) -> None:
        """354 although nobody was accepted: a lone dot ends it (RFC 2920 section 3.1)."""
        if self.lmtp:
            # RFC 2033 section 4.2: such a server would owe no reply, and nothing could be paired.
            raise ProtocolViolation("the LMTP server asks for a message without recipients", stage="DATA")
        self._owe_end(transaction)
        self._put(transaction, commands.END_OF_DATA)
        self._end_written(transaction)

    def _conclude(self, transaction: Transaction) -> None:
        transaction.conclude(per_recipient=self.lmtp)
        self._settled.append(transaction)
        newest = self.writing is transaction
        if newest:
            self.writing = None
        if transaction.mail_refused:
            if any(reply.positive for reply in transaction.final):
                raise ProtocolViolation("the server refused the sender and accepted the message")
            if newest:
                self._connection.transaction_closed()

    # --- writing ---------------------------------------------------------------------------------------------

    def _write(self, verb: Verb, line: bytes, shown: bytes | None = None) -> Exchange:
        self._connection.wrote(verb)
        exchange = Exchange(verb)
        self._owed.append((verb, exchange))
        self._out.append(line)
        if self.trail is not None:
            self._trace(verb, line if shown is None else shown, None)
        return exchange

    def _put(self, transaction: Transaction, data: bytes) -> None:
        self._out.append(data)
        transaction.bytes_sent += len(data)

    def _trace(self, verb: Verb, line: bytes, transaction: Transaction | None) -> None:
        if self.trail is not None:
            self.trail.append(TrailLine(verb, line.rstrip(b"\r\n"), None, transaction))

    def _write_line(self, transaction: Transaction, verb: Verb, line: bytes) -> None:
        self._connection.wrote(verb)
        self._owed.append((verb, transaction))
        transaction.owed += 1
        self._put(transaction, line)
        if self.trail is not None:
            self._trace(verb, line, transaction)

    def _write_envelope_line(self, transaction: Transaction) -> None:
        """Lock-step: MAIL, or the next RCPT."""
        index = transaction.written
        transaction.written += 1
        if index == 0:
            self._write_line(transaction, Verb.MAIL, transaction.mail)
        else:
            self._write_line(transaction, Verb.RCPT, transaction.rcpts[index - 1])

    def _write_data(self, transaction: Transaction) -> None:
        self._write_line(transaction, Verb.DATA, commands.DATA)

    def _owe_end(self, transaction: Transaction) -> None:
        self._owed.append((Verb.END_OF_DATA, transaction))
        transaction.owed += 1

    def _end_written(self, transaction: Transaction) -> None:
        self._connection.wrote(Verb.END_OF_DATA)
        if self.trail is not None:
            self._trace(Verb.END_OF_DATA, commands.END_OF_DATA, transaction)
        transaction.ended = True
        self._ending.append(transaction)
        if self.writing is transaction:
            self.writing = None


#: `command()` refuses these: they would change what the machine knows.
_REFUSED: Final = frozenset({"DATA", "BDAT", "EHLO", "HELO", "LHLO", "STARTTLS", "AUTH", "XCLIENT"})
_FREE: Final = {
    "MAIL": Verb.MAIL,
    "RCPT": Verb.RCPT,
    "RSET": Verb.RSET,
    "NOOP": Verb.NOOP,
    "VRFY": Verb.VRFY,
    "EXPN": Verb.EXPN,
    "QUIT": Verb.QUIT,
}
