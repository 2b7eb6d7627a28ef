"""`QueueProcessor`: delivers the mail of a spool through clients. Connects the parts, and begins and ends runs.

A cancelled `run` waits once for the jobs being sent. If it is cancelled again, as some frameworks do at every await, it
returns, while the task of the manager continues.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from ..errors import Busy, InvalidArgument
from ..events import JobQueued
from ..hooks import Observed
from ..model.address import Address
from ..model.envelope import Recipient
from ..model.signing import MessageSigner, signers_of
from ..spool.contract import Spool
from .attempt import Attempts
from .breakers import Breakers
from .control import RunControl
from .delivery_telemetry import DeliveryTelemetry
from .event_sink import EventSink
from .lane import Lane
from .options import ProcessorOptions
from .results import Fate, ProcessorStatistics, QueueReport
from .routes import RouteChoice
from .routing import Routing
from .schedule import RetryPolicy
from .sender_reports import SenderReports
from .spool_writer import SpoolWriter
from .unrouted import Unrouted
from .workers import Workers

if TYPE_CHECKING:
    from ..client.client import SMTPClient

__all__ = ["QueueProcessor"]

_DEFAULT_RETRY: Final = RetryPolicy()
_DEFAULT_OPTIONS: Final = ProcessorOptions()
_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
#: The loop keeps only weak references to tasks, and a manager may outlive the call of `run`.
_managers: Final[set[asyncio.Task[None]]] = set()


class QueueProcessor(Observed):
    """Deliver the mail of a spool through a client, or through several.

    Args:
        spool: stores the mail.
        client: sends the mail that has no route of its own; the caller closes it. None: every recipient needs a route.
        routes: the clients of other mail, `Routes` or a function; each client has its own workers and pauses. A
            recipient without a route is given up, the others are served, and an operator may requeue the failed job. If
            the routes raise, the recipient waits as after a temporary failure.
        concurrency: maximum of jobs that are tried at once over each client; by default twice the number that the
            connections of the client can carry, so that writing results never delays a connection.
        retry: how often and for how long a message is tried, and how long mail pauses when the server is down.
        keep_sent: keep delivered jobs in the spool, as SENT.
        options: less common options.

    Raises:
        InvalidArgument: `concurrency` is not an integer above 0, there is neither a client nor routes, or a client
            signs what it sends and the spool does not: messages are signed when they are put, so these would leave
            unsigned. A client whose `DKIM` are `unless_signed` signs in each attempt what was put unsigned.
    """

    def __init__(
        self,
        spool: Spool,
        client: SMTPClient | None = None,
        *,
        routes: RouteChoice | None = None,
        concurrency: int | None = None,
        retry: RetryPolicy = _DEFAULT_RETRY,
        keep_sent: bool = False,
        options: ProcessorOptions = _DEFAULT_OPTIONS,
    ) -> None:
        super().__init__()
        if client is None and routes is None:
            raise InvalidArgument("a processor needs a client, or routes")
        if routes is not None and not callable(routes):
            raise InvalidArgument(f"routes are Routes or a function, not {routes!r}")
        self._spool: Final = spool
        self._retry: Final = retry
        self._keep_sent: Final = keep_sent
        self._options: Final = options
        self._concurrency: Final = None if concurrency is None else _checked(concurrency)
        self._control: Final = RunControl(options.grace)
        self._events: Final = EventSink(self._hooks, self._control, stop_on_error=options.stop_on_error)
        # Its breaker of the spool is that of every lane.
        self._breakers: Final = Breakers(retry, options, self._events.publish, self._control.wake)
        self._telemetry: DeliveryTelemetry | None = None
        self._routing: Final = Routing(self._lane, client, routes, pause=retry.pause)
        self._workers: Final = Workers(
            spool,
            self._routing,
            options=options,
            control=self._control,
            breakers=self._breakers,
            unrouted=Unrouted(
                retry,
                options=options,
                writer=SpoolWriter(self._breakers, self._control, retry, options.chance),
                events=self._events,
            ),
            events=self._events,
            telemetry=self._telemetry,
        )
        self._manager: asyncio.Task[None] | None = None

    def _lane(self, client: SMTPClient) -> Lane:
        """Return a new lane for a client.

        Raises:
            InvalidArgument: the client signs what it sends, again in each attempt, and the spool does not.
        """
        sign = self._signers(client)
        retry, options, control = self._retry, self._options, self._control
        breakers = Breakers(
            retry,
            options,
            self._events.publish,
            control.wake,
            spool=self._breakers.spool,
            host=client.host,
        )
        writer = SpoolWriter(breakers, control, retry, options.chance)
        telemetry = client.options.telemetry
        deliveries = None if telemetry is None else DeliveryTelemetry(telemetry)
        # One of them tells what the spool holds.
        self._telemetry = self._telemetry or deliveries
        attempts = Attempts(
            client,
            retry,
            keep_sent=self._keep_sent,
            options=options,
            control=control,
            breakers=breakers,
            writer=writer,
            reports=SenderReports(
                options.bounce,
                retry,
                self._spool,
                writer,
                remote=client.host,
                own_name=client.options.hello,
            ),
            events=self._events,
            telemetry=deliveries,
            sign=sign,
        )
        return Lane(
            client.host,
            attempts,
            breakers,
            concurrency=self._concurrency or _concurrency_for(client),
            control=control,
            monotonic=options.monotonic,
        )

    def _signers(self, client: SMTPClient) -> Sequence[MessageSigner]:
        """Return how the client signs what the spool holds; raises as `_lane`."""
        own = client.options.send.sign
        sign = signers_of(client.options.sign if own is None else own)
        if all([one.unless_signed for one in sign]):
            return sign
        if not getattr(self._spool, "sign", ()):
            raise InvalidArgument(
                "the client signs and the spool does not: a spool signs when a message is put, so give it sign=, "
                "or the client DKIM(…, unless_signed=True)"
            )
        return ()

    def __repr__(self) -> str:
        s = self.statistics()
        return (
            f"<QueueProcessor {s.sending} sending, {s.sent} sent, {s.deferred} deferred, {s.failed} failed>"
        )

    # --- public methods --------------------------------------------------------------------------------------

    async def run(self, *, signals: bool = False) -> None:
        """Deliver until `stop` is called, the task is cancelled, or a job failed with `stop_on_error`.

        Args:
            signals: SIGTERM and SIGINT call `stop`; the second signal ends the grace. Main thread only, and where the
                event loop supports signal handlers.

        Raises:
            Busy: the processor is running already.
            UsageError: the client or the spool cannot be used, for example because it is closed.
        """
        with self._handling_signals() if signals else contextlib.nullcontext():
            await self._run(once=False)

    async def run_once(self) -> QueueReport:
        """Try every due job once, and return a report.

        The run ends early if the server as a whole cannot be used, if the spool cannot be written, after `stop`, and
        after the first failed job with `stop_on_error`; `QueueReport.error` is then set, and other jobs stay queued.

        Raises:
            Busy, UsageError: as `run`.
        """
        await self._run(once=True)
        return self._events.report()

    def stop(self, *, grace: float | None = None) -> None:
        """Start no further job; jobs being sent may continue for `grace` seconds (None: those of the options).

        Call it in the thread of the event loop. A second call may shorten the grace. Without a run, the call applies to
        the next one, which then starts no job, because a program may have to end while it starts.
        """
        self._control.stop(grace)

    async def wait_stopped(self) -> None:
        """Wait until no job is being sent any more, after a `run` that was cancelled more than once."""
        if self._manager is not None:
            await asyncio.wait({self._manager})

    async def put(
        self,
        message: Any,
        *,
        sender: str | Address | None = None,
        recipients: Sequence[str | Address | Recipient] | None = None,
        key: str | None = None,
        not_before: float | datetime | None = None,
        expires: float | datetime | None = None,
        tag: str | None = None,
    ) -> str:
        """Put a message into the spool and publish `JobQueued`; arguments and errors as for `Spool.put`."""
        id = await self._spool.put(
            message,
            sender=sender,
            recipients=recipients,
            key=key,
            not_before=not_before,
            expires=expires,
            tag=tag,
        )
        await self._events.publish(JobQueued(id=id))
        return id

    def statistics(self) -> ProcessorStatistics:
        """Return the current state, and counts since the processor was constructed."""
        counts = self._events.counts
        routes = tuple([lane.statistics() for lane in self._routing.lanes])
        pauses = [route.paused_until for route in routes if route.paused_until is not None]
        return ProcessorStatistics(
            sending=sum([route.sending for route in routes]),
            ahead=sum([route.ahead for route in routes]),
            sent=counts[Fate.DELIVERED],
            deferred=counts[Fate.DEFERRED],
            failed=counts[Fate.FAILED],
            released=counts[Fate.RELEASED],
            unknown=self._events.unknown,
            paused_until=min(pauses, default=None),
            problem=next((route.problem for route in routes if route.problem), ""),
            routes=routes,
        )

    # --- runs ------------------------------------------------------------------------------------------------

    async def _run(self, *, once: bool) -> None:
        if self._manager is not None and not self._manager.done():
            raise Busy("this processor is running already")
        self._control.reset()
        self._events.begin_run(reporting=once)
        manager = self._manager = asyncio.get_running_loop().create_task(
            self._workers.run(once=once), name="smtp_async queue"
        )
        _managers.add(manager)
        manager.add_done_callback(_managers.discard)
        manager.add_done_callback(lambda _: self._control.run_ended())
        try:
            await asyncio.wait({manager})
        except asyncio.CancelledError:
            self.stop()
            await asyncio.wait({manager})
            raise
        if manager.cancelled():
            raise asyncio.CancelledError
        if self._control.fatal is not None:
            raise self._control.fatal
        manager.result()

    @contextlib.contextmanager
    def _handling_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        handled = []
        for number in _SIGNALS:
            # Not supported on Windows, nor outside the main thread.
            with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
                loop.add_signal_handler(number, self._on_signal)
                handled.append(number)
        try:
            yield
        finally:
            for number in handled:
                loop.remove_signal_handler(number)

    def _on_signal(self) -> None:
        self.stop(grace=0.0 if self._control.stopping else None)


def _concurrency_for(client: SMTPClient) -> int:
    """Return twice the number of messages that the connections of `client` can carry."""
    limits = client.options.pool
    concurrency = 2 * max(2, limits.window) * limits.max_connections
    return min(concurrency, limits.max_waiting or concurrency)


def _checked(concurrency: int) -> int:
    if not isinstance(concurrency, int) or isinstance(concurrency, bool) or concurrency < 1:
        raise InvalidArgument(f"concurrency must be an integer above 0, not {concurrency!r}")
    return concurrency
