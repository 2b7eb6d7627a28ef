"""Mail in motion: what a spool holds is sent, tried again, given up and reported."""

from .attempt import Marking
from .bounce import Notice, Report, ReportedRecipient, ReportOptions, bounce, delay_notice, parse_report
from .policy import OnUnknown
from .processor import QueueProcessor
from .results import ProcessorStatistics, QueueReport, Unfinished
from .schedule import RetryPolicy

__all__ = [
    "Marking",
    "Notice",
    "OnUnknown",
    "ProcessorStatistics",
    "QueueProcessor",
    "QueueReport",
    "Report",
    "ReportOptions",
    "ReportedRecipient",
    "RetryPolicy",
    "Unfinished",
    "bounce",
    "delay_notice",
    "parse_report",
]
