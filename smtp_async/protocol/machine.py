"""The client side of SMTP and LMTP, without I/O.

Strategy: bytes go in by `receive_data`, bytes come out by `data_to_send`, and what is settled is taken from
`take_settled`. In between stands the FIFO of owed replies (`exchange.py`), which pairs each reply with what was
written.

A message is a `Transaction`. At most one is being *written* at a time (`writing`); the others are fully written and
wait for their replies. How far one may be written unread is decided in `_continue`:

* without PIPELINING: one command, then its reply;
* with it: MAIL and every RCPT, and DATA too unless the transaction wants to decide first (`hold`);
* the body after 354; the next transaction's envelope, behind RSET, may share its write, once the server has shown
  that it reads on behind an end of data (`pipelining.py`);
* with CHUNKING and a window (`window.py`): everything at once, message after message.

Two details: an LMTP server owes one final reply per accepted recipient (RFC 2033 section 4.2), so its entry stays
at the head of the FIFO until all have come. And the entry of a body exists from its first byte, so that a refusal in
mid-body finds it.
"""

from __future__ import annotations

from collections import deque

from ..errors import CommandRefused, CommunicationError, Interrupted, ProtocolViolation, SMTPError, Timeout
from ..model.reply import Reply
from .exchange import Exchange, TrailLine
from .parser import MAX_LINE
from .pipelining import Breakdown, Conduct
from .states import MAY_BEGIN, Verb
from .transaction import Transaction
from .window import Window
from .writer import Writer

__all__ = ["ClientProtocol", "Exchange", "TrailLine"]


class ClientProtocol(Writer):
    """The conversation of one connection.

    Args:
        lmtp: speak LMTP (RFC 2033).
        pipelining: use PIPELINING where offered.
        send_rset: write RSET after an aborted transaction; without it such a connection is not used again.
        window: the most messages on their way unanswered.
        conduct: what is known of the server's way with pipelining.
        max_line: the longest reply line accepted, in bytes.

    Attributes:
        extensions: what the server offers; forgotten when TLS comes up (RFC 3207 section 4.2).
        goodbye: the 421 that announced the end, if one was read.
        writing: the transaction being written, if any.
        trail: set it to a list to have every line recorded, secrets masked.
        answered: how many replies were paired so far.
        breakdown: what the end of the conversation tells about the server's pipelining, None if nothing.
    """

    def __init__(
        self,
        *,
        lmtp: bool = False,
        pipelining: bool = True,
        send_rset: bool = True,
        window: int = 1,
        conduct: Conduct | None = None,
        max_line: int = MAX_LINE,
    ) -> None:
        super().__init__(lmtp=lmtp, pipelining=pipelining, max_line=max_line)
        self.breakdown: Breakdown | None = None
        self._conduct = Conduct() if conduct is None else conduct
        self._send_rset = send_rset
        self._window = Window(window)
        # The transaction that was begun last: only its end tells whether the server has one open.
        self._newest: Transaction | None = None

    # --- what is so ------------------------------------------------------------------------------------------

    @property
    def exhausted(self) -> bool:
        """Must this connection not carry another transaction?"""
        if self._exhausted or self._send_rset:
            return self._exhausted
        return self._connection.reset_needed and self.writing is None

    @property
    def can_begin(self) -> bool:
        """May a transaction be begun now?"""
        if self.writing is not None or self._exhausted:
            return False
        if self._owed and not (self._conduct.following and self.extensions.pipelining):
            return False
        return self._connection.stage in MAY_BEGIN and (self._send_rset or not self.exhausted)

    def admits(self, transaction: Transaction) -> bool:
        """May `transaction` be begun beside those that are on their way? Ask only if one `can_begin`."""
        replies = len(self._owed) + len(transaction.rcpts) + 3
        return self._window.admits(transaction.octets, chunked=transaction.chunked, replies=replies)

    def fail(self, error: SMTPError) -> None:
        """End the conversation: whatever is owed will not come. Open transactions get their receipts."""
        self._connection.closed()
        self._exhausted = True
        self.breakdown = self.breakdown or self._diagnosed(error)
        if self.goodbye is not None and isinstance(error, Timeout):
            # Nothing more is expected behind a 421: it is the reason, not the silence.
            error = self._dismissal()
        self._out.clear()
        self._ending.clear()
        owed, self._owed = self._owed, deque()
        self._answerable = 0
        open_transactions = dict.fromkeys(s for _, s in owed if isinstance(s, Transaction))
        if self.writing is not None:
            open_transactions[self.writing] = None
            self.writing = None
        # One that was given its turn, and lost it in the same breath, is settled once.
        self._settled = [item for item in self._settled if item not in open_transactions]
        for transaction in open_transactions:
            transaction.give_up(error, goodbye=self.goodbye is not None)
            self._settled.append(transaction)

    def _dismissal(self) -> CommandRefused:
        return CommandRefused("the server gives this connection up", reply=self.goodbye)

    def _diagnosed(self, error: SMTPError) -> Breakdown | None:
        """Was it a group of commands that the server could not follow?"""
        verb, transaction = self._owed[0] if self._owed else (None, self.writing)
        if not self.pipelining or not isinstance(transaction, Transaction):
            return None
        if isinstance(error, ProtocolViolation):
            return Breakdown.LOST_COUNT
        if (
            self.goodbye is not None
            or isinstance(error, Interrupted)
            or not isinstance(error, CommunicationError)
        ):
            return None
        if transaction.ended:
            # Something that was handed over stands behind the end of data.
            return Breakdown.DIED_AT_DATA if self._answerable > 1 else None
        if verb is Verb.RSET and transaction.behind:
            return Breakdown.NOT_FOLLOWED
        begun = transaction.mail_answer is not None and not transaction.turn
        return Breakdown.PARTLY_ANSWERED if begun and isinstance(error, Timeout) else None

    # --- transactions ----------------------------------------------------------------------------------------

    def begin(self, transaction: Transaction, *, hold: bool = False) -> None:
        """Write as much of a transaction as may be written unread; call only if it `admits` it.

        Args:
            hold: wait for the envelope's replies before DATA.
        """
        window = self._window
        # A body that its caller writes, or lets go, waits for the replies to its envelope in any case.
        transaction.hold = (
            hold or transaction.decides or window.cautious or (transaction.aside and transaction.chunked)
        )
        self.writing = self._newest = transaction
        window.began(transaction.octets)
        if self._owed:
            transaction.behind = True
            transaction.probes = not self._conduct.proven
            transaction.together = bool(self._ending)
        if self._connection.reset_needed and (transaction.probes or not self.extensions.pipelining):
            self._write_reset(transaction)
        else:
            self._write_envelope(transaction)

    def withdraw(self, transaction: Transaction) -> bool:
        """Its caller has gone: see that it is not sent, and tell whether that can be promised.

        What is fully written runs to its end. What is not is concluded without its body when the replies to its
        envelope are in; after a 354 that takes the connection with it.
        """
        if transaction.ended or transaction.receipt is not None:
            return False
        transaction.withdrawn = True
        if transaction.data_answer is not None or transaction.turn:
            # 354 is out, with or without a part of the body; or a part of it may have left in chunks.
            self._exhausted = True
        return True

    # --- answers ---------------------------------------------------------------------------------------------

    def _answer_group(self, replies: list[Reply], at: int) -> int:
        """The path of nearly every message: its end, or MAIL with one RCPT and DATA, answered well in one chunk.

        What else it might be, and what follows from it, is `_answer`'s to find out.
        """
        answerable, owed = self._answerable, self._owed
        if not answerable or self.trail is not None or self.lmtp:
            return 0
        verb, transaction = owed[0]
        reply = replies[at]
        if reply.code // 100 != 2 or not isinstance(transaction, Transaction):
            return 0
        if verb is Verb.END_OF_DATA:
            if not transaction.ended or transaction.mail_refused:
                return 0
            owed.popleft()
            self._answerable = answerable - 1
            self.answered += 1
            transaction.final.append(reply)
            transaction.owed = 0
            self._conclude(transaction)
            return 1
        if verb is Verb.RSET:
            count = 4
        elif verb is Verb.MAIL:
            count = 3
        else:
            return 0
        end = at + count
        # `owed` has no fewer entries than are answerable.
        if answerable < count or end > len(replies) or owed[count - 1][0] is not Verb.DATA:
            return 0
        mailed, accepted, go_ahead = replies[end - 3 : end]
        if go_ahead.code != 354 or accepted.code // 100 != 2 or mailed.code // 100 != 2:
            return 0
        if count == 4:
            owed.popleft()
        owed.popleft()
        owed.popleft()
        owed.popleft()
        self._answerable = answerable - count
        self.answered += count
        transaction.mail_answer = mailed
        transaction.answers.append(accepted)
        transaction.accepted = 1
        transaction.data_answer = go_ahead
        transaction.owed -= count
        payload = transaction.payload
        if payload is None or transaction.aside or transaction.withdrawn or self._exhausted:
            self._connection.answered(Verb.DATA, 3)
            self._continue(transaction)
        else:
            self._connection.body_written()
            self._write_payload(transaction, payload)
        return count

    def _answer_transaction(self, verb: Verb, transaction: Transaction, reply: Reply) -> None:
        if verb is Verb.RSET:
            self._answer_reset(transaction, reply)
        elif verb is Verb.MAIL:
            transaction.mail_answer = reply
            transaction.mail_refused = reply.code >= 300
            if reply.code == 503 and transaction.reset and self.pipelining:
                # "Nested MAIL", although RSET came before it: this server does not read groups in order.
                self.breakdown = Breakdown.LOST_COUNT
                self._exhausted = transaction.dismissed = True
        elif verb is Verb.RCPT:
            transaction.answers.append(reply)
            if reply.code < 300:
                transaction.accepted += 1
        elif verb is Verb.DATA:
            transaction.data_answer = reply
            # The one command of a transaction whose answer decides what may be written next.
            self._connection.answered(verb, reply.code // 100)
        elif verb is Verb.BDAT:
            self._answer_chunk(transaction, reply)
        else:
            self._answer_end(verb, transaction, reply)
        if reply.code == 421 and not transaction.final:
            transaction.dismissed = True
        transaction.owed -= 1
        if not transaction.owed and transaction.receipt is None:
            self._continue(transaction)

    def _answer_reset(self, transaction: Transaction, reply: Reply) -> None:
        if not reply.positive:
            # The server may still have the old transaction open: nothing more may be begun here.
            self._exhausted = True
            if transaction.probes and reply.code != 421:
                self.breakdown = Breakdown.NOT_FOLLOWED
        elif transaction.together and self._conduct.following:
            # Not if another connection has shown meanwhile that the server does not read on.
            self._conduct.proven = True

    def _answer_chunk(self, transaction: Transaction, reply: Reply) -> None:
        """A chunk that is not the last: one that is refused refuses the message, RFC 3030 section 2."""
        if reply.positive or transaction.final:
            return
        self._connection.answered(Verb.BDAT, reply.code // 100)
        # For everybody: if the connection dies before the rest is answered, each finds it.
        transaction.final = [reply] * transaction.accepted
        if not transaction.ended:
            # No more is written; chunks on their way are refused, too.
            transaction.ended = True
            self.writing = self._framer = None

    def _answer_end(self, verb: Verb, transaction: Transaction, reply: Reply) -> None:
        final = transaction.final
        if transaction.chunked and final and len(final) >= transaction.accepted and reply.positive:
            # Who was told yes and no is not known: it is still owed an answer.
            self._owed.appendleft((verb, transaction))
            final.clear()
            raise ProtocolViolation("the server refused a chunk and accepted the message", reply=reply)
        final.append(reply)
        if not transaction.ended:
            self._answered_early(transaction, reply)
        elif self.lmtp and len(final) < transaction.accepted:
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
        self._framer = None
        transaction.ended = True
        transaction.owed = 1
        if self.lmtp:
            transaction.final *= transaction.accepted

    # --- how a transaction goes on ---------------------------------------------------------------------------

    def _continue(self, transaction: Transaction) -> None:
        """Every reply owed so far was read: write what comes next, or conclude."""
        if transaction.ended:
            self._conclude(transaction)
        elif transaction.turn:
            # Chunks were answered: the rest is its caller's to write.
            return
        elif transaction.withdrawn and transaction.data_answer is None:
            self._conclude(transaction)
        elif self.exhausted:
            # A 421, or a refused RSET, which a refused MAIL may be due to: nothing more may be written here.
            # `fail` says that it was not sent.
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
        """As much of it as may be written unread: all of it, or its next line."""
        if not self.extensions.pipelining:
            self._write_envelope_line(transaction)
            return
        self._write_group(transaction)
        if transaction.chunked and not transaction.hold:
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
        elif transaction.payload is not None and not transaction.aside:
            self._connection.wrote(Verb.END_OF_DATA)
            self._write_payload(transaction, transaction.payload)
        else:
            self._give_turn(transaction)

    def _conclude(self, transaction: Transaction) -> None:
        final = transaction.final
        taken = bool(final) and (final[0].code < 300 or any(reply.positive for reply in final))
        if transaction.dismissed and not taken:
            transaction.give_up(self._dismissal(), goodbye=True)
        else:
            transaction.conclude(per_recipient=self.lmtp)
        self._settled.append(transaction)
        # A lone dot may be taken, too.
        self._window.ended(transaction.octets, accepted=taken and transaction.accepted > 0)
        if self.writing is transaction:
            self.writing = None
        if taken and self._conduct.suspicion is not None:
            self._conduct.accepted(behind=transaction.behind)
        if transaction.mail_refused and taken:
            raise ProtocolViolation("the server refused the sender and accepted the message")
        if self._newest is transaction:
            # Held no longer than it is needed: an idle connection would keep its last message in memory.
            self._newest = None
            # 503 to MAIL says that a transaction *is* open.
            nested = transaction.mail_answer is not None and transaction.mail_answer.code == 503
            if (transaction.mail_refused and not nested) or taken:
                self._connection.transaction_closed()
