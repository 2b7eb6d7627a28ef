"""OpenTelemetry's own SDK, with exporters in memory."""

from typing import Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from smtp_async import Telemetry


class Counting(SimpleSpanProcessor):
    """Counts the spans that were begun, too."""

    begun = 0

    def on_start(self, span: Any, parent_context: Any = None) -> None:
        self.begun += 1


class Telling:
    """What one telemetry has told.

    Attributes:
        telemetry: for clients and spools.
        tracer: of the application.
    """

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self._processor = Counting(self._exporter)
        spans = TracerProvider(shutdown_on_exit=False)
        spans.add_span_processor(self._processor)
        self._reader = InMemoryMetricReader()
        meters = MeterProvider([self._reader], shutdown_on_exit=False)
        self.tracer = spans.get_tracer("application")
        self.telemetry = Telemetry(tracer_provider=spans, meter_provider=meters)

    @property
    def begun(self) -> int:
        """How many spans were begun."""
        return self._processor.begun

    def spans(self, name: str) -> list[ReadableSpan]:
        """The spans of this name that have ended."""
        return [span for span in self._exporter.get_finished_spans() if span.name == name]

    def points(self, name: str, **attributes: str) -> list[Any]:
        """What a metric says now, of those attributes."""
        data = self._reader.get_metrics_data()
        return [
            point
            for resource in (data.resource_metrics if data is not None else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == name
            for point in metric.data.data_points
            if attributes.items() <= dict(point.attributes or {}).items()
        ]

    def sum(self, name: str, **attributes: str) -> float:
        """The sum of what a counter or a gauge says."""
        return sum(point.value for point in self.points(name, **attributes))

    def histogram(self, name: str, **attributes: str) -> Any:
        """The one histogram of those attributes."""
        (point,) = self.points(name, **attributes)
        return point

    def everything(self) -> str:
        """All that was exported, as text."""
        spans = [span.to_json() for span in self._exporter.get_finished_spans()]
        data = self._reader.get_metrics_data()
        return "\n".join([*spans, "" if data is None else data.to_json()])
