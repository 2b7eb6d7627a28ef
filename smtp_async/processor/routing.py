"""Chooses the route of each job: the lanes of a processor, and which of them takes which recipients.

A lane is made for each client when the first recipient is routed to it; those of a table are made at once. A job goes
to the first lane that may take it now, with those of its recipients that had no turn since the job was due. If no lane
may, the job is turned away until the first of them is expected to.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple

from ..errors import UsageError
from ..spool.contract import Lease
from ..spool.entry import Entry
from .lane import Lane
from .part import PartialLease, had_turn, pending_places
from .routes import RouteChoice, Routes

if TYPE_CHECKING:
    from ..client.client import SMTPClient

__all__ = ["Assignment", "NoRoute", "Routing"]


class NoRoute(Exception):
    """A recipient has no route; the message says why."""


class Assignment(NamedTuple):
    """Where a claimed job goes.

    Attributes:
        lane: the route.
        lease: the lease of the job for the recipients of this route.
        taken: the lane may take the job now; otherwise it is the lane that may first.
        seconds: how long the job has to wait, if it is not taken.
    """

    lane: Lane
    lease: Lease
    taken: bool
    seconds: float = 0.0


class Routing:
    """The lanes of a processor.

    Args:
        make: makes the lane of a client; raises `UsageError` if the client cannot be used.
        client: the default client, None if there is none.
        routes: chooses the client of each recipient; None: the default client.
        pause: seconds that a job waits at least, if its server pauses.

    Attributes:
        lanes: the lanes so far.
        open_ended: clients that are not known yet may come.
    """

    def __init__(
        self,
        make: Callable[[SMTPClient], Lane],
        client: SMTPClient | None,
        routes: RouteChoice | None,
        *,
        pause: float,
    ) -> None:
        self._make: Final = make
        self._client: Final = client
        self._routes: Final = routes
        self._pause: Final = pause
        # By identity, as a client need not be hashable; the client is kept, so that its number is not used again.
        self._by_client: Final[dict[int, tuple[SMTPClient, Lane]]] = {}
        self.lanes: Final[list[Lane]] = []
        self.open_ended: Final = routes is not None and not isinstance(routes, Routes)
        if client is not None:
            self._lane_of(client)
        if isinstance(routes, Routes):
            for one in routes.clients():
                self._lane_of(one)

    @property
    def single(self) -> bool:
        """There is one route for every job."""
        return self._routes is None

    def assign(self, lease: Lease) -> Assignment:
        """Return where a claimed job goes.

        Raises:
            NoRoute: a recipient has no route.
        """
        entry = lease.entry
        parts = self._parts(entry)
        total = sum(map(len, parts.values()))
        waits: list[tuple[float, Lane]] = []
        for lane, places in parts.items():
            if lane.takes_one():
                return Assignment(lane, self._lease(lease, places, total), True)
            waits.append((lane.seconds_to_turn(self._pause), lane))
        seconds, lane = min(waits, key=lambda wait: wait[0])
        return Assignment(lane, self._lease(lease, parts[lane], total), False, seconds)

    def _lease(self, lease: Lease, places: list[int], total: int) -> Lease:
        whole = len(places) == total and total == len(pending_places(lease.entry))
        return lease if whole else PartialLease(lease, places)

    def _parts(self, entry: Entry) -> dict[Lane, list[int]]:
        """Return the pending recipients that had no turn yet, by lane; all pending ones if every one had its turn."""
        pending = pending_places(entry)
        routed = {place: self._lane_for(entry, place) for place in pending}
        waiting = [place for place in pending if not had_turn(entry, place)] or pending
        parts: dict[Lane, list[int]] = {}
        for place in waiting:
            parts.setdefault(routed[place], []).append(place)
        # A job without a pending recipient has been delivered; any lane ends it.
        return parts or {self._lane_for(entry, 0): []}

    def _lane_for(self, entry: Entry, place: int) -> Lane:
        recipient = entry.envelope.recipients[place]
        client = None
        if self._routes is not None:
            try:
                client = self._routes(entry, recipient)
            except Exception as error:
                raise NoRoute(f"the routes raised {error!r}") from error
        client = self._client if client is None else client
        if client is None:
            raise NoRoute(f"no route for {recipient.address}")
        if not hasattr(client, "send"):
            raise NoRoute(f"the route for {recipient.address} is {client!r}, and not a client")
        try:
            return self._lane_of(client)
        except UsageError as error:
            raise NoRoute(f"the route for {recipient.address} cannot be used: {error}") from error

    def _lane_of(self, client: SMTPClient) -> Lane:
        found = self._by_client.get(id(client))
        if found is None:
            found = self._by_client[id(client)] = (client, self._make(client))
            self.lanes.append(found[1])
        return found[1]
