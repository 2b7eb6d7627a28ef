"""Mail in motion: what a spool holds is sent, tried again, given up and reported."""

from .courier import Marking
from .disposition import OnUnknown
from .processor import QueueProcessor
from .report import Notice, Report, ReportedRecipient, ReportOptions, bounce, delay_notice, parse_report
from .schedule import RetryPolicy
from .tally import ProcessorStatistics, QueueReport, Unfinished

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
