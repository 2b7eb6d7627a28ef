"""Connections that are cut, callers that are cancelled, and deadlines that pass, at every point of a scenario.

After each run the next message of the same client has to arrive, the books have to agree, no task and no file may be
left, and no secret may have been shown. The message of a failure names the point.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import selectors
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from smtp_async import SMTPClient, Timeouts
from smtp_async.testing import (
    CancelManner,
    CancelMoment,
    Cut,
    CutManner,
    CutProxy,
    Direction,
    RecordingSink,
    run_cancelled_at,
)
from smtp_async.testing.wire import Split
from tests.lab import PATIENCE, impatient, until
from tests.torture.books import Books, delivered_by, demand_back, held, shown
from tests.torture.scenarios import Folder, Scenario

#: The deadline of the runs whose connection stalls, and the limit of each stage, which comes later.
DEADLINE, STAGE = 0.4, 1.6
#: How many of them run at once. With many more, TLS handshakes of a busy machine would take longer than a stage may.
AT_ONCE = 8
#: For how long a `SteadyLoop` waits at once, in seconds.
SLICE = 0.005


@dataclass
class Tally:
    """The figures of many runs.

    Attributes:
        points: how many points were tried, by kind.
        unknown: recipients whose outcome was unknown.
        latest: after how many times its deadline a caller was told at most.
        wrong: what did not hold, in words.
    """

    points: Counter[str] = field(default_factory=Counter)
    unknown: int = 0
    latest: float = 0.0
    wrong: list[str] = field(default_factory=list)

    def __iadd__(self, other: Tally) -> Tally:
        self.points += other.points
        self.unknown += other.unknown
        self.latest = max(self.latest, other.latest)
        self.wrong += other.wrong
        return self

    def demand(self) -> None:
        """Raise if anything was wrong."""
        assert not self.wrong, "\n".join(self.wrong[:10])

    def __str__(self) -> str:
        counts = ", ".join(f"{count:,} {kind}" for kind, count in sorted(self.points.items()))
        late = f", latest deadline {self.latest:.2f}" if self.latest else ""
        return "\n".join(
            [f"{counts}, {self.unknown:,} unknown{late}, {len(self.wrong)} wrong", *self.wrong[:20]]
        )


@dataclass
class Run:
    """One run: its server, the way to it, its client and its books."""

    server: Any
    way: CutProxy
    client: SMTPClient
    books: Books


class Harness:
    """Runs one scenario again and again, disturbed at one point after the other.

    Args:
        scenario: the scenario.
        mta: a real server with a host and a port, in place of the recording one. What it delivered is compared by
            `settle`, once for all runs.
    """

    def __init__(self, scenario: Scenario, mta: Any = None) -> None:
        self.scenario = scenario
        self.tally = Tally()
        self._mta = mta
        self._all: list[Books] = []
        self._seen: set[tuple[str, ...]] = set()

    @asynccontextmanager
    async def run(
        self,
        cut: Cut | None = None,
        *,
        split: Split = "whole",
        timeouts: Timeouts | None = None,
        patience: float | None = 2 * PATIENCE,
    ) -> AsyncIterator[Run]:
        """Set up a run, and check everything at its end.

        Args:
            cut: where its connection is cut.
            split: the segments of the server's answers.
            timeouts: the limits of the client.
            patience: seconds for the whole run; None where the clock is set forward.
        """
        scenario = self.scenario
        if isinstance(scenario.spool, Folder):
            scenario.spool.clear()
        books = Books(scenario.unwrap)
        with shown(self._seen) as log:
            async with self._server(split) as server, scenario.target(server) as (host, port):
                async with CutProxy(host, port, cut) as way:
                    limits = timeouts or impatient(PATIENCE, send=PATIENCE, quit=0.2, close=0.2)
                    client = scenario.make_client(way, server, limits, log.text)
                    async with asyncio.timeout(patience):
                        try:
                            yield Run(server, way, client, books)
                            await scenario.send_next(client, books)
                        finally:
                            await client.close()
                        await self._check(server, books)
            log.check(books)

    @asynccontextmanager
    async def _server(self, split: Split) -> AsyncIterator[Any]:
        if self._mta is not None:
            yield self._mta
            return
        async with RecordingSink(**self.scenario.server, split=split) as server:
            yield server

    async def _check(self, server: Any, books: Books) -> None:
        if self._mta is not None:
            self._all.append(books)
            return
        # A connection that stalled is over for its client, and its server waits on.
        for live in list(server.live):
            live.transport.abort()
        await until(lambda: not server.tasks)
        books.check(books.accepted_by(server))
        self.tally.unknown += books.unknown

    async def settle(self) -> None:
        """Compare with what a real server has delivered in all runs."""
        found = await asyncio.to_thread(delivered_by, self._mta, self.scenario.unwrap)
        for books in self._all:
            try:
                books.check([one for one in found if one.name in books.letters])
            except AssertionError as error:
                self.tally.wrong.append(f"{self.scenario}: {error}")
            self.tally.unknown += books.unknown
        self._all.clear()

    async def lengths(self) -> dict[Direction, int]:
        """Return how many octets an undisturbed run has before its next message, on the connection that is cut."""
        async with self.run() as run:
            await self.scenario.send(run.client, run.books)
            counts = run.way.links[self.scenario.link].counts
        run.books.demand_accepted()
        return counts

    async def point(self, kind: str, what: object, work: Callable[[], Awaitable[None]]) -> None:
        """Try one point; what does not hold is noted with the point.

        Args:
            kind: what it counts as.
            what: the point in words.
            work: the run.
        """
        self.tally.points[kind] += 1
        try:
            await work()
        except (AssertionError, TimeoutError, OSError) as error:
            self.tally.wrong.append(f"{self.scenario}, {what}: {type(error).__name__}: {error}"[:1500])

    # Cuts

    async def cuts(self, stride: int = 1, *, start: int = 0, split: Split = "whole") -> None:
        """Cut the connection after every `stride`-th octet of each direction, by FIN and by RST in turn."""
        lengths = await self.lengths()
        manners = itertools.cycle((CutManner.FIN, CutManner.RST))
        for direction, total in lengths.items():
            # An even stride would meet the same manner again and again where it meets the same octet again.
            for after in range(start, total + 1, stride):
                await self.cut(Cut(after, direction, next(manners), self.scenario.link), split=split)

    async def cut(self, cut: Cut, *, split: Split = "whole") -> None:
        """Cut the connection at one point."""

        async def work() -> None:
            before = held()
            async with self.run(cut, split=split) as run:
                await self.scenario.send(run.client, run.books)
            await demand_back(before)

        await self.point("cuts", cut, work)

    async def stalls(self, cuts: Sequence[Cut]) -> None:
        """Let the connection stall at these points, many at once, until the deadline of the message has passed.

        Only on a `SteadyLoop`, whose time tells how late a caller was told.
        """
        before = held()
        # The runs of a queue share its spool.
        room = asyncio.Semaphore(AT_ONCE if self.scenario.spool is None else 1)

        async def one(cut: Cut) -> None:
            async with room:
                await self.point("stalls", cut, lambda: self._stall(cut))

        await asyncio.gather(*map(one, cuts))
        await demand_back(before)

    async def _stall(self, cut: Cut) -> None:
        async with self.run(cut, timeouts=impatient(STAGE, send=DEADLINE, quit=0.1, close=0.2)) as run:
            await self.scenario.send(run.client, run.books)
            over = run.books.slowest / DEADLINE
            self.tally.latest = max(self.tally.latest, over)
            assert over <= 1.1, f"a caller was told after {over:.2f} times the deadline"

    # Cancellations and deadlines

    async def cancelled_at_awaits(self, most: int = 1000) -> None:
        """Cancel the caller at each of its awaits, once and until it is done, while it waits and when it is ready."""
        # A first run opens what stays open with the loop, as uvloop's own files.
        await self.lengths()
        for manner, moment in itertools.product(CancelManner, CancelMoment):
            for at in range(1, most):
                injected = [False]

                async def work(at: int = at, manner: Any = manner, moment: Any = moment) -> None:
                    before = held()
                    async with self.run() as run:

                        async def call() -> None:
                            await self.scenario.send(run.client, run.books)

                        ended = await run_cancelled_at(at, call, manner=manner, moment=moment)
                        injected[0] = ended.injected  # noqa: B023 - it is called in this round
                        if ended.error is not None and not ended.cancelled:
                            raise AssertionError(repr(ended.error)) from ended.error
                    await demand_back(before)

                await self.point("cancellations", f"await {at}, {manner}, {moment}", work)
                if not injected[0]:
                    break

    async def interrupted(self, turns: Iterable[int], *, jump: float = 0.0) -> None:
        """Cancel the caller after so many turns of the loop, or set the clock forward beyond its deadline.

        Args:
            turns: numbers of turns in rising order; the first one that the scenario does not reach ends it.
            jump: seconds by which the clock is set forward; 0 cancels.
        """
        clock = Clock() if jump else None
        kind = "deadlines" if jump else "cancellations"
        for turn in turns:
            ended = [False]

            async def work(turn: int = turn) -> None:
                before = held()
                timeouts = impatient(60.0, send=jump, quit=0.2, close=0.2) if jump else None
                async with self.run(timeouts=timeouts, patience=None if jump else 2 * PATIENCE) as run:
                    ended[0] = await self._interrupt(run, turn, clock, jump)  # noqa: B023 - as above
                await demand_back(before)

            await self.point(kind, f"turn {turn}", work)
            if ended[0]:
                break

    async def _interrupt(self, run: Run, turn: int, clock: Clock | None, jump: float) -> bool:
        async def call() -> None:
            await self.scenario.send(run.client, run.books)

        task = asyncio.get_running_loop().create_task(call())
        for _ in range(turn):
            if task.done():
                break
            await asyncio.sleep(0)
        ended = task.done()
        if clock is None:
            task.cancel()
        else:
            clock.ahead += jump
        await asyncio.wait({task}, timeout=PATIENCE)
        assert task.done(), "it hangs"
        if not task.cancelled() and (error := task.exception()) is not None:
            raise AssertionError(repr(error)) from error
        return ended


class RealServer:
    """The plain port of a real server, as a scenario sees it.

    Args:
        mta: the server.
    """

    def __init__(self, mta: Any) -> None:
        self.host, self.port = mta.host, mta.plain_port
        self.messages = mta.messages


class Clock:
    """The clock of the running loop, which can be set forward. Not on uvloop."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.ahead = 0.0
        real = loop.time
        loop.time = lambda: real() + self.ahead  # type: ignore[method-assign]


class SteadyLoop(asyncio.SelectorEventLoop):
    """A loop whose time passes while it waits or computes, and not while it is kept from the processor.

    On a busy machine, a deadline would pass before anything that it limits has had a turn.
    """

    def __init__(self) -> None:
        self._selector_of_time = _SlicingSelector()
        super().__init__(self._selector_of_time)

    def time(self) -> float:
        """Return the time of this loop, in seconds."""
        return self._selector_of_time.waited + time.process_time()


class _SlicingSelector(selectors.DefaultSelector):
    """Waits in slices, so that what passes between an event and the turn that it gets counts as one slice at most.

    Attributes:
        waited: for how long it has waited, in seconds.
    """

    def __init__(self) -> None:
        super().__init__()
        self.waited = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        end = math.inf if timeout is None else self.waited + timeout
        while True:
            slice = max(0.0, min(SLICE, end - self.waited))
            began = time.monotonic()
            found = super().select(slice)
            self.waited += min(slice, time.monotonic() - began)
            if found:
                return found
            if slice < SLICE:
                self.waited = end
                return []


def stalling(lengths: dict[Direction, int], count: int, link: int) -> list[Cut]:
    """Return `count` stalls in each direction, evenly spread over a session of these lengths."""
    return [
        Cut(total * number // count, direction, CutManner.STALL, link)
        for direction, total in lengths.items()
        for number in range(count)
    ]
