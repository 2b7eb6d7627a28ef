"""Writes single commands, envelopes (in a group or line by line) and bodies (in one piece or in chunks).

Strategy: everything that is written passes through here, and every method that writes a command also appends its entry
to the FIFO of owed replies. The writer decides nothing: `pipeline.py` says what may be written when, and
`states.py` refuses what the table does not allow.
"""

from __future__ import annotations

from typing import Final

from . import commands
from .exchange import Exchange, OwedReplies
from .framing import ChunkFramer, DotStuffer
from .line_recorder import LineRecorder
from .states import ConnectionState, Verb
from .transaction import Transaction

__all__ = ["Writer"]

# Every message needs these: a member is found in its class several times as slowly as a global name.
_RSET: Final = Verb.RSET
_MAIL: Final = Verb.MAIL
_RCPT: Final = Verb.RCPT
_DATA: Final = Verb.DATA
_END_OF_DATA: Final = Verb.END_OF_DATA


class Writer:
    """Collects what is to be handed to the transport.

    Args:
        state: moved by every command.
        owed: gets an entry for every command.
        recorder: told of every command while it records.

    Attributes:
        out: what is written and not handed to the transport.
        ending: the transactions whose end of data is part of `out`.
    """

    __slots__ = ("_framer", "_owed", "_state", "_recorder", "ending", "out")

    def __init__(self, state: ConnectionState, owed: OwedReplies, recorder: LineRecorder) -> None:
        self.out: list[bytes] = []
        self._state = state
        self._owed = owed
        self._recorder = recorder
        self.ending: list[Transaction] = []
        # Frames the streamed body that is being written.
        self._framer: DotStuffer | ChunkFramer | None = None

    def discard(self) -> None:
        """Drop what was not handed to the transport, because it is gone."""
        self.out.clear()
        self.ending.clear()

    # --- single commands -------------------------------------------------------------------------------------

    def command(self, verb: Verb, line: bytes, shown: bytes | None = None) -> Exchange:
        """Write a command outside a transaction.

        Args:
            verb: the command.
            line: the bytes to write.
            shown: what the recorder shows instead, if `line` holds a secret.
        """
        self._state.wrote(verb)
        exchange = Exchange(verb)
        self._owed.entries.append((verb, exchange))
        self.out.append(line)
        if self._recorder.recording:
            self._recorder.wrote(verb, line if shown is None else shown)
        return exchange

    # --- envelopes -------------------------------------------------------------------------------------------

    def group(self, transaction: Transaction) -> None:
        """Write the whole envelope: behind RSET where needed, and with DATA where no reply has to be read first."""
        state, owed = self._state, self._owed.entries
        group = transaction.envelope
        count = len(transaction.rcpts)
        transaction.written = lines = count + 1
        data = not (transaction.hold or transaction.chunked)
        reset = state.reset_needed
        state.wrote_envelope(data=data)
        if reset:
            transaction.reset = True
            lines += 1
            owed.append((_RSET, transaction))
            group = commands.RSET + group
        if count == 1 and data:
            # Most messages: one step in place of three saves 16 bytecodes and two calls.
            owed += ((_MAIL, transaction), (_RCPT, transaction), (_DATA, transaction))
        else:
            owed += [(_MAIL, transaction), *[(_RCPT, transaction)] * count]
            if data:
                owed.append((_DATA, transaction))
        if data:
            lines += 1
            group += commands.DATA
        transaction.replies_owed += lines
        transaction.bytes_sent += len(group)
        self.out.append(group)
        if self._recorder.recording:
            self._record_group(transaction, reset=reset, data=data)

    def _record_group(self, transaction: Transaction, *, reset: bool, data: bool) -> None:
        recorder = self._recorder
        if reset:
            recorder.wrote(Verb.RSET, commands.RSET, transaction)
        recorder.wrote(Verb.MAIL, transaction.mail, transaction)
        for line in transaction.rcpts:
            recorder.wrote(Verb.RCPT, line, transaction)
        if data:
            recorder.wrote(Verb.DATA, commands.DATA, transaction)

    def reset(self, transaction: Transaction) -> None:
        """Write RSET alone: the envelope waits for its reply."""
        transaction.reset = True
        self._line(transaction, Verb.RSET, commands.RSET)

    def envelope_line(self, transaction: Transaction) -> None:
        """Write MAIL, or the next RCPT."""
        index = transaction.written
        transaction.written += 1
        if index == 0:
            self._line(transaction, Verb.MAIL, transaction.mail)
        else:
            self._line(transaction, Verb.RCPT, transaction.rcpts[index - 1])

    def data(self, transaction: Transaction) -> None:
        """Write DATA."""
        self._line(transaction, Verb.DATA, commands.DATA)

    # --- bodies in one piece ---------------------------------------------------------------------------------

    def payload(self, transaction: Transaction, payload: bytes) -> None:
        """Write the whole body with its end, behind a 354."""
        self._state.body_written()
        # The entry is answerable once all was handed over: a reply that comes before that does not answer the body.
        self._owed.entries.append((_END_OF_DATA, transaction))
        transaction.replies_owed = 1
        transaction.bytes_sent += len(payload)
        self.out.append(payload)
        transaction.ended = True
        self.ending.append(transaction)
        if self._recorder.recording:
            self._recorder.wrote(Verb.END_OF_DATA, commands.END_OF_DATA, transaction)

    def last_chunk(self, transaction: Transaction, data: bytes) -> None:
        """Write BDAT LAST with its octets."""
        self._line(transaction, Verb.BDAT_LAST, data)
        self._body_ended(transaction)

    def lone_dot(self, transaction: Transaction) -> None:
        """Write an empty body behind a 354 that came although every recipient was refused, RFC 2920 section 3.1."""
        self._owe_end(transaction)
        self._end_of_data(transaction, commands.END_OF_DATA)

    # --- streamed bodies -------------------------------------------------------------------------------------

    def body_slice(self, transaction: Transaction, octets: bytes, *, canonical: bool = False) -> None:
        """Write a slice of a streamed body."""
        framer = self._framer or self._begin_body(transaction)
        transaction.streamed += len(octets)
        data = framer.frame(octets, canonical=canonical)
        if not data:
            return
        if transaction.chunked:
            self._line(transaction, Verb.BDAT, data)
        else:
            self._put(transaction, data)

    def body_end(self, transaction: Transaction) -> None:
        """Write the end of a streamed body."""
        end = (self._framer or self._begin_body(transaction)).end()
        self._framer = None
        if transaction.chunked:
            self.last_chunk(transaction, end)
        else:
            self._end_of_data(transaction, end)

    def abandon_body(self) -> None:
        """Write no more of the streamed body: the server has refused it."""
        self._framer = None

    def _begin_body(self, transaction: Transaction) -> DotStuffer | ChunkFramer:
        if transaction.chunked:
            self._framer = ChunkFramer(exact=transaction.exact)
        else:
            self._framer = DotStuffer()
            # The entry exists from the first byte on, so that a refusal in mid-body finds it.
            self._owe_end(transaction)
        return self._framer

    # --- entries ---------------------------------------------------------------------------------------------

    def _put(self, transaction: Transaction, data: bytes) -> None:
        self.out.append(data)
        transaction.bytes_sent += len(data)

    def _line(self, transaction: Transaction, verb: Verb, line: bytes) -> None:
        self._state.wrote(verb)
        self._owed.entries.append((verb, transaction))
        transaction.replies_owed += 1
        self._put(transaction, line)
        if self._recorder.recording:
            self._recorder.wrote(verb, line, transaction)

    def _owe_end(self, transaction: Transaction) -> None:
        self._owed.entries.append((Verb.END_OF_DATA, transaction))
        transaction.replies_owed += 1

    def _end_of_data(self, transaction: Transaction, end: bytes) -> None:
        self._state.wrote(Verb.END_OF_DATA)
        self._put(transaction, end)
        # A reply that comes before the end is handed over does not answer it, though its entry exists already.
        self._owed.answerable = min(self._owed.answerable, len(self._owed.entries) - 1)
        self._body_ended(transaction)
        if self._recorder.recording:
            self._recorder.wrote(Verb.END_OF_DATA, commands.END_OF_DATA, transaction)

    def _body_ended(self, transaction: Transaction) -> None:
        transaction.ended = True
        self.ending.append(transaction)
