"""Which error and which result lead to which exit code."""

import errno

import pytest

import smtp_async
from smtp_async import errors
from smtp_async.cli.exits import Exit, exit_for_error, exit_for_report
from smtp_async.model.receipt import Outcome, Receipt, Verdict
from smtp_async.model.reply import Reply
from smtp_async.processor import QueueReport, Unfinished

RECIPIENT = smtp_async.Recipient("bob@example.org")


def refused(cls, code, **more):
    return cls("no", reply=Reply(code, (b"no",)), **more)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.OutcomeUnknown("?"), Exit.UNKNOWN),
        (
            errors.ProtocolViolation("?", receipt=Receipt((Verdict(RECIPIENT, Outcome.UNKNOWN),))),
            Exit.UNKNOWN,
        ),
        (errors.InvalidAddress("?"), Exit.USAGE),
        (errors.MissingRecipient("?"), Exit.USAGE),
        (errors.FileError("?"), Exit.USAGE),
        (errors.FeatureUnavailable("?", needs="x"), Exit.SETUP),
        (errors.ChainNotFound("?"), Exit.SETUP),
        (errors.StartTLSUnavailable("?"), Exit.SETUP),
        (refused(errors.StartTLSRefused, 454), Exit.SETUP),
        (errors.AuthenticationUnavailable("?"), Exit.SETUP),
        (refused(errors.AuthenticationFailed, 535), Exit.SETUP),
        (refused(errors.AuthenticationFailed, 454), Exit.NOT_SENT),
        (errors.ResolveError("?", code=11001), Exit.SETUP),
        (errors.ResolveError("?", code=11002), Exit.NOT_SENT),
        (errors.SigningError("?"), Exit.SETUP),
        (errors.SignerUnavailable("?"), Exit.NOT_SENT),
        (refused(errors.RecipientsRefused, 550), Exit.REFUSED),
        (refused(errors.RecipientsRefused, 450), Exit.NOT_SENT),
        (errors.MessageTooLarge("?"), Exit.REFUSED),
        (errors.TooManyRecipients("?"), Exit.REFUSED),
        (errors.NotConnected("?"), Exit.NOT_SENT),
        (errors.NotSent("?"), Exit.NOT_SENT),
        (errors.Timeout("?"), Exit.NOT_SENT),
        (errors.ConnectionLost("?"), Exit.NOT_SENT),
        (errors.NoSuchJob("?"), Exit.USAGE),
        (errors.Busy("?"), Exit.NOT_SENT),
        (errors.SpoolFull("?"), Exit.NOT_SENT),
        (errors.SpoolError.of(OSError(errno.EIO, "?"), "?"), Exit.NOT_SENT),
        (errors.SpoolError.of(OSError(errno.EACCES, "?"), "?"), Exit.SETUP),
        (errors.SpoolUnsafe("?"), Exit.SETUP),
        (errors.RecordInvalid("?"), Exit.SETUP),
    ],
)
def test_each_error_has_an_exit_code(error, code):
    assert exit_for_error(error) is code


FAILED, UNKNOWN, DEFERRED = Unfinished("a", "550 no"), Unfinished("b", "unknown"), Unfinished("c", "450", 1.0)


@pytest.mark.parametrize(
    ("report", "code"),
    [
        (QueueReport(), Exit.OK),
        (QueueReport(sent=("x",)), Exit.OK),
        (QueueReport(sent=("x",), deferred=(DEFERRED,)), Exit.NOT_SENT),
        (QueueReport(deferred=(DEFERRED,), failed=(FAILED,)), Exit.REFUSED),
        (QueueReport(failed=(FAILED, UNKNOWN, FAILED)), Exit.UNKNOWN),
        (QueueReport(failed=(FAILED,), error=errors.SMTPError("the job a failed")), Exit.REFUSED),
        (QueueReport(failed=(UNKNOWN,), error=errors.ChainNotFound("?")), Exit.SETUP),
        (QueueReport(sent=("x",), error=errors.NotConnected("?")), Exit.NOT_SENT),
        (QueueReport(error=RuntimeError("?")), Exit.NOT_SENT),
    ],
)
def test_each_report_has_an_exit_code(report, code):
    assert exit_for_report(report) is code
