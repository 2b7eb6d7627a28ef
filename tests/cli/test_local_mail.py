"""Messages of local programs: what is added, who gets them, and that every server takes them."""

import asyncio
import email
import io
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smtp_async import DSN, Address, Kind, Notify, Recipient
from smtp_async.cli.local_mail import Origin, complete, read_message
from smtp_async.errors import InvalidAddress, MissingRecipient
from smtp_async.mail.coerce import PendingMail, Raw, to_mail

ORIGIN = Origin(
    domain_name="lab.test",
    address=Address.parse("Ann <ann@example.com>"),
    aliases={"root": ("admin@example.com", "ops@example.com")},
)
BOB = [Recipient("bob@example.org")]


def letter(data, origin=ORIGIN, recipients=BOB, **options):
    return complete(data, origin, recipients=recipients, **options)


def sent(data, **options):
    """The octets for a server without extensions, and the message in them."""
    message, sender, recipients = letter(data, **options)
    source = Raw(message) if isinstance(message, bytes) else message
    mail = to_mail(source, sender=sender, recipients=recipients)
    content = (asyncio.run(mail.read_whole()) if isinstance(mail, PendingMail) else mail).content()
    assert not (content.binary or content.eightbit or content.utf8)
    octets = content.join()
    return octets, email.message_from_bytes(octets)


# --- reading -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "rest"),
    [
        (b"a\n.\nb\n", b"a\n"),
        (b"a\r\n.\r\nb", b"a\r\n"),
        (b"a\n.", b"a\n"),
        (b"a\n..\nb", b"a\n..\nb"),
        (b"a.\n.b\n", b"a.\n.b\n"),
        (b"", b""),
    ],
)
def test_a_dot_ends_the_message(data, rest):
    assert read_message(io.BytesIO(data), dots=False) == rest
    assert read_message(io.BytesIO(data), dots=True) == data


# --- the header ----------------------------------------------------------------------------------------------


def test_what_is_missing_is_added():
    _, message = sent(b"Subject: Hi\n\nText\n")
    assert message["From"] == "Ann <ann@example.com>" and message["Subject"] == "Hi"
    assert message["Date"] and message["Message-ID"].endswith("@example.com>")
    assert message.get_payload() == "Text\r\n"


def test_what_is_there_stays():
    data = (
        b"From: eve@example.org\r\nDate: Mon, 1 Jan 2024 00:00:00 +0000\r\nMessage-ID: <1@x>\r\n\r\nText\r\n"
    )
    assert sent(data)[0] == data


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", ""),
        (b"\n", ""),
        (b"just text\n", "just text\r\n"),
        (b"just text", "just text\r\n"),
        (b"\nSubject: no, text\n", "Subject: no, text\r\n"),
        (b" Subject: no, text\n\nx\n", " Subject: no, text\r\n\r\nx\r\n"),
        (b"Subject: Hi\nnot a field\nmore\n", "not a field\r\nmore\r\n"),
        (b"Subject: Hi\n", ""),
        (b"Subject: Hi", ""),
        (b"From ann Mon Jan  1 00:00:00 2024\nSubject: Hi\n\nx\n", "x\r\n"),
    ],
)
def test_where_the_header_ends(data, text):
    octets, message = sent(data)
    assert message.get_payload() == text
    assert message["From"] == "Ann <ann@example.com>"
    assert message["Subject"] == ("Hi" if b"Subject: Hi" in data else None)


def test_names_of_local_users_get_a_domain():
    """As Debian's cron writes them."""
    _, message = sent(b"From: root (Cron Daemon)\nTo: root, Eve <eve@example.org>,\n bob\nSubject: x\n\n")
    assert message["From"] == '"Cron Daemon" <root@lab.test>'
    assert message["To"].replace("\r\n", "") == "root@lab.test, Eve <eve@example.org>, bob@lab.test"


@pytest.mark.parametrize(
    "value",
    [
        "eve@example.org",
        '"a, b" <eve@example.org>',
        "undisclosed-recipients:;",
        "Eve (root, x) <e@x.org>",
        '"open',
    ],
)
def test_other_fields_stay_octet_by_octet(value):
    assert f"\r\nTo: {value}\r\n".encode() in sent(f"Subject: x\nTo: {value}\n\n".encode())[0]


def test_the_full_name():
    assert sent(b"x\n", name="Ann Lee")[1]["From"] == "Ann Lee <ann@example.com>"
    assert sent(b"x\n", name="Ünal", sender="u@example.org")[1]["From"].endswith("<u@example.org>")


@pytest.mark.skipif(os.name != "posix", reason="users of the system")
def test_without_an_account_the_author_is_the_user():
    import pwd

    user = pwd.getpwuid(os.getuid()).pw_name
    author = Origin(domain_name="lab.test", aliases={}).author
    assert author.addr_spec == f"{user}@lab.test"


def test_the_domain_is_one():
    assert Address("root", Origin(aliases={}).domain).domain


# --- the envelope --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sender", "expected"),
    [
        (None, "ann@example.com"),
        ("eve@example.org", "eve@example.org"),
        ("Eve <eve@example.org>", "eve@example.org"),
        ("root", "root@lab.test"),
        ("", "<>"),
        ("<>", "<>"),
    ],
)
def test_the_sender(sender, expected):
    found = letter(b"x\n", sender=sender).sender
    assert (found if isinstance(found, str) else found.addr_spec) == expected


def addresses(recipients):
    return [(one.kind.value, one.address.addr_spec) for one in recipients]


def test_recipients_in_the_header():
    data = b"To: root\nCc: a@example.org,\n Bo <b@example.org>\nBcc: c@example.org\nSubject: x\n\nText\n"
    found = letter(data, header=True)
    assert addresses(found.recipients) == [
        ("To", "bob@example.org"),
        ("To", "admin@example.com"),
        ("To", "ops@example.com"),
        ("Cc", "a@example.org"),
        ("Cc", "b@example.org"),
        ("Bcc", "c@example.org"),
    ]
    assert b"c@example.org" not in sent(data, header=True)[0]
    assert addresses(letter(data).recipients) == [("To", "bob@example.org")]


def test_the_recipients_of_a_message_that_was_sent_again():
    data = b"Resent-To: a@example.org\nResent-Bcc: c@example.org\nTo: b@example.org\n\nText\n"
    found = letter(data, recipients=[], header=True).recipients
    assert addresses(found) == [("To", "a@example.org"), ("Bcc", "c@example.org")]


def test_recipients_in_arguments():
    assert addresses(ORIGIN.recipients("root, a@example.org, eve")) == [
        ("To", "admin@example.com"),
        ("To", "ops@example.com"),
        ("To", "a@example.org"),
        ("To", "eve@lab.test"),
    ]
    everybody = Origin(domain_name="lab.test", aliases={"*": ("all@example.com",)})
    assert addresses(everybody.recipients("eve")) == [("To", "all@example.com")]


def test_reports():
    reports = DSN(notify=Notify.NEVER)
    found = letter(b"To: a@example.org\n\n", recipients=[], header=True, dsn=reports).recipients
    assert [one.dsn for one in found] == [reports]


def test_no_recipients():
    with pytest.raises(MissingRecipient, match="-t"):
        letter(b"To: a@example.org\n\n", recipients=[])
    with pytest.raises(MissingRecipient):
        letter(b"Subject: x\n\n", recipients=[], header=True)


@pytest.mark.parametrize("text", ["a@", "a b", '"open', "<a@b.org", "-x"])
def test_what_is_no_recipient(text):
    if text != "-x":
        with pytest.raises(InvalidAddress):
            ORIGIN.recipients(text)
    else:
        assert addresses(ORIGIN.recipients(text)) == [("To", "-x@lab.test")]


@settings(max_examples=50)
@given(st.text(alphabet='ab@.,<>()" \\:;', max_size=20))
def test_any_text_is_a_list_or_refused(text):
    """A text that the library's parser takes means the same with local names, for which it has no place."""
    try:
        found = [one.addr_spec for one in (r.address for r in ORIGIN.recipients(text))]
    except InvalidAddress:
        return
    assert all("@" in one for one in found)


# --- what every server takes ---------------------------------------------------------------------------------


def test_plain_text_stays_as_it_is():
    assert isinstance(letter(b"Subject: x\n\nText\n").message, bytes)


@pytest.mark.parametrize(
    ("body", "charset"),
    [
        ("Grüße\n".encode(), "utf-8"),
        (b"gr\xfc\xdfe\n", "unknown-8bit"),
        (b"nul \0 here\n", None),
        (b"a" * 1_000_000 + b"\n", None),
        (b"\xff" * 5000, "unknown-8bit"),
    ],
)
def test_any_text_is_encoded(body, charset):
    octets, message = sent(b"Subject: x\n\n" + body)
    assert message.get_payload(decode=True).replace(b"\r\n", b"\n").rstrip(b"\n") == body.rstrip(b"\n")
    assert max(map(len, octets.split(b"\r\n"))) <= 998
    if charset is not None:
        assert message.get_content_charset() == charset


def test_the_charset_that_the_program_names_stays():
    data = b"MIME-Version: 1.0\nContent-Type: text/html; charset=iso-8859-1\n\n" + b"<p>\xfc</p>" * 500
    _, message = sent(data)
    assert message.get_content_type() == "text/html" and message.get_content_charset() == "iso-8859-1"
    assert message.get_payload(decode=True).startswith(b"<p>\xfc</p>")


def test_parts_are_encoded():
    data = (
        b"MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=x\n\n--x\nContent-Type: text/plain\n\n"
        + b"a" * 3000
        + b"\n--x--\n"
    )
    octets, message = sent(data)
    assert message.get_payload(0).get_payload(decode=True).rstrip() == b"a" * 3000


def test_names_in_the_header_are_encoded():
    octets, message = sent("Subject: Grüße\nFrom: Ünal <u@example.org>\n\nx\n".encode())
    assert octets.isascii() and message["Subject"].startswith("=?utf-8?")


def test_what_is_signed_is_not_changed():
    data = b"Content-Type: multipart/signed; boundary=x\n\n" + b"a" * 3000
    found = letter(data).message
    assert isinstance(found, bytes) and found.endswith(b"a" * 3000)


@settings(max_examples=50)
@given(st.binary(max_size=300))
def test_any_octets_are_a_message(data):
    found = letter(data, recipients=[Recipient("bob@example.org", Kind.BCC)])
    assert found.message and found.recipients
