"""convert.py: messages that somebody else made become a Message, and the other way round."""

import email
import email.policy
from datetime import UTC, datetime
from email.header import Header
from email.message import EmailMessage
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtp_async.errors import InvalidHeader, SMTPError
from smtp_async.message import Importance, Message, XPriority
from smtp_async.model.address import Address
from smtp_async.model.envelope import Kind

from .reading import check_wire_form, parsed


def full(**arguments: Any):
    given: dict[str, Any] = {
        "sender": "Jörg Müller <ann@example.com>",
        "to": '"Müller, Ünal" <b@x>, c@y',
        "cc": "日本 <d@x>",
        "subject": "Grüße 😀",
        "text": "Hallo\n.\n",
        "html": '<img src="cid:logo@x">\n',
        "reply_to": "r@x",
        "in_reply_to": "a@b",
        "references": "<a@b> <c@d>",
        "importance": "high",
        "x_priority": 2,
        "mailer": "M 1",
        "list_unsubscribe": ["https://x.y/", "mailto:u@x"],
        "read_receipt_to": "Jörg <q@x>",
        "headers": [("X-A", "1"), ("x-b", "ü"), ("X-A", "2")],
        "date": datetime(2024, 2, 29, 12, tzinfo=UTC),
        "message_id": "1@example.com",
    }
    message = Message(**(given | arguments))
    message.attach(b"\x89PNG", filename="ü.png", cid="logo@x")
    message.attach(b"%PDF", filename="日本語" * 20 + ".pdf", content_type='application/pdf; a="b \\"c\\""')
    message.attach(b"Subject: inner\r\n\r\nx\r\n", filename="old.eml")
    return message


def same(one, other):
    for name in (
        "sender",
        "authors",
        "to",
        "cc",
        "bcc",
        "reply_to",
        "subject",
        "text",
        "html",
        "calendar",
        "raw",
    ):
        assert getattr(one, name) == getattr(other, name), name
    for name in (
        "in_reply_to",
        "references",
        "keywords",
        "comments",
        "importance",
        "x_priority",
        "list_unsubscribe",
    ):
        assert getattr(one, name) == getattr(other, name), name
    assert [(a.address, a.name) for a in one.recipients] == [(a.address, a.name) for a in other.recipients]
    assert [(a.data, a.filename, a.content_type, a.parameters, a.cid) for a in one.attachments] == [
        (a.data, a.filename, a.content_type, a.parameters, a.cid) for a in other.attachments
    ]
    assert one.headers == other.headers


def test_what_we_write_we_read():
    message = full()
    again = Message.from_bytes(message.as_bytes())
    same(again, message)
    assert (
        again.as_bytes().partition(b"\r\n\r\n")[0].split(b"boundary")[0]
        == (message.as_bytes().partition(b"\r\n\r\n")[0].split(b"boundary")[0])
    )
    # Names count nothing in the equality of addresses.
    assert [a.name for a in again.to] == ["Müller, Ünal", ""]
    assert again.read_receipt_to[0].name == "Jörg"  # type: ignore[index]  # not True
    assert (again.importance, again.x_priority) == (Importance.HIGH, XPriority.HIGH)


def test_through_the_standard_library():
    message = full(bcc="s@hidden")
    theirs = message.to_email_message()
    assert isinstance(theirs, EmailMessage)
    assert theirs["Subject"] == "Grüße 😀"
    assert "Bcc" not in theirs
    assert b"hidden" not in theirs.as_bytes()
    with_bcc = message.to_email_message(bcc=True)
    again = Message.from_email_message(with_bcc)
    assert [str(a) for a in again.bcc] == ["s@hidden"]
    message.recipients.sort(key=lambda recipient: recipient.kind is Kind.BCC)
    assert {str(r.address) for r in again.recipients} == {str(r.address) for r in message.recipients}
    assert b"hidden" not in again.as_bytes()


@pytest.mark.parametrize(
    "arguments",
    [
        {"html": None},
        {"text": None},
        {"text": None, "html": None, "calendar": "BEGIN:VCALENDAR\nMETHOD:REQUEST\nEND:VCALENDAR\n"},
        {"calendar": "BEGIN:VCALENDAR\nMETHOD:REQUEST\nEND:VCALENDAR\n"},
        {"text": "", "html": None},
        {"sender": "a@x", "authors": "b@x, c@x"},
        {"sender": None, "authors": "b@x, c@x"},
        {"keywords": "a, b", "comments": "ü", "list_id": "Läst <l.x>", "list_post": "NO"},
    ],
)
def test_shapes(arguments):
    message = full(**arguments)
    if message.html is None:
        del message.attachments[0]
    again = Message.from_bytes(message.as_bytes())
    if message.sender is None:
        message.sender = message.authors[0]
    assert again.raw is None
    same(again, message)


def test_messages_of_both_apis():
    modern = EmailMessage()
    modern["From"], modern["To"], modern["Subject"] = (
        "Jörg <a@x>",
        '"B, C" <b@x>, Ü <c@x>',
        "=?utf-8?q?no_word?= ü",
    )
    modern.set_content("Grüße\n")
    modern.add_alternative("<p>Grüße</p>\n", subtype="html")
    modern.add_attachment(b"x", maintype="application", subtype="pdf", filename="ä.pdf")
    old: Any = MIMEMultipart()
    old["From"], old["To"], old["Subject"] = (
        "a@x",
        Header("Ü", "utf-8").encode() + " <b@x>",
        Header("Grüße", "latin-1"),
    )
    old.attach(MIMEText("Grüße\n", "plain", "latin-1"))
    before = (modern.items(), old.items())
    first, second = Message.from_email_message(modern), Message.from_email_message(old)
    assert (modern.items(), old.items()) == before
    assert [(a.name, str(a)) for a in first.to] == [("B, C", "b@x"), ("Ü", "c@x")]
    assert (first.text, first.html, first.attachments[0].filename) == ("Grüße\n", "<p>Grüße</p>\n", "ä.pdf")
    assert (second.subject, second.text, second.to[0].name) == ("Grüße", "Grüße\n", "Ü")


# --- what is kept whole -------------------------------------------------------------------------------------

PARTS = b"--b\r\nContent-Type: text/plain\r\n\r\none\r\n--b\r\nContent-Type: %s\r\n\r\ntwo\r\n--b--\r\n"


@pytest.mark.parametrize(
    ("kind", "second"),
    [
        ("multipart/signed; protocol=x", "application/pgp-signature"),
        ("multipart/encrypted", "application/octet-stream"),
        ("multipart/report", "message/delivery-status"),
        ("multipart/mixed", "text/plain"),
        ("multipart/mixed", "text/html"),
        ("multipart/alternative", "text/plain"),
        ("multipart/alternative", "text/enriched"),
        ("multipart/related", "image/png"),
        ("multipart/mixed", "multipart/digest; boundary=c"),
    ],
)
def test_a_message_that_attributes_cannot_express_stays_raw(kind, second):
    data = (
        f"From: J <a@x>\r\nTo: b@x\r\nBcc: s@hidden\r\nSubject: s\r\nContent-Type: {kind}; boundary=b\r\n\r\n".encode()
        + PARTS % second.encode()
    )
    message = Message.from_bytes(data)
    assert message.raw == data
    assert (message.text, message.html, message.attachments) == (None, None, [])
    assert (message.subject, str(message.sender), [str(a) for a in message.to]) == ("s", "a@x", ["b@x"])
    assert message.as_bytes() == data.replace(b"Bcc: s@hidden\r\n", b"")


@pytest.mark.parametrize(
    "rest",
    [
        b"Content-Type: application/pdf\r\n\r\nx",
        b"Content-Type: multipart/mixed; boundary=b\r\n\r\nno parts",
        b"Content-Type: text/plain; charset=utf-8\r\n\r\n\xff\xfe",
        b"Resent-From: =?utf-8?b?w7w=?= <r@x>\r\n\r\nx",
        b"Content-Disposition: attachment\r\n\r\nx",
    ],
)
def test_other_messages_that_stay_raw(rest):
    data = b"From: a@x\r\nTo: b@x\r\n" + rest
    assert Message.from_bytes(data).raw == data


def test_mail_as_it_comes():
    data = (
        b"Return-Path: <bounce@x>\r\nReceived: from a\r\n\tby b; Mon, 1 Jan 2024 00:00:00 +0000\r\n"
        b"DKIM-Signature: v=1; a=rsa-sha256;\r\n b=abc\r\n"
        b"From: =?iso-8859-1?q?J=F6rg?= =?iso-8859-1?q?_M=2E?= <a@x>\r\n"
        b"Sender: s@x\r\nCc: c@x\r\nSubject: =?utf-8?b?R3LDvA==?=\r\n"
        b" =?utf-8?q?=C3=9Fe?=\r\nX-Priority: 1\r\nImportance: whatever\r\n"
        b"In-Reply-To: Your message of Monday <1@x>\r\nMIME-Version: 1.0\r\n"
        b"Content-Type: text/plain; charset=ascii; format=flowed\r\n\r\n"
        b"Gr\xc3\xbc\xc3\x9fe\r\n"
    )
    message = Message.from_bytes(data)
    assert message.raw is None
    assert str(message.return_path) == "bounce@x"
    assert (str(message.sender), [a.name for a in message.authors]) == ("s@x", ["Jörg M."])
    assert (message.to, [str(a) for a in message.cc]) == ((), ["c@x"])
    assert (message.subject, message.text, message.flowed) == ("Grüße", "Grüße\n", True)
    assert (message.in_reply_to, message.x_priority) == ((), XPriority.HIGHEST)
    assert message.headers == [
        ("Received", "from a by b; Mon, 1 Jan 2024 00:00:00 +0000"),
        ("DKIM-Signature", "v=1; a=rsa-sha256; b=abc"),
        ("Importance", "whatever"),
        ("In-Reply-To", "Your message of Monday <1@x>"),
    ]
    check_wire_form(message.as_bytes())


@pytest.mark.parametrize(
    "field",
    [
        b"To: undisclosed-recipients:;",
        b"To: Team: b@x, c@x;",
        b"Date: nonsense",
        b"Message-ID: not an id",
        b"Subject: one\r\nSubject: two",
        b"References: <1@x>\r\nReferences: <2@x>",
        b"From: c@x",
        b"Sender: s@x, t@x",
        b"Subject: =?x-unknown?q?=E4?=",
        b"Cc: =?x-unknown?q?=E4?= <c@x>",
        b"Return-Path: nobody",
        b"Received: from a by b\r\nwith SMTP; 1 Jan",
        b">From a@b Mon",
        b"X Y: z",
        b"Cc: not an address",
        b"Received: from \xe4",
        b"Content-Type: text/plain; charset=x-unknown",
        b"Content-Type: text/plain; format=flowed; reply-type=original",
        b"Content-Type: text/plain; name=a.txt",
        b"Content-Transfer-Encoding: x-uuencode",
    ],
)
def test_what_a_header_field_says_is_never_dropped(field):
    data = b"From: a@x\r\n" + field + b"\r\n\r\nx\r\n"
    message = Message.from_bytes(data)
    assert message.raw == message.as_bytes() == data
    assert str(message.sender) == ("s@x" if field.startswith(b"Sender") else "a@x")
    assert message.text is None


@pytest.mark.parametrize("field", [b"Subject : one", b"subject:one", b"SUBJECT\t:\r\n one"])
def test_a_field_may_be_written_oddly(field):
    message = Message.from_bytes(
        b"From: a@x\r\n" + field + b"\r\nBcc : s@hidden\r\nContent-Type : text/html\r\n\r\n<p>"
    )
    assert (message.subject, message.html, [str(a) for a in message.bcc]) == ("one", "<p>", ["s@hidden"])
    assert b"hidden" not in message.as_bytes()


MIXED = (
    b"From: a@x\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n"
    b"--b\r\nContent-Type: text/plain\r\n\r\nhi\r\n--b\r\n%s\r\n--b--\r\n"
)


@pytest.mark.parametrize(
    "part",
    [
        b"Content-Type: application/pdf\r\nContent-Disposition: attachment; filename=a.pdf; size=3;"
        b'\r\n creation-date="Mon, 1 Jan 2024 00:00:00 +0000"\r\n\r\nabc',
        b"Content-Type: application/pdf; name=a.pdf\r\nContent-Disposition: attachment; filename=a.pdf\r\n\r\nabc",
        b"Content-Type: application/pdf; x-mac-type=50\r\nContent-Disposition: inline; filename=a.pdf\r\n\r\nabc",
        b"Content-Type: application/pdf\r\nContent-Description: The =?utf-8?q?f=C3=BCrst?= of all\r\n"
        b"Content-Disposition: attachment; filename=a.pdf\r\nContent-ID: <1@x>\r\n\r\nabc",
    ],
)
def test_what_the_fields_of_a_file_say_is_said_again(part):
    """The parameters, the disposition, the description and the id, for two rounds."""
    message = Message.from_bytes(MIXED % part)
    assert message.raw is None
    again = Message.from_bytes(message.as_bytes())
    assert again.raw is None
    for one in (message, again):
        (attachment,) = one.attachments
        source: Any = email.message_from_bytes(MIXED % part).get_payload(1)
        written: Any = email.message_from_bytes(one.as_bytes()).get_payload(1)
        assert attachment.data == b"abc"
        assert dict(written.get_params()) == dict(source.get_params())
        disposition = dict(written.get_params(header="content-disposition"))
        assert disposition == dict(source.get_params(header="content-disposition"))
        assert written["Content-ID"] == source["Content-ID"]
        assert attachment.description == ("The fürst of all" if "Content-Description" in source else None)


@pytest.mark.parametrize(
    "part",
    [
        b"Content-Type: image/png\r\nContent-Language: de\r\n\r\nx",
        b"Content-Type: image/png\r\nContent-Transfer-Encoding: base64\r\n\r\nYWJj\r\n-- \r\nA list's footer",
        b"Content-Type: image/png\r\nContent-Transfer-Encoding: x-unknown\r\n\r\nx",
        b"Content-Type: image/png\r\nContent-Disposition: form-data; name=x\r\n\r\nx",
        b"Content-Type: image/png\r\nContent-ID: <1@x>\r\nContent-Disposition: inline\r\n\r\nx",
        b'Content-Type: image/png\r\nContent-Disposition: attachment; filename="=?x-unknown?q?x?="\r\n\r\nx',
        b"Content-Type: image\r\nContent-Disposition: attachment\r\n\r\nx",
        b"no header\r\n\r\nx",
    ],
)
def test_what_a_part_says_is_never_dropped(part):
    message = Message.from_bytes(MIXED % part)
    assert message.raw == MIXED % part
    assert message.attachments == []


def test_base64_that_lacks_its_end_is_decoded_as_far_as_it_goes():
    part = b"Content-Type: image/png\r\nContent-Transfer-Encoding: base64\r\n\r\n iVBO Rw0K\r\nGgo"
    assert Message.from_bytes(MIXED % part).attachments[0].data == b"\x89PNG\r\n\x1a\n"
    assert Message.from_bytes(MIXED % part[:-2]).attachments[0].data == b"\x89PNG\r\n"


@pytest.mark.parametrize(
    "name", ["Maß.pdf".encode(), "Maß.pdf".encode("latin-1"), b"=?utf-8?q?Ma=C3=9F=2Epdf?="]
)
def test_file_names_above_ascii_keep_their_text(name):
    part = b'Content-Type: application/pdf\r\nContent-Disposition: attachment; filename="%s"\r\n\r\nx' % name
    message = Message.from_bytes(MIXED % part)
    assert message.attachments[0].filename == "Maß.pdf"
    assert parsed(message.as_bytes()).get_payload(1).get_filename() == "Maß.pdf"


INNER = (
    b"From: c@x\r\nDKIM-Signature: v=1; a=rsa-sha256;\r\n\th=from;\r\n\tb=def\r\nX-Long: " + b"word " * 30
) + b"\r\nX-Empty:\r\nSubject:\r\n a folded one\r\n\r\nhi\r\n"


def test_an_attached_message_keeps_its_octets():
    message = Message.from_bytes(MIXED % (b"Content-Type: message/rfc822\r\n\r\n" + INNER))
    assert message.attachments[0].data == INNER
    assert INNER in message.as_bytes()


def test_flowed_text_is_said_again():
    body = b"https://example.com/very/ \r\nlong\r\n"
    data = b"From: a@x\r\nContent-Type: text/plain; charset=utf-8; Format=Flowed; delsp=YES\r\n\r\n" + body
    message = Message.from_bytes(data)
    assert (message.flowed, message.delsp) == (True, True)
    found = parsed(message.as_bytes())
    assert dict(found["Content-Type"].params) == {"charset": "utf-8", "format": "flowed", "delsp": "yes"}
    assert found.get_payload(decode=True) == body
    assert b"format" not in Message(sender="a@x", text="x", delsp=True).as_bytes()


def test_line_ends_of_a_raw_message_become_crlf():
    data = b"From: a@x\nTo: b@x\nContent-Type: multipart/signed; boundary=b\n\n--b\n\nx\n--b--\n"
    message = Message.from_bytes(data)
    assert message.raw == data
    content = message.content()
    assert not content.binary
    assert content.join() == data.replace(b"\n", b"\r\n") == message.as_bytes()


@pytest.mark.parametrize("kind", ["message/rfc822", "multipart/mixed; boundary=%d"])
def test_a_thousand_levels_are_read(kind):
    data = b"From: a@x\r\n"
    for level in range(1000):
        content_type = (kind % level if "%" in kind else kind).encode()
        data += b"Content-Type: " + content_type + b"\r\n\r\n"
        data += b"--%d\r\n" % level if b"multi" in content_type else b"From: a@x\r\n"
    assert Message.from_bytes(data + b"\r\nx\r\n").raw is not None


def test_comments_in_addresses_do_not_hide_them():
    for text in ("MAILER-DAEMON@mx.example (Mail Delivery System)", "a@x <a@x>"):
        message = Message.from_bytes(f"From: {text}\r\nTo: b@x (Bob)\r\n\r\nx".encode())
        assert message.raw is None
        assert [str(address) for address in message.to] == ["b@x"]
        assert message.envelope().sender == message.sender


def test_a_quoted_encoded_word_is_decoded_after_the_mailboxes_were_parsed():
    message = Message.from_bytes(b'From: a@x\r\nTo: "=?utf-8?q?J=C3=B6rg=2C_e=40x?=" <b@x>, c@x\r\n\r\nx')
    assert [(a.name, str(a)) for a in message.to] == [("Jörg, e@x", "b@x"), ("", "c@x")]


def test_injection_by_encoded_words_is_not_imported():
    """An encoded word may hold a line end; what comes in is a blank."""
    data = (
        b"From: =?utf-8?q?J=0D=0ABcc=3A_e=40x?= <a@x>\r\nTo: b@x\r\nSubject: =?utf-8?b?eA0KQmNjOiBlQHg=?=\r\n"
        b'X-A: =?utf-8?q?=0D=0ABcc:_e@x?=\r\nContent-Type: text/plain; name="=?utf-8?q?=0D=0A?="\r\n\r\nx'
    )
    message = Message.from_bytes(data)
    assert message.subject == "x Bcc: e@x"
    names = [name for name, _ in message.all_headers]
    assert "Bcc" not in names
    assert b"\r\nBcc" not in message.as_bytes()
    old: Any = email.message_from_bytes(b"From: a@x\nTo: b@x\n\nx")
    old._headers.append(("X", "y\r\nBcc: e@x"))
    with pytest.raises(InvalidHeader):
        Message.from_email_message(old)


@given(st.binary(max_size=300), st.sampled_from([b"", b"From: a@x\r\nTo: b@x\r\nSubject: "]))
def test_any_octets_import_or_are_refused(data, before):
    try:
        message = Message.from_bytes(before + data)
        message.sender = message.sender or Address.parse("a@x")
        rendered = message.as_bytes()
    except SMTPError:
        return
    if message.raw is None:
        check_wire_form(rendered)


@given(st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), max_size=200))
def test_subjects_read_back(subject):
    message = Message(sender="a@x", to="b@x", subject=subject)
    data = message.as_bytes()
    assert Message.from_bytes(data).subject == subject.strip(" ")
    assert parsed(data)["From"] == "a@x"


def test_a_subject_that_does_not_decode_is_shown_and_kept() -> None:
    data = b"From: a@x.example\r\nSubject: =?utf-8?b?R3LDvMM=?=\r\n\r\nhi\r\n"
    message = Message.from_bytes(data)
    assert (message.subject, message.raw) == ("Gr\xfc\ufffd", data)
