"""Exit codes, and which error or result leads to which."""

from __future__ import annotations

import errno
from collections.abc import Iterable
from enum import IntEnum
from typing import Final

from ..errors import (
    AuthenticationFailed,
    AuthenticationUnavailable,
    Busy,
    CommandRefused,
    ExtensionMissing,
    FeatureUnavailable,
    FileError,
    NotConnected,
    OutcomeUnknown,
    ResolveError,
    SigningError,
    SMTPError,
    SpoolError,
    TLSError,
    TooManyRecipients,
    UsageError,
)
from ..model.receipt import Outcome, Receipt
from ..processor import QueueReport
from ..processor.results import UNKNOWN

__all__ = ["EXPLAINED", "Exit", "exit_for_error", "exit_for_receipt", "exit_for_report", "most_severe"]


class Exit(IntEnum):
    """The exit codes; 130 is Ctrl-C."""

    OK = 0
    REFUSED = 1
    USAGE = 2
    NOT_SENT = 3
    UNKNOWN = 4
    SETUP = 5


#: From the most severe: what stops all mail is worse than what stops one message; what is tried again is the least.
_BY_SEVERITY: Final = (Exit.USAGE, Exit.SETUP, Exit.UNKNOWN, Exit.REFUSED, Exit.NOT_SENT, Exit.OK)
#: Errors of a spool that waiting does not cure.
_NO_PERMISSION: Final = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})

#: The text for `--help`, in Markdown.
EXPLAINED: Final = """\
Exit codes:

* 0: all is well
* 1: the server refused, or something is wrong with it
* 2: the command line is wrong
* 3: not sent, or no connection: trying again later is safe and may help
* 4: unknown: the message may or may not be delivered, sending it again may make a second copy
* 5: a problem with TLS, the login, the spool or the set-up
* 130: interrupted
"""


def exit_for_receipt(receipt: Receipt) -> Exit:
    """Return 0 only if every recipient was accepted."""
    if receipt.outcome is Outcome.ACCEPTED:
        return Exit.OK
    if receipt.unknown:
        return Exit.UNKNOWN
    return Exit.REFUSED if any(not one.temporary for one in receipt.refused) else Exit.NOT_SENT


def exit_for_error(error: SMTPError) -> Exit:
    """Return the code for an error: refused (1), wrong command (2), not sent (3), unknown (4), set-up (5)."""
    if isinstance(error, OutcomeUnknown) or (error.receipt is not None and error.receipt.unknown):
        return Exit.UNKNOWN
    if isinstance(error, UsageError) and not isinstance(error, Busy | FeatureUnavailable | NotConnected):
        return Exit.USAGE
    if isinstance(error, SpoolError):
        return Exit.NOT_SENT if error.temporary and error.errno not in _NO_PERMISSION else Exit.SETUP
    if isinstance(error, FileError):
        return Exit.USAGE
    if isinstance(error, TLSError | FeatureUnavailable | AuthenticationUnavailable):
        return Exit.SETUP
    if isinstance(error, AuthenticationFailed | ResolveError | SigningError):
        return Exit.NOT_SENT if error.temporary else Exit.SETUP
    if isinstance(error, CommandRefused | ExtensionMissing | TooManyRecipients):
        return Exit.NOT_SENT if error.temporary else Exit.REFUSED
    return Exit.NOT_SENT


def exit_for_report(report: QueueReport) -> Exit:
    """Return 0 only if every job that was due was sent."""
    codes = [Exit.UNKNOWN if one.reason == UNKNOWN else Exit.REFUSED for one in report.failed]
    if report.deferred:
        codes.append(Exit.NOT_SENT)
    if report.unreadable:
        codes.append(Exit.SETUP)
    if report.error is not None:
        error = report.error
        codes.append(exit_for_error(error) if isinstance(error, SMTPError) else Exit.NOT_SENT)
    return most_severe(codes)


def most_severe(codes: Iterable[Exit]) -> Exit:
    """Return the most severe of `codes`; 0 if there are none."""
    return min(codes, key=_BY_SEVERITY.index, default=Exit.OK)
