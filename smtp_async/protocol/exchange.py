"""Single commands, and the FIFO of owed replies that pairs each reply with the command it answers.

Strategy: every command that is written appends an entry that knows what the command belongs to; every reply takes the
first entry; nothing else pairs them. An entry is answerable once its command was handed to the transport. A reply
that arrives while no entry is answerable answers nothing.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from ..model.reply import Reply
from .states import Verb
from .transaction import Transaction

__all__ = ["LIMITS", "Exchange", "OwedReplies"]

#: verb → field of `Timeouts`
_LIMIT_OF: Final = {
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

#: The fields of `Timeouts` that `OwedReplies.expected` may name.
LIMITS: Final = frozenset({*_LIMIT_OF.values(), "probe", "command"})


class Exchange:
    """One command outside a transaction and, once it was read, its reply."""

    __slots__ = ("reply", "verb")

    def __init__(self, verb: Verb) -> None:
        self.verb = verb
        self.reply: Reply | None = None


class OwedReplies:
    """The replies that the server owes, in the order of their commands.

    Attributes:
        entries: (verb, exchange or transaction that the command belongs to) for each owed reply.
        answerable: how many of the entries, from the first on, belong to commands that were handed to the transport.
    """

    __slots__ = ("answerable", "entries")

    def __init__(self) -> None:
        self.entries: deque[tuple[Verb, Exchange | Transaction]] = deque()
        self.answerable = 0

    @property
    def expected(self) -> str | None:
        """The field of `Timeouts` that limits the next reply, None if no reply is owed."""
        if not self.entries:
            return None
        verb, subject = self.entries[0]
        if verb is Verb.END_OF_DATA:
            return "end_of_data" if isinstance(subject, Transaction) and subject.ended else "block"
        if verb is Verb.RSET and isinstance(subject, Transaction) and subject.probes:
            return "probe"
        return _LIMIT_OF.get(verb, "command")

    @property
    def body_open(self) -> bool:
        """Does the next reply answer a body behind DATA whose end is not written? Such a reply can only refuse."""
        return bool(self.entries) and self.entries[0][0] is Verb.END_OF_DATA and self.expected == "block"

    def take(self) -> tuple[Verb, Exchange | Transaction]:
        """Remove the first entry, because its reply was read, and return it; call only if one is answerable."""
        self.answerable -= 1
        return self.entries.popleft()

    def put_back(self, verb: Verb, transaction: Transaction) -> None:
        """Put back the entry taken last: the server owes one more reply to the same command."""
        self.entries.appendleft((verb, transaction))
        self.answerable += 1

    def forget(self) -> list[Transaction]:
        """Drop all entries, because no reply will come, and return the transactions that they belong to."""
        found = [subject for _, subject in self.entries if isinstance(subject, Transaction)]
        self.entries.clear()
        self.answerable = 0
        return found
