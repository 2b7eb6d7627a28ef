"""dsn.py: what may be asked for, and how it is written down."""

import copy
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtp_async.errors import InvalidAddress, InvalidArgument
from smtp_async.model.address import Address
from smtp_async.model.dsn import DSN, Notify, Return

SOME = Notify.SUCCESS | Notify.DELAY


@pytest.mark.parametrize("notify", [None, Notify.NEVER, Notify.SUCCESS, SOME, SOME | Notify.FAILURE])
def test_what_may_be_asked_for(notify):
    assert DSN(notify=notify).notify == notify


@pytest.mark.parametrize(
    "notify", [Notify.NEVER | Notify.SUCCESS, ~Notify.SUCCESS, Notify(0), "SUCCESS", 2, True, [Notify.DELAY]]
)
def test_what_may_not(notify):
    with pytest.raises(InvalidArgument):
        DSN(notify=notify)


def test_the_original_recipient_is_an_address_or_says_its_kind():
    assert DSN(orcpt="Ann <ann@example.com>").orcpt == Address.parse("ann@example.com")
    assert DSN(orcpt=Address.parse("ä@b")).orcpt == Address.parse("ä@b")
    assert DSN(orcpt="x400;/C=de/S=ann").orcpt == "x400;/C=de/S=ann"


@pytest.mark.parametrize(
    "orcpt",
    ["", "ann", "a@b, c@d", "a@b\r\nRSET", "rfc822;", "rfc822;a@b\n", "x y;a", ";a", "x400;ä", b"a@b", 7],
)
def test_anything_else_is_refused(orcpt):
    with pytest.raises(InvalidAddress):
        DSN(orcpt=orcpt)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", DSN()),
        ("NOTIFY=NEVER", DSN(notify=Notify.NEVER)),
        ("notify=success,Delay", DSN(notify=SOME)),
        ("NOTIFY SUCCESS,DELAY", DSN(notify=SOME)),
        ("NOTIFY=SUCCESS,DELAY  ORCPT=a@b", DSN(notify=SOME, orcpt="a@b")),
        ("ORCPT rfc822;a+b@c NOTIFY=DELAY", DSN(notify=Notify.DELAY, orcpt="rfc822;a+b@c")),
    ],
)
def test_the_text_form(text, wanted):
    assert DSN.parse(text) == wanted


@pytest.mark.parametrize(
    "text",
    [
        *("NOTIFY", "NOTIFY=", "NOTIFY=MAYBE", "NOTIFY=NEVER,DELAY", "NOTIFY=DELAY NOTIFY=DELAY", "RET=FULL"),
        *("NOTIFY=DELAY\r\nDATA", "NOTIFY=DELAY,", "NOTIFY=DELAYS", " NOTIFY=DELAY", "ORCPT=ann", "x"),
    ],
)
def test_texts_that_say_something_else(text):
    with pytest.raises(InvalidArgument):
        DSN.parse(text)


@given(st.text("NOTIFYORCPSUED=, ;@\r\n", max_size=40) | st.text(max_size=20))
def test_reading_raises_nothing_else(text):
    try:
        DSN.parse(text)
    except InvalidArgument as error:
        assert "\n" not in str(error)


def test_values_travel_and_compare():
    value = DSN(notify=SOME, orcpt="ü@faß.de")
    for twin in (pickle.loads(pickle.dumps(value)), copy.deepcopy(value)):
        assert (twin, hash(twin), repr(twin)) == (value, hash(value), repr(value))
    assert value != DSN(notify=SOME)
    assert pickle.loads(pickle.dumps(Return.HDRS)) is Return.HDRS
    with pytest.raises(AttributeError):
        value.notify = None  # type: ignore[misc]


def test_an_original_recipient_may_be_one_that_no_rfc_allows():
    """Nothing is sent there."""
    for text in ("a..b@docomo.example", "ops@mail_host.example"):
        assert DSN(orcpt=text) == DSN(orcpt=Address.parse(text, lenient=True)) == DSN.parse(f"ORCPT={text}")
