"""The exit codes of `sendmail`, which the programs that call it know from `sysexits.h`."""

from __future__ import annotations

import errno
from enum import IntEnum
from typing import Final

from ..errors import (
    AuthenticationFailed,
    AuthenticationUnavailable,
    FeatureUnavailable,
    FileError,
    InvalidAddress,
    InvalidHeader,
    MissingRecipient,
    ProtocolViolation,
    ResolveError,
    SigningError,
    SMTPError,
    SpoolError,
    SpoolUnsafe,
    TLSError,
    UsageError,
)
from ..model.receipt import Outcome, Receipt
from ..model.reply import Reply

__all__ = ["SysExit", "sysexit_for_error", "sysexit_for_receipt"]


class SysExit(IntEnum):
    """What became of the message, as far as the caller has to know."""

    OK = 0
    USAGE = 64
    DATAERR = 65
    NOUSER = 67
    NOHOST = 68
    UNAVAILABLE = 69
    SOFTWARE = 70
    CANTCREAT = 73
    IOERR = 74
    TEMPFAIL = 75
    PROTOCOL = 76
    NOPERM = 77
    CONFIG = 78


_NO_PERMISSION: Final = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
#: Replies that say that there is no such mailbox (RFC 5321 section 4.2.3).
_NO_MAILBOX: Final = frozenset({550, 551, 553})


def sysexit_for_receipt(receipt: Receipt) -> SysExit:
    """Return 0 only if every recipient was accepted.

    A message that may have been delivered is a temporary failure: a caller that tries again makes a second copy at
    worst, where any other code would lose the message.
    """
    if receipt.outcome is Outcome.ACCEPTED:
        return SysExit.OK
    refused = [one for one in receipt.refused if not one.temporary]
    if not refused:
        return SysExit.TEMPFAIL
    return SysExit.NOUSER if all(_no_mailbox(one.reply) for one in refused) else SysExit.UNAVAILABLE


def _no_mailbox(reply: Reply | None) -> bool:
    if reply is None or reply.code not in _NO_MAILBOX:
        return False
    return reply.enhanced is None or reply.enhanced.subject == 1


def sysexit_for_error(error: SMTPError) -> SysExit:
    """Return the code for an error that no recipient's reply explains."""
    receipt = Receipt.of(error)
    if receipt is not None and (receipt.unknown or receipt.refused):
        return sysexit_for_receipt(receipt)
    if isinstance(error, SpoolError):
        return SysExit.CANTCREAT if _lasting(error) else SysExit.TEMPFAIL
    if error.temporary:
        return SysExit.TEMPFAIL
    for kinds, code in _CODES:
        if isinstance(error, kinds):
            return code
    return SysExit.UNAVAILABLE


def _lasting(error: SpoolError) -> bool:
    return isinstance(error, SpoolUnsafe) or error.errno in _NO_PERMISSION or not error.temporary


#: The first that fits counts.
_CODES: Final[tuple[tuple[type[SMTPError] | tuple[type[SMTPError], ...], SysExit], ...]] = (
    (MissingRecipient, SysExit.USAGE),
    ((InvalidAddress, InvalidHeader), SysExit.DATAERR),
    ((FeatureUnavailable, FileError, TLSError, AuthenticationUnavailable, SigningError), SysExit.CONFIG),
    (AuthenticationFailed, SysExit.NOPERM),
    (ResolveError, SysExit.NOHOST),
    (ProtocolViolation, SysExit.PROTOCOL),
    (UsageError, SysExit.CONFIG),
)
