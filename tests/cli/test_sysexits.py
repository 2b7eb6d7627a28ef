"""The exit codes of `sendmail`."""

import errno
import os

import pytest

from smtp_async import Outcome, Receipt, Recipient, Reply, Verdict, errors
from smtp_async.cli.sysexits import SysExit, sysexit_for_error, sysexit_for_receipt

OK, REFUSED, NOT_SENT, UNKNOWN = Outcome.ACCEPTED, Outcome.REFUSED, Outcome.NOT_SENT, Outcome.UNKNOWN


def receipt(*ends):
    verdicts = []
    for end in ends:
        reply = end if isinstance(end, Reply) else None
        outcome = REFUSED if isinstance(end, Reply) else end
        verdicts.append(Verdict(Recipient("bob@example.org"), outcome, reply))
    return Receipt((*verdicts,), None, None, None, 0)


def reply(code, text=b""):
    return Reply(code, (text,))


def of_the_system(number):
    error = errors.SpoolError("x")
    error.errno = number
    return error


@pytest.mark.parametrize(
    ("ends", "code"),
    [
        ([OK], SysExit.OK),
        ([OK, reply(550, b"5.1.1 nobody")], SysExit.NOUSER),
        ([reply(550)], SysExit.NOUSER),
        ([reply(550, b"5.7.1 no")], SysExit.UNAVAILABLE),
        ([reply(554, b"5.1.1 no")], SysExit.UNAVAILABLE),
        ([reply(550), reply(554)], SysExit.UNAVAILABLE),
        ([reply(450)], SysExit.TEMPFAIL),
        ([reply(450), reply(550)], SysExit.NOUSER),
        ([NOT_SENT], SysExit.TEMPFAIL),
        ([UNKNOWN], SysExit.TEMPFAIL),
    ],
)
def test_receipts(ends, code):
    assert sysexit_for_receipt(receipt(*ends)) == code
    error = errors.RecipientsRefused("no", receipt=receipt(*ends))
    assert ends in ([OK], [NOT_SENT]) or sysexit_for_error(error) == code


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.InvalidArgument("x"), SysExit.CONFIG),
        (errors.InvalidAddress("x"), SysExit.DATAERR),
        (errors.MissingRecipient("x"), SysExit.USAGE),
        (errors.FileError("x"), SysExit.CONFIG),
        (errors.FeatureUnavailable("x", needs="smtp-async[oauth]"), SysExit.CONFIG),
        (errors.ConnectionLost("x"), SysExit.TEMPFAIL),
        (errors.Timeout("x"), SysExit.TEMPFAIL),
        (errors.NotSent("x"), SysExit.TEMPFAIL),
        (errors.ProtocolViolation("x"), SysExit.PROTOCOL),
        (errors.CertificateRejected("x"), SysExit.CONFIG),
        (errors.AuthenticationFailed("x", reply=reply(535)), SysExit.NOPERM),
        (errors.AuthenticationFailed("x", reply=reply(454)), SysExit.TEMPFAIL),
        (errors.GreetingRefused("x", reply=reply(554)), SysExit.UNAVAILABLE),
        (errors.ExtensionMissing("x"), SysExit.UNAVAILABLE),
        (errors.SpoolFull("x"), SysExit.TEMPFAIL),
        (errors.SpoolUnsafe("x"), SysExit.CANTCREAT),
        (of_the_system(errno.EACCES), SysExit.CANTCREAT),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_errors(error, code):
    assert sysexit_for_error(error) == code


@pytest.mark.skipif(os.name != "posix", reason="sysexits.h")
@pytest.mark.parametrize("code", SysExit)
def test_the_numbers_are_those_of_the_system(code):
    assert code == getattr(os, f"EX_{code.name}")
