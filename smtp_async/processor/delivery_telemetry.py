"""Spans and metrics of a queue processor: a span for each attempt, linked to the span that put the message."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TYPE_CHECKING, Final

from ..client.telemetry import Telemetry, note_failure, note_receipt, outcome_of, receipt_of
from ..model.receipt import Receipt
from ..spool.entry import Entry, SpoolStatistics

if TYPE_CHECKING:
    from opentelemetry.trace import Link

__all__ = ["DeliveryTelemetry"]


class DeliveryTelemetry:
    """The telemetry of one processor.

    Args:
        telemetry: that of the processor's client.
    """

    def __init__(self, telemetry: Telemetry) -> None:
        self._telemetry: Final = telemetry

    async def deliver(self, entry: Entry, outcome: Awaitable[Receipt | None]) -> Receipt | None:
        """Await the outcome of an attempt under a span of its own, the current one meanwhile; raises as `outcome`.

        The span has no parent, since the caller of `put` has gone on: it links to the span of `put`.
        """
        from opentelemetry.context import Context
        from opentelemetry.trace import SpanKind, use_span

        attributes: dict[str, str | int] = {
            "smtp.queue.job": entry.id,
            "smtp.queue.attempt": entry.attempts + 1,
        }
        span = self._telemetry.tracer.start_span(
            "smtp deliver", Context(), SpanKind.CONSUMER, attributes, links=_links(entry.trace)
        )
        with use_span(span, end_on_exit=True, record_exception=False, set_status_on_exception=False):
            try:
                receipt = await outcome
            except BaseException as error:
                note_failure(span, error)
                self._count(receipt_of(error))
                raise
            if receipt is not None:
                note_receipt(span, receipt)
                if receipt.error is not None:
                    note_failure(span, receipt.error)
            self._count(receipt)
            return receipt

    def _count(self, receipt: Receipt | None) -> None:
        attributes = {} if receipt is None else {"smtp.outcome": outcome_of(receipt)}
        self._telemetry.attempts.add(1, attributes)

    def note_spool(self, found: SpoolStatistics, now: float) -> None:
        """Record what the spool holds at the time `now`, in seconds since the epoch."""
        jobs = self._telemetry.jobs
        for state in ("queued", "sending", "failed", "held"):
            jobs.set(getattr(found, state), {"smtp.queue.state": state})
        oldest = found.oldest
        self._telemetry.oldest.set(0.0 if oldest is None else max(0.0, now - oldest))


def _links(traceparent: str | None) -> list[Link]:
    """Return a link to the span that a `traceparent` names, none if it names no span."""
    from opentelemetry.trace import Link, get_current_span
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    if traceparent is None:
        return []
    context = TraceContextTextMapPropagator().extract({"traceparent": traceparent})
    span_context = get_current_span(context).get_span_context()
    return [Link(span_context)] if span_context.is_valid else []
