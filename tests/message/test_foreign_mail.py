"""foreign_mail.py: mail made elsewhere keeps its content, loses its Bcc, and cannot bring in a field."""

import email
import email.policy
from email.header import Header
from email.message import EmailMessage
from email.message import Message as OldMessage
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtp_async.errors import (
    ExtensionMissing,
    InvalidAddress,
    InvalidArgument,
    InvalidHeader,
    MissingRecipient,
    MissingSender,
)
from smtp_async.message import Message
from smtp_async.message.foreign_mail import mail_of_bytes, mail_of_email_object
from smtp_async.message.header_parser import without_leading
from smtp_async.model.address import Address
from smtp_async.model.content import Content
from smtp_async.model.envelope import Kind
from smtp_async.model.octets import normalised

from .reading import check_wire_form, names_of, parsed, text_of


def modern(**fields):
    message = EmailMessage()
    for name, value in ({"From": "ann@example.com", "To": "bob@example.org"} | fields).items():
        if value is not None:
            message[name.replace("_", "-")] = value
    message.set_content("Grüße\n.\n")
    return message


def who(envelope):
    sender = None if envelope.sender is None else str(envelope.sender)
    return sender, [(str(r.address), r.kind) for r in envelope.recipients]


def state(message):
    """Everything about a message that a caller could see."""
    return [
        (part.get_content_type(), part.get_boundary(), part.items(), part.policy, part.get_payload())
        for part in message.walk()
        if not part.is_multipart() or part.items()
    ]


# --- email.message ------------------------------------------------------------------------------------------


def test_a_modern_message():
    message = modern(Subject="Grüße", Cc="Ünal <u@x>", Bcc="Secret <s@hidden.example>", Resent_Bcc=None)
    message.add_alternative("<p>Grüße", subtype="html")
    message.add_attachment(bytes(range(256)), maintype="application", subtype="x", filename="ä.bin")
    before = state(message)
    mail = mail_of_email_object(message)
    assert who(mail.envelope()) == (
        "ann@example.com",
        [("bob@example.org", Kind.TO), ("u@x", Kind.CC), ("s@hidden.example", Kind.BCC)],
    )
    for eightbit in (False, True):
        content = mail.content(eightbit=eightbit)
        data = content.join()
        check_wire_form(data)
        assert content.eightbit is eightbit
        assert not content.utf8
        assert b"hidden" not in data
        assert b"\r\nbcc:" not in data.lower()
        found = parsed(data)
        assert found["Subject"] == "Grüße"
        assert text_of(found.get_body(("plain",))) == "Grüße\n.\n"
        assert next(found.iter_attachments()).get_content() == bytes(range(256))
        assert mail.content(eightbit=eightbit).join() == data
    assert state(message) == before


def test_the_mail_is_as_it_was_when_it_was_taken():
    message = modern(Subject="before")
    mail = mail_of_email_object(message)
    message.replace_header("Subject", "after")
    message.set_content("after")
    assert parsed(mail.content().join())["Subject"] == "before"


def test_old_messages():
    message: Any = MIMEMultipart()
    message["From"] = "Jörg <j@x>"
    message["To"] = "Ü <a@x>, b@y"
    message["Subject"] = Header("Grüße", "iso-8859-1")
    message.attach(MIMEText("Grüße\nFrom me\n.\n", "plain", "utf-8"))
    before = message.items()
    mail = mail_of_email_object(message)
    assert who(mail.envelope()) == ("j@x", [("a@x", Kind.TO), ("b@y", Kind.TO)])
    data = mail.content().join()
    check_wire_form(data)
    found = parsed(data)
    # The old API writes the whole list as one encoded word; nobody could have answered.
    assert [a.addr_spec for a in found["To"].addresses] == ["a@x", "b@y"]
    assert found["To"].addresses[0].display_name == "Ü"
    assert text_of(found.get_body()) == "Grüße\nFrom me\n.\n"
    assert message.items() == before
    assert message.get_boundary() is None


def test_international_domains_are_written_as_a_labels():
    mail = mail_of_email_object(modern(From="a@faß.de", Reply_To="Ü <b@faß.de>"))
    data = mail.content().join()
    assert b"From: a@xn--fa-hia.de\r\n" in data
    assert b"<b@xn--fa-hia.de>\r\n" in data
    assert mail.envelope().sender == Address("a", "faß.de")


def test_utf8_local_parts():
    mail = mail_of_email_object(modern(To='"Müller, J" <jösé@bücher.example>', Subject="ü"))
    with pytest.raises(ExtensionMissing, match="SMTPUTF8"):
        mail.content()
    content = mail.content(utf8=True)
    assert content.utf8
    assert "<jösé@bücher.example>\r\n".encode() in content.join()
    assert mail.envelope().needs_utf8


def test_a_utf8_policy_does_not_ask_for_smtputf8_without_need():
    message = EmailMessage(policy=email.policy.SMTPUTF8)
    message["From"], message["To"], message["Subject"] = "Jörg <a@x>", "b@x", "Grüße"
    message.set_content("x")
    content = mail_of_email_object(message).content(utf8=True)
    assert not content.utf8
    assert parsed(content.join())["Subject"] == "Grüße"


EIGHTBIT = "From: Jörg Müller <j@x>\nTo: Zoë <z@y>, a@y (Grüße)\nSubject: ä €\nX-Long: ö\n\nx\n"


@pytest.mark.parametrize("charset", ["utf-8", "cp1252"])
@pytest.mark.parametrize("policy", [email.policy.default, email.policy.compat32])
def test_raw_octets_in_a_header_are_written_in_encoded_words(charset, policy):
    message = email.message_from_bytes(EIGHTBIT.encode(charset), policy=policy)
    mail = mail_of_email_object(message)
    assert who(mail.envelope()) == ("j@x", [("z@y", Kind.TO), ("a@y", Kind.TO)])
    for eightbit in (False, True):
        content = mail.content(eightbit=eightbit)
        assert not content.utf8
        found = parsed(content.join())
        assert found["From"].addresses[0].display_name == "Jörg Müller"
        assert [a.addr_spec for a in found["To"].addresses] == ["z@y", "a@y"]
        assert (found["Subject"], found["X-Long"]) == ("ä €", "ö")


def test_an_address_in_octets_of_no_known_charset_is_refused():
    mail = mail_of_email_object(email.message_from_bytes(b"From: J\xf6rg <j\xf6rg@x>\nTo: b@x\n\nx\n"))
    with pytest.raises(InvalidAddress, match="UTF-8"):
        mail.envelope()


def test_a_message_that_was_parsed_keeps_its_fields():
    source = (
        b"Received: from x\r\n\tby y; Mon, 1 Jan 2024 00:00:00 +0000\r\n"
        b'From: "a, b" <a@x>\r\nTo: undisclosed-recipients:;\r\nCc: =?utf-8?q?=C3=BC=2C?= <c@x>\r\n'
        b"x-lower: 1\r\nX-Lower: 2\r\n\r\nbody\r\n"
    )
    for policy in (email.policy.default, email.policy.compat32):
        message = email.message_from_bytes(source, policy=policy)
        mail = mail_of_email_object(message)
        assert names_of(mail.content().join()) == ["Received", "From", "To", "Cc", "x-lower", "X-Lower"]
        assert who(mail.envelope()) == ("a@x", [("c@x", Kind.CC)])


@pytest.mark.parametrize("policy", [email.policy.default, email.policy.compat32])
@pytest.mark.parametrize(
    "text",
    [
        "MAILER-DAEMON@mx.example.com (Mail, Delivery <x@y>)",
        "MAILER-DAEMON@mx.example.com <MAILER-DAEMON@mx.example.com>",
    ],
)
def test_the_envelope_of_mail_with_comments(text, policy):
    source = f"From: {text}\r\nTo: b@x (B, c@d), (c) d@x (D)\r\n\r\nhi\r\n".encode()
    for mail in (
        mail_of_email_object(email.message_from_bytes(source, policy=policy)),
        mail_of_bytes(source),
    ):
        assert who(mail.envelope()) == ("MAILER-DAEMON@mx.example.com", [("b@x", Kind.TO), ("d@x", Kind.TO)])


def test_unreadable_fields_matter_only_when_they_are_needed():
    message = email.message_from_string("From: a@x (comment\nTo: b@x\nReply-To: nonsense (\n\nbody\n")
    mail = mail_of_email_object(message)
    assert mail.content().join()
    with pytest.raises(InvalidAddress):
        mail.envelope()
    assert who(mail.envelope("s@x")) == ("s@x", [("b@x", Kind.TO)])
    assert who(mail.envelope("<>", ["r@x"])) == (None, [("r@x", Kind.TO)])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("X-A", "x\r\nBcc: evil@x"),
        ("X-A", "x\nBcc: evil@x"),
        ("X-A", "x\rBcc: evil@x"),
        ("X-A", "x\r\n\r\nbody"),
        ("X-A", "x\0"),
        ("X-A\r\nBcc", "v"),
        ("X-A\r\nBcc: evil@x\r\nY", "v"),
        ("X A", "v"),
        ("X-A:", "v"),
        ("", "v"),
        ("Ä", "v"),
    ],
)
def test_injection_is_refused_whatever_python_would_do(name, value):
    old = OldMessage()
    old["From"], old["To"] = "a@x", "b@x"
    old[name] = value
    with pytest.raises(InvalidHeader):
        mail_of_email_object(old)
    new = modern()
    # The modern API checks some of it by itself; a policy or a raw list can get around that.
    new._headers.append((name, value))
    with pytest.raises(InvalidHeader):
        mail_of_email_object(new)


@pytest.mark.parametrize("what", ["name", "value"])
def test_injection_in_a_part_is_refused(what):
    message = MIMEMultipart()
    message["From"], message["To"] = "a@x", "b@x"
    part = MIMEText("x")
    if what == "name":
        part["X\r\n\r\n<script>"] = "y"
    else:
        part.add_header("Content-Disposition", "attachment", filename='a"\r\n\r\nevil')
    message.attach(part)
    with pytest.raises(InvalidHeader):
        mail_of_email_object(message)


def test_a_policy_is_not_asked_to_write():
    class Adding(email.policy.EmailPolicy):
        def fold_binary(self, name, value):
            return super().fold_binary(name, value) + b"X-Added: 1\r\n"

    message = EmailMessage(policy=Adding())
    message["From"], message["To"] = "a@x", "b@x"
    message.set_content("x")
    assert b"X-Added" not in mail_of_email_object(message).content().join()


@given(st.text(max_size=20), st.text(max_size=40))
def test_the_header_is_exactly_what_was_set(name, value):
    message = OldMessage()
    message["From"], message["To"] = "a@x", "b@x"
    message[name] = value
    message.set_payload("body")
    try:
        data = mail_of_email_object(message).content().join()
    except InvalidHeader:
        return
    assert names_of(data) == ["From", "To"] + ([] if name.lower() in ("bcc", "resent-bcc") else [name])
    assert data.endswith(b"\r\n\r\nbody\r\n")


def test_bcc_of_an_attached_message_stays():
    """It is that message's content, and its owner put it there."""
    inner = modern(Bcc="kept@x")
    outer = modern(Bcc="secret@x", resent_bcc=None)
    outer.add_attachment(inner)
    data = mail_of_email_object(outer).content().join()
    assert b"kept@x" in data
    assert b"secret@x" not in data


# --- raw ----------------------------------------------------------------------------------------------------

RAW = (
    b"From: Ann <a@x>\nTo: b@y,\n c@z\nBCC : s@hidden,\n\tt@hidden\nSubject: x\n"
    b"bcc:\n u@hidden\n\nBcc: kept\n.\n\r.\r"
)


def test_raw_bytes():
    mail = mail_of_bytes(RAW)
    assert who(mail.envelope()) == (
        "a@x",
        [
            *[("b@y", Kind.TO), ("c@z", Kind.TO)],
            *[("s@hidden", Kind.BCC), ("t@hidden", Kind.BCC), ("u@hidden", Kind.BCC)],
        ],
    )
    content = mail.content()
    assert content.join() == (
        b"From: Ann <a@x>\r\nTo: b@y,\r\n c@z\r\nSubject: x\r\n\r\nBcc: kept\r\n.\r\n\r\n.\r\n"
    )
    assert not content.binary


def test_exact_bytes_lose_nothing_but_their_bcc():
    content = mail_of_bytes(RAW, exact=True).content()
    assert content.join() == b"From: Ann <a@x>\nTo: b@y,\n c@z\nSubject: x\n\nBcc: kept\n.\n\r.\r"
    assert content.binary
    assert mail_of_bytes(RAW, exact=True, remove_bcc=False).content().join() == RAW


@pytest.mark.parametrize("ending", [b"\r\n", b"\n", b"\r"])
@pytest.mark.parametrize("exact", [False, True])
def test_bcc_goes_whatever_ends_a_line(ending, exact):
    raw = ending.join(
        [b"Bcc: s@hidden,", b" t@hidden", b"From: a@x", b"Resent-Bcc: h@hidden", b"", b"x", b""]
    )
    assert b"hidden" not in mail_of_bytes(raw, exact=exact).content().join()


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\r\n",
        b"no header at all",
        b"From nobody\r\nTo: a@x\r\n\r\n",
        b" folded\r\nTo: a@x\r\n\r\n",
        b"To: a@x",
    ],
)
def test_odd_messages_are_sent_as_they_are(raw):
    mail = mail_of_bytes(raw, exact=True)
    assert mail.content().join() == raw
    assert who(mail.envelope("s@x", ["r@x"])) == ("s@x", [("r@x", Kind.TO)])


def test_the_sender_of_the_header():
    assert who(mail_of_bytes(b"From: a@x\nSender: s@x\nTo: b@x\n\n").envelope())[0] == "s@x"
    assert who(mail_of_bytes(b"From: a@x, c@x\nTo: b@x\n\n").envelope())[0] == "a@x"
    with pytest.raises(MissingSender):
        mail_of_bytes(b"To: b@x\n\n").envelope()
    with pytest.raises(MissingRecipient):
        mail_of_bytes(b"From: b@x\nTo: nobody:;\n\n").envelope()


@pytest.mark.parametrize("field", [b"Resent-To: a@x", b"resent-date: now", b"Resent-From: a@x"])
def test_a_message_that_was_resent_needs_its_envelope(field):
    mail = mail_of_bytes(b"From: a@x\nTo: b@x\n" + field + b"\n\n")
    for sender, recipients in ((None, None), ("s@x", None), (None, ["r@x"])):
        with pytest.raises(InvalidArgument, match="Resent"):
            mail.envelope(sender, recipients)
    assert who(mail.envelope("s@x", ["r@x"])) == ("s@x", [("r@x", Kind.TO)])


def test_raw_utf8_headers():
    mail = mail_of_bytes("From: Jörg <jörg@bücher.example>\nTo: b@x\n\nx\n".encode())
    assert mail.content().utf8
    assert str(mail.envelope().sender) == "jörg@bücher.example"
    with pytest.raises(InvalidAddress):
        mail_of_bytes(b"From: \xe4@x\nTo: b@x\n\nx\n").envelope()


@given(
    st.lists(
        st.sampled_from(
            [b"Bcc: h", b"bcc : h", b"Resent-BCC:h", b" h", b"\th", b"To: a@x", b"X: y", b" y", b"Bccx: y"]
        ),
        max_size=8,
    ),
    st.sampled_from([b"\r\n", b"\n"]),
)
def test_cutting_is_what_a_reader_would_do(lines, ending):
    """Against the same rule written line by line."""
    kept, hidden = [], False
    for number, line in enumerate(lines):
        if line[:1] not in b" \t" or number == 0:
            hidden = line.lower().replace(b" ", b"").startswith((b"bcc:", b"resent-bcc:"))
        if not hidden:
            kept.append(line)
    raw = b"".join(line + ending for line in lines) + ending + b"body" + ending
    expected = b"".join(line + b"\r\n" for line in kept) + b"\r\nbody\r\n"
    assert mail_of_bytes(raw).content().join() == expected


# --- what is not looked at ----------------------------------------------------------------------------------

NAMES = [
    b"Message-ID",
    b"message-id",
    b"Message-ID-Hash",
    b"X-Bcc",
    b"Resent-To",
    b"Bcc",
    b"Subject",
    b"X-resent-bcc",
]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(NAMES),
            st.sampled_from([b": ", b":", b" : ", b":\r\n "]),
            st.binary(max_size=30) | st.just(b"<1@x>"),
        ),
        max_size=6,
    ),
    st.binary(max_size=60),
    st.booleans(),
)
def test_content_is_the_same_as_if_all_of_it_was_read(fields, body, exact):
    """What sending by the thousand leaves out finds nothing else than reading everything does."""
    raw = b"".join([name + colon + value + b"\r\n" for name, colon, value in fields]) + b"\r\n" + body
    try:
        kept = mail_of_bytes(raw, exact=exact).content()
    except InvalidHeader:
        assert b"\r\r\n" in raw
        return
    whole = Content.of_bytes(kept.join(), exact=exact)
    for name in ("size", "eightbit", "utf8", "binary", "message_id", "canonical"):
        assert getattr(kept, name) == getattr(whole, name), name
    assert mail_of_bytes(raw, exact=exact, remove_bcc=False).content().join() == (
        raw if exact else without_leading(normalised(raw))
    )


@pytest.mark.parametrize("blank", [b"\r\n\r\n", b"\n\n", b"\r\r", b"\r\n\n", b"\n\r\n", b"\r\n\r"])
def test_bcc_is_cut_wherever_the_header_ends(blank):
    """Bcc and Resent-Bcc go, but what the body says of them stays."""
    raw = b"From: a@x\r\nresent-BCC: s@hidden\r\nX: y" + blank + b"Bcc: body\r\n"
    data = mail_of_bytes(raw, exact=True).content().join()
    assert data == b"From: a@x\r\nX: y" + blank + b"Bcc: body\r\n"


def test_a_bare_line_end_is_no_way_out():
    """SMTP smuggling: what a lenient server takes for an end of data is an ordinary line when it leaves."""
    for bad in (b"\n.\n", b"\r.\r", b"\r\n.\n", b"\n.\r\n", b"\r\n.\r"):
        data = mail_of_bytes(b"Subject: x\r\n\r\na" + bad + b"MAIL FROM:<e@x>\r\n").content().join()
        assert data == b"Subject: x\r\n\r\na\r\n.\r\nMAIL FROM:<e@x>\r\n"


def test_the_header_is_read_only_for_what_is_not_given():
    mail = mail_of_bytes(b"From: nonsense (\nTo: b@x\n\nx\n")
    assert who(mail.envelope("s@x", ["r@x"])) == ("s@x", [("r@x", Kind.TO)])
    assert who(mail.envelope("s@x")) == ("s@x", [("b@x", Kind.TO)])
    with pytest.raises(InvalidAddress):
        mail.envelope()


def test_binary_changes_nothing():
    """The encodings are those that somebody else chose."""
    for mail in (mail_of_bytes(RAW), mail_of_email_object(modern(resent_bcc=None))):
        assert mail.content(eightbit=True, binary=True).join() == mail.content(eightbit=True).join()


@pytest.mark.parametrize("exact", [False, True])
def test_a_template_may_begin_with_an_empty_line(exact):
    raw = b"\nBcc: s@hidden\nFrom: a@x\nTo: b@x\n\nNote: x\n"
    mail = mail_of_bytes(raw, exact=exact)
    assert who(mail.envelope()) == ("a@x", [("b@x", Kind.TO), ("s@hidden", Kind.BCC)])
    data = mail.content().join()
    assert data.lstrip(b"\n").replace(b"\r\n", b"\n") == b"From: a@x\nTo: b@x\n\nNote: x\n"


def test_a_part_without_a_header_keeps_its_text():
    """Its first line may look like a field."""
    data = (
        b"From: a@x\r\nTo: b@x\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n"
        b"--b\r\n\r\nNote: see below\r\n--b--\r\n"
    )
    for policy in (email.policy.default, email.policy.compat32):
        assert mail_of_email_object(email.message_from_bytes(data, policy=policy)).content().join() == data
    assert Message.from_bytes(data).text == "Note: see below"
