"""A lease of the part of a job that one route delivers: some of its pending recipients.

A job whose recipients have several routes is claimed once for each of them. A lease ends with the results of one part
and leaves the other recipients as they are. Which recipients had their turn is known from the due time of the job,
which stays the same until every route had one: a recipient whose last result is older is still to be tried.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from ..model.envelope import Envelope
from ..spool.contract import Lease, LeaseResult
from ..spool.entry import Entry
from ..spool.submission import StoredMail
from .results import OtherRoutes

__all__ = ["PartialLease", "pending_places", "tried_since_due"]


def pending_places(entry: Entry) -> list[int]:
    """Return the places in the envelope of the recipients without a final result."""
    return [place for place, result in enumerate(entry.results) if result is None or not result.final]


def tried_since_due(entry: Entry, place: int) -> bool:
    """Tell whether the recipient at this place was tried since the job became due."""
    result = entry.results[place]
    return result is not None and result.at >= entry.not_before


class PartialLease(Lease):
    """A lease of a job for some of its recipients: it ends as any lease, and records the results at their places.

    Args:
        lease: the lease of the job.
        places: the places of these recipients in the envelope.

    Attributes:
        entry: the job, as if it had these recipients only.
        whole: the job as it was claimed.
        others: what is left for the other routes.
    """

    def __init__(self, lease: Lease, places: Sequence[int]) -> None:
        whole = lease.entry
        self._lease: Final = lease
        self._places: Final = tuple(places)
        self.whole: Final = whole
        self.token = lease.token
        recipients = [whole.envelope.recipients[place] for place in places]
        self.entry = replace(
            whole,
            envelope=Envelope(whole.envelope.sender, recipients),
            results=tuple([whole.results[place] for place in places]),
        )
        left = [place for place in pending_places(whole) if place not in self._places]
        if not left:
            self.others = OtherRoutes.NONE
        elif all([tried_since_due(whole, place) for place in left]):
            self.others = OtherRoutes.DEFERRED
        else:
            self.others = OtherRoutes.UNTRIED

    def mail(self) -> StoredMail:
        mail = self._lease.mail()
        return StoredMail(self.entry.envelope, mail.content)

    async def extend(self) -> None:
        await self._lease.extend()

    async def mark_end_of_data(self) -> None:
        await self._lease.mark_end_of_data()

    async def release(self) -> None:
        await self._lease.release()

    async def _end(self, result: LeaseResult) -> None:
        await self._lease._end(result._replace(places=self._places))
