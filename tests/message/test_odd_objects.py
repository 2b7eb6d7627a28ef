"""Odd objects of `email` by every way in: what is refused is refused by an `SMTPError`, what leaves says what they say.

The objects are those of `odd_objects`. Nothing else than an `SMTPError` may escape from any entry, and none takes more
than `PATIENCE` seconds, whatever it is given.
"""

from __future__ import annotations

import asyncio
import datetime
import re
import time
from collections.abc import Awaitable, Callable, Iterable
from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtp_async import PoolLimits, SMTPClient, send_blocking
from smtp_async.errors import InvalidHeader, SMTPError
from smtp_async.message import Message
from smtp_async.spool import serialize
from smtp_async.testing import MemorySpool, RecordingSink, ServerThread
from tests.lab import client_of, sampled, speaking

from . import readers
from .judging import ABLE, ENTRIES, check_wire, envelope_of, judge, said
from .odd_objects import (
    ANN,
    BASES,
    BOB,
    ENCODINGS,
    EVE,
    OBJECTS,
    PAYLOADS,
    TYPES,
    Odd,
    with_content,
    with_field,
)

#: Seconds that one entry may take for one object on a loaded machine.
PATIENCE = 4.0
INJECTED = re.compile(rb"^x-injected", re.I | re.M)


BLOCKS = [OBJECTS[start : start + 40] for start in range(0, len(OBJECTS), 40)]


def in_blocks(*others: Iterable[str], step: int = 1) -> list[Any]:
    """Return cases of 40 objects with one of each of the others; of those with some objects every `step`-th."""
    return [
        pytest.param(odds, *chosen, id="-".join((odds[0].name, *chosen)))
        for odds, chosen in sampled(product(BLOCKS, product(*others)), step)
    ]


def test_there_are_enough_and_no_two_have_one_name() -> None:
    assert len(OBJECTS) >= 500
    assert len({odd.name for odd in OBJECTS}) == len(OBJECTS)
    assert sum(odd.clear for odd in OBJECTS) >= 120


def check_object(odd: Odd, entry: str, able: str) -> None:
    message = odd.make()
    begun = time.monotonic()
    judged = judge(lambda: ENTRIES[entry](message), ABLE[able], untouched=False)
    assert time.monotonic() - begun < PATIENCE
    if judged.error is not None:
        assert not odd.clear, repr(judged.error)
        return
    data = check_wire(judged, ABLE[able])
    assert INJECTED.search(data) is None, "a field was injected"
    if odd.clear:
        before = readers.by_object(odd.make())
        for reader, after in said(data).items():
            assert readers.differences(before, after, touched=True) == {}, reader


def check_envelope(odd: Odd, entry: str) -> None:
    try:
        sender, recipients = envelope_of(ENTRIES[entry](odd.make()))
    except SMTPError as error:
        assert odd.recipients is None, repr(error)
        return
    assert EVE not in recipients
    assert sender != EVE
    if odd.recipients is not None:
        assert (sender, recipients) == (ANN, list(odd.recipients))


def of_all(odds: list[Odd], check: Callable[[Odd], None]) -> None:
    """Check all of a block, and show all that is wrong."""
    wrong = []
    for odd in odds:
        try:
            check(odd)
        except Exception as error:
            wrong.append((odd.name, f"{type(error).__name__}: {error}"[:300]))
    assert wrong == []


@pytest.mark.parametrize(("odds", "entry", "able"), in_blocks(ENTRIES, ABLE, step=5))
def test_an_object_is_refused_or_leaves_as_what_it_is(odds: list[Odd], entry: str, able: str) -> None:
    of_all(odds, lambda odd: check_object(odd, entry, able))


@pytest.mark.parametrize(("odds", "entry"), in_blocks(ENTRIES))
def test_an_object_goes_to_whom_it_names(odds: list[Odd], entry: str) -> None:
    of_all(odds, lambda odd: check_envelope(odd, entry))


# --- every entry ---------------------------------------------------------------------------------------------

#: What a caller awaits with an object.
Entry = Callable[[SMTPClient, Any], Awaitable[object]]


async def _send_all(client: SMTPClient, message: Any) -> None:
    async for _, receipt in client.send_all([message]):
        if receipt.error is not None:
            raise receipt.error


async def _send_raw(client: SMTPClient, message: Any) -> None:
    try:
        data = bytes(message)
    except Exception:
        return  # the standard library cannot write it
    await client.send_raw(data)


async def _put(client: SMTPClient, message: Any) -> None:
    spool = MemorySpool()
    await spool.put(message)


DOORS: dict[str, Entry] = {
    "send": lambda client, message: client.send(message),
    "send with an envelope": lambda client, message: client.send(message, sender=ANN, recipients=[BOB]),
    "send_all": _send_all,
    "send_raw": _send_raw,
    "put": _put,
    "serialize": lambda client, message: serialize(message, sender=ANN, recipients=[BOB]),
}


async def check_door(odd: Odd, door: Callable[[Any], Awaitable[object]]) -> None:
    message = odd.make()
    begun = time.monotonic()
    try:
        async with asyncio.timeout(PATIENCE):
            await door(message)
    except SMTPError as error:
        assert not isinstance(error, TimeoutError)
    assert time.monotonic() - begun < PATIENCE


async def of_all_by(odds: list[Odd], door: Callable[[Any], Awaitable[object]]) -> list[tuple[str, str]]:
    wrong = []
    for odd in odds:
        try:
            await check_door(odd, door)
        except Exception as error:
            wrong.append((odd.name, f"{type(error).__name__}: {error}"[:300]))
    return wrong


@pytest.mark.parametrize(("odds", "door"), in_blocks(DOORS, step=5))
async def test_nothing_but_our_errors_comes_out_of_a_client(odds: list[Odd], door: str) -> None:
    async with speaking() as server, client_of(server, pool=PoolLimits(max_connections=1)) as client:
        assert await of_all_by(odds, lambda message: DOORS[door](client, message)) == []
        # The connection is none the worse for it.
        await client.send(Message(sender=ANN, to=BOB, text="Hello"))
        assert server.connections.opened == 1
        if door == "send_raw":  # what the standard library wrote is not ours to judge
            return
        for received in server.messages:
            assert EVE not in (received.mail_from, *received.rcpt_tos)
            assert INJECTED.search(received.data) is None


@pytest.mark.parametrize("odds", in_blocks())
async def test_nothing_but_our_errors_comes_out_of_a_session(odds: list[Odd]) -> None:
    async with speaking() as server, client_of(server) as client, client.session() as session:
        await session.connect()
        assert await of_all_by(odds, session.send) == []
        await session.send(Message(sender=ANN, to=BOB, text="Hello"))


def test_nothing_but_our_errors_comes_out_of_a_script() -> None:
    def check(odd: Odd) -> None:
        try:
            send_blocking(odd.make(), url=server.url)
        except SMTPError:
            pass

    with ServerThread(RecordingSink()) as server:
        of_all(OBJECTS[::40], check)


@pytest.mark.parametrize(
    "value", [datetime.date(2024, 1, 1), 5, b"x", object(), "a\r\nb: c", "\ud800", datetime.timedelta(1), [1]]
)
def test_a_date_that_is_none_is_refused_by_our_error(value: Any) -> None:
    with pytest.raises(SMTPError):
        Message(sender=ANN, to=BOB, text="x", date=value).as_bytes()


@pytest.mark.parametrize("entry", ENTRIES)
def test_a_header_that_was_cut_short_is_refused(entry: str) -> None:
    (odd,) = [odd for odd in OBJECTS if odd.name == "a header cut short"]
    with pytest.raises(InvalidHeader):
        ENTRIES[entry](odd.make()).content()


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize("name", ["a signed one", "an encrypted one"])
def test_what_is_signed_is_refused_with_the_way_to_send_it(name: str, entry: str) -> None:
    (odd,) = [odd for odd in OBJECTS if odd.name == name]
    with pytest.raises(SMTPError, match="send_raw"):
        ENTRIES[entry](odd.make()).content()


# --- drawn ---------------------------------------------------------------------------------------------------

TEXT = st.text(max_size=80) | st.sampled_from(
    ["", ", eve@evil.example" * 8, '"' * 9, "(" * 99, "=?utf-8?q?=0D=0AX-Injected:_1?=", "\r\n ", "ü" * 200]
)
PEOPLE = st.lists(
    st.builds("{} <{}@example.org>".format, TEXT, st.sampled_from(["bob", '"a b"', "jörg", "a..b"])) | TEXT,
    max_size=4,
).map(", ".join)


@st.composite
def objects(draw: st.DrawFn) -> Callable[[], Any]:
    """What makes an odd object: a field with a drawn value, or a content that is not in the lists."""
    if draw(st.booleans()):
        base = draw(st.sampled_from(sorted(BASES)))
        name = draw(
            st.sampled_from(["Subject", "X-Odd", "References", "Content-Type", "Content-Disposition"])
        )
        people = draw(st.sampled_from(["To", "Cc", "Bcc", "From", "Reply-To", ""]))
        if people:
            value = draw(PEOPLE)
            return lambda: with_field(base, people, value)
        text = draw(TEXT)
        return lambda: with_field(base, name, text)
    payload = draw(st.sampled_from(sorted(PAYLOADS)))
    kind = draw(st.sampled_from(TYPES) | TEXT.map("text/plain; charset={}".format))
    encoding = draw(st.sampled_from(ENCODINGS) | TEXT)
    modern = draw(st.booleans())
    return lambda: with_content(payload, kind, encoding, modern=modern)


@given(objects(), st.sampled_from(sorted(ENTRIES)), st.sampled_from(sorted(ABLE)))
def test_any_object_is_refused_or_leaves_in_the_right_form(
    make: Callable[[], Any], entry: str, able: str
) -> None:
    judged = judge(lambda: ENTRIES[entry](make()), ABLE[able], untouched=False)
    if judged.error is None:
        data = check_wire(judged, ABLE[able])
        assert INJECTED.search(data.partition(b"\r\n\r\n")[0]) is None


@given(
    st.sampled_from(sorted(BASES)),
    st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Zl", "Zp")), max_size=120),
    st.sampled_from(sorted(ENTRIES)),
)
def test_any_display_name_is_only_a_name(base: str, name: str, entry: str) -> None:
    escaped = name.replace("\\", r"\\").replace('"', r"\"")

    def make() -> Any:
        return with_field(base, "To", f'"{escaped}" <{BOB}>')

    mail = ENTRIES[entry](make())
    assert envelope_of(mail) == (ANN, [BOB])
    for reader, after in said(mail.content().join()).items():
        ((shown, spec),) = after["to"]
        assert spec == BOB, reader
        if "=?" not in name and "(" not in name:
            assert re.sub(r"\s+", " ", shown).strip() == re.sub(r"\s+", " ", name).strip(), reader
