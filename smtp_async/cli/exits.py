"""What a script learns from the exit code."""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from ..errors import (
    AuthenticationFailed,
    AuthenticationUnavailable,
    CommandRefused,
    ExtensionMissing,
    FeatureUnavailable,
    FileError,
    NotConnected,
    OutcomeUnknown,
    ResolveError,
    SMTPError,
    TLSError,
    TooManyRecipients,
    UsageError,
)
from ..receipt import Outcome, Receipt

__all__ = ["EXPLAINED", "Exit", "exit_for_error", "exit_for_receipt"]


class Exit(IntEnum):
    """The exit codes; 130 is Ctrl-C."""

    OK = 0
    REFUSED = 1
    USAGE = 2
    NOT_SENT = 3
    UNKNOWN = 4
    SETUP = 5


#: For `--help`, in Markdown.
EXPLAINED: Final = """\
Exit codes:

* 0: all is well
* 1: the server refused, or something is wrong with it
* 2: the command line makes no sense
* 3: not sent, or no connection: trying again later is safe and may help
* 4: unknown: the message may or may not be delivered, a second try may make a second copy
* 5: a problem with TLS, the login or the set-up
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
    if isinstance(error, UsageError) and not isinstance(error, FeatureUnavailable | NotConnected):
        return Exit.USAGE
    if isinstance(error, FileError):
        return Exit.USAGE
    if isinstance(error, TLSError | FeatureUnavailable | AuthenticationUnavailable):
        return Exit.SETUP
    if isinstance(error, AuthenticationFailed | ResolveError):
        return Exit.NOT_SENT if error.temporary else Exit.SETUP
    if isinstance(error, CommandRefused | ExtensionMissing | TooManyRecipients):
        return Exit.NOT_SENT if error.temporary else Exit.REFUSED
    return Exit.NOT_SENT
