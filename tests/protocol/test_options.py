"""options.py: wishes are checked when they are made, and become parameters in one order."""

import dataclasses
import pickle
from datetime import UTC, datetime
from typing import Any

import pytest

from smtp_async.errors import InvalidAddress, InvalidArgument
from smtp_async.model.address import Address
from smtp_async.model.dsn import Return
from smtp_async.model.envelope import EVERYONE, NOBODY, Kind
from smtp_async.protocol.options import SMALL_BODY, DeliverBy, SendOptions

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)
EVERY_WISH: dict[str, Any] = {
    "ret": Return.HDRS,
    "envid": "A 1",
    "auth": "ann@example.com",
    "deliver_by": DeliverBy(seconds=60),
    "hold_until": NOON,
    "mt_priority": -3,
    "require_tls": True,
}


async def gate():
    pass


def test_by_default_nothing_is_wished_for():
    options = SendOptions()
    assert options.wishes == ()
    assert options.must_accept == {Kind.TO, Kind.CC}
    assert (options.chunking, options.chunk_size) == ("auto", 131072)
    given = {name for name in ("split", "remove_bcc", "dsn_required") if getattr(options, name)}
    assert given == {"split", "remove_bcc", "dsn_required"}
    assert not (options.require_to or options.exact or options.close_source or options.require_tls)


@pytest.mark.parametrize(
    "asked",
    [
        *[{name: value} for name, value in EVERY_WISH.items()],
        {"before_end_of_data": gate},
        {"progress": lambda sent, total: None},
        {"verb": "SOML"},
        {"chunk_size": SMALL_BODY - 1},
    ],
    ids=lambda asked: next(iter(asked)),
)
def test_what_changes_the_envelope_or_the_writing_of_a_small_body_is_not_ordinary(asked):
    assert not SendOptions(**asked).ordinary


def test_most_options_are_ordinary():
    assert SendOptions().ordinary and SendOptions(must_accept=NOBODY, chunk_size=SMALL_BODY).ordinary


def test_wishes_know_what_they_need():
    assert SendOptions(**EVERY_WISH).wishes == (
        ("DSN", b"RET=HDRS"),
        ("DSN", b"ENVID=A+201"),
        ("AUTH", b"AUTH=ann@example.com"),
        ("DELIVERBY", b"BY=60;R"),
        ("FUTURERELEASE", b"HOLDUNTIL=2030-01-01T12:00:00Z"),
        ("MT-PRIORITY", b"MT-PRIORITY=-3"),
        ("REQUIRETLS", b"REQUIRETLS"),
    )
    assert SendOptions(hold_for=90.5).wishes == (("FUTURERELEASE", b"HOLDFOR=91"),)


@pytest.mark.parametrize("auth", ["<>", "ann@example.com", Address.parse("Ann <ann@example.com>")])
def test_a_submitter_is_an_address_or_nobody(auth):
    options = SendOptions(auth=auth)
    assert options.auth == ("<>" if auth == "<>" else Address.parse("ann@example.com"))


@pytest.mark.parametrize(
    "wrong",
    [
        *({name: 1} for name in ("split", "require_to", "remove_bcc", "exact", "close_source")),
        *({"dsn_required": None}, {"require_tls": "yes"}),
        *({"must_accept": one} for one in (None, [Kind.TO], Kind.TO, frozenset({"To"}))),
        *({"chunking": one} for one in (True, False, None, "sometimes")),
        *({"verb": one} for one in ("", "mail", "RCPT", "SEND\r\nQUIT", None)),
        *({"chunk_size": one} for one in (0, -1, 1.5, True, "64", None)),
        *({"before_end_of_data": "x"}, {"progress": 7}),
        *({"ret": one} for one in ("FULL", True)),
        *({"envid": one} for one in ("", "a\r\nb", "ä", "x" * 101, 7)),
        *({"deliver_by": one} for one in (60, "60;R", {"seconds": 60})),
        *({"hold_for": one} for one in (0, -1, float("nan"), "60", True)),
        *({"hold_until": one} for one in (NOON.replace(tzinfo=None), "noon", 60)),
        {"hold_for": 60, "hold_until": NOON},
        *({"mt_priority": one} for one in (-10, 10, "1", True)),
    ],
    ids=repr,
)
def test_what_makes_no_sense_is_refused_at_once(wrong):
    with pytest.raises(InvalidArgument) as caught:
        SendOptions(**wrong)
    assert str(caught.value)


@pytest.mark.parametrize("auth", ["", "ann", "<a@b> SIZE=1", "a@b\r\nRSET", "ä@b", 7])
def test_submitters_that_are_none(auth):
    with pytest.raises(InvalidAddress):
        SendOptions(auth=auth)


@pytest.mark.parametrize("seconds", [0, -1, 0.5, 1e10, "60", None])
def test_a_message_to_be_returned_needs_some_time(seconds):
    with pytest.raises(InvalidArgument):
        DeliverBy(seconds=seconds)


def test_a_late_message_may_be_wished_for_at_once():
    assert SendOptions(deliver_by=DeliverBy(seconds=-5, notify=True, trace=True)).wishes[0][1] == b"BY=-5;NT"


def test_options_can_be_replaced_compared_and_sent():
    options = SendOptions(**EVERY_WISH)
    other = dataclasses.replace(options, must_accept=NOBODY, ret=None)
    assert other.wishes == options.wishes[1:]
    assert pickle.loads(pickle.dumps(options)) == options
    assert pickle.loads(pickle.dumps(options)).wishes == options.wishes
    assert options == SendOptions(**EVERY_WISH) != other
    assert hash(options) == hash(SendOptions(**EVERY_WISH))
    with pytest.raises(dataclasses.FrozenInstanceError):
        options.ret = None  # type: ignore[misc]
    with pytest.raises(TypeError):
        SendOptions(EVERYONE)  # type: ignore[call-arg]


def test_callables_are_taken():
    assert SendOptions(before_end_of_data=gate, progress=print).progress is print
