"""What follows from a try: the job is sent, waits for its next try, has failed, or goes back as it was. Pure.

A job fails when nobody is left to be tried and somebody did not get it; it waits as long as anybody is left.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Final, NamedTuple

from ..model.receipt import Receipt, Verdict
from ..spool.entry import Entry
from .bounce import EXPIRED
from .policy import Disposition, Fate, Sentence
from .schedule import RetryPolicy, next_try

__all__ = ["Conclusion", "End", "conclude", "expiry", "retry_of"]


#: Seconds before which nothing is tried again, so that one look at the spool never finds a job twice.
_SOONEST: Final = 0.001


class End(Enum):
    """How a lease ends."""

    SENT = "sent"
    DEFERRED = "deferred"
    FAILED = "failed"
    #: Nothing was tried.
    RELEASED = "released"


class Conclusion(NamedTuple):
    """What follows from a try.

    Attributes:
        end: how the lease ends.
        not_before: when to try again, if so.
        reason: why it is not sent, in words.
        given_up: who is not tried again and did not get it, this time.
        waiting: who is tried again.
    """

    end: End
    not_before: float = 0.0
    reason: str = ""
    given_up: tuple[Sentence, ...] = ()
    waiting: tuple[Sentence, ...] = ()


def expiry(entry: Entry, policy: RetryPolicy) -> float | None:
    """Return when a job expires, in seconds of the epoch; None never."""
    if entry.expires is not None:
        return entry.expires
    return None if policy.expires is None else entry.created + policy.expires


def conclude(
    entry: Entry, disposition: Disposition, policy: RetryPolicy, *, now: float, chance: float = 1.0
) -> Conclusion:
    """Say how the lease of `entry` ends.

    Args:
        entry: the job as it was claimed.
        disposition: what is to become of its pending recipients.
        policy: how often and how long to try.
        now: the wall clock, in seconds of the epoch.
        chance: a random number from 0 to 1.
    """
    expires = expiry(entry, policy)
    late = expires is not None and now >= expires
    if disposition.untried and not late and policy.attempts != 1:
        return Conclusion(End.RELEASED, reason=str(disposition.host))
    deferred, given_up = disposition.deferred, disposition.failed
    if deferred:
        due = next_try(policy, entry.attempts + 1, now=now, expires=expires, chance=chance)
        if due is not None:
            due = max(due, now + _SOONEST)
            return Conclusion(End.DEFERRED, due, _why(given_up or deferred), given_up, deferred)
        given_up = tuple(
            [_given_up(one, late=late) for one in disposition.sentences if one.fate is not Fate.DELIVERED]
        )
    if given_up or entry.failed:
        return Conclusion(End.FAILED, reason=_why(given_up) or entry.reason, given_up=given_up)
    return Conclusion(End.SENT)


def retry_of(receipt: Receipt, disposition: Disposition, conclusion: Conclusion) -> Callable[[Verdict], bool]:
    """Return what tells a lease of each verdict whether its recipient is tried again."""
    waiting = conclusion.end is End.DEFERRED
    pairs = zip(receipt.verdicts, disposition.sentences, strict=True)
    table = {id(verdict): waiting and one.fate is Fate.DEFER for verdict, one in pairs}
    return lambda verdict: table[id(verdict)]


def _given_up(one: Sentence, *, late: bool) -> Sentence:
    if one.fate is Fate.FAIL:
        return one
    reason = f"{EXPIRED}: {one.reason}" if late else one.reason
    return one._replace(fate=Fate.FAIL, reason=reason.rstrip(": "))


def _why(sentences: tuple[Sentence, ...]) -> str:
    for one in sentences:
        return " ".join(part for part in (one.reason, str(one.reply or "")) if part)
    return ""
