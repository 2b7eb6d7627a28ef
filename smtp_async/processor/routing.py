"""Chooses the route of each job: the lanes of a processor, and which of them takes which recipients.

A lane is made for each client when the first recipient is routed to it; those of a table are made at once. A job goes
to the first lane that may take it now, with those of its recipients that had no turn since the job was due. If no lane
may, the job is turned away until the first of them is expected to.

Recipients without a route are given up before the others have their turn, so that these end the job. Recipients for
which the routes raised have their turn last, so that a fault of the routes delays no recipient that has a route.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple

from ..errors import UsageError
from ..spool.contract import Lease
from ..spool.entry import Entry
from .lane import Lane
from .partial_lease import PartialLease, pending_places, tried_since_due
from .routes import RouteChoice, Routes

if TYPE_CHECKING:
    from ..client.client import SMTPClient

__all__ = ["Assignment", "NoRoute", "Routing"]


class NoRoute(Exception):
    """Recipients have no route; the message says why.

    Args:
        reason: why the first of them has none.

    Attributes:
        temporary: the routes raised, so that a later call may find a route.
        lease: the lease of the job for these recipients; set by `Routing.assign`.
    """

    lease: Lease

    def __init__(self, reason: str, *, temporary: bool = False) -> None:
        super().__init__(reason)
        self.temporary: Final = temporary


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
            NoRoute: recipients have no route, and have to be dealt with before the others.
        """
        parts, missing = self._parts(lease.entry)
        total = sum(map(len, parts.values())) + sum([len(places) for _, places in missing])
        # Those that are given up come first, those that have to wait last.
        for error, places in missing:
            if not (parts and error.temporary):
                error.lease = self._lease(lease, places, total)
                raise error
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

    def _parts(self, entry: Entry) -> tuple[dict[Lane, list[int]], list[tuple[NoRoute, list[int]]]]:
        """Return the places of the pending recipients that had no turn yet; of all pending ones if every one had.

        Returns:
            The places by lane, and those without a route: first the ones that are given up, then those that wait.
        """
        pending = pending_places(entry)
        if not pending and self.lanes:
            # The job has been delivered; any lane ends it.
            return {self.lanes[0]: []}, []
        parts: dict[Lane, list[int]] = {}
        missing: dict[bool, tuple[NoRoute, list[int]]] = {}
        for place in [place for place in pending if not tried_since_due(entry, place)] or pending or [0]:
            places = [place] if pending else []
            try:
                parts.setdefault(self._lane_for(entry, place), []).extend(places)
            except NoRoute as error:
                missing.setdefault(error.temporary, (error, []))[1].extend(places)
        return parts, [missing[temporary] for temporary in (False, True) if temporary in missing]

    def _lane_for(self, entry: Entry, place: int) -> Lane:
        recipient = entry.envelope.recipients[place]
        client = None
        if self._routes is not None:
            try:
                client = self._routes(entry, recipient)
            except Exception as error:
                raise NoRoute(f"the routes raised {error!r}", temporary=True) from error
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
