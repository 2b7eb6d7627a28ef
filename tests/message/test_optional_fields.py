"""optional_fields.py: what few messages set; what is kept of it, how it is written, what is refused."""

import copy
import email
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtp_async.errors import (
    ExtensionMissing,
    InvalidAddress,
    InvalidArgument,
    InvalidHeader,
    SMTPError,
    TextNotEncodable,
)
from smtp_async.message import Importance, Message, Priority, Sensitivity, XPriority
from smtp_async.message.optional_fields import Fields, mailboxes
from smtp_async.model.address import Address, parse_list

from .reading import check_wire_form, names_of, parsed


def made(**arguments: Any):
    return Message(**({"sender": "Ann <ann@example.com>", "to": "bob@example.org"} | arguments))


def field(message, name, **abilities):
    """The one field of that name, unfolded."""
    data = message.content(**abilities).join()
    header = check_wire_form(data)
    found = email.message_from_bytes(b"\r\n".join(header) + b"\r\n\r\n").get_all(name, [])
    return None if not found else str(found[0]).replace("\r\n", "") if len(found) == 1 else found


# Attribute, what is given, what is kept, field, what is written.
WRITTEN = [
    ("in_reply_to", "<a@b>", ("<a@b>",), "In-Reply-To", "<a@b>"),
    ("in_reply_to", "a@b", ("<a@b>",), "In-Reply-To", "<a@b>"),
    ("references", "<a@b>  <c@d><e@f>", ("<a@b>", "<c@d>", "<e@f>"), "References", "<a@b> <c@d> <e@f>"),
    ("references", ["a@b", "<c@d>"], ("<a@b>", "<c@d>"), "References", "<a@b> <c@d>"),
    ("keywords", "a, b c", ("a", "b c"), "Keywords", "a, b c"),
    ("keywords", ["a, b", "c;"], ("a, b", "c;"), "Keywords", '"a, b", "c;"'),
    ("keywords", ["ü"], ("ü",), "Keywords", "=?utf-8?b?w7w=?="),
    ("comments", "as you like", "as you like", "Comments", "as you like"),
    ("mailer", "Mailer 1.0", "Mailer 1.0", "X-Mailer", "Mailer 1.0"),
    ("importance", Importance.HIGH, Importance.HIGH, "Importance", "high"),
    ("importance", "Low", Importance.LOW, "Importance", "low"),
    ("importance", "normal", Importance.NORMAL, "Importance", "normal"),
    ("priority", "URGENT", Priority.URGENT, "Priority", "urgent"),
    ("priority", Priority.NON_URGENT, Priority.NON_URGENT, "Priority", "non-urgent"),
    ("x_priority", 1, XPriority.HIGHEST, "X-Priority", "1 (Highest)"),
    ("x_priority", XPriority.LOWEST, XPriority.LOWEST, "X-Priority", "5 (Lowest)"),
    (
        "sensitivity",
        "company-confidential",
        Sensitivity.COMPANY_CONFIDENTIAL,
        "Sensitivity",
        "Company-Confidential",
    ),
    ("sensitivity", Sensitivity.PERSONAL, Sensitivity.PERSONAL, "Sensitivity", "Personal"),
    ("read_receipt_to", True, True, "Disposition-Notification-To", "Ann <ann@example.com>"),
    (
        "read_receipt_to",
        "c@x, d@x",
        (Address.parse("c@x"), Address.parse("d@x")),
        "Disposition-Notification-To",
        "c@x, d@x",
    ),
    ("delivery_notification_to", True, True, "Return-Receipt-To", "Ann <ann@example.com>"),
    ("delivery_notification_to", ["c@x"], (Address.parse("c@x"),), "Return-Receipt-To", "c@x"),
    ("list_id", "news.example.com", ("", "news.example.com"), "List-Id", "<news.example.com>"),
    ("list_id", "News of ours <news.x>", ("News of ours", "news.x"), "List-Id", "News of ours <news.x>"),
    ("list_id", '"News, ours" <news.x>', ("News, ours", "news.x"), "List-Id", '"News, ours" <news.x>'),
    ("list_help", "mailto:help@x", ("mailto:help@x",), "List-Help", "<mailto:help@x>"),
    (
        "list_unsubscribe",
        ["https://x.y/a?b=c,d", "mailto:u@x?subject=no"],
        ("https://x.y/a?b=c,d", "mailto:u@x?subject=no"),
        "List-Unsubscribe",
        "<https://x.y/a?b=c,d>, <mailto:u@x?subject=no>",
    ),
    (
        "list_subscribe",
        "<https://x.y/>, <mailto:u@x>",
        ("https://x.y/", "mailto:u@x"),
        "List-Subscribe",
        "<https://x.y/>, <mailto:u@x>",
    ),
    ("list_post", "NO", ("NO",), "List-Post", "NO"),
    ("list_post", "mailto:l@x", ("mailto:l@x",), "List-Post", "<mailto:l@x>"),
    ("list_owner", "mailto:o@x", ("mailto:o@x",), "List-Owner", "<mailto:o@x>"),
    ("list_archive", "https://x.y/", ("https://x.y/",), "List-Archive", "<https://x.y/>"),
]


@pytest.mark.parametrize(("attribute", "given", "kept", "name", "written"), WRITTEN)
def test_what_is_set_is_written(attribute, given, kept, name, written):
    message = made(**{attribute: given})
    assert getattr(message, attribute) == kept
    assert field(message, name) == written
    setattr(message, attribute, None)
    assert not getattr(message, attribute)
    assert field(message, name) is None
    setattr(message, attribute, given)
    assert field(message, name) == written


@pytest.mark.parametrize(
    ("attribute", "name", "words"),
    [
        (
            "importance",
            "Importance",
            {Importance.HIGH: "high", Importance.NORMAL: "normal", Importance.LOW: "low"},
        ),
        (
            "priority",
            "Priority",
            {Priority.NORMAL: "normal", Priority.URGENT: "urgent", Priority.NON_URGENT: "non-urgent"},
        ),
        (
            "sensitivity",
            "Sensitivity",
            {
                Sensitivity.PERSONAL: "Personal",
                Sensitivity.PRIVATE: "Private",
                Sensitivity.COMPANY_CONFIDENTIAL: "Company-Confidential",
            },
        ),
    ],
)
def test_every_value_of_an_enumeration_is_written(attribute, name, words):
    message = made()
    assert getattr(message, attribute) is None and field(message, name) is None
    kind: Any = type(next(iter(words)))
    assert set(words) == set(kind)
    for value, word in words.items():
        setattr(message, attribute, value)
        assert field(message, name) == word


def test_every_field_is_an_attribute_and_empty_at_first():
    message = made()
    for name in Fields.__annotations__:
        assert getattr(message, name) == getattr(Message(), name)
    assert (message.charset, message.header_charset, message.max_header_length) == ("utf-8", "utf-8", 78)
    for wrong, told in (
        ({"form": "typo"}, "unexpected keyword argument 'form'$"),
        ({"subjct": "typo"}, r"'subjct'; did you mean 'subject'\?"),
        ({"body": "of another library"}, r"'body'; did you mean 'text'\?"),
    ):
        with pytest.raises(TypeError, match=told):
            Message(**wrong)  # type: ignore[arg-type]  # that is the point
    with pytest.raises(AttributeError):
        message.form = "typo"


def test_the_order_of_the_header():
    message = made(subject="s", in_reply_to="a@b", mailer="m", list_id="l.x", headers={"X-A": "1"})
    assert names_of(message.as_bytes()) == [
        *["Date", "From", "To", "Subject", "Message-ID", "In-Reply-To", "X-Mailer", "List-Id", "X-A"],
        *["MIME-Version", "Content-Type", "Content-Transfer-Encoding"],
    ]


def test_the_sender_is_who_it_is_when_the_message_is_rendered():
    message = made(read_receipt_to=True)
    message.sender = "eve@x"
    assert field(message, "Disposition-Notification-To") == "eve@x"
    message.sender, message.authors = None, "dan@x"
    assert field(message, "Disposition-Notification-To") == "dan@x"


def test_one_click_takes_an_https_url():
    message = made(list_unsubscribe=["mailto:u@x", "https://x.y/u"], list_unsubscribe_post=True)
    assert field(message, "List-Unsubscribe-Post") == "List-Unsubscribe=One-Click"
    message.list_unsubscribe = "mailto:u@x"
    with pytest.raises(InvalidHeader, match="https"):
        message.content()


def test_a_field_stands_once():
    message = made(headers={"references": "<a@b>", "X-Mailer": "mine"})
    assert field(message, "References") == "<a@b>"
    message.references = "<c@d>"
    with pytest.raises(InvalidHeader, match="references="):
        message.content()


BAD = [
    ("in_reply_to", "a b@c d\r\n"),
    ("references", ["a@b\r\nBcc: evil@x"]),
    ("references", "<a@b"),
    ("keywords", ["a\r\nBcc: evil@x"]),
    ("comments", "a\r\nBcc: evil@x"),
    ("mailer", "a\nb"),
    ("mailer", 7),
    ("importance", "urgent"),
    ("importance", "high\r\nBcc: evil@x"),
    ("priority", "high"),
    ("x_priority", 0),
    ("x_priority", 6),
    ("sensitivity", "secret"),
    ("read_receipt_to", "a@x\r\nBcc: evil@x"),
    ("delivery_notification_to", "nobody"),
    ("list_id", "a b"),
    ("list_id", "x\r\nBcc: e@x <a.b>"),
    ("list_id", "name <a>b>"),
    ("list_help", "not a url"),
    ("list_help", "https://x.y/\r\nBcc: evil@x"),
    ("list_unsubscribe", "https://x.y/> <https://evil.example/"),
    ("list_unsubscribe", ["https://x.y/ü"]),
    ("list_unsubscribe", ["x" * 1000]),
    ("list_post", "NO\r\nBcc: evil@x"),
    ("list_archive", [7]),
    ("header_charset", "utf-16"),
    ("header_charset", "no-such"),
    ("charset", "no-such"),
    ("max_header_length", 39),
    ("max_header_length", 999),
    ("max_header_length", "78"),
    ("calendar", b"BEGIN"),
    ("raw", "a text"),
]


@pytest.mark.parametrize(("attribute", "value"), BAD)
def test_what_cannot_be_sent_is_refused_where_it_is_set(attribute, value):
    with pytest.raises(InvalidArgument):
        made(**{attribute: value})
    message, before = made(), getattr(made(), attribute)
    with pytest.raises(InvalidArgument):
        setattr(message, attribute, value)
    assert getattr(message, attribute) == before


ANY = st.text(max_size=40)
SETTABLE = [
    "in_reply_to",
    "references",
    "keywords",
    "comments",
    "mailer",
    "list_id",
    "list_help",
    "list_post",
]


@given(
    st.dictionaries(st.sampled_from(SETTABLE), ANY | st.lists(ANY, max_size=3), max_size=4),
    st.sampled_from([40, 78, 998]),
)
def test_the_header_is_exactly_what_was_set(fields, width):
    """Header injection by the value of any field: what is refused is refused, and the rest adds one field each."""
    message = made(max_header_length=width)
    for attribute, value in fields.items():
        try:
            setattr(message, attribute, value)
        except (InvalidArgument, AttributeError):
            continue
    given = [name for name in SETTABLE if getattr(message, name)]
    data = message.as_bytes()
    check_wire_form(data)
    names = dict(
        zip(
            SETTABLE,
            "In-Reply-To References Keywords Comments X-Mailer List-Id List-Help List-Post".split(),
            strict=True,
        )
    )
    assert names_of(data) == [
        *["Date", "From", "To", "Message-ID"],
        *[names[name] for name in given],
        *["MIME-Version", "Content-Type", "Content-Transfer-Encoding"],
    ]


def test_keywords_read_back():
    words = ["a", "b, c", "ü, ö", "日本語" * 30, 'q"uo\\te', "=?utf-8?q?x?="]
    message = made(keywords=words)
    check_wire_form(message.as_bytes())
    again = Message.from_bytes(message.as_bytes())
    assert again.keywords[:1] == ("a",)
    # A quoted comma is not ours to tell from a separator when it is read back; nothing else is lost.
    assert "日本語" * 30 in "".join(again.keywords)


@given(
    st.text('ab@.,;: <>"\\\n\tü[]()', max_size=20)
    | st.sampled_from(["", " ", "a@b", " a@b ", "N <a@b>", "\n", '"a,b"@x'])
)
def test_a_list_is_read_as_the_list_parser_reads_it(text):
    def outcome(read):
        try:
            return [(a.name, str(a)) for a in read(text)]
        except InvalidAddress:
            return InvalidAddress

    assert outcome(mailboxes) == outcome(parse_list)


# --- how the header is written ------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [40, 60, 78, 200, 998])
def test_lines_are_folded_at_the_length_that_was_chosen(width):
    message = made(
        max_header_length=width,
        subject="word " * 400,
        to=[f"user{n}@example.com" for n in range(100)],
        references=[f"{n}.{n}@example.com" for n in range(100)],
        comments="ü" * 300,
        list_unsubscribe=[f"https://x.y/{n}" for n in range(100)],
    )
    message.attach(b"x", filename="n" * 300)
    data = message.as_bytes()
    header = check_wire_form(data)
    # A Message-ID has no place for a fold.
    assert max([len(line) for line in header if not line.startswith(b"Message-ID")]) <= width
    assert all(len(line) <= 76 for line in header if b"=?" in line)
    if width == 998:
        assert max(map(len, header)) > 900
    found = parsed(data)
    assert found["Subject"] == ("word " * 400).strip()
    assert [a.addr_spec for a in found["To"].addresses] == [str(a) for a in message.to]
    assert found["Comments"] == "ü" * 300
    assert next(found.iter_attachments()).get_filename() == "n" * 300


@given(
    st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), max_size=300),
    st.sampled_from([40, 60, 78, 998]),
    st.sampled_from(["utf-8", "latin-1", "iso-2022-jp", "koi8-r", "gb18030", 1252]),
)
def test_a_subject_in_any_charset_reads_back(subject, width, charset):
    message = made(subject=subject, max_header_length=width, header_charset=charset)
    try:
        data = message.as_bytes()
    except TextNotEncodable as error:
        assert error.code == 434
        return
    header = check_wire_form(data)
    for line in header:
        assert all(len(word) <= 75 for word in line.split() if word.startswith(b"=?"))
    assert Message.from_bytes(data).subject == subject.strip(" ")


@pytest.mark.parametrize(
    ("charset", "written"),
    [
        ("utf-8", b"Subject: =?utf-8?"),
        ("iso-8859-1", b"Subject: =?iso-8859-1?"),
        (1252, b"Subject: =?windows-1252?"),
        ("", "Subject: Grüße\r\n".encode()),
    ],
)
def test_the_charset_of_the_header_is_the_one_that_was_chosen(charset, written):
    message = Message(sender="a@x", to="b@x", subject="Grüße", header_charset=charset)
    assert written in message.content(utf8=True, eightbit=True).join()


def test_a_header_that_is_not_encoded_takes_smtputf8():
    message = made(header_charset="", subject="Grüße", to="Jörg <j@x>", headers={"X-A": "Ö"})
    with pytest.raises(TextNotEncodable) as caught:
        message.content()
    assert caught.value.code == 434
    content = message.content(utf8=True, eightbit=True)
    assert content.utf8
    head = content.join().partition(b"\r\n\r\n")[0].decode()
    assert "\r\nSubject: Grüße\r\n" in head
    assert '\r\nTo: "Jörg" <j@x>\r\n' in head
    assert "\r\nX-A: Ö\r\n" in head
    message.subject, message.to, message.headers = "plain", "j@x", []
    assert not message.content().utf8


def test_an_unencoded_header_of_any_length_keeps_its_lines():
    message = made(header_charset="", subject="ü" * 2000, comments="wört " * 500, to=f'"{"ü" * 250}" <a@x>')
    data = message.as_bytes()
    check_wire_form(data)
    found = Message.from_bytes(data)
    assert found.subject == "ü" * 2000
    assert found.to[0].name == "ü" * 250
    message.subject = "a\x85b"
    with pytest.raises(InvalidHeader, match="line end"):
        message.content(utf8=True)


def test_display_names_in_another_charset():
    message = made(to="Jörg Müller <j@x>", header_charset="iso-8859-1")
    assert field(message, "To").startswith("=?iso-8859-1?b?")
    assert parsed(message.as_bytes())["To"].addresses[0].display_name == "Jörg Müller"
    message.to = "日本 <j@x>"
    with pytest.raises(TextNotEncodable):
        message.content()


def test_utf8_local_parts_in_receipts():
    message = made(read_receipt_to="jörg@x")
    with pytest.raises(ExtensionMissing):
        message.content()
    assert message.content(utf8=True).utf8


# --- clearing, copying --------------------------------------------------------------------------------------


def test_clear_headers():
    message = made(
        subject="s",
        text="t",
        cc="c@x",
        bcc="d@x",
        reply_to="r@x",
        return_path="<>",
        headers={"X": "y"},
        message_id="1@x",
        date="",
        mailer="m",
        importance="high",
        references="a@b",
        charset="latin-1",
        max_header_length=60,
        calendar="BEGIN:VCALENDAR",
    )
    message.attach(b"x", filename="a")
    message.clear_headers()
    with pytest.raises(SMTPError):
        message.content()
    message.sender = "new@x"
    assert names_of(message.as_bytes()) == ["Date", "From", "Message-ID", "MIME-Version", "Content-Type"]
    assert (message.text, message.charset, message.max_header_length) == ("t", "latin-1", 60)
    assert message.calendar == "BEGIN:VCALENDAR"
    assert len(message.attachments) == 1
    assert (message.recipients, message.headers, message.return_path) == ([], [], None)


def test_the_next_message_has_another_identity():
    message = made()
    first = message.content().message_id
    message.clear_headers()
    message.sender = "ann@example.com"
    assert message.content().message_id != first


def test_they_travel():
    message = made(mailer="m", x_priority=1, read_receipt_to=True, list_id="l.x", raw=None)
    rendered = message.as_bytes()
    for twin in (pickle.loads(pickle.dumps(message)), copy.deepcopy(message)):
        assert twin.as_bytes() == rendered
        twin.mailer = "other"
        assert message.mailer == "m"


def test_bad_addresses_have_the_right_class():
    with pytest.raises(InvalidAddress):
        made(read_receipt_to="a b@c")
