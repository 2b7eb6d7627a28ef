"""entity_from_email.py: the values of an object, never text that the standard library wrote."""

import email
import email.policy
from email.header import Header
from email.headerregistry import Address, Group
from email.message import EmailMessage
from email.message import Message as OldMessage
from email.mime.message import MIMEMessage
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtp_async.errors import InvalidArgument, InvalidHeader, SMTPError, TextNotEncodable
from smtp_async.message.entity import MOST_LEVELS, MOST_PARTS, entity_of_octets
from smtp_async.message.entity_from_email import entity_of_email_object, free_boundary
from smtp_async.message.foreign_mail import mail_of_email_object


def old(**fields):
    message = OldMessage()
    for name, value in fields.items():
        message[name.replace("_", "-")] = value
    return message


def parsed(data, policy=email.policy.compat32):
    return email.message_from_bytes(data, policy=policy)


def octets(message):
    return entity_of_email_object(message).octets()


@pytest.mark.parametrize("policy", [email.policy.compat32, email.policy.default])
def test_a_header_that_was_cut_short_is_refused(policy):
    data = b"A: b\r\n>From x\r\nBcc: c@x\r\n\r\nx"
    with pytest.raises(InvalidHeader, match="send_raw"):
        entity_of_email_object(parsed(data, policy))
    part = parsed(
        b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nA: b\r\nno field\r\n\r\nx\r\n--b--\r\n",
        policy,
    )
    assert b"--b\r\nA: b\r\nno field\r\n\r\nx\r\n--b--" in octets(part)


@pytest.mark.parametrize("kind", ["multipart/signed", "multipart/encrypted"])
def test_what_is_signed_is_refused(kind):
    with pytest.raises(InvalidArgument, match=rf"the message is {kind}.*send_raw"):
        entity_of_email_object(old(Content_Type=kind))
    whole = MIMEMultipart()
    whole.attach(old(Content_Type=kind))
    with pytest.raises(InvalidArgument, match=r"part 1 is .*send_raw"):
        entity_of_email_object(whole)


def test_there_are_bounds():
    message: OldMessage = MIMEText("x")
    for _ in range(300):
        around = MIMEMultipart()
        around.attach(message)
        message = around
    with pytest.raises(InvalidArgument, match=f"more than {MOST_LEVELS} levels"):
        entity_of_email_object(message)
    cycle = MIMEMultipart()
    cycle.attach(cycle)
    with pytest.raises(InvalidArgument, match="levels"):
        entity_of_email_object(cycle)
    # The whole message is one part more.
    part = MIMEText("x")
    assert (
        len(entity_of_email_object(MIMEMultipart(_subparts=[part] * (MOST_PARTS - 1))).parts)
        == MOST_PARTS - 1
    )
    with pytest.raises(InvalidArgument, match=f"more than {MOST_PARTS} parts"):
        entity_of_email_object(MIMEMultipart(_subparts=[part] * MOST_PARTS))


def test_what_is_no_message_within_is_refused():
    whole = MIMEMultipart()
    whole._payload = ["text"]  # type: ignore[attr-defined]  # what careless code does
    with pytest.raises(InvalidArgument, match="part 1 is str"):
        entity_of_email_object(whole)


# --- fields -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [["a@x", "b@x"], ("a@x",), 7, None, b"a@x"])
def test_values_are_texts(value):
    message = OldMessage()
    message._headers = [("To", value)]  # type: ignore[attr-defined]  # compat32 takes anything
    with pytest.raises(InvalidHeader, match="not a text") as caught:
        entity_of_email_object(message)
    assert ("commas" in str(caught.value)) == isinstance(value, list | tuple)


@pytest.mark.parametrize("value", ["a\r\nBcc: x", "a\nb", "a\rb", "a\0b", "a\ud800", "a\n"])
def test_a_line_end_in_a_value_is_refused(value):
    message = OldMessage()
    message._headers = [("X", value)]  # type: ignore[attr-defined]
    with pytest.raises(InvalidHeader, match="the value of X"):
        entity_of_email_object(message)


@pytest.mark.parametrize("name", ["", "a b", "a:b", "ü", 7, "a\n"])
def test_names_are_checked(name):
    message = OldMessage()
    message._headers = [(name, "x")]  # type: ignore[attr-defined]
    with pytest.raises(InvalidHeader, match="not the name"):
        entity_of_email_object(message)
    whole = MIMEMultipart()
    whole.attach(message)
    with pytest.raises(InvalidHeader, match="not the name"):
        entity_of_email_object(whole)


def test_values_keep_their_folds_and_octets():
    data = b"A: b\n\tc\nX: \xfc\nEmpty:\n\nx"
    assert octets(parsed(data)) == b"A: b\r\n\tc\r\nX: \xfc\r\nEmpty:\r\n\r\nx"


def test_headers_of_the_old_api():
    assert b"X: =?utf-8?b?w7w=?=\r\n" in octets(old(X=Header("ü", "utf-8")))
    broken = Header("x")
    broken._chunks = [("ü", "us-ascii")]  # type: ignore[attr-defined]
    with pytest.raises(InvalidHeader, match="cannot be written"):
        entity_of_email_object(old(X=broken))


def test_fields_of_the_modern_api():
    message = EmailMessage()
    message["To"] = [Group("team", (Address("A, é <x@y>", "a", "x.example"),)), Address("", "b", "x.example")]
    message["Subject"] = "ü"
    message["References"] = "<1@x>"
    message["X-Tokens"] = "plain"
    message.set_content("x")
    message.add_header("Content-Disposition", "inline", filename="ü")
    head = octets(message)
    assert b"To: team: =?utf-8?b?QSwgw6kgPHhAeT4=?= <a@x.example>;, b@x.example\r\n" in head
    assert b"Subject: =?utf-8?b?w7w=?=\r\nReferences: <1@x>\r\nX-Tokens: plain\r\n" in head
    assert b"Content-Disposition: inline; filename*=utf-8''%C3%BC\r\n" in head


def test_a_field_of_addresses_that_cannot_be_read_is_kept():
    message = parsed(b"To: a b c\r\nReferences: \xfc\r\n\r\nx", email.policy.default)
    assert octets(message).startswith(b"To: a b c\r\n")


def test_addresses_that_are_none_are_refused_or_kept():
    message = EmailMessage()
    message["To"] = Address("Ann", "a b", "x.example")
    message["Cc"] = Address("", "nobody", "")
    assert octets(message).startswith(b"To: ")

    class Odd(str):
        groups = (None,)

        def fold(self, **arguments):
            raise AssertionError("the library writes its fields itself")

    odd = OldMessage()
    odd._headers = [("To", Odd("x"))]  # type: ignore[attr-defined]
    with pytest.raises(InvalidHeader, match="no address"):
        entity_of_email_object(odd)


# --- bodies -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("payload", "kind", "encoding", "body"),
    [
        (None, "text/plain", "7bit", b""),
        ("a\nb\r", "text/plain", "7bit", b"a\r\nb\r\n"),
        ("ü", "text/plain", "8bit", "ü".encode()),
        ("ü", "text/plain; charset=us-ascii", "8bit", "ü".encode()),
        ("ü", "text/plain; charset=latin-1", "8bit", b"\xfc"),
        ("ü\n", "text/plain; charset=utf-16-le", "8bit", b"/AANAAoA\r\n"),
        ("\udcfc", "text/plain", "8bit", b"\xfc"),
        (b"\0\n", "image/png", "binary", b"AAo=\r\n"),
        (bytearray(b"x\n"), "text/plain", "7bit", b"x\r\n"),
        (b"x\n", "image/png", "7bit", b"eAo=\r\n"),
        ("eA==\n", "image/png", "base64", b"eA==\r\n"),
    ],
)
def test_bodies(payload, kind, encoding, body):
    message = old(Content_Type=kind, Content_Transfer_Encoding=encoding)
    message._payload = payload
    assert entity_of_email_object(message).body == body


@pytest.mark.parametrize(
    ("payload", "kind", "error"),
    [
        (7, "text/plain", InvalidArgument),
        ({"a": 1}, "text/plain", InvalidArgument),
        ("\ud800", "text/plain", TextNotEncodable),
        ("ü\ud800", "text/plain", TextNotEncodable),
        ("€", "text/plain; charset=latin-1", TextNotEncodable),
        ("€", "text/plain; charset=no-such", SMTPError),
    ],
)
def test_bodies_that_cannot_be_sent(payload, kind, error):
    message = old(Content_Type=kind)
    message._payload = payload
    with pytest.raises(error):
        entity_of_email_object(message)


def test_a_text_that_was_set_declares_its_charset():
    message = old(Content_Type="text/plain; format=flowed")
    message._payload = "ü"
    found = entity_of_email_object(message).content_type
    assert found.parameters == (("charset", "utf-8"), ("format", "flowed"))


# --- multiparts ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("boundary", ["", "ü", "b "])
def test_a_boundary_that_cannot_be_used_is_replaced(boundary):
    whole = MIMEMultipart(_subparts=[MIMEText("x")])
    whole.set_param("boundary", boundary)
    found = entity_of_email_object(whole)
    assert found.boundary.startswith("=_") or found.boundary == "b"
    assert len(found.parts) == 1


def test_a_boundary_that_cuts_a_part_in_two_is_drawn_anew():
    whole = MIMEMultipart(boundary="b", _subparts=[MIMEText("x\n--b\ny")])
    found = entity_of_email_object(whole)
    assert found.boundary != "b"
    inner = MIMEMultipart(boundary="c", _subparts=[MIMEText("x\n--b\ny")])
    found = entity_of_email_object(MIMEMultipart(boundary="b", _subparts=[inner]))
    assert found.boundary != "b"
    assert len(entity_of_octets(found.octets()).parts) == 1
    tokens = iter(["one", "two"])
    assert free_boundary([b"=_one"], lambda number: next(tokens)) == "=_two"


def test_what_stands_around_the_parts():
    whole = MIMEMultipart(boundary="b", _subparts=[MIMEText("x")])
    whole.preamble, whole.epilogue = "before", "behind\n"
    found = entity_of_email_object(whole)
    assert (found.preamble, found.epilogue) == (b"before\r\n", b"behind\r\n")
    whole.preamble, whole.epilogue = "--b", "ü"
    found = entity_of_email_object(whole)
    assert (found.preamble, found.epilogue) == (b"", b"")
    assert entity_of_email_object(MIMEMultipart()).octets().endswith(b"\r\n\r\n")


def test_messages_within():
    report = parsed(b"Content-Type: message/delivery-status\n\nA: b\n\nC: d\n\n")
    assert entity_of_email_object(report).body == b"A: b\r\n\r\nC: d\r\n\r\n"
    within = parsed(b"Content-Type: message/rfc822\n\nA: b\n\nx")
    assert entity_of_email_object(within).body == b"A: b\r\n\r\nx"
    within._payload = [MIMEText("x"), MIMEText("y")]
    with pytest.raises(InvalidArgument, match="holds 2 messages"):
        entity_of_email_object(within)
    within._payload = [old(Subject="ü")]
    assert entity_of_email_object(within).body == b"Subject: =?utf-8?b?w7w=?=\r\n\r\n"


@given(st.binary(max_size=200), st.sampled_from([email.policy.compat32, email.policy.default]))
def test_any_octets_that_were_parsed_are_read_or_refused(data, policy):
    try:
        entity_of_email_object(parsed(data, policy)).octets()
    except SMTPError:
        pass


# --- lists that the modern API could not read whole -----------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    ["c@d.example; e@e.example; f@f.example", "Ann <x@y.example> <z@y.example>", "c@d.example e@e.example"],
)
def test_a_list_of_which_a_part_was_left_out_is_refused(value):
    """What the modern API cannot read it drops, and with it recipients."""
    message = EmailMessage()
    message["To"] = value
    with pytest.raises(InvalidHeader, match="commas"):
        entity_of_email_object(message)


@pytest.mark.parametrize("value", ["a..b@x.example", '"a b"@x.example', '"Dr. B." <a@x.example>', ""])
def test_what_the_modern_api_only_complains_about_is_kept(value):
    message = EmailMessage()
    message["To"] = value
    assert octets(message).startswith(f"To: {value}".strip().encode())


def test_the_words_of_an_old_header_fit_their_lines():
    message = old(Subject=Header("Grüße " * 60, "utf-8"))
    lines = octets(message).split(b"\r\n")
    assert max(map(len, lines)) <= 76
    assert len(lines) > 6


# --- parts and what stands around them ------------------------------------------------------------------------


def test_parts_need_a_multipart():
    message = OldMessage()
    message.attach(MIMEText("x"))
    with pytest.raises(InvalidArgument, match="multipart/mixed"):
        entity_of_email_object(message)


def test_the_parts_of_a_digest_are_messages():
    data = (
        b"Content-Type: multipart/digest; boundary=b\r\n\r\n"
        b"--b\r\n\r\nSubject: one\r\n\r\nx\r\n--b\r\n\r\nSubject: two\r\n\r\ny\r\n--b--\r\n"
    )
    for policy in (email.policy.compat32, email.policy.default):
        entity = entity_of_email_object(parsed(data, policy))
        assert [part.content_type.value for part in entity.parts] == ["message/rfc822"] * 2
        assert [part.content_type.value for part in entity_of_octets(data).parts] == ["message/rfc822"] * 2
        assert entity.octets() == data


@pytest.mark.parametrize("text", ["x" * 999, "a\0b", "ü"])
def test_what_cannot_travel_around_the_parts_is_left_out(text):
    message = MIMEMultipart()
    message.attach(MIMEText("x"))
    message.preamble = message.epilogue = text
    assert text.encode() not in octets(message)
    message.preamble = "kept"
    assert b"\r\n\r\nkept\r\n--" in octets(message)


def test_a_signed_message_that_is_attached_names_the_way_out():
    inner = MIMEMultipart("signed")
    inner.attach(MIMEText("x"))
    outer = MIMEMultipart()
    outer.attach(MIMEMessage(inner))
    with pytest.raises(InvalidArgument, match=r"attach its source bytes as message/rfc822.*send_raw"):
        entity_of_email_object(outer)


def test_a_text_that_would_be_taken_for_the_header_is_refused():
    message = email.message_from_bytes(b"\r\nTo: eve@x.example\r\n\r\nhi\r\n")
    with pytest.raises(InvalidHeader, match="read as its header"):
        mail_of_email_object(message).content()
