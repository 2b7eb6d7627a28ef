"""The transactions on their way over one connection: which may begin, what is written next, how each ends.

At most one transaction is being *written* at a time (`writing`); the others are fully written and wait for their
replies. How much of one may be written unread is decided in `_advance`:

* without PIPELINING: one command, then its reply;
* with it: MAIL and every RCPT, and DATA too unless the transaction must decide first (`hold`);
* the body after 354; the next transaction's envelope, behind RSET, may share its write, once the server has shown
  that it reads on behind an end of data (`pipelining_history.py`);
* with CHUNKING and a window (`window.py`): everything at once, message after message.

An LMTP server owes one final reply per accepted recipient (RFC 2033 section 4.2), so the entry of its end of data
stays at the head of the FIFO until all have come.
"""

from __future__ import annotations

from typing import Final

from ..errors import CommandRefused, ProtocolViolation, SMTPError, Timeout, UsageError
from ..model.reply import Reply
from .exchange import Exchange, OwedReplies
from .pipelining_history import Breakdown, PipeliningHistory, diagnose
from .states import MAY_BEGIN, ConnectionState, Stage, Verb
from .transaction import Transaction
from .window import Window
from .writer import Writer

__all__ = ["Pipeline"]

#: Where a body may be written: behind a 354, or in chunks behind RCPT.
# Every message needs these: a member is found in its class several times as slowly as a global name.
_RSET: Final = Verb.RSET
_MAIL: Final = Verb.MAIL
_DATA: Final = Verb.DATA
_END_OF_DATA: Final = Verb.END_OF_DATA
_BODY_STAGES: Final = frozenset({Stage.BODY, Stage.RCPT, Stage.CHUNKS})


class Pipeline:
    """Decides what is written of each transaction, and gives each its receipt.

    Args:
        state: the connection's.
        owed: the replies that the server owes.
        writer: writes what is decided here.
        lmtp: speak LMTP (RFC 2033).
        send_rset: write RSET after an aborted transaction; without it such a connection is not used again.
        window: the most messages on their way unanswered.
        history: what earlier connections have shown about the server's pipelining.

    Attributes:
        writing: the transaction being written, if any.
        settled: in order, the transactions that have a receipt or whose caller may now write the body, and the single
            commands that were answered between them; emptied by `ClientProtocol.take_settled`.
        breakdown: what the end of the conversation tells about the server's pipelining, None if nothing.
    """

    __slots__ = (
        "_history",
        "_lmtp",
        "_newest",
        "_owed",
        "_send_rset",
        "_state",
        "_window",
        "_writer",
        "breakdown",
        "settled",
        "writing",
    )

    def __init__(
        self,
        state: ConnectionState,
        owed: OwedReplies,
        writer: Writer,
        *,
        lmtp: bool,
        send_rset: bool,
        window: int,
        history: PipeliningHistory,
    ) -> None:
        self.writing: Transaction | None = None
        self.settled: list[Exchange | Transaction] = []
        self.breakdown: Breakdown | None = None
        self._state = state
        self._owed = owed
        self._writer = writer
        self._lmtp = lmtp
        self._send_rset = send_rset
        self._window = Window(window)
        self._history = history
        # The transaction that was begun last: only its end tells whether the server has one open.
        self._newest: Transaction | None = None

    # --- state -----------------------------------------------------------------------------------------------

    @property
    def exhausted(self) -> bool:
        """Must this connection not carry another transaction?"""
        state = self._state
        if state.exhausted or self._send_rset:
            return state.exhausted
        return state.reset_needed and self.writing is None

    @property
    def can_begin(self) -> bool:
        """May a transaction be begun now?"""
        state = self._state
        if self.writing is not None or state.exhausted:
            return False
        if self._owed.entries and not (self._history.allows_following and state.extensions.pipelining):
            return False
        return state.stage in MAY_BEGIN and (self._send_rset or not state.reset_needed)

    def admits(self, transaction: Transaction) -> bool:
        """May `transaction` be begun beside those on their way? Ask only if `can_begin`."""
        window = self._window
        if not window.messages:
            return True
        replies = len(self._owed.entries) + len(transaction.rcpts) + 3
        return window.admits(transaction.octets, chunked=transaction.chunked, replies=replies)

    # --- requests of a transaction's owner -------------------------------------------------------------------

    def begin(self, transaction: Transaction, *, hold: bool = False) -> None:
        """Write as much of a transaction as may be written unread; call only if the pipeline `admits` it.

        Args:
            transaction: made by `plan` for what this server offers.
            hold: wait for the replies to the envelope before DATA.
        """
        window, state, writer = self._window, self._state, self._writer
        # A body whose time the caller decides waits for the replies to its envelope in any case.
        transaction.hold = (
            hold
            or transaction.decides
            or window.cautious
            or (transaction.caller_paced and transaction.chunked)
        )
        self.writing = self._newest = transaction
        window.began(transaction.octets)
        if self._owed.entries:
            transaction.behind = True
            transaction.probes = not self._history.proven
            transaction.together = bool(writer.ending)
        grouped = state.extensions.pipelining
        if state.reset_needed and (transaction.probes or not grouped):
            writer.reset(transaction)
        elif grouped and not transaction.chunked:
            writer.group(transaction)
        else:
            self._write_envelope(transaction)

    def withdraw(self, transaction: Transaction) -> bool:
        """Withdraw the transaction; return True if it will certainly not be sent.

        A transaction that is fully written runs to its end. Another one is concluded without its body when the
        replies to its envelope are read; after a 354 the connection is not used again.
        """
        if transaction.ended or transaction.receipt is not None:
            return False
        transaction.withdrawn = True
        if transaction.data_answer is not None or transaction.turn:
            # 354 is out, with or without a part of the body; or a part of it may have left in chunks.
            self._state.exhausted = True
        return True

    def write_body(self, transaction: Transaction, octets: bytes, *, canonical: bool = False) -> None:
        """Write a slice of a streamed body; call only while the transaction has the turn.

        Args:
            transaction: whose body it is.
            octets: the slice.
            canonical: all line ends within it are known to be CRLF.

        Raises:
            UsageError: the server waits for commands, and would take the slice for one.
        """
        self._demand_turn(transaction)
        self._writer.body_slice(transaction, octets, canonical=canonical)

    def end_body(self, transaction: Transaction) -> None:
        """Write the end of a streamed body; raises as `write_body`."""
        self._demand_turn(transaction)
        self._writer.body_end(transaction)
        self.writing = None

    def write_payload(self, transaction: Transaction) -> None:
        """Write the body of a gated transaction, with its end; raises as `write_body`."""
        self._demand_turn(transaction)
        payload = transaction.payload
        assert payload is not None
        if transaction.chunked:
            self._writer.last_chunk(transaction, payload)
        else:
            self._writer.payload(transaction, payload)
        self.writing = None

    def _demand_turn(self, transaction: Transaction) -> None:
        stage = self._state.stage
        if self.writing is not transaction or not transaction.turn or stage not in _BODY_STAGES:
            raise UsageError("it is not this transaction's turn to write a body", stage=stage.value)

    # --- the end of the connection ---------------------------------------------------------------------------

    def fail(self, error: SMTPError) -> None:
        """Give every transaction on its way a receipt, because no reply will come any more."""
        owed = self._owed
        head = owed.entries[0] if owed.entries else (None, self.writing)
        reply_421 = self._state.reply_421
        if self.breakdown is None and self._state.extensions.pipelining and isinstance(head[1], Transaction):
            self.breakdown = diagnose(
                error, head[0], head[1], behind=owed.answerable > 1, after_421=reply_421 is not None
            )
        if reply_421 is not None and isinstance(error, Timeout):
            # Nothing more is expected behind a 421: the 421 is the reason, not the silence.
            error = self._closing_error()
        pending = dict.fromkeys(owed.forget())
        if self.writing is not None:
            pending[self.writing] = None
            self.writing = None
        # A transaction may already be queued for its turn to write; settle it once.
        self.settled = [item for item in self.settled if item not in pending]
        for transaction in pending:
            transaction.give_up(error, after_421=reply_421 is not None)
            self.settled.append(transaction)

    def _closing_error(self) -> CommandRefused:
        return CommandRefused("the server closes the connection", reply=self._state.reply_421)

    # --- answers ---------------------------------------------------------------------------------------------

    def answer_group(self, replies: list[Reply], at: int) -> int:
        """Take several replies in one go where a message goes well; return how many, 0 if `answer` must take each.

        Nearly every message takes this path: its end of data, and RSET, MAIL, one RCPT and DATA of the next one,
        answered well in one chunk. `answer` comes to the same result; this path saves 5.4 of 19 µs per message
        (`benchmarks/core.py`).
        """
        owed, start, end = self._owed, at, len(replies)
        entries = owed.entries
        if self._lmtp:
            return 0
        while at < end and owed.answerable:
            verb, transaction = entries[0]
            reply = replies[at]
            if reply.code // 100 != 2 or not isinstance(transaction, Transaction):
                break
            if verb is _END_OF_DATA:
                if not transaction.ended or transaction.mail_refused:
                    break
                entries.popleft()
                owed.answerable -= 1
                transaction.final.append(reply)
                transaction.replies_owed = 0
                at += 1
                self._conclude(transaction)
                continue
            count = 4 if verb is _RSET else 3
            following = at + count
            # There are no fewer entries than are answerable.
            if owed.answerable < count or following > end or entries[count - 1][0] is not _DATA:
                break
            mailed, accepted, go_ahead = replies[following - 3 : following]
            if go_ahead.code != 354 or accepted.code // 100 != 2 or mailed.code // 100 != 2:
                break
            if count == 4:
                entries.popleft()
            elif verb is not _MAIL:
                break
            entries.popleft()
            entries.popleft()
            entries.popleft()
            owed.answerable -= count
            transaction.mail_answer = mailed
            transaction.answers.append(accepted)
            transaction.accepted = 1
            transaction.data_answer = go_ahead
            transaction.replies_owed -= count
            at = following
            payload = transaction.payload
            if payload is None or transaction.caller_paced or transaction.withdrawn or self._state.exhausted:
                self._state.answered(_DATA, 3)
                self._advance(transaction)
            else:
                self._writer.payload(transaction, payload)
                self.writing = None
        return at - start

    def answer(self, verb: Verb, transaction: Transaction, reply: Reply) -> None:
        """Take the reply to one command of a transaction.

        Raises:
            ProtocolViolation: the reply contradicts the protocol; call `fail` with it and close.
        """
        if verb is Verb.RSET:
            self._answer_reset(transaction, reply)
        elif verb is Verb.MAIL:
            self._answer_mail(transaction, reply)
        elif verb is Verb.RCPT:
            transaction.answers.append(reply)
            if reply.code < 300:
                transaction.accepted += 1
        elif verb is Verb.DATA:
            transaction.data_answer = reply
            # DATA is the one command of a transaction whose reply decides what may be written next.
            self._state.answered(verb, reply.code // 100)
        elif verb is Verb.BDAT:
            self._answer_chunk(transaction, reply)
        else:
            self._answer_end(verb, transaction, reply)
        if reply.code == 421 and not transaction.final:
            transaction.cut_off = True
        transaction.replies_owed -= 1
        if not transaction.replies_owed and transaction.receipt is None:
            self._advance(transaction)

    def _answer_reset(self, transaction: Transaction, reply: Reply) -> None:
        if not reply.positive:
            # The server may still have the old transaction open: nothing more may be begun here.
            self._state.exhausted = True
            if transaction.probes and reply.code != 421:
                self.breakdown = Breakdown.NOT_FOLLOWED
        elif transaction.together and self._history.allows_following:
            # Not if another connection has shown meanwhile that the server does not read on.
            self._history.proven = True

    def _answer_mail(self, transaction: Transaction, reply: Reply) -> None:
        transaction.mail_answer = reply
        transaction.mail_refused = reply.code >= 300
        if reply.code == 503 and transaction.reset and self._state.extensions.pipelining:
            # "Nested MAIL", although RSET came before it: this server does not read groups in order.
            self.breakdown = Breakdown.MISMATCHED
            self._state.exhausted = transaction.cut_off = True

    def _answer_chunk(self, transaction: Transaction, reply: Reply) -> None:
        """Take the reply to a chunk before the last: a refused chunk refuses the message, RFC 3030 section 2."""
        if reply.positive or transaction.final:
            return
        self._state.answered(Verb.BDAT, reply.code // 100)
        # For every recipient: if the connection dies before the rest is answered, each of them finds the refusal.
        transaction.final = [reply] * transaction.accepted
        if not transaction.ended:
            # No more is written; chunks on their way are refused, too.
            transaction.ended = True
            self._writer.abandon_body()
            self.writing = None

    def _answer_end(self, verb: Verb, transaction: Transaction, reply: Reply) -> None:
        final = transaction.final
        if transaction.chunked and final and len(final) >= transaction.accepted and reply.positive:
            # Contradictory result: leave it owed, so it ends as unknown.
            self._owed.put_back(verb, transaction)
            final.clear()
            raise ProtocolViolation("the server refused a chunk and accepted the message", reply=reply)
        final.append(reply)
        if not transaction.ended:
            self._answer_early(transaction, reply)
        elif self._lmtp and len(final) < transaction.accepted:
            self._owed.put_back(verb, transaction)
            transaction.replies_owed += 1

    def _answer_early(self, transaction: Transaction, reply: Reply) -> None:
        """Take a final reply in mid-body: a refusal stands, and the connection cannot be used again."""
        if reply.positive or reply.intermediate:
            raise ProtocolViolation(
                f"the body was answered before its end: {reply}", reply=reply, stage="body"
            )
        self._state.exhausted = True
        self._writer.abandon_body()
        transaction.ended = True
        transaction.replies_owed = 1
        if self._lmtp:
            transaction.final *= transaction.accepted

    # --- transaction progress --------------------------------------------------------------------------------

    def _advance(self, transaction: Transaction) -> None:
        """Write what comes next, or conclude: every reply owed so far was read."""
        if transaction.ended:
            self._conclude(transaction)
        elif transaction.turn:
            # Chunks were answered: the rest is for the caller to write.
            return
        elif transaction.withdrawn and transaction.data_answer is None:
            self._conclude(transaction)
        elif self.exhausted:
            # A 421, or a refused RSET, which may be the cause of a refused MAIL: nothing more may be written here,
            # and `fail` will say that the message was not sent.
            return
        elif transaction.data_answer is not None:
            self._after_data(transaction, transaction.data_answer)
        elif transaction.mail_refused:
            self._conclude(transaction)
        elif transaction.written <= len(transaction.rcpts):
            self._write_envelope(transaction)
        elif not transaction.accepted or transaction.vetoed:
            self._conclude(transaction)
        else:
            self._write_data(transaction)

    def _write_envelope(self, transaction: Transaction) -> None:
        """Write as much of the envelope as may be written unread: all of it, or its next line."""
        if not self._state.extensions.pipelining:
            self._writer.envelope_line(transaction)
            return
        self._writer.group(transaction)
        if transaction.chunked and not transaction.hold:
            self._write_data(transaction)

    def _write_data(self, transaction: Transaction) -> None:
        """Write DATA, or the whole body in one chunk, or give the caller the turn."""
        if not transaction.chunked:
            self._writer.data(transaction)
        elif transaction.payload is None or transaction.caller_paced:
            self._give_turn(transaction)
        else:
            self._writer.last_chunk(transaction, transaction.payload)
            self.writing = None

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
            self._state.exhausted = True
        elif not transaction.accepted:
            self._write_nothing(transaction)
        elif transaction.payload is not None and not transaction.caller_paced:
            self._writer.payload(transaction, transaction.payload)
            self.writing = None
        else:
            self._give_turn(transaction)

    def _write_nothing(self, transaction: Transaction) -> None:
        if self._lmtp:
            # RFC 2033 section 4.2: the server would owe no reply, and nothing could be paired.
            raise ProtocolViolation("the LMTP server asks for a message without recipients", stage="DATA")
        self._writer.lone_dot(transaction)
        self.writing = None

    def _give_turn(self, transaction: Transaction) -> None:
        """Give the caller the write turn. `settled` gets the transaction now, and again with its receipt."""
        transaction.turn = True
        self.settled.append(transaction)

    def _conclude(self, transaction: Transaction) -> None:
        final = transaction.final
        taken = False
        if final:
            taken = final[0].code < 300 or any(reply.positive for reply in final)
        if transaction.cut_off and not taken:
            transaction.give_up(self._closing_error(), after_421=True)
        else:
            transaction.conclude(per_recipient=self._lmtp)
        self.settled.append(transaction)
        # A lone dot may be taken, too.
        self._window.ended(transaction.octets, accepted=taken and transaction.accepted > 0)
        if self.writing is transaction:
            self.writing = None
        if taken and self._history.suspicion is not None:
            self._history.accepted(behind=transaction.behind)
        if transaction.mail_refused and taken:
            raise ProtocolViolation("the server refused the sender and accepted the message")
        if self._newest is transaction:
            # Forgotten at once, because an idle connection would keep its last message in memory.
            self._newest = None
            # 503 to MAIL says that a transaction *is* open.
            nested = transaction.mail_answer is not None and transaction.mail_answer.code == 503
            if (transaction.mail_refused and not nested) or taken:
                self._state.transaction_closed()
