"""Bounces and delay notices are written as RFC 3464 defines them."""

import email
import email.policy
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from smtp_async import Address, Envelope, Message, Recipient, Reply
from smtp_async.errors import InvalidAddress
from smtp_async.model.dsn import DSN, Notify
from smtp_async.processor.bounce import Notice, ReportOptions, bounce, delay_notice, parse_report, status_of
from smtp_async.processor.results import EXPIRED, Fate, RecipientResult

NOW = 1_790_000_000.0
ORIGINAL = Message(
    sender="ann@example.com",
    to="bob@example.org",
    subject="Hello",
    text="Hi Bob\n",
    message_id="<1@example.com>",
).as_bytes()
HERE = ReportOptions(reporting="mx.example.com")


def failed(address: str, text: str = "550 5.1.1 no such user", **options: Any) -> RecipientResult:
    reply = Reply(int(text[:3]), (text[4:].encode(),)) if text else None
    return RecipientResult(Recipient(address, dsn=options.pop("dsn", None)), Fate.FAILED, reply, **options)


def bounced(
    *results: RecipientResult,
    original: bytes = ORIGINAL,
    sender: str | Address = "ann@example.com",
    **options,
) -> Notice:
    options = {"options": HERE, "key": "job-1", "now": NOW, "remote": "mx.example.org", **options}
    notice = bounce(original, Envelope(sender, [one.recipient for one in results]), results, **options)
    assert notice is not None
    return notice


def parts(notice: Notice) -> list[Any]:
    message = email.message_from_bytes(notice.source, policy=email.policy.SMTP)
    assert message.get_content_type() == "multipart/report"
    assert message.get_param("report-type") == "delivery-status"
    assert not message.defects
    return list(message.iter_parts())


# --- writing -------------------------------------------------------------------------------------------------


def test_a_bounce_goes_to_the_sender_with_an_empty_return_path() -> None:
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
def test_a_bounce_goes_to_a_sender_with_an_invalid_address(sender: str) -> None:
    address = Address.parse(f"Ann <{sender}>", lenient=True)
    notice = bounced(failed("bob@example.org"), sender=address)
    assert notice.recipient.wire(utf8=False) == sender.encode()
    assert f"\r\nTo: {sender}\r\n".encode() in notice.source


def test_a_bounce_has_three_parts() -> None:
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


def test_each_recipient_has_its_own_fields() -> None:
    notice = bounced(failed("bob@example.org"), failed("cid@example.org", "554 5.7.1 spam"))
    report = parse_report(notice.source)
    assert [(one.address, str(one.status), one.code) for one in report.recipients] == [
        ("bob@example.org", "5.1.1", 550),
        ("cid@example.org", "5.7.1", 554),
    ]


def test_the_whole_message_is_returned_if_wanted() -> None:
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
def test_of_a_message_that_cannot_be_returned_the_header_is(original: bytes) -> None:
    options = ReportOptions(reporting="mx.example.com", whole=True)
    *_, last = parts(bounced(failed("bob@example.org"), original=original, options=options))
    assert last.get_content_type() == "text/rfc822-headers"


def test_a_header_that_is_not_ascii_is_returned_encoded() -> None:
    original = "From: ä@example.com\r\nSubject: grüße\r\n\r\nx\r\n".encode()
    notice = bounced(failed("bob@example.org"), original=original)
    assert notice.source.isascii()
    assert parse_report(notice.source).original.decode() == "From: ä@example.com\nSubject: grüße\n"


def test_an_endless_header_is_cut_at_a_line() -> None:
    original = b"".join(b"X-%d: y\r\n" % number for number in range(20_000))
    report = parse_report(bounced(failed("bob@example.org"), original=original).source)
    assert len(report.original) < 66_000 and report.original.endswith(b": y\n")


def test_an_address_that_is_not_ascii_is_escaped() -> None:
    notice = bounced(failed("grün@bücher.example"))
    assert "utf-8; gr\\x{FC}n@b\\x{FC}cher.example" in notice.source.decode()
    assert parse_report(notice.source).recipients[0].address == "grün@bücher.example"


def test_a_domain_that_is_not_ascii_is_written_in_a_labels() -> None:
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
def test_the_text_of_a_reply_cannot_begin_another_field(text: str) -> None:
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


# --- reports not written -------------------------------------------------------------------------------------


def test_no_report_is_written_about_a_report() -> None:
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


def test_recipients_that_must_not_be_reported_are_not_named() -> None:
    notice = bounced(failed("bob@example.org"), failed("cid@example.org", dsn=DSN(notify=Notify.NEVER)))
    assert [one.address for one in parse_report(notice.source).recipients] == ["bob@example.org"]
    assert b"cid@" not in notice.source


def test_the_original_recipient_is_reported() -> None:
    one = failed("bob@example.org", dsn=DSN(orcpt="robert@example.net"))
    assert parse_report(bounced(one).source).recipients[0].original == "robert@example.net"


# --- delay notices -------------------------------------------------------------------------------------------


def test_a_delay_notice_says_until_when_the_message_is_tried() -> None:
    late = RecipientResult(Recipient("bob@example.org"), Fate.DEFERRED, Reply(451, (b"4.7.1 greylisted",)))
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
    ("result", "status"),
    [
        (failed("a@b.test"), "5.1.1"),
        (failed("a@b.test", "550 no"), "5.0.0"),
        (failed("a@b.test", "450 4.2.0 no"), "4.2.0"),
        (failed("a@b.test", "", reason=f"{EXPIRED}: no route"), "4.4.7"),
        (failed("a@b.test", "", reason="the message is too large"), "5.0.0"),
    ],
)
def test_the_status_of_a_recipient(result: RecipientResult, status: str) -> None:
    assert str(status_of(result)) == status


def test_without_a_reply_the_reason_is_reported() -> None:
    notice = bounced(failed("bob@example.org", "", reason=f"{EXPIRED}: no route to host"))
    report = parse_report(notice.source)
    assert "no route to host" in report.text and report.recipients[0].diagnostic == ""


def test_options_are_checked() -> None:
    for wrong in ("two words", "x\r\ny", ""):
        with pytest.raises(InvalidAddress):
            ReportOptions(reporting=wrong)
    with pytest.raises(InvalidAddress):
        ReportOptions(sender="nobody")


def test_domains_are_written_as_a_labels() -> None:
    options = ReportOptions(reporting="mail.bücher.example")
    assert options.reporting == "mail.xn--bcher-kva.example"
    notice = bounced(failed("bob@example.org"), sender="ann@bücher.example", options=options)
    assert parse_report(notice.source).reporting == "mail.xn--bcher-kva.example"
    assert not notice.content().utf8 and notice.source.isascii()


def test_the_sender_of_reports_can_be_chosen() -> None:
    options = ReportOptions(reporting="mx.example.com", sender="Post <post@example.com>")
    message = email.message_from_bytes(bounced(failed("bob@example.org"), options=options).source)
    assert message["From"] == "Post <post@example.com>"


def test_a_notice_is_sent_unchanged() -> None:
    notice = bounced(failed("bob@example.org"))
    content = notice.content()
    assert content.join() == notice.source and not (content.eightbit or content.utf8 or content.binary)
    assert "ann@example.com" in repr(notice)


# --- written and read ----------------------------------------------------------------------------------------


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)
LOCALS = st.from_regex(r"[a-zäöü0-9]{1,20}", fullmatch=True)


@given(LOCALS, TEXTS, st.integers(400, 599), TEXTS)
def test_a_report_that_was_written_can_be_read(local: str, text: str, code: int, reason: str) -> None:
    reply = Reply(code, (text.encode(),))
    one = RecipientResult(Recipient(Address(local, "example.org")), Fate.FAILED, reply, reason)
    report = parse_report(bounced(one).source)
    (found,) = report.recipients
    assert found.address == str(one.recipient.address) and found.code == code
    assert found.status == status_of(one)
    assert report.message_id == "<1@example.com>" and report.reporting == "mx.example.com"
