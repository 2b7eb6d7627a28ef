"""Delivery reports are read, as this library and other mail systems write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtp_async import EnhancedCode
from smtp_async.errors import InvalidArgument
from smtp_async.processor.bounce_parser import parse_report

#: A failure in the form that Postfix gives it.
POSTFIX = b"""\
Return-Path: <>
Received: by mx.lab.test (Postfix)\r
	id 5A1B2C3D; Sun, 22 Nov 2026 10:00:00 +0000 (UTC)\r
Date: Sun, 22 Nov 2026 10:00:00 +0000 (UTC)\r
From: MAILER-DAEMON@mx.lab.test (Mail Delivery System)\r
Subject: Undelivered Mail Returned to Sender\r
To: ann@lab.test\r
Auto-Submitted: auto-replied\r
MIME-Version: 1.0\r
Content-Type: multipart/report; report-type=delivery-status;\r
	boundary="4DfX2k1Yz3z9.1763805600/mx.lab.test"\r
Content-Transfer-Encoding: 8bit\r
Message-Id: <20261122100000.5A1B2C3D@mx.lab.test>\r
\r
This is a MIME-encapsulated message.\r
\r
--4DfX2k1Yz3z9.1763805600/mx.lab.test\r
Content-Description: Notification\r
Content-Type: text/plain; charset=utf-8\r
Content-Transfer-Encoding: 8bit\r
\r
This is the mail system at host mx.lab.test.\r
\r
<bob@remote.test>: host 127.0.0.1[127.0.0.1] said: 550 5.1.1\r
    no such user (in reply to RCPT TO command)\r
\r
--4DfX2k1Yz3z9.1763805600/mx.lab.test\r
Content-Description: Delivery report\r
Content-Type: message/delivery-status\r
\r
Reporting-MTA: dns; mx.lab.test\r
Original-Envelope-Id: QQ314159\r
X-Postfix-Queue-ID: 4DfX2k1Yz3z9\r
X-Postfix-Sender: rfc822; ann@lab.test\r
Arrival-Date: Sun, 22 Nov 2026 09:59:59 +0000 (UTC)\r
\r
Final-Recipient: rfc822; bob@remote.test\r
Original-Recipient: rfc822;robert@remote.test\r
Action: failed\r
Status: 5.1.1\r
Remote-MTA: dns; 127.0.0.1\r
Diagnostic-Code: smtp; 550 5.1.1\r
    no such user\r
\r
--4DfX2k1Yz3z9.1763805600/mx.lab.test\r
Content-Description: Undelivered Message\r
Content-Type: message/rfc822\r
Content-Transfer-Encoding: 8bit\r
\r
Return-Path: <ann@lab.test>\r
From: ann@lab.test\r
Message-ID:\r
 <42@lab.test>\r
Subject: Hello\r
\r
Hi\r
--4DfX2k1Yz3z9.1763805600/mx.lab.test--\r
"""

#: A failure in the form that Exim gives it.
EXIM = b"""\
Return-path: <>
Auto-Submitted: auto-replied
From: Mail Delivery System <Mailer-Daemon@mx.lab.test>
To: ann@lab.test
References: <43@lab.test>
Content-Type: multipart/report; report-type=delivery-status; boundary=1763805600-eximdsn-1234567890
MIME-Version: 1.0
Subject: Mail delivery failed: returning message to sender
Message-Id: <E1abcd-0001@mx.lab.test>

--1763805600-eximdsn-1234567890
Content-type: text/plain; charset=us-ascii

This message was created automatically by mail delivery software.

  bob@remote.test
    host 127.0.0.1 [127.0.0.1]
    SMTP error from remote mail server after RCPT TO:<bob@remote.test>:
    550 no such user

--1763805600-eximdsn-1234567890
Content-type: message/delivery-status

Reporting-MTA: dns; mx.lab.test

Action: failed
Final-Recipient: rfc822;bob@remote.test
Status: 5.0.0
Remote-MTA: dns; 127.0.0.1
Diagnostic-Code: smtp; 550 no such user

--1763805600-eximdsn-1234567890
Content-type: message/rfc822

Message-Id: <43@lab.test>
From: ann@lab.test

Hi

--1763805600-eximdsn-1234567890--
"""


def test_a_report_of_postfix_is_read() -> None:
    report = parse_report(POSTFIX)
    assert (report.reporting, report.envelope_id) == ("mx.lab.test", "QQ314159")
    assert report.arrival == "Sun, 22 Nov 2026 09:59:59 +0000 (UTC)"
    (one,) = report.recipients
    assert (one.address, one.original) == ("bob@remote.test", "robert@remote.test")
    assert one.failed and one.status == EnhancedCode(5, 1, 1) and one.code == 550
    assert one.diagnostic == "550 5.1.1 no such user" and one.remote == "127.0.0.1"
    assert report.message_id == "<42@lab.test>"
    assert "said: 550" in report.text and report.original.endswith(b"Hi")


def test_a_report_of_exim_is_read() -> None:
    report = parse_report(EXIM)
    (one,) = report.recipients
    assert (one.address, one.action, str(one.status)) == ("bob@remote.test", "failed", "5.0.0")
    assert report.message_id == "<43@lab.test>"


@pytest.mark.parametrize("data", [POSTFIX, EXIM], ids=["postfix", "exim"])
def test_line_ends_do_not_matter(data: bytes) -> None:
    lines = data.replace(b"\r\n", b"\n")
    assert parse_report(lines) == parse_report(lines.replace(b"\n", b"\r\n")) == parse_report(data)


def test_a_report_without_fields_about_the_message_is_read() -> None:
    data = EXIM.replace(b"Reporting-MTA: dns; mx.lab.test\n\n", b"")
    report = parse_report(data)
    assert report.reporting == "" and len(report.recipients) == 1


def test_a_truncated_report_is_read() -> None:
    cut = POSTFIX[: POSTFIX.index(b"Content-Description: Undelivered")]
    report = parse_report(cut)
    assert report.original == b"" and report.message_id is None and len(report.recipients) == 1


def test_encoded_parts_are_decoded() -> None:
    status = (
        b"Reporting-MTA: dns; x.test\n\nFinal-Recipient: rfc822; a@b.test\nAction: =\nfailed\nStatus: 5.0.0\n"
    )
    data = (
        b'Content-Type: Multipart/Report; boundary="a\\"b"\n\n--a"b\n\nhi\n--a"b  \n'
        b"Content-Type: message/delivery-status\nContent-Transfer-Encoding: quoted-printable\n\n" + status
    )
    report = parse_report(data)
    assert report.text == "hi" and report.recipients[0].failed


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"Subject: hi\n\nhello\n",
        b"Content-Type: multipart/mixed; boundary=x\n\n--x\n",
        b"Content-Type: multipart/report\n\n",
        b"Content-Type: multipart/report; boundary=x\n\n--x\nContent-Type: text/plain\n\nhi\n--x--\n",
        b"Content-Type: multipart/report; boundary=" + b"x" * 300 + b"\n\n",
        b"Content-Type: ;;;;\n\n",
    ],
)
def test_a_message_that_is_no_report_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidArgument, match="not a delivery report"):
        parse_report(data)


def test_a_report_above_the_limit_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="limit"):
        parse_report(POSTFIX, limit=100)


def test_hostile_reports_are_read_in_linear_time() -> None:
    head = b"Content-Type: multipart/report; boundary=x"
    many = b"\n\n" + b"--x\n" * 200_000
    groups = b"\n\n--x\nContent-Type: message/delivery-status\n\n" + b"Final-Recipient: a;b\n\n" * 100_000
    folds = b"\n" + b" y\n" * 300_000 + b"\n"
    parameters = b"; a=" + b'"\\' * 300_000 + b"\n\n"
    blanks = b";" + b" " * 500_000 + b"\n\n"
    for rest in (many, folds, parameters, blanks):
        with pytest.raises(InvalidArgument):
            parse_report(head + rest)
    assert len(parse_report(head + groups).recipients) == 100_000


PIECES = [line + b"\n" for line in (*POSTFIX.split(b"\r\n"), *EXIM.split(b"\n"))]


@given(st.lists(st.sampled_from(PIECES) | st.binary(max_size=40), max_size=60))
def test_any_octets_are_a_report_or_refused(pieces: list[bytes]) -> None:
    head = b"Content-Type: multipart/report; boundary=1763805600-eximdsn-1234567890\n\n"
    try:
        report = parse_report(head + b"".join(pieces))
    except InvalidArgument:
        return
    assert isinstance(report.text, str) and isinstance(report.message_id, str | None)
    for one in report.recipients:
        assert one.code is None or 200 <= one.code < 600
