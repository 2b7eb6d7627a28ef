"""plan.py: every wish becomes its parameter where it is offered, and an error before MAIL where it is not."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from smtp_async.errors import ExtensionMissing, InvalidArgument, MessageTooLarge, MissingRecipient
from smtp_async.model.address import Address
from smtp_async.model.content import Content, Source
from smtp_async.model.dsn import DSN, Notify, Return
from smtp_async.model.envelope import Envelope, Kind, Recipient
from smtp_async.protocol.extensions import NO_EXTENSIONS, Extensions
from smtp_async.protocol.options import DeliverBy, SendOptions
from smtp_async.protocol.plan import demand_to, plan
from tests.protocol.talk import BODY, bob

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)
BARE = b"A: b\r\n\r\none\ntwo\rthree"
EVERYTHING = {
    **dict.fromkeys(
        ("8BITMIME", "SMTPUTF8", "CHUNKING", "BINARYMIME", "DSN", "REQUIRETLS", "PIPELINING"), ""
    ),
    "AUTH": "PLAIN",
    "DELIVERBY": "",
    "FUTURERELEASE": "1000 2030-01-02T00:00:00Z",
    "MT-PRIORITY": "MIXER",
}
WISHES: dict[str, tuple[str, dict[str, Any], bytes]] = {
    "RET": ("DSN", {"ret": Return.FULL}, b"RET=FULL"),
    "ENVID": ("DSN", {"envid": "a+b"}, b"ENVID=a+2Bb"),
    "AUTH": ("AUTH", {"auth": "<>"}, b"AUTH=<>"),
    "BY": ("DELIVERBY", {"deliver_by": DeliverBy(seconds=60)}, b"BY=60;R"),
    "HOLDFOR": ("FUTURERELEASE", {"hold_for": 60}, b"HOLDFOR=60"),
    "HOLDUNTIL": ("FUTURERELEASE", {"hold_until": NOON}, b"HOLDUNTIL=2030-01-01T12:00:00Z"),
    "MT-PRIORITY": ("MT-PRIORITY", {"mt_priority": 3}, b"MT-PRIORITY=3"),
    "REQUIRETLS": ("REQUIRETLS", {"require_tls": True}, b"REQUIRETLS"),
}


def offer(*keywords, **values):
    return Extensions(dict.fromkeys(keywords, "") | values)


def offer_without(keyword):
    return Extensions({name: value for name, value in EVERYTHING.items() if name != keyword})


def planned(*recipients, sender="ann@example.com", content=None, extensions=None, asked=False, **options):
    envelope = Envelope(sender, recipients or [bob()])
    return plan(
        envelope,
        content or Content.of_bytes(BODY),
        Extensions(EVERYTHING) if extensions is None else extensions,
        SendOptions(**options),
        chunking=asked,
    )


# --- the verb ---


@pytest.mark.parametrize("verb", ["SEND", "SOML", "SAML"])
def test_a_verb_takes_the_place_of_mail_where_it_is_offered(verb: Any) -> None:
    extensions = offer("DSN", verb, SIZE="")
    made = planned(extensions=extensions, verb=verb, ret=Return.FULL)
    size = made.content.size
    assert made.mail == f"{verb} FROM:<ann@example.com> SIZE={size} RET=FULL\r\n".encode()
    with pytest.raises(ExtensionMissing, match=verb):
        planned(extensions=offer("DSN", "SIZE"), verb=verb)
    # What was remembered of one verb is not taken for another.
    assert planned(extensions=extensions, ret=Return.FULL).mail.startswith(b"MAIL FROM:")


# --- wishes about the message ---


@pytest.mark.parametrize("name", WISHES)
def test_a_wish_becomes_its_parameter(name):
    _, options, parameter = WISHES[name]
    assert planned(**options).mail == b"MAIL FROM:<ann@example.com> " + parameter + b"\r\n"


@pytest.mark.parametrize("name", WISHES)
def test_a_wish_that_is_not_offered_is_an_error_that_names_it(name):
    keyword, options, _ = WISHES[name]
    with pytest.raises(ExtensionMissing, match=f"{name} needs {keyword}"):
        planned(extensions=offer_without(keyword), **options)


def test_all_wishes_at_once_behind_what_the_content_needs():
    options = {
        key: value for _, wish, _ in WISHES.values() for key, value in wish.items() if key != "hold_for"
    }
    content = Content.of_bytes("Subject: ä\r\n\r\nx\r\n".encode())
    assert planned(content=content, extensions=Extensions(EVERYTHING | {"SIZE": ""}), **options).mail == (
        b"MAIL FROM:<ann@example.com> SIZE=18 BODY=8BITMIME SMTPUTF8 RET=FULL ENVID=a+2Bb AUTH=<> BY=60;R"
        b" HOLDUNTIL=2030-01-01T12:00:00Z MT-PRIORITY=3 REQUIRETLS\r\n"
    )


@pytest.mark.parametrize("sender", [None, "ann@example.com", "ann+x@faß.de"])
def test_without_wishes_an_offer_changes_nothing(sender):
    assert planned(sender=sender).envelope == planned(sender=sender, extensions=NO_EXTENSIONS).envelope


# --- times ---


@pytest.mark.parametrize(
    ("shortest", "wish", "accepted"),
    [
        ("", DeliverBy(seconds=1), True),
        ("60", DeliverBy(seconds=60), True),
        ("60", DeliverBy(seconds=60.5), True),
        ("60", DeliverBy(seconds=59.9), False),
        ("60", DeliverBy(seconds=1), False),
        ("60", DeliverBy(seconds=1, notify=True), True),
        ("60", DeliverBy(seconds=-1, notify=True), True),
        ("soon", DeliverBy(seconds=1), True),
    ],
)
def test_the_shortest_time_of_the_server(shortest, wish, accepted):
    extensions = offer(DELIVERBY=shortest)
    if accepted:
        assert b" BY=" in planned(extensions=extensions, deliver_by=wish).mail
        return
    with pytest.raises(ExtensionMissing, match="60 seconds"):
        planned(extensions=extensions, deliver_by=wish)


@pytest.mark.parametrize(
    ("wish", "accepted"),
    [
        ({"hold_for": 1000}, True),
        ({"hold_for": 999.5}, True),
        ({"hold_for": 1000.1}, False),
        ({"hold_until": datetime(2030, 1, 2, tzinfo=UTC)}, True),
        ({"hold_until": datetime(2030, 1, 2, 0, 0, 1, tzinfo=UTC)}, False),
    ],
)
def test_the_longest_time_that_messages_are_kept_back(wish, accepted):
    if accepted:
        assert b" HOLD" in planned(**wish).mail
        return
    with pytest.raises(ExtensionMissing, match="FUTURERELEASE"):
        planned(**wish)


def test_a_server_that_says_no_limits_is_asked():
    for value in ("", "never", "1e9 tomorrow"):
        extensions = offer(FUTURERELEASE=value)
        assert planned(extensions=extensions, hold_for=999_999_999).mail.endswith(b" HOLDFOR=999999999\r\n")
        assert planned(extensions=extensions, hold_until=NOON + timedelta(days=99999)).mail


def test_a_plan_for_one_limit_does_not_suit_another():
    transaction = planned(hold_for=1000)
    assert transaction.suits(Extensions(EVERYTHING))
    assert transaction.suits(Extensions(EVERYTHING | {"XTRA": ""}))
    assert not transaction.suits(Extensions(EVERYTHING | {"FUTURERELEASE": "10 2030-01-02T00:00:00Z"}))
    assert not transaction.suits(Extensions(EVERYTHING | {"DELIVERBY": "60"}))
    assert not transaction.suits(offer_without("DSN"))


# --- recipients ---


def test_what_is_said_about_each_recipient():
    quiet = DSN(notify=Notify.NEVER)
    loud = DSN(notify=Notify.SUCCESS | Notify.FAILURE, orcpt="list+x@example.com")
    transaction = planned(Recipient("b@x", dsn=quiet), Recipient("c@x", Kind.BCC), Recipient("d@x", dsn=loud))
    assert transaction.rcpts == (
        b"RCPT TO:<b@x> NOTIFY=NEVER\r\n",
        b"RCPT TO:<c@x>\r\n",
        b"RCPT TO:<d@x> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;list+2Bx@example.com\r\n",
    )
    assert planned(Recipient("b@x", dsn=quiet)).rcpts == transaction.rcpts[:1]
    assert planned(Recipient("b@x", dsn=DSN())).rcpts == (b"RCPT TO:<b@x>\r\n",)


def test_a_recipient_of_another_script():
    transaction = planned(Recipient("ü@x", dsn=DSN(orcpt="ü@faß.de")))
    assert transaction.rcpts == ("RCPT TO:<ü@x> ORCPT=utf-8;\\x{FC}@fa\\x{DF}.de\r\n".encode(),)


def test_reports_can_be_done_without():
    recipient = Recipient("b@x", dsn=DSN(notify=Notify.DELAY))
    with pytest.raises(ExtensionMissing, match="DSN"):
        planned(recipient, extensions=offer_without("DSN"))
    options = {"ret": Return.FULL, "envid": "1", "mt_priority": 1, "dsn_required": False}
    transaction = planned(recipient, bob(), extensions=offer_without("DSN"), **options)
    assert transaction.mail == b"MAIL FROM:<ann@example.com> MT-PRIORITY=1\r\n"
    assert transaction.rcpts[0] == b"RCPT TO:<b@x>\r\n"
    assert b" RET=FULL ENVID=1 " in planned(recipient, **options).mail
    with pytest.raises(ExtensionMissing, match="MT-PRIORITY"):
        planned(extensions=offer_without("MT-PRIORITY"), **options)


def test_what_only_looks_like_a_dsn_is_refused():
    forged: object = type("Forged", (), {"notify": b"NEVER X", "orcpt": None})()
    with pytest.raises(InvalidArgument, match="DSN"):
        planned(Recipient("b@x", dsn=forged))  # type: ignore[arg-type]


def test_an_original_recipient_that_is_too_long():
    long = Address("+" * 64, ".".join(["ä" * 40] * 4) + ".de")
    assert planned(Recipient("b@x", dsn=DSN(orcpt=long)))
    with pytest.raises(InvalidArgument, match="500"):
        planned(Recipient("b@x", dsn=DSN(orcpt="x400;" + "+" * 200)))


@pytest.mark.parametrize(
    ("kinds", "accepted"),
    [
        ([Kind.TO], True),
        ([Kind.CC, Kind.TO], True),
        ([Kind.CC], False),
        ([Kind.BCC, Kind.CC], False),
    ],
)
def test_a_to_recipient_may_be_demanded(kinds, accepted):
    envelope = Envelope(None, [bob(f"r{i}", kind) for i, kind in enumerate(kinds)])
    if accepted:
        demand_to(envelope)
        return
    with pytest.raises(MissingRecipient) as caught:
        demand_to(envelope)
    assert caught.value.code == 165


# --- how the body travels ---


@pytest.mark.parametrize("chunking", ["auto", "never", "always"])
@pytest.mark.parametrize("asked", [False, True])
@pytest.mark.parametrize("offered", [False, True])
@pytest.mark.parametrize("streamed", [False, True])
def test_chunks_or_data(chunking, asked, offered, streamed):
    content = Content([Source([], encoding="identity")]) if streamed else None
    extensions = offer("CHUNKING", "PIPELINING") if offered else NO_EXTENSIONS
    transaction = planned(content=content, extensions=extensions, asked=asked and offered, chunking=chunking)
    assert transaction.chunked is (offered and (chunking == "always" or (chunking == "auto" and asked)))
    if streamed:
        assert transaction.payload is None
    elif transaction.chunked:
        assert transaction.payload == b"BDAT %d LAST\r\n" % len(BODY) + BODY
    else:
        assert transaction.payload == BODY + b".\r\n"


def test_many_chunks_need_pipelining():
    streamed = Content([Source([], encoding="identity")])
    assert not planned(content=streamed, extensions=offer("CHUNKING"), chunking="always").chunked
    assert planned(extensions=offer("CHUNKING"), chunking="always").chunked
    streamed.binary = True
    assert planned(content=streamed).chunked
    with pytest.raises(ExtensionMissing, match="PIPELINING"):
        planned(content=streamed, extensions=offer_without("PIPELINING"))


def test_binary_content_travels_in_chunks_as_it_is():
    content = Content.of_bytes(BARE, exact=True)
    for asked in (False, True):
        transaction = planned(content=content, asked=asked, exact=True)
        assert transaction.mail == b"MAIL FROM:<ann@example.com> BODY=BINARYMIME\r\n"
        assert transaction.chunked
        assert transaction.payload == b"BDAT %d LAST\r\n" % len(BARE) + BARE


def test_zeros_and_long_lines_travel_in_chunks_with_their_line_ends_mended():
    content = Content.of_bytes(b"A: b\n\nx\0y\n" + b"z" * 2000)
    body = b"A: b\r\n\r\nx\0y\r\n" + b"z" * 2000 + b"\r\n"
    assert planned(content=content).payload == b"BDAT %d LAST\r\n" % len(body) + body


def test_exact_content_without_bare_line_ends_needs_nothing():
    data = b"A: b\r\n\r\nno end"
    content = Content.of_bytes(data, exact=True)
    transaction = planned(content=content, extensions=NO_EXTENSIONS, exact=True)
    assert (transaction.chunked, transaction.payload) == (False, data + b"\r\n.\r\n")
    chunked = planned(content=content, asked=True, exact=True)
    assert chunked.payload == b"BDAT %d LAST\r\n" % len(data) + data
    assert chunked.mail == b"MAIL FROM:<ann@example.com>\r\n"


def test_bare_line_ends_that_were_not_asked_for_never_leave():
    forged = Content([b"A: b\r\n\r\nx\n.\nMAIL FROM:<x@example.com>\n"])
    assert b"x\r\n.\r\nMAIL" in (planned(content=forged, asked=True).payload or b"")


@pytest.mark.parametrize("missing", ["BINARYMIME", "CHUNKING"])
def test_binary_content_needs_both(missing):
    with pytest.raises(ExtensionMissing, match="BINARYMIME"):
        planned(content=Content.of_bytes(BARE, exact=True), extensions=offer_without(missing))


def test_binary_content_cannot_do_without_chunks():
    with pytest.raises(ExtensionMissing, match="never"):
        planned(content=Content.of_bytes(BARE, exact=True), chunking="never")


def test_binary_text_for_another_script_says_both():
    content = Content.of_bytes("Subject: ä\r\n\r\nx\0\r\n".encode())
    assert planned(content=content).mail.endswith(b"> BODY=BINARYMIME SMTPUTF8\r\n")


def source_of(length):
    source = Source([], encoding="identity")
    source.length = length
    return source


def test_a_small_source_is_no_payload():
    assert planned(content=Content([b"A: b\r\n\r\n", source_of(3)])).payload is None
    assert planned(content=Content([b"A: b\r\n\r\n", b"abc\r\n"])).payload == b"A: b\r\n\r\nabc\r\n.\r\n"


def test_a_stream_over_the_limit_is_not_begun():
    content = Content([source_of(1000)])
    assert planned(content=content, extensions=offer(SIZE="1000")).mail.endswith(b" SIZE=1000\r\n")
    with pytest.raises(MessageTooLarge, match="has 1000 bytes, the server takes 999"):
        planned(content=content, extensions=offer(SIZE="999"))
