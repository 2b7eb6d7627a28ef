"""The queue processor: sends the mail of a spool, retries it until it expires, and reports failures to senders."""

from .bounce import Notice, Report, ReportedRecipient, ReportOptions, bounce, delay_notice, parse_report
from .options import Marking, ProcessorOptions
from .policy import OnUnknown
from .processor import QueueProcessor
from .results import ProcessorStatistics, QueueReport, RouteStatistics, Unfinished
from .routes import RouteChoice, Routes
from .schedule import RetryPolicy

__all__ = [
    "Marking",
    "Notice",
    "OnUnknown",
    "ProcessorOptions",
    "ProcessorStatistics",
    "QueueProcessor",
    "QueueReport",
    "Report",
    "ReportOptions",
    "ReportedRecipient",
    "RetryPolicy",
    "RouteChoice",
    "RouteStatistics",
    "Routes",
    "Unfinished",
    "bounce",
    "delay_notice",
    "parse_report",
]
