"""Remembers whether a server can be trusted with pipelining (RFC 2920), by how earlier connections to it ended.

Strategy: a client keeps one `PipeliningHistory` for its server, and all of its connections share it. A pipeline asks
the history whether commands may be written behind an end of data that is not answered yet. When a connection ends,
`diagnose` returns what this end shows about the server (a `Breakdown`), and `broke_down` records it. Ten minutes later
the server is trusted again.

There are two permissions:

* *Groups of commands*: pipelining at all. If the replies of a server did not match the commands, the client writes one
  command at a time and waits for its reply.
* *Following*: the next message's commands behind an end of data. Some servers drop what arrives together with the dot,
  or close the connection. So the first time only RSET is written there, which risks no message. The reply to a RSET in
  the same write as the dot proves that the server reads on. A RSET written later, while the dot was on its way, may
  have arrived in a packet of its own, so its reply proves nothing.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

from ..errors import CommunicationError, Interrupted, ProtocolViolation, SMTPError, Timeout
from .extensions import Extensions
from .states import Verb
from .transaction import Transaction

__all__ = ["Breakdown", "PipeliningHistory", "diagnose"]

#: Seconds for which a server is not trusted after a breakdown.
PAUSE: Final = 600.0


class Breakdown(Enum):
    """What the end of a connection shows about the server's pipelining."""

    #: The replies did not match the commands.
    MISMATCHED = "replies did not match commands"
    #: A part of a group was answered, then nothing more came: the server is slow, or it dropped commands.
    PARTLY_ANSWERED = "partly answered"
    #: The end of data was answered, and what was written behind it was not.
    NOT_FOLLOWED = "not followed"
    #: The end of data was not answered, with commands behind it.
    LOST_AT_END_OF_DATA = "lost at the end of data"


#: One of these proves nothing; two of the same kind in a row do.
_SUSPICIONS: Final = frozenset({Breakdown.PARTLY_ANSWERED, Breakdown.LOST_AT_END_OF_DATA})
_ABOUT_GROUPS: Final = frozenset({Breakdown.MISMATCHED, Breakdown.PARTLY_ANSWERED})


class PipeliningHistory:
    """What earlier connections have shown about one server's pipelining, shared by the connections to it.

    Attributes:
        allows_following: may commands be written behind an end of data that is not answered yet?
        proven: has the server answered such commands, in the same write as an end of data?
        suspicion: what the last connection that broke down made likely, until a message is accepted.
    """

    __slots__ = ("_distrusted", "_following_from", "_groups_from", "allows_following", "proven", "suspicion")

    def __init__(self) -> None:
        self.allows_following = True
        self.proven = False
        self.suspicion: Breakdown | None = None
        self._following_from = 0.0
        self._groups_from = 0.0
        # What the server offered when its replies did not match; None while it is trusted.
        self._distrusted: Extensions | None = None

    def __repr__(self) -> str:
        groups = "in lock-step" if self._distrusted is not None else "in groups"
        behind = "one message at a time" if not self.allows_following else "across messages"
        return f"<PipeliningHistory: {groups}, {behind}>"

    def broke_down(self, breakdown: Breakdown, offer: Extensions, now: float) -> None:
        """Withdraw a permission, because a connection broke down.

        Args:
            breakdown: what the end tells.
            offer: what the server offered on that connection.
            now: the time, in seconds, as for `allows_groups`.
        """
        if breakdown in _SUSPICIONS and self.suspicion is not breakdown:
            self.suspicion = breakdown
            return
        self.suspicion = None
        if breakdown in _ABOUT_GROUPS:
            self._distrusted = offer
            self._groups_from = now + PAUSE
        else:
            self.allows_following = self.proven = False
            self._following_from = now + PAUSE

    def accepted(self, *, behind: bool) -> None:
        """Note that a message was accepted, which may lift the suspicion.

        Args:
            behind: were its commands written behind an end of data that was not answered?
        """
        if behind or self.suspicion is Breakdown.PARTLY_ANSWERED:
            self.suspicion = None

    def allows_groups(self, offer: Extensions, now: float) -> bool:
        """Return whether groups of commands may be written on a connection that was just opened.

        A server whose replies did not match is trusted again after ten minutes, or as soon as it offers something else.

        Args:
            offer: what the server offers on that connection.
            now: the time, in seconds, as for `broke_down`.
        """
        if not self.allows_following and now >= self._following_from:
            self.allows_following = True
        if self._distrusted is not None and (now >= self._groups_from or offer != self._distrusted):
            self._distrusted = None
        return self._distrusted is None


def diagnose(
    error: SMTPError, verb: Verb | None, transaction: Transaction, *, behind: bool, after_421: bool
) -> Breakdown | None:
    """Return what the end of a pipelined connection tells about the server, None if nothing.

    Args:
        error: what ended the connection.
        verb: the command whose reply was owed next, None if none was.
        transaction: the transaction of that command, or the one being written.
        behind: were further commands handed to the transport behind that one?
        after_421: had the server said 421?
    """
    if isinstance(error, ProtocolViolation):
        return Breakdown.MISMATCHED
    if after_421 or isinstance(error, Interrupted) or not isinstance(error, CommunicationError):
        return None
    if transaction.ended:
        return Breakdown.LOST_AT_END_OF_DATA if behind else None
    if verb is Verb.RSET and transaction.behind:
        return Breakdown.NOT_FOLLOWED
    begun = transaction.mail_answer is not None and not transaction.turn
    return Breakdown.PARTLY_ANSWERED if begun and isinstance(error, Timeout) else None
