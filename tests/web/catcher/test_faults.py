"""faults.py: what goes wrong by click, as a client meets it."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtp_async import Message, SMTPClient
from smtp_async.errors import InvalidArgument, SMTPError
from smtp_async.model.receipt import Outcome, Receipt
from smtp_async.web.catcher.faults import STAGES, Fault, FaultKind, Faults
from smtp_async.web.catcher.server import CatchingServer


class Lab:
    """A catcher without a page."""

    def __init__(self, server, faults, caught):
        self.server, self.faults, self.caught = server, faults, caught

    async def send(self, to="bob@example.org", **options):
        letter = Message(sender="ann@example.com", to=to, subject="x", text="x")
        async with SMTPClient.from_url(self.server.url, **options) as client:
            try:
                return await client.send(letter)
            except SMTPError as error:
                receipt = Receipt.of(error)
                assert receipt is not None
                return receipt


@pytest.fixture
async def lab():
    caught = []
    async with CatchingServer(lambda message, dialogue: caught.append(message)) as server:
        yield Lab(server, Faults(server), caught)


STAGES_OF_MAIL = [one for one in STAGES if one not in ("auth", "connect")]


@pytest.mark.parametrize("stage", STAGES_OF_MAIL)
@pytest.mark.parametrize("kind", [FaultKind.REFUSE, FaultKind.DEFER])
async def test_a_refusal_at_each_stage(lab, stage, kind):
    lab.faults.add(Fault(kind=kind, stage=stage))
    receipt = await lab.send()
    assert receipt.outcome is Outcome.REFUSED and receipt.temporary is (kind is FaultKind.DEFER)
    code, text = Fault(kind=kind, stage=stage).reply
    assert (receipt.reply.code, receipt.reply.text) == (code, text) and lab.caught == []
    lab.faults.clear()
    assert (await lab.send()).outcome is Outcome.ACCEPTED and len(lab.caught) == 1


@pytest.mark.parametrize("kind", [FaultKind.REFUSE, FaultKind.DEFER, FaultKind.DROP])
async def test_a_connection_that_is_not_taken(lab, kind):
    lab.faults.add(Fault(kind=kind, stage="connect"))
    assert (await lab.send()).outcome is Outcome.NOT_SENT and lab.caught == []
    assert lab.faults.as_json()[0]["happened"]


async def test_the_message_is_dropped_without_a_reply(lab):
    lab.faults.add(Fault(kind=FaultKind.DROP, stage="message"))
    assert (await lab.send()).outcome is Outcome.UNKNOWN and lab.caught == []


async def test_a_delay_is_waited_for(lab):
    lab.faults.add(Fault(kind=FaultKind.DELAY, stage="recipient", seconds=0.01))
    assert (await lab.send()).outcome is Outcome.ACCEPTED
    lab.faults.clear()
    lab.faults.add(Fault(kind=FaultKind.DELAY, stage="recipient", seconds=3600))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(lab.send(), 0.2)
    assert len(lab.caught) == 1


async def test_only_for_some_and_only_so_often(lab):
    lab.faults.add(Fault(kind=FaultKind.REFUSE, stage="recipient", match="BOB@example.org", times=2))
    assert (await lab.send("carol@example.org")).outcome is Outcome.ACCEPTED
    assert (await lab.send()).outcome is Outcome.REFUSED
    assert (await lab.send("bobxexample.org@example.org")).outcome is Outcome.ACCEPTED
    assert (await lab.send()).outcome is Outcome.REFUSED
    assert (await lab.send()).outcome is Outcome.ACCEPTED
    [told] = lab.faults.as_json()
    assert told["happened"] == 2 and told["times"] == 2 and told["match"] == "BOB@example.org"


async def test_the_newest_comes_first_and_each_can_be_removed(lab):
    first = lab.faults.add(Fault(kind=FaultKind.REFUSE, stage="sender", code=571, text="5.7.1 one"))
    second = lab.faults.add(Fault(kind=FaultKind.DEFER, stage="sender", code=499, text="4.7.1 two"))
    assert [one["id"] for one in lab.faults.as_json()] == [second, first]
    assert (await lab.send()).reply.code == 499
    lab.faults.remove(second)
    assert (await lab.send()).reply.code == 571
    with pytest.raises(InvalidArgument, match="there is no fault"):
        lab.faults.remove(second)
    lab.faults.remove(first)
    assert lab.faults.as_json() == [] and (await lab.send()).outcome is Outcome.ACCEPTED


async def test_a_reply_421_ends_the_connection(lab):
    lab.faults.add(Fault(kind=FaultKind.DEFER, stage="sender", code=421))
    assert (await lab.send()).outcome in (Outcome.REFUSED, Outcome.NOT_SENT)
    await asyncio.wait_for(lab.server.wait_for_disconnect(), 10)


GOOD = {"kind": "refuse", "stage": "recipient"}


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"kind": "explode"}, "kind is one of refuse, defer, delay, drop"),
        ({"stage": "nowhere"}, "stage is one of connect, auth"),
        ({"stage": 5}, "stage is not 5"),
        ({"code": 450}, "from 500 to 599"),
        ({"kind": "defer", "code": 550}, "from 400 to 499"),
        ({"code": "550"}, "code is not"),
        ({"code": True}, "code is not"),
        ({"text": "two\r\n250 lines"}, "one line of ASCII"),
        ({"text": "é"}, "one line of ASCII"),
        ({"times": 0}, "from 1 on"),
        ({"times": 1.5}, "times is not"),
        ({"seconds": -1}, "from 0 to 3600"),
        ({"seconds": float("nan")}, "from 0 to 3600"),
        ({"match": "x" * 201}, "200 characters"),
        ({"unknown": 1}, "a fault is an object with kind"),
    ],
    ids=lambda value: str(value)[:40].encode("ascii", "backslashreplace").decode(),
)
def test_what_is_no_fault_is_refused(changes, complaint):
    with pytest.raises(InvalidArgument, match=complaint):
        Fault.from_json(GOOD | changes)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)
NAMES = st.sampled_from(["kind", "stage", "match", "times", "code", "text", "seconds"])
VALUES = st.sampled_from(["refuse", "defer", "delay", "drop", *STAGES]) | JSON


@given(JSON | st.dictionaries(NAMES, VALUES) | st.dictionaries(NAMES, VALUES).map(lambda found: GOOD | found))
def test_any_json_is_a_fault_or_an_error(given):
    try:
        fault = Fault.from_json(given)
    except InvalidArgument:
        return
    assert fault.actions() and "\n" not in fault.reply[1]
