"""Spans and metrics for OpenTelemetry, through its API alone: what becomes of them is up to the application's SDK.

Strategy. A client, a spool or a processor without telemetry has none of the objects below, and asks for them once per
message. Spans and metrics hold numbers, outcomes, names of servers and errors; never an address, a subject, or a body.

The span of a `send` is the current one while the caller waits, so that it is the child of the caller's span and the
parent of what the sources and gates of the message do. A connection is opened by a task of the pool and serves several
callers: its span is made when the opening has ended, and has no parent. A message in a spool keeps the name of the span
that put it (`traceparent`, W3C Trace Context), and each attempt to deliver it links to that span.
"""

from __future__ import annotations

import time
import weakref
from collections import Counter
from collections.abc import Awaitable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final, Literal

from ..connection.connection import Connection
from ..connection.send_job import SendJob
from ..errors import FeatureUnavailable, SMTPError
from ..model.receipt import Receipt
from ..model.reply import printable
from ..pool.limits import PoolStatistics
from ..pool.pool import Pool

if TYPE_CHECKING:
    from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation
    from opentelemetry.trace import Span, TracerProvider

__all__ = ["ClientTelemetry", "Sending", "Telemetry"]

#: Seconds: as the semantic conventions of OpenTelemetry have them for HTTP, and longer.
_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 30, 60, 120)
_OCTETS: Final = tuple(4**n * 1000 for n in range(9))

#: What spans and measurements are told by.
Attributes = Mapping[str, "str | int"]
# The same as a key.
_Key = tuple[tuple[str, "str | int"], ...]


class Telemetry:
    """Spans and metrics of clients, spools and queue processors, for OpenTelemetry.

    Give one to `ClientOptions(telemetry=…)`, and the same one to the spool. A queue processor takes that of its client.

    Args:
        tracer_provider, meter_provider: make the spans and the metrics; None takes those of the process.

    Attributes:
        tracer, meter: of this library.
        messages, seconds, octets, connect_seconds, puts, attempts, jobs, oldest: the instruments.

    Raises:
        FeatureUnavailable: opentelemetry-api is not installed.
    """

    def __init__(
        self, *, tracer_provider: TracerProvider | None = None, meter_provider: MeterProvider | None = None
    ) -> None:
        try:
            from opentelemetry import metrics, trace
        except ImportError as error:
            raise FeatureUnavailable("telemetry needs opentelemetry-api", needs="smtp-async[otel]") from error
        self.tracer = trace.get_tracer("smtp_async", tracer_provider=tracer_provider)
        self.meter = meter = metrics.get_meter("smtp_async", meter_provider=meter_provider)
        self._clients: list[weakref.ref[ClientTelemetry]] = []
        self.messages = meter.create_counter(
            "smtp.client.messages", "{message}", "Messages that have ended, by outcome"
        )
        self.seconds = meter.create_histogram(
            "smtp.client.send.duration",
            "s",
            "Time from the call to the outcome of a message, waiting for a connection included",
            explicit_bucket_boundaries_advisory=_SECONDS,
        )
        self.octets = meter.create_histogram(
            "smtp.client.send.size",
            "By",
            "Bytes of a message that were handed to the transport",
            explicit_bucket_boundaries_advisory=_OCTETS,
        )
        self.connect_seconds = meter.create_histogram(
            "smtp.client.connect.duration",
            "s",
            "Time from dialling to a connection that can carry mail, or to its failure",
            explicit_bucket_boundaries_advisory=_SECONDS,
        )
        meter.create_observable_up_down_counter(
            "smtp.client.connections", [self._observe_connections], "{connection}", "Connections, by state"
        )
        meter.create_observable_up_down_counter(
            "smtp.client.waiting", [self._observe_waiting], "{message}", "Messages that wait for a connection"
        )
        self.puts = meter.create_counter("smtp.queue.puts", "{job}", "Messages put into a spool")
        self.attempts = meter.create_counter(
            "smtp.queue.attempts", "{attempt}", "Attempts to deliver a message of a spool, by outcome"
        )
        self.jobs = meter.create_gauge("smtp.queue.jobs", "{job}", "Messages in the spool, by state")
        self.oldest = meter.create_gauge(
            "smtp.queue.oldest", "s", "Age of the oldest message that is queued or being sent"
        )

    def client(self, host: str, port: int, *, lmtp: bool) -> ClientTelemetry:
        """Return the telemetry of one client."""
        made = ClientTelemetry(self, host, port, lmtp=lmtp)
        self._clients = [one for one in self._clients if one() is not None]
        self._clients.append(weakref.ref(made))
        return made

    @contextmanager
    def putting(self) -> Iterator[Putting]:
        """Begin the span of a message that is put into a spool; `Putting` is told what was stored."""
        from opentelemetry.trace import SpanKind

        with self.tracer.start_as_current_span(
            "smtp put", kind=SpanKind.PRODUCER, record_exception=False, set_status_on_exception=False
        ) as span:
            try:
                yield Putting(self, span)
            except BaseException as error:
                note_failure(span, error)
                raise

    # --- observations ----------------------------------------------------------------------------------------

    # Called by a thread of the SDK: the numbers are read one by one, and may be of slightly different moments.

    def _observe_connections(self, options: CallbackOptions) -> Iterable[Observation]:
        from opentelemetry.metrics import Observation

        yield from (
            Observation(number, dict(attributes)) for attributes, number in self._total("connections")
        )

    def _observe_waiting(self, options: CallbackOptions) -> Iterable[Observation]:
        from opentelemetry.metrics import Observation

        yield from (Observation(number, dict(attributes)) for attributes, number in self._total("waiting"))

    def _total(self, what: Literal["connections", "waiting"]) -> Iterable[tuple[_Key, int]]:
        """Return the sums over all clients, since clients of one server have the same attributes."""
        totals: Counter[_Key] = Counter()
        for one in [*self._clients]:
            client = one()
            if client is not None:
                totals.update(client.waiting() if what == "waiting" else client.connections())
        return totals.items()


class Putting:
    """The span of a message that is put into a spool."""

    __slots__ = ("_span", "_telemetry")

    def __init__(self, telemetry: Telemetry, span: Span) -> None:
        self._telemetry = telemetry
        self._span = span

    @property
    def trace(self) -> str | None:
        """The span's `traceparent`; None without an SDK that makes spans."""
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        carrier: dict[str, str] = {}
        TraceContextTextMapPropagator().inject(carrier)
        return carrier.get("traceparent")

    def stored(self, id: str, size: int, recipients: int) -> None:
        """Note what was stored: the job's id, its octets, and how many recipients it has."""
        self._span.set_attributes(
            {"smtp.queue.job": id, "smtp.message.size": size, "smtp.recipients": recipients}
        )
        self._telemetry.puts.add(1)


class ClientTelemetry:
    """The telemetry of one client.

    The span of a message begins when its header is known, since before that it may not be sent at all.

    Attributes:
        attributes: the server, as every span and measurement names it.
    """

    def __init__(self, telemetry: Telemetry, host: str, port: int, *, lmtp: bool) -> None:
        self.attributes: Attributes = {
            "server.address": host,
            "server.port": port,
            "network.protocol.name": "lmtp" if lmtp else "smtp",
        }
        self.telemetry: Final = telemetry
        self._pool: Pool | None = None
        self._seen: PoolStatistics | None = None

    # --- messages --------------------------------------------------------------------------------------------

    async def send(self, job: SendJob, outcome: Awaitable[Receipt]) -> Receipt:
        """Await the outcome of a job under a span that is the current one meanwhile; raises as `outcome` does."""
        from opentelemetry.trace import use_span

        sending = self.begin(job)
        with use_span(sending.span, record_exception=False, set_status_on_exception=False):
            try:
                receipt = await outcome
            except BaseException as error:
                sending.fail(error)
                raise
            sending.end(receipt)
            return receipt

    def begin(self, job: SendJob) -> Sending:
        """Begin the span of a job, as a child of the current one; `Sending` has to be told of the end."""
        from opentelemetry.trace import SpanKind

        attributes = {
            **self.attributes,
            "smtp.job": job.number,
            "smtp.recipients": len(job.envelope.recipients),
        }
        span = self.telemetry.tracer.start_span("smtp send", kind=SpanKind.CLIENT, attributes=attributes)
        return Sending(self, span)

    # --- connections -----------------------------------------------------------------------------------------

    def watch(self, pool: Pool) -> None:
        """Observe the connections of `pool` from now on."""
        self._pool = pool

    def connections(self) -> dict[_Key, int]:
        """Return how many connections are in each state."""
        now = self._statistics()
        counts = {} if now is None else {"idle": now.idle, "busy": now.busy, "opening": now.opening}
        return {
            (*self.attributes.items(), ("smtp.connection.state", state)): number
            for state, number in counts.items()
        }

    def waiting(self) -> dict[_Key, int]:
        """Return how many messages wait for a connection."""
        now = self._statistics()
        return {} if now is None else {(*self.attributes.items(),): now.waiting}

    def _statistics(self) -> PoolStatistics | None:
        if self._pool is not None:
            # A connection may come or go while they are counted, because the loop runs in another thread.
            with suppress(RuntimeError):
                self._seen = self._pool.statistics()
        return self._seen

    def connected(self, connection: Connection, error: SMTPError | None) -> None:
        """Tell of a connection that was opened, or could not be: `error` says why."""
        from opentelemetry.trace import SpanKind

        assert self._pool is not None
        seconds = self._pool.now() - connection.dialled_at
        attributes = dict(self.attributes)
        if error is not None:
            attributes["error.type"] = type(error).__name__
        self.telemetry.connect_seconds.record(seconds, attributes)
        end = time.time_ns()
        attributes["smtp.session"] = connection.number
        info = connection.channel.info
        if info is not None and info.tls_version is not None:
            attributes["tls.protocol.version"] = info.tls_version
        # Without a parent, because the task of the pool has an empty context.
        span = self.telemetry.tracer.start_span(
            "smtp connect", kind=SpanKind.CLIENT, attributes=attributes, start_time=end - int(seconds * 1e9)
        )
        if error is not None:
            note_failure(span, error)
        span.end(end)


class Sending:
    """The span and the measurements of one message.

    Attributes:
        span: the span.
    """

    __slots__ = ("_began", "_client", "span")

    def __init__(self, client: ClientTelemetry, span: Span) -> None:
        self.span = span
        self._client = client
        self._began = time.perf_counter()

    def end(self, receipt: Receipt) -> None:
        """Tell what became of the message."""
        if receipt.error is not None:
            note_failure(self.span, receipt.error)
        self._end(receipt)

    def fail(self, error: BaseException) -> None:
        """Tell that the call raised; an error or a cancellation has the receipt, if there is one."""
        note_failure(self.span, error)
        self._end(receipt_of(error))

    def abandon(self) -> None:
        """Tell that no caller waits for the outcome any more."""
        self._end(None)

    def _end(self, receipt: Receipt | None) -> None:
        client, span = self._client, self.span
        attributes = dict(client.attributes)
        if receipt is not None:
            attributes["smtp.outcome"] = outcome_of(receipt)
            if receipt.error is not None:
                attributes["error.type"] = type(receipt.error).__name__
            note_receipt(span, receipt)
            client.telemetry.octets.record(receipt.bytes_sent, attributes)
        client.telemetry.messages.add(1, attributes)
        client.telemetry.seconds.record(time.perf_counter() - self._began, attributes)
        span.end()


def receipt_of(error: BaseException) -> Receipt | None:
    """Return the receipt that an error or a cancellation carries."""
    receipt = getattr(error, "receipt", None)
    return receipt if isinstance(receipt, Receipt) else None


def outcome_of(receipt: Receipt) -> str:
    """Return the outcome as attributes have it: `accepted`, `partial`, `refused`, `not_sent` or `unknown`."""
    return receipt.outcome.name.lower()


def note_receipt(span: Span, receipt: Receipt) -> None:
    """Note on a span what became of a message."""
    attributes: dict[str, Any] = {
        "smtp.outcome": outcome_of(receipt),
        "smtp.bytes_sent": receipt.bytes_sent,
        "smtp.recipients.accepted": len(receipt.accepted),
    }
    if receipt.reply is not None:
        attributes["smtp.reply.code"] = receipt.reply.code
        if receipt.reply.enhanced is not None:
            attributes["smtp.reply.enhanced_code"] = str(receipt.reply.enhanced)
    span.set_attributes(attributes)


def note_failure(span: Span, error: BaseException) -> None:
    """Note on a span what was raised: its class, and for an error of this library its number.

    Not its text, which may name a recipient.
    """
    from opentelemetry.trace import Status, StatusCode

    span.set_attribute("error.type", type(error).__name__)
    if isinstance(error, SMTPError):
        span.set_attribute("smtp.error.code", error.code)
    span.set_status(Status(StatusCode.ERROR, printable(type(error).__name__)))
