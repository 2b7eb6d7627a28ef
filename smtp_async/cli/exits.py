"""What a script learns from the exit code."""

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
    SMTPError,
    SpoolError,
    TLSError,
    TooManyRecipients,
    UsageError,
)
from ..model.receipt import Outcome, Receipt
from ..processor import QueueReport
from ..processor.results import UNKNOWN

__all__ = ["EXPLAINED", "Exit", "exit_for_error", "exit_for_receipt", "exit_for_report", "gravest"]


class Exit(IntEnum):
    """The exit codes; 130 is Ctrl-C."""

    OK = 0
    REFUSED = 1
    USAGE = 2
    NOT_SENT = 3
    UNKNOWN = 4
    SETUP = 5


#: What stops all mail is graver than what stops one message, and what is tried again by itself is the least.
_BY_GRAVITY: Final = (Exit.USAGE, Exit.SETUP, Exit.UNKNOWN, Exit.REFUSED, Exit.NOT_SENT, Exit.OK)
#: Waiting does not open a door.
_CLOSED: Final = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})

#: For `--help`, in Markdown.
EXPLAINED: Final = """\
Exit codes:

* 0: all is well
* 1: the server refused, or something is wrong with it
* 2: the command line makes no sense
* 3: not sent, or no connection: trying again later is safe and may help
* 4: unknown: the message may or may not be delivered, a second try may make a second copy
* 5: a problem with TLS, the login, the spool or the set-up
* 130: interrupted
"""


def exit_for_receipt(receipt: Receipt) -> Exit:
    """Return 0 only if everybody gets the message."""
    if receipt.outcome is Outcome.ACCEPTED:
        return Exit.OK
    if receipt.unknown:
        return Exit.UNKNOWN
    return Exit.REFUSED if any(not one.temporary for one in receipt.refused) else Exit.NOT_SENT


def exit_for_error(error: SMTPError) -> Exit:
    """Return what to do next: nothing (1), type it again (2), wait (3), ask the recipient (4), repair (5)."""
    if isinstance(error, OutcomeUnknown) or (error.receipt is not None and error.receipt.unknown):
        return Exit.UNKNOWN
    if isinstance(error, UsageError) and not isinstance(error, Busy | FeatureUnavailable | NotConnected):
        return Exit.USAGE
    if isinstance(error, SpoolError):
        return Exit.NOT_SENT if error.temporary and error.errno not in _CLOSED else Exit.SETUP
    if isinstance(error, FileError):
        return Exit.USAGE
    if isinstance(error, TLSError | FeatureUnavailable | AuthenticationUnavailable):
        return Exit.SETUP
    if isinstance(error, AuthenticationFailed | ResolveError):
        return Exit.NOT_SENT if error.temporary else Exit.SETUP
    if isinstance(error, CommandRefused | ExtensionMissing | TooManyRecipients):
        return Exit.NOT_SENT if error.temporary else Exit.REFUSED
    return Exit.NOT_SENT


def exit_for_report(report: QueueReport) -> Exit:
    """Return 0 only if everything that was due was sent."""
    codes = [Exit.UNKNOWN if one.reason == UNKNOWN else Exit.REFUSED for one in report.failed]
    if report.deferred:
        codes.append(Exit.NOT_SENT)
    if report.unreadable:
        codes.append(Exit.SETUP)
    if report.error is not None:
        error = report.error
        codes.append(exit_for_error(error) if isinstance(error, SMTPError) else Exit.NOT_SENT)
    return gravest(codes)


def gravest(codes: Iterable[Exit]) -> Exit:
    """Return the one that somebody has to know of first; 0 if there is none."""
    return min(codes, key=_BY_GRAVITY.index, default=Exit.OK)
