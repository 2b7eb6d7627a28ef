"""render_entity.py: what of a foreign message is touched for a server, and what is not."""

import base64
import email
import email.policy
import quopri
import time
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtp_async.errors import ExtensionMissing, InvalidArgument, InvalidHeader, SMTPError
from smtp_async.message.entity import MOST_LEVELS, Entity, entity_of_octets
from smtp_async.message.foreign_mail import mail_of_email_object
from smtp_async.message.header_parser import Field
from smtp_async.message.render_entity import content_of_entity, message_within
from smtp_async.message.transfer_encoding import EIGHT, SEVEN, Capabilities
from smtp_async.model.octets import normalised

from .reading import check_wire_form

OLD = Capabilities(eightbit=False, utf8=False, binary=False)
NEW = Capabilities(eightbit=True, utf8=True, binary=False)
LONG = b"x" * 1200 + b"\r\n"


def written(data, can=OLD):
    return content_of_entity(entity_of_octets(data), can)


def multipart(*parts, head=b""):
    body = b"".join([b"--b\r\n" + part + b"\r\n" for part in parts])
    return head + b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + body + b"--b--\r\n"


def leaf(kind, encoding, body):
    return b"Content-Type: " + kind + b"\r\nContent-Transfer-Encoding: " + encoding + b"\r\n\r\n" + body


@pytest.mark.parametrize(
    "data",
    [
        b"Subject: x\r\n folded\r\n\r\nplain\r\n",
        leaf(b"text/plain", b"base64", b"eA==\r\n"),
        leaf(b"text/plain", b"quoted-printable", b"=C3=BC\r\n"),
        leaf(b"text/plain", b"x-unknown", b"x\r\n"),
        leaf(b"text/plain", b"8bit", b"plain\r\n"),
        multipart(b"\r\none", leaf(b"text/plain", b"base64", b"eA==")),
        b"DKIM-Signature: v=1;\r\n\tb=x\r\n y\r\n\r\nplain\r\n",
    ],
)
def test_what_may_travel_is_not_touched(data):
    for can in (OLD, NEW):
        content = written(data, can)
        assert content.join() == data
        assert (content.eightbit, content.utf8) == (False, False)


def test_eight_bit_travels_where_it_is_taken():
    data = leaf(b"text/plain; charset=utf-8", b"8bit", "Grüße\r\n".encode())
    content = written(data, NEW)
    assert (content.join(), content.eightbit, content.utf8) == (data, True, False)
    old = entity_of_octets(written(data).join())
    assert (old.encoding, old.decoded()) == ("base64", "Grüße\r\n".encode())


@pytest.mark.parametrize(
    ("data", "encoding", "octets"),
    [
        (b"\r\n" + LONG, "quoted-printable", LONG),
        (b"\r\nplain\0\r\n", "quoted-printable", b"plain\0\r\n"),
        (leaf(b"text/plain", b"7bit", b"\xfc" * 9 + b"\r\n"), "base64", b"\xfc" * 9 + b"\r\n"),
        (
            leaf(b"text/plain", b"quoted-printable", b"=41\xfc and more\r\n"),
            "quoted-printable",
            b"A\xfc and more\r\n",
        ),
        (
            leaf(b"text/plain", b"quoted-printable", b"=41" * 400 + b"\r\n"),
            "quoted-printable",
            b"A" * 400 + b"\r\n",
        ),
        (leaf(b"text/plain", b"base64", b"eHh4" * 300), "base64", b"xxx" * 300),
        (leaf(b"image/png", b"base64", b"eHh4" * 300), "base64", b"xxx" * 300),
        (leaf(b"image/png", b"8bit", b"\xfc\r\n"), "base64", b"\xfc\r\n"),
        (leaf(b"image/png", b"binary", LONG), "base64", LONG),
        (leaf(b"message/global", b"8bit", b"\xfc\r\n"), "base64", b"\xfc\r\n"),
    ],
)
def test_what_may_not_is_encoded_anew(data, encoding, octets):
    joined = written(data).join()
    check_wire_form(joined)
    again = entity_of_octets(joined)
    assert again.encoding == encoding
    body = again.body.rstrip(b"\r\n") if encoding == "base64" else again.body
    found = base64.b64decode(body) if encoding == "base64" else quopri.decodestring(body)
    assert found.replace(b"\n", b"\r\n").replace(b"\r\r\n", b"\r\n").rstrip() == octets.rstrip()
    assert again.text("mime-version") == "1.0"


def test_the_declaration_is_made_true():
    assert b"Encoding: 8bit\r\n" in written(leaf(b"text/plain", b"7bit", b"\xfc\r\n"), NEW).join()
    assert b"Encoding: 7bit\r\n" in written(leaf(b"text/plain", b"binary", b"x\r\n"), OLD).join()
    data = multipart(leaf(b"text/plain", b"8bit", b"\xfc"), head=b"Content-Transfer-Encoding: 8bit\r\n")
    assert written(data, NEW).join() == data
    assert entity_of_octets(written(data, OLD).join()).encoding == "7bit"
    silent = entity_of_octets(written(multipart(b"\r\n\xfc"), NEW).join())
    assert silent.encoding == "8bit"
    assert silent.parts[0].encoding == "8bit"


def test_a_second_field_of_the_same_name_stays_behind():
    data = b"Content-Transfer-Encoding: 8bit\r\nMIME-Version: 1.0\r\n\r\n\xfc and more text\r\n"
    assert written(data).join().count(b"MIME-Version") == 1


@pytest.mark.parametrize(
    "data",
    [
        leaf(b"text/plain", b"x-unknown", LONG),
        leaf(b"text/plain", b"base64", b"!" + LONG),
        leaf(b"application/octet-stream", b"", LONG),
        leaf(b"multipart/mixed", b"7bit", LONG),
        leaf(b"multipart/mixed; boundary=none", b"7bit", b"\xfc\r\n"),
    ],
)
def test_what_cannot_be_encoded_is_named(data):
    with pytest.raises(InvalidArgument, match=r"the message has lines over 998 .* send_raw"):
        written(data)
    with pytest.raises(InvalidArgument, match=r"part 2 \(.*send_raw"):
        written(multipart(b"\r\nx", data))


@pytest.mark.parametrize("kind", [b"multipart/signed; boundary=b", b"multipart/encrypted"])
def test_what_is_signed_is_not_written_anew(kind):
    with pytest.raises(InvalidArgument, match="cannot be rewritten"):
        written(b"Content-Type: " + kind + b"\r\n\r\nx\r\n")


def test_bcc_is_left_out_of_the_outermost_header_only():
    inner = b"Bcc: inner@x.example\r\n\r\nx\r\n"
    data = multipart(
        leaf(b"message/rfc822", b"7bit", inner), head=b"Bcc: a@x.example\r\nResent-Bcc: b@x.example\r\n"
    )
    joined = written(data).join()
    assert b"a@x.example" not in joined
    assert b"b@x.example" not in joined
    assert inner in joined


def test_fields_of_parts_are_rewritten_too():
    part = "Content-Type: text/plain; name=ü\r\nContent-Description: ü\r\n\r\nx".encode()
    (again,) = entity_of_octets(written(multipart(part), NEW).join()).parts
    assert again.octets() == (
        b"Content-Type: text/plain; name*=utf-8''%C3%BC\r\nContent-Description: =?utf-8?b?w7w=?=\r\n\r\nx"
    )
    with pytest.raises(InvalidHeader, match="Content-ID"):
        written(multipart(b"Content-ID: <" + b"x" * 998 + b">\r\n\r\nx"), NEW)


def test_smtputf8_is_for_the_outermost_header():
    data = "From: jörg@x.example\r\nMessage-ID: <1@x>\r\n\r\nx\r\n".encode()
    content = written(data, NEW)
    assert (content.utf8, content.eightbit, content.message_id, content.join()) == (True, True, "<1@x>", data)
    with pytest.raises(ExtensionMissing):
        written(data, OLD)


def test_a_message_ends_with_a_line_end_and_may_have_no_id():
    content = written(b"A: b\r\n\r\nx")
    assert (content.join(), content.message_id) == (b"A: b\r\n\r\nx\r\n", None)
    assert written(b"Message-ID: none\r\n\r\nx\r\n").message_id is None


def test_a_soft_line_break_makes_no_delimiter():
    """The text is one line; encoded, what is in its middle may come to stand at the beginning of a line."""
    for before in range(1000, 1080):
        text = b"x" * before + b"--b"
        data = multipart(b"Content-Type: text/plain\r\n\r\n" + text + b"\r\nmore")
        (part,) = entity_of_octets(written(data).join()).parts
        assert part.decoded() == text + b"\r\nmore"


def test_a_delimiter_of_an_outer_multipart_is_heeded_within_an_inner_one():
    inner = (
        b"Content-Type: multipart/mixed; boundary=c\r\n\r\n--c\r\n\r\n"
        + b"x" * 75
        + b"--b"
        + b" " * 20
        + b"y" * 1000
        + b"\r\n--c--"
    )
    (found,) = entity_of_octets(written(multipart(inner)).join()).parts
    assert len(found.parts) == 1


# --- messages within ----------------------------------------------------------------------------------------


def test_an_attached_message_is_treated_in_its_parts():
    inner = b"Subject: \xfc\r\n\r\n\xfc and more text\r\n"
    data = multipart(leaf(b"message/rfc822", b"8bit", inner))
    assert inner in written(data, NEW).join()
    (part,) = entity_of_octets(written(data).join()).parts
    assert (part.content_type.value, part.encoding) == ("message/rfc822", "7bit")
    message = entity_of_octets(part.body)
    assert (message.text("subject"), message.encoding) == ("=?utf-8?b?w7w=?=", "quoted-printable")
    assert message.text("mime-version") is None


@pytest.mark.parametrize(
    "inner",
    [
        b"Content-Type: multipart/signed; boundary=c\r\n\r\n--c\r\n\r\n\xfc\r\n--c--\r\n",
        "To: jörg@x.example\r\n\r\nü\r\n".encode(),
        b"no field\r\n\r\n\xfc\r\n",
    ],
)
def test_an_attached_message_that_must_not_be_written_anew_goes_as_a_file(inner):
    (part,) = entity_of_octets(written(multipart(leaf(b"message/rfc822", b"8bit", inner))).join()).parts
    assert (part.content_type.value, part.encoding) == ("application/octet-stream", "base64")
    assert part.decoded() == inner
    assert message_within(inner, OLD) is None


def test_a_message_within():
    assert message_within(b"A: b\r\n\r\nx\r\n", OLD) == (b"A: b\r\n\r\nx\r\n", SEVEN)
    assert message_within(b"A: b\r\n\r\n\xfc\r\n", NEW) == (
        b"A: b\r\nContent-Transfer-Encoding: 8bit\r\n\r\n\xfc\r\n",
        EIGHT,
    )


@pytest.mark.parametrize("kind", ["message", "multipart"])
def test_there_are_only_so_many_levels(kind):
    data = b"\r\n\xfc\r\n"
    for level in range(MOST_LEVELS + 20):
        if kind == "message":
            data = leaf(b"message/rfc822", b"8bit", data)
        else:
            data = (
                f"Content-Type: multipart/mixed; boundary=b{level}-\r\n\r\n--b{level}-\r\n".encode()
                + data
                + f"\r\n--b{level}---\r\n".encode()
            )
    assert message_within(data, OLD) is None or kind == "message"
    if kind == "message":
        check_wire_form(written(data).join())
    else:
        with pytest.raises(InvalidArgument):
            written(data)


def test_an_entity_that_was_joined_stays_so():
    one = Entity([Field("a", b"A: b\r\n")], b"no field\r\n\r\nx\r\n", joined=True)
    whole = Entity([Field("content-type", b"Content-Type: multipart/mixed; boundary=b\r\n")], parts=[one])
    assert b"--b\r\nA: b\r\nno field\r\n" in content_of_entity(whole, OLD).join()


# --- anything -----------------------------------------------------------------------------------------------

PIECES = st.lists(
    st.sampled_from(
        [
            b"\r\n",
            b"\r\n\r\n",
            b"--b\r\n",
            b"--b--\r\n",
            b"a",
            b"\xfc",
            b"\0",
            LONG,
            b"Subject: ",
            b"Content-Type: ",
        ]
        + [
            b"multipart/mixed; boundary=b",
            b"message/rfc822",
            b"multipart/signed",
            b"Content-Transfer-Encoding: ",
        ]
        + [
            b"base64\r\n",
            b"8bit\r\n",
            b"quoted-printable\r\n",
            b"To: ",
            b"Bcc: e@x",
            b"=?utf-8?q?=0A?=",
            b"eA==",
        ]
    ),
    max_size=25,
).map(b"".join)


@given(PIECES, st.sampled_from([OLD, NEW]))
def test_any_octets_leave_in_order_or_are_refused(data, can):
    try:
        content = written(normalised(data), can)
    except (InvalidArgument, InvalidHeader, ExtensionMissing) as error:
        assert isinstance(error, SMTPError)
        return
    joined = content.join()
    assert joined.endswith(b"\r\n")
    assert b"\n" not in joined.replace(b"\r\n", b"")
    assert b"\0" not in joined
    assert max(map(len, joined.split(b"\r\n"))) <= 998
    assert joined.isascii() or content.eightbit
    assert can.eightbit or joined.isascii()
    assert not {field.name for field in entity_of_octets(joined).fields} & {"bcc", "resent-bcc"}
    # What is written once needs nothing any more; without a header left, some read the body for one.
    assert joined.startswith(b"\r\n") or written(joined, can).join() == joined


def test_many_levels_around_a_long_text_cost_little():
    message: Any = MIMEText("x" * 1_000_000)
    for _ in range(90):
        outer = MIMEMultipart()
        outer.attach(message)
        message = outer
    mail = mail_of_email_object(message)
    begun = time.process_time()
    data = mail.content().join()
    assert time.process_time() - begun < 1.5
    assert max(map(len, data.split(b"\r\n"))) <= 998


FOLDED = (
    b'To: Team: "Ann  (x)  Bee" <c@d.example>,\r\n "d  e" <d@e.example>;\r\n'
    b"DKIM-Signature: v=1; c=simple/simple; b=abc\r\n\tdef\r\n"
    b'Content-Type: text/plain; charset=us-ascii;\r\n name=a b.txt; junk; x-note="kept"\r\n\r\nx\r\n'
)


@pytest.mark.parametrize("policy", [email.policy.compat32, email.policy.default])
def test_what_is_folded_and_fit_leaves_octet_for_octet(policy):
    assert mail_of_email_object(email.message_from_bytes(FOLDED, policy=policy)).content().join() == FOLDED
