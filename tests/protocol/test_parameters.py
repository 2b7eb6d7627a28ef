"""parameters.py: every value can be read back, and none becomes two parameters."""

import math
import re
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtp_async.errors import InvalidAddress, InvalidArgument
from smtp_async.model.address import Address
from smtp_async.model.dsn import Notify, Return
from smtp_async.protocol import commands, parameters

PLAIN = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=1, max_size=30)
MOMENT = datetime(2030, 5, 6, 7, 8, 9, tzinfo=UTC)


def unxtext(data):
    return re.sub(rb"\+([0-9A-F]{2})", lambda match: bytes([int(match[1], 16)]), data)


def ununitext(data):
    return re.sub(r"\\x\{([0-9A-F]+)\}", lambda match: chr(int(match[1], 16)), data.decode("ascii"))


def travels(parameter):
    """It is one parameter: the door to the wire takes it as such."""
    assert commands.mail(b"a@b", (parameter,)) == b"MAIL FROM:<a@b> " + parameter + b"\r\n"
    return parameter


@given(st.binary())
def test_xtext_is_printable_and_can_be_read_back(data):
    encoded = parameters.xtext(data)
    assert re.fullmatch(rb"(?:[!-*,-<>-~]|\+[0-9A-F]{2})*", encoded)
    assert unxtext(encoded) == data


@given(st.text())
def test_unitext_is_printable_and_can_be_read_back(text):
    encoded = parameters.unitext(text)
    assert re.fullmatch(rb"(?:[!-*,-<>-\[\]-~]|\\x\{[0-9A-F]{2,6}\})*", encoded)
    assert ununitext(encoded) == text


@given(PLAIN)
def test_an_envelope_id_can_be_read_back(text):
    assert unxtext(travels(parameters.envid(text)).removeprefix(b"ENVID=")).decode() == text


@pytest.mark.parametrize(
    "text", ["", "a\r\nDATA", "a\tb", "ä", "a\x7f", "嘍嘊", "x" * 101, "+" * 34, None, 7, b"a"]
)
def test_envelope_ids_that_cannot_travel(text):
    with pytest.raises(InvalidArgument):
        parameters.envid(text)


def test_a_hundred_octets_of_envelope_id():
    assert parameters.envid("x" * 100) == b"ENVID=" + b"x" * 100
    assert parameters.envid("+" * 33) == b"ENVID=" + b"+2B" * 33


@pytest.mark.parametrize(
    ("notify", "wanted"),
    [
        (Notify.NEVER, b"NOTIFY=NEVER"),
        (Notify.DELAY, b"NOTIFY=DELAY"),
        (Notify.DELAY | Notify.SUCCESS | Notify.FAILURE, b"NOTIFY=SUCCESS,FAILURE,DELAY"),
    ],
)
def test_notify(notify, wanted):
    assert travels(parameters.notify(notify)) == wanted


@pytest.mark.parametrize("notify", [Notify(0), Notify.NEVER | Notify.DELAY, ~Notify(0)])
def test_never_stands_alone(notify):
    with pytest.raises(InvalidArgument):
        parameters.notify(notify)


@pytest.mark.parametrize(
    ("original", "wanted"),
    [
        ("a@b", b"ORCPT=rfc822;a@b"),
        ("a+tag=x@b", b"ORCPT=rfc822;a+2Btag+3Dx@b"),
        ('"a b"@c', b'ORCPT=rfc822;"a+20b"@c'),
        ("a@faß.de", b"ORCPT=rfc822;a@xn--fa-hia.de"),
        ("ä+x@faß.de", rb"ORCPT=utf-8;\x{E4}\x{2B}x@fa\x{DF}.de"),
        ("用户@例え.jp", rb"ORCPT=utf-8;\x{7528}\x{6237}@\x{4F8B}\x{3048}.jp"),
        ("😀@b", rb"ORCPT=utf-8;\x{1F600}@b"),
    ],
)
def test_original_recipients(original, wanted):
    assert travels(parameters.orcpt(Address.parse(original))) == wanted


def test_original_recipients_of_other_kinds():
    assert parameters.orcpt("x400;/S=ann b") == b"ORCPT=x400;/S+3Dann+20b"
    assert parameters.orcpt("x;" + "y" * 498) == b"ORCPT=x;" + b"y" * 498
    for text in (
        "a@b",
        "x400;",
        "x y;z",
        "x400;ä",
        "x400;a\r\nb",
        "x+y;z",
        "x;" + "y" * 499,
        "x;" + "+" * 167,
    ):
        with pytest.raises(InvalidArgument):
            parameters.orcpt(text)


@given(st.text(min_size=1, max_size=20), st.sampled_from(["b", "faß.de", "[192.0.2.1]"]))
def test_an_original_recipient_can_be_read_back(local, domain):
    try:
        address = Address(local, domain)
    except InvalidAddress:
        return
    kind, _, value = travels(parameters.orcpt(address)).removeprefix(b"ORCPT=").partition(b";")
    if kind == b"utf-8":
        assert address.needs_utf8
        assert Address.parse(ununitext(value)) == address
    else:
        assert kind == b"rfc822"
        assert unxtext(value) == address.wire(utf8=False)


def test_submitters():
    assert travels(parameters.auth(None)) == b"AUTH=<>"
    assert travels(parameters.auth(Address.parse("e+mc2=x@example.com"))) == b"AUTH=e+2Bmc2+3Dx@example.com"
    assert travels(parameters.auth(Address.parse('"a b"@faß.de'))) == b'AUTH="a+20b"@xn--fa-hia.de'
    with pytest.raises(InvalidAddress, match="SMTPUTF8"):
        parameters.auth(Address.parse("ä@b"))
    with pytest.raises(InvalidArgument, match="500"):
        parameters.auth(Long())


class Long(Address):
    def __init__(self):
        super().__init__("a", "b")

    def wire(self, *, utf8):
        return b"+" * 167


@pytest.mark.parametrize(
    ("seconds", "notify", "trace", "wanted"),
    [
        (120, False, False, b"BY=120;R"),
        (1, False, True, b"BY=1;RT"),
        (59.9, True, False, b"BY=59;N"),
        (0, True, True, b"BY=0;NT"),
        (-30, True, False, b"BY=-30;N"),
        (999_999_999, False, False, b"BY=999999999;R"),
    ],
)
def test_deliver_by(seconds, notify, trace, wanted):
    assert travels(parameters.by(seconds, notify=notify, trace=trace)) == wanted


@pytest.mark.parametrize("seconds", [0, -1, 0.9, 1e9, math.inf, math.nan, -1e9, True, "60", None])
def test_times_to_deliver_by_that_make_no_sense(seconds):
    with pytest.raises(InvalidArgument):
        parameters.by(seconds, notify=False, trace=False)


@pytest.mark.parametrize(("seconds", "wanted"), [(1, 1), (0.2, 1), (60.1, 61), (999_999_999, 999_999_999)])
def test_hold_for(seconds, wanted):
    assert travels(parameters.hold_for(seconds)) == b"HOLDFOR=%d" % wanted


@pytest.mark.parametrize("seconds", [0, -1, -0.5, 1e9, math.inf, math.nan, False, "60", timedelta(1)])
def test_times_to_hold_that_make_no_sense(seconds):
    with pytest.raises(InvalidArgument):
        parameters.hold_for(seconds)


@pytest.mark.parametrize(
    ("moment", "wanted"),
    [
        (MOMENT, b"2030-05-06T07:08:09Z"),
        (MOMENT.replace(microsecond=1), b"2030-05-06T07:08:10Z"),
        (MOMENT.astimezone(timezone(timedelta(hours=5, minutes=30))), b"2030-05-06T07:08:09Z"),
        (datetime(1, 1, 1, tzinfo=UTC), b"0001-01-01T00:00:00Z"),
    ],
)
def test_hold_until(moment, wanted):
    assert travels(parameters.hold_until(moment)) == b"HOLDUNTIL=" + wanted


@pytest.mark.parametrize(
    "moment",
    [
        MOMENT.replace(tzinfo=None),
        datetime.max.replace(tzinfo=UTC),
        datetime.max.replace(tzinfo=timezone(timedelta(hours=-5))),
        MOMENT.date(),
        "2030-05-06T07:08:09Z",
        0,
    ],
)
def test_moments_that_cannot_be_told(moment):
    with pytest.raises(InvalidArgument):
        parameters.hold_until(moment)


@pytest.mark.parametrize("priority", range(-9, 10))
def test_priorities(priority):
    assert travels(parameters.mt_priority(priority)) == b"MT-PRIORITY=%d" % priority


@pytest.mark.parametrize("priority", [-10, 10, True, 1.0, "1", None])
def test_priorities_that_are_none(priority):
    with pytest.raises(InvalidArgument):
        parameters.mt_priority(priority)


def test_sizes_and_returns():
    assert travels(parameters.size(0)) == b"SIZE=0"
    assert travels(parameters.ret(Return.FULL)) == b"RET=FULL"
    assert travels(parameters.ret(Return.HDRS)) == b"RET=HDRS"
    wrong: Any
    for wrong in (-1, "1", b"1 AUTH=<>", 1.5):
        with pytest.raises(InvalidArgument):
            parameters.size(wrong)
    for wrong in ("FULL", None, Notify.NEVER):
        with pytest.raises(InvalidArgument):
            parameters.ret(wrong)
