"""Bounces and delay notices: written as RFC 3464 wants them, read as others write them."""

import email
import email.policy
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from smtp_async import Address, EnhancedCode, Envelope, Message, Recipient, Reply
from smtp_async.errors import InvalidAddress, InvalidArgument
from smtp_async.model.dsn import DSN, Notify
from smtp_async.processor.bounce import (
    EXPIRED,
    Notice,
    ReportOptions,
    bounce,
    delay_notice,
    parse_report,
    status_of,
)
from smtp_async.processor.policy import Fate, Sentence

NOW = 1_790_000_000.0
ORIGINAL = Message(
    sender="ann@example.com",
    to="bob@example.org",
    subject="Hello",
    text="Hi Bob\n",
    message_id="<1@example.com>",
).as_bytes()
HERE = ReportOptions(reporting="mx.example.com")


def failed(address: str, text: str = "550 5.1.1 no such user", **options: Any) -> Sentence:
    reply = Reply(int(text[:3]), (text[4:].encode(),)) if text else None
    return Sentence(Recipient(address, dsn=options.pop("dsn", None)), Fate.FAIL, reply, **options)


def bounced(
    *sentences: Sentence, original: bytes = ORIGINAL, sender: str | Address = "ann@example.com", **options
) -> Notice:
    options = {"options": HERE, "key": "job-1", "now": NOW, "remote": "mx.example.org", **options}
    notice = bounce(original, Envelope(sender, [one.recipient for one in sentences]), sentences, **options)
    assert notice is not None
    return notice


def parts(notice: Notice) -> list[Any]:
    message = email.message_from_bytes(notice.source, policy=email.policy.SMTP)
    assert message.get_content_type() == "multipart/report"
    assert message.get_param("report-type") == "delivery-status"
    assert not message.defects
    return list(message.iter_parts())


# --- writing -------------------------------------------------------------------------------------------------


def test_a_bounce_goes_to_the_sender_from_nobody() -> None:
    notice = bounced(failed("bob@example.org"))
    envelope = notice.envelope()
    assert envelope.sender is None
    assert [str(one.address) for one in envelope.recipients] == ["ann@example.com"]
    message = email.message_from_bytes(notice.source, policy=email.policy.SMTP)
    assert message["To"] == "ann@example.com"
    assert message["From"] == "Mail delivery <MAILER-DAEMON@mx.example.com>"
    assert message["Auto-Submitted"] == "auto-replied"
    assert message["In-Reply-To"] == "<1@example.com>"
    assert message["Message-ID"].endswith("@mx.example.com>")
    assert notice.source.isascii() and b"\n" not in notice.source.replace(b"\r\n", b"")


@pytest.mark.parametrize("sender", ["a..b@example.com", "ann@mail_host.example"])
def test_a_bounce_goes_to_a_sender_that_no_rfc_allows(sender: str) -> None:
    address = Address.parse(f"Ann <{sender}>", lenient=True)
    notice = bounced(failed("bob@example.org"), sender=address)
    assert notice.recipient.wire(utf8=False) == sender.encode()
    assert f"\r\nTo: {sender}\r\n".encode() in notice.source


def test_the_three_parts() -> None:
    text, status, original = parts(bounced(failed("bob@example.org"), arrived=NOW - 60))
    assert "bob@example.org" in text.get_content()
    assert "550 5.1.1 no such user" in text.get_content()
    assert status.get_content_type() == "message/delivery-status"
    whole, one = status.get_payload()
    assert whole["Reporting-MTA"] == "dns; mx.example.com"
    assert whole["Arrival-Date"] is not None
    assert one["Final-Recipient"] == "rfc822; bob@example.org"
    assert (one["Action"], one["Status"]) == ("failed", "5.1.1")
    assert one["Remote-MTA"] == "dns; mx.example.org"
    assert one["Diagnostic-Code"] == "smtp; 550 5.1.1 no such user"
    assert original.get_content_type() == "text/rfc822-headers"
    assert "Subject: Hello" in original.get_content() and "Hi Bob" not in original.get_content()


def test_several_recipients_are_told_of_one_by_one() -> None:
    notice = bounced(failed("bob@example.org"), failed("cid@example.org", "554 5.7.1 spam"))
    report = parse_report(notice.source)
    assert [(one.address, str(one.status), one.code) for one in report.recipients] == [
        ("bob@example.org", "5.1.1", 550),
        ("cid@example.org", "5.7.1", 554),
    ]


def test_the_whole_message_comes_back_if_wanted() -> None:
    options = ReportOptions(reporting="mx.example.com", whole=True)
    *_, original = parts(bounced(failed("bob@example.org"), options=options))
    assert original.get_content_type() == "message/rfc822"
    assert original.get_content()["Subject"] == "Hello"
    assert parse_report(bounced(failed("bob@example.org"), options=options).source).original.endswith(
        b"Hi Bob\n"
    )


@pytest.mark.parametrize(
    "original",
    [
        ORIGINAL + b"x\r\n" * 100_000,
        ORIGINAL + b"x" * 2000 + b"\r\n",
        ORIGINAL + "ä".encode() + b"\r\n",
        ORIGINAL + b"\0\r\n",
    ],
    ids=["large", "long line", "eight bits", "NUL"],
)
def test_what_cannot_travel_comes_back_as_its_header(original: bytes) -> None:
    options = ReportOptions(reporting="mx.example.com", whole=True)
    *_, last = parts(bounced(failed("bob@example.org"), original=original, options=options))
    assert last.get_content_type() == "text/rfc822-headers"


def test_a_header_with_other_letters_comes_back_encoded() -> None:
    original = "From: ä@example.com\r\nSubject: grüße\r\n\r\nx\r\n".encode()
    notice = bounced(failed("bob@example.org"), original=original)
    assert notice.source.isascii()
    assert parse_report(notice.source).original.decode() == "From: ä@example.com\nSubject: grüße\n"


def test_an_endless_header_is_cut_at_a_line() -> None:
    original = b"".join(b"X-%d: y\r\n" % number for number in range(20_000))
    report = parse_report(bounced(failed("bob@example.org"), original=original).source)
    assert len(report.original) < 66_000 and report.original.endswith(b": y\n")


def test_an_address_of_other_letters_is_escaped() -> None:
    notice = bounced(failed("grün@bücher.example"))
    assert "utf-8; gr\\x{FC}n@b\\x{FC}cher.example" in notice.source.decode()
    assert parse_report(notice.source).recipients[0].address == "grün@bücher.example"


def test_a_domain_of_other_letters_is_written_in_ascii() -> None:
    assert parse_report(bounced(failed("bob@bücher.example")).source).recipients[0].address == (
        "bob@xn--bcher-kva.example"
    )


@pytest.mark.parametrize(
    "text",
    [
        "550 no\r\nX-Evil: yes",
        "550 no\n\nFinal-Recipient: rfc822; x@y.test",
        "550 \x1b[2J\u202e\x00",
        "550 " + "y" * 9000,
    ],
)
def test_what_a_server_says_stays_on_its_line(text: str) -> None:
    notice = bounced(failed("bob@example.org", text))
    assert notice.source.isascii()
    assert max(map(len, notice.source.split(b"\r\n"))) < 998
    (_, status, _) = parts(notice)
    assert [group.keys() for group in status.get_payload()][1:] == [
        ["Final-Recipient", "Action", "Status", "Remote-MTA", "Diagnostic-Code", "Last-Attempt-Date"]
    ]
    assert len(parse_report(notice.source).recipients) == 1


def test_the_same_failure_makes_the_same_report() -> None:
    again = [bounced(failed("bob@example.org")) for _ in range(2)]
    assert again[0].source == again[1].source and again[0].key == again[1].key
    assert bounced(failed("bob@example.org"), key="job-2").key != again[0].key


@given(st.text(max_size=100))
@example("\n\r\0")
@example("ä" * 100)
def test_any_key_makes_a_message(key: str) -> None:
    message = email.message_from_bytes(bounced(failed("bob@example.org"), key=key).source)
    assert message["Message-ID"].startswith("<") and len(message.get_payload()) == 3


# --- nobody wants it -----------------------------------------------------------------------------------------


def test_never_a_report_about_a_report() -> None:
    one = failed("bob@example.org")
    notice = bounced(one)
    envelope = notice.envelope()
    again = bounce(notice.source, envelope, [failed("ann@example.com")], key="k", now=NOW, options=HERE)
    assert again is None


@pytest.mark.parametrize(
    ("notify", "told"),
    [
        (None, True),
        (Notify.FAILURE, True),
        (Notify.FAILURE | Notify.DELAY, True),
        (Notify.NEVER, False),
        (Notify.SUCCESS, False),
        (Notify.DELAY, False),
    ],
)
def test_notify_is_obeyed(notify: Notify | None, told: bool) -> None:
    one = failed("bob@example.org", dsn=DSN(notify=notify))
    notice = bounce(
        ORIGINAL, Envelope("ann@example.com", [one.recipient]), [one], key="k", now=NOW, options=HERE
    )
    assert (notice is not None) is told


def test_only_those_are_named_who_may_be() -> None:
    notice = bounced(failed("bob@example.org"), failed("cid@example.org", dsn=DSN(notify=Notify.NEVER)))
    assert [one.address for one in parse_report(notice.source).recipients] == ["bob@example.org"]
    assert b"cid@" not in notice.source


def test_the_address_as_it_was_given_is_told() -> None:
    one = failed("bob@example.org", dsn=DSN(orcpt="robert@example.net"))
    assert parse_report(bounced(one).source).recipients[0].original == "robert@example.net"


# --- delays --------------------------------------------------------------------------------------------------


def test_a_delay_notice() -> None:
    late = Sentence(Recipient("bob@example.org"), Fate.DEFER, Reply(451, (b"4.7.1 greylisted",)))
    notice = delay_notice(
        ORIGINAL,
        Envelope("ann@example.com", ["bob@example.org"]),
        [late],
        key="job-1",
        now=NOW,
        until=NOW + 86400,
        options=HERE,
    )
    assert notice is not None
    one = parse_report(notice.source).recipients[0]
    assert (one.action, str(one.status), one.failed) == ("delayed", "4.7.1", False)
    assert one.retry_until is not None
    assert "need not send it again" in parse_report(notice.source).text
    assert notice.key != bounced(failed("bob@example.org")).key


@pytest.mark.parametrize(
    ("sentence", "status"),
    [
        (failed("a@b.test"), "5.1.1"),
        (failed("a@b.test", "550 no"), "5.0.0"),
        (failed("a@b.test", "450 4.2.0 no"), "4.2.0"),
        (failed("a@b.test", "", reason=f"{EXPIRED}: no route"), "4.4.7"),
        (failed("a@b.test", "", reason="the message is too large"), "5.0.0"),
    ],
)
def test_the_status_of_a_recipient(sentence: Sentence, status: str) -> None:
    assert str(status_of(sentence)) == status


def test_without_a_reply_the_reason_is_told() -> None:
    notice = bounced(failed("bob@example.org", "", reason=f"{EXPIRED}: no route to host"))
    report = parse_report(notice.source)
    assert "no route to host" in report.text and report.recipients[0].diagnostic == ""


def test_options_are_checked() -> None:
    for wrong in ("two words", "x\r\ny", ""):
        with pytest.raises(InvalidAddress):
            ReportOptions(reporting=wrong)
    with pytest.raises(InvalidAddress):
        ReportOptions(sender="nobody")


def test_names_stand_in_a_report_as_a_labels() -> None:
    options = ReportOptions(reporting="mail.bücher.example")
    assert options.reporting == "mail.xn--bcher-kva.example"
    notice = bounced(failed("bob@example.org"), sender="ann@bücher.example", options=options)
    assert parse_report(notice.source).reporting == "mail.xn--bcher-kva.example"
    assert not notice.content().utf8 and notice.source.isascii()


def test_the_sender_of_reports_can_be_chosen() -> None:
    options = ReportOptions(reporting="mx.example.com", sender="Post <post@example.com>")
    message = email.message_from_bytes(bounced(failed("bob@example.org"), options=options).source)
    assert message["From"] == "Post <post@example.com>"


def test_a_notice_is_sent_as_it_is() -> None:
    notice = bounced(failed("bob@example.org"))
    content = notice.content()
    assert content.join() == notice.source and not (content.eightbit or content.utf8 or content.binary)
    assert "ann@example.com" in repr(notice)


# --- reading -------------------------------------------------------------------------------------------------

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


def test_a_report_of_postfix() -> None:
    report = parse_report(POSTFIX)
    assert (report.reporting, report.envelope_id) == ("mx.lab.test", "QQ314159")
    assert report.arrival == "Sun, 22 Nov 2026 09:59:59 +0000 (UTC)"
    (one,) = report.recipients
    assert (one.address, one.original) == ("bob@remote.test", "robert@remote.test")
    assert one.failed and one.status == EnhancedCode(5, 1, 1) and one.code == 550
    assert one.diagnostic == "550 5.1.1 no such user" and one.remote == "127.0.0.1"
    assert report.message_id == "<42@lab.test>"
    assert "said: 550" in report.text and report.original.endswith(b"Hi")


def test_a_report_of_exim() -> None:
    report = parse_report(EXIM)
    (one,) = report.recipients
    assert (one.address, one.action, str(one.status)) == ("bob@remote.test", "failed", "5.0.0")
    assert report.message_id == "<43@lab.test>"


@pytest.mark.parametrize("data", [POSTFIX, EXIM], ids=["postfix", "exim"])
def test_line_ends_do_not_matter(data: bytes) -> None:
    lines = data.replace(b"\r\n", b"\n")
    assert parse_report(lines) == parse_report(lines.replace(b"\n", b"\r\n")) == parse_report(data)


def test_a_report_without_a_group_for_the_message() -> None:
    data = EXIM.replace(b"Reporting-MTA: dns; mx.lab.test\n\n", b"")
    report = parse_report(data)
    assert report.reporting == "" and len(report.recipients) == 1


def test_a_report_that_was_cut_off() -> None:
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
def test_what_is_no_report_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidArgument, match="not a delivery report"):
        parse_report(data)


def test_too_large_a_report_is_not_read() -> None:
    with pytest.raises(InvalidArgument, match="limit"):
        parse_report(POSTFIX, limit=100)


def test_hostile_reports_take_no_longer_than_others() -> None:
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
def test_any_octets_are_a_report_or_none(pieces: list[bytes]) -> None:
    head = b"Content-Type: multipart/report; boundary=1763805600-eximdsn-1234567890\n\n"
    try:
        report = parse_report(head + b"".join(pieces))
    except InvalidArgument:
        return
    assert isinstance(report.text, str) and isinstance(report.message_id, str | None)
    for one in report.recipients:
        assert one.code is None or 200 <= one.code < 600


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)
LOCALS = st.from_regex(r"[a-zäöü0-9]{1,20}", fullmatch=True)


@given(LOCALS, TEXTS, st.integers(400, 599), TEXTS)
def test_what_is_written_is_read(local: str, text: str, code: int, reason: str) -> None:
    reply = Reply(code, (text.encode(),))
    one = Sentence(Recipient(Address(local, "example.org")), Fate.FAIL, reply, reason)
    report = parse_report(bounced(one).source)
    (found,) = report.recipients
    assert found.address == str(one.recipient.address) and found.code == code
    assert found.status == status_of(one)
    assert report.message_id == "<1@example.com>" and report.reporting == "mx.example.com"
