"""How a transaction reaches the wire: its envelope in a group or line by line, its body in one piece, by its caller's
hand, or in chunks.

Strategy: everything written passes `_put` or `_out`, and every command appends its entry to the FIFO of owed replies
in the same breath. What may be written when is the machine's to decide.
"""

from __future__ import annotations

from typing import Final

from ..errors import ProtocolViolation, UsageError
from . import commands
from .exchange import Dialogue, written
from .framing import ChunkFramer, DotStuffer
from .parser import MAX_LINE
from .states import Stage, Verb
from .transaction import Transaction

__all__ = ["Writer"]


class Writer(Dialogue):
    """A dialogue that can write transactions; arguments and attributes are those of `ClientProtocol`."""

    def __init__(self, *, lmtp: bool, pipelining: bool, max_line: int = MAX_LINE) -> None:
        super().__init__(lmtp=lmtp, pipelining=pipelining, max_line=max_line)
        # Of the streamed body that is being written.
        self._framer: DotStuffer | ChunkFramer | None = None

    # --- bodies, by their callers ----------------------------------------------------------------------------

    def write_body(self, transaction: Transaction, chunk: bytes) -> None:
        """Write a slice of a streamed body; the caller holds the turn to write.

        Raises:
            UsageError: the server waits for commands, which is what it would take the slice for.
        """
        framer = self._framer_for(transaction)
        transaction.streamed += len(chunk)
        data = framer.frame(chunk)
        if not data:
            return
        if transaction.chunked:
            self._write_line(transaction, Verb.BDAT, data)
        else:
            self._put(transaction, data)

    def end_body(self, transaction: Transaction) -> None:
        """Write the end of a streamed body; raises as `write_body`."""
        end = self._framer_for(transaction).end()
        self._framer = None
        if transaction.chunked:
            self._write_last_chunk(transaction, end)
        else:
            self._put(transaction, end)
            self._end_written(transaction)

    def release(self, transaction: Transaction) -> None:
        """Write the body of a gated transaction, with its end; raises as `write_body`."""
        payload = transaction.payload
        self._demand_turn(transaction)
        assert payload is not None
        if transaction.chunked:
            self._write_last_chunk(transaction, payload)
        else:
            self._connection.wrote(Verb.END_OF_DATA)
            self._write_payload(transaction, payload)

    def _framer_for(self, transaction: Transaction) -> DotStuffer | ChunkFramer:
        self._demand_turn(transaction)
        if self._framer is None:
            if transaction.chunked:
                self._framer = ChunkFramer(exact=transaction.exact)
            else:
                self._framer = DotStuffer()
                self._owe_end(transaction)
        return self._framer

    def _demand_turn(self, transaction: Transaction) -> None:
        if self.writing is not transaction or not transaction.turn or self.stage not in _BODY_STAGES:
            raise UsageError("there is no turn to write this body", stage=self.stage.value)

    # --- envelopes -------------------------------------------------------------------------------------------

    def _write_group(self, transaction: Transaction) -> None:
        """The whole envelope, RSET before it where needed, and DATA where nothing is to be decided before that."""
        connection, owed = self._connection, self._owed
        group = transaction.envelope
        count = len(transaction.rcpts)
        transaction.written = lines = count + 1
        reset = connection.reset_needed
        if reset:
            transaction.reset = True
            lines += 1
            owed.append((Verb.RSET, transaction))
            group = commands.RSET + group
        owed.append((Verb.MAIL, transaction))
        if count == 1:
            owed.append((Verb.RCPT, transaction))
        else:
            owed.extend([(Verb.RCPT, transaction)] * count)
        if transaction.hold or transaction.chunked:
            connection.wrote_group(_RESET_ENVELOPE if reset else _ENVELOPE)
        else:
            lines += 1
            connection.wrote_group(_RESET_UP_TO_DATA if reset else _UP_TO_DATA)
            owed.append((Verb.DATA, transaction))
            group += commands.DATA
        transaction.owed += lines
        transaction.bytes_sent += len(group)
        self._out.append(group)
        if self.trail is not None:
            if reset:
                self.trail.append(written(Verb.RSET, commands.RSET, transaction))
            self.trail.append(written(Verb.MAIL, transaction.mail, transaction))
            self.trail += [written(Verb.RCPT, line, transaction) for line in transaction.rcpts]
            if owed[-1][0] is Verb.DATA:
                self.trail.append(written(Verb.DATA, commands.DATA, transaction))

    def _write_reset(self, transaction: Transaction) -> None:
        """RSET alone: the envelope waits for its reply."""
        transaction.reset = True
        self._write_line(transaction, Verb.RSET, commands.RSET)

    def _write_envelope_line(self, transaction: Transaction) -> None:
        """Lock-step: MAIL, or the next RCPT."""
        index = transaction.written
        transaction.written += 1
        if index == 0:
            self._write_line(transaction, Verb.MAIL, transaction.mail)
        else:
            self._write_line(transaction, Verb.RCPT, transaction.rcpts[index - 1])

    # --- bodies ----------------------------------------------------------------------------------------------

    def _write_data(self, transaction: Transaction) -> None:
        if not transaction.chunked:
            self._write_line(transaction, Verb.DATA, commands.DATA)
        elif transaction.payload is None or transaction.aside:
            self._give_turn(transaction)
        else:
            self._write_last_chunk(transaction, transaction.payload)

    def _give_turn(self, transaction: Transaction) -> None:
        """Its caller writes the body, or lets it go: the transaction stays `writing`, and is settled twice."""
        transaction.turn = True
        self._settled.append(transaction)

    def _write_last_chunk(self, transaction: Transaction, data: bytes) -> None:
        self._connection.wrote(Verb.BDAT_LAST)
        self._owed.append((Verb.BDAT_LAST, transaction))
        transaction.owed += 1
        self._put(transaction, data)
        self._ended(transaction, Verb.BDAT_LAST, data)

    def _write_payload(self, transaction: Transaction, payload: bytes) -> None:
        """Behind a 354: the whole body in one piece, its end included."""
        owed = self._owed
        # What comes before the end is handed over does not answer it: `_answerable` does not count it.
        owed.append((Verb.END_OF_DATA, transaction))
        transaction.owed = 1
        transaction.bytes_sent += len(payload)
        self._out.append(payload)
        if self.trail is not None:
            self.trail.append(written(Verb.END_OF_DATA, commands.END_OF_DATA, transaction))
        transaction.ended = True
        self._ending.append(transaction)
        self.writing = None

    def _write_nothing(self, transaction: Transaction) -> None:
        """354 although nobody was accepted: a lone dot ends it (RFC 2920 section 3.1)."""
        if self.lmtp:
            # RFC 2033 section 4.2: such a server would owe no reply, and nothing could be paired.
            raise ProtocolViolation("the LMTP server asks for a message without recipients", stage="DATA")
        self._owe_end(transaction)
        self._put(transaction, commands.END_OF_DATA)
        self._end_written(transaction)

    # --- entries ---------------------------------------------------------------------------------------------

    def _put(self, transaction: Transaction, data: bytes) -> None:
        self._out.append(data)
        transaction.bytes_sent += len(data)

    def _write_line(self, transaction: Transaction, verb: Verb, line: bytes) -> None:
        self._connection.wrote(verb)
        self._owed.append((verb, transaction))
        transaction.owed += 1
        self._put(transaction, line)
        if self.trail is not None:
            self.trail.append(written(verb, line, transaction))

    def _owe_end(self, transaction: Transaction) -> None:
        self._owed.append((Verb.END_OF_DATA, transaction))
        transaction.owed += 1

    def _end_written(self, transaction: Transaction) -> None:
        self._connection.wrote(Verb.END_OF_DATA)
        self._ended(transaction, Verb.END_OF_DATA, commands.END_OF_DATA)
        # What comes before the end is handed over does not answer it, though the body's entry stands.
        self._answerable = min(self._answerable, len(self._owed) - 1)

    def _ended(self, transaction: Transaction, verb: Verb, data: bytes) -> None:
        if self.trail is not None:
            self.trail.append(written(verb, data, transaction))
        transaction.ended = True
        self._ending.append(transaction)
        self.writing = None


#: Where a body may be written: behind a 354, or in chunks behind RCPT.
_BODY_STAGES: Final = frozenset({Stage.BODY, Stage.RCPT, Stage.CHUNKS})
#: One state for however many RCPT: the table leads from RCPT to RCPT.
_ENVELOPE: Final = (Verb.MAIL, Verb.RCPT)
_UP_TO_DATA: Final = (*_ENVELOPE, Verb.DATA)
_RESET_ENVELOPE: Final = (Verb.RSET, *_ENVELOPE)
_RESET_UP_TO_DATA: Final = (Verb.RSET, *_UP_TO_DATA)
