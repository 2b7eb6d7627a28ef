"""Several replies paired in one go come to the same as each looked at by itself.

Two conversations hear and do the same. One records its lines, which sends every reply the long way round; after every
step nothing but those lines may tell the two apart.
"""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtp_async.errors import Interrupted, ProtocolViolation
from smtp_async.model.envelope import EVERYONE, NOBODY
from smtp_async.model.receipt import Receipt
from smtp_async.model.reply import Reply
from smtp_async.protocol.machine import ClientProtocol, Exchange
from smtp_async.protocol.options import SendOptions
from smtp_async.protocol.pipeline import Pipeline
from smtp_async.protocol.states import WRITES, Verb
from smtp_async.protocol.transaction import Transaction
from tests.protocol.talk import Talk, bob, lines

#: The first stands for "what a good server says here".
_CODES = ["good"] * 12 + ["250", "354", "421", "450", "452", "500", "503", "550", "220", "350", "251-", "!"]
_STEPS = ["begin"] * 4 + ["hear"] * 8 + ["turn"] * 2 + ["withdraw", "noop", "reset"]


class Side:
    """One of the two conversations."""

    def __init__(self, offer: list[str], *, watched: bool, **options: Any) -> None:
        self.talk = Talk()
        self.talk.machine = self.machine = machine = ClientProtocol(**options)
        machine.receive_data(lines("220 mx.example.org"))
        machine.hello("me.example")
        machine.data_to_send()
        machine.receive_data(lines("250-mx.example.org", *[f"250-{word}" for word in offer], "250 OK"))
        machine.take_settled()
        self.begun: list[Transaction] = []
        # Never begun: the pipeline is asked whether they could be, which shows its window.
        self.probes = [self.talk.plan(chunking=chunked) for chunked in (False, True)]
        if watched:
            machine.recorder.recording = True

    def begin(self, plan: dict[str, Any]) -> None:
        machine = self.machine
        options = SendOptions(
            must_accept=plan["must_accept"], before_end_of_data=_gate if plan["gated"] else None
        )
        people = [bob(f"bob{n}") for n in range(plan["recipients"])]
        transaction = self.talk.plan(*people, options=options, chunking=plan["chunked"])
        if plan["streamed"]:
            transaction.set_payload(None)
        if machine.pipeline.can_begin and machine.pipeline.admits(transaction):
            self.begun.append(transaction)
            machine.pipeline.begin(transaction, hold=plan["hold"])

    def turn(self) -> None:
        transaction = self.machine.pipeline.writing
        if transaction is None or not transaction.turn:
            return
        if transaction.payload is not None:
            self.machine.pipeline.write_payload(transaction)
        elif transaction.streamed:
            self.machine.pipeline.end_body(transaction)
        else:
            self.machine.pipeline.write_body(transaction, b"Subject: x\r\n\r\nHi\r\n")

    def withdraw(self) -> None:
        if self.begun:
            self.machine.pipeline.withdraw(self.begun[-1])

    def single(self, write: str) -> None:
        # As a session does: alone on the connection.
        verb = Verb.NOOP if write == "noop" else Verb.RSET
        if self.machine.idle and verb in WRITES[self.machine.stage]:
            getattr(self.machine, write)()

    def hear(self, data: bytes) -> str:
        try:
            self.machine.receive_data(data)
        except ProtocolViolation as error:
            self.machine.fail(error)
            return repr(error)
        return ""

    def state(self, *, flush: bool = True) -> dict[str, Any]:
        """Return everything that could tell two conversations apart; `flush`: hand over what is to be written first."""
        machine, pipeline = self.machine, self.machine.pipeline
        return {
            "out": machine.data_to_send() if flush else machine.has_output,
            "stage": machine.stage,
            "reset needed": machine.reset_needed,
            "owed": [(verb, self._name(subject)) for verb, subject in machine.owed.entries],
            "answerable": machine.owed.answerable,
            "answered": machine.answered,
            "exhausted": (machine.pipeline.exhausted, pipeline.breakdown),
            "reply_421": machine.reply_421,
            "writing": self._name(pipeline.writing),
            "expected": machine.expected,
            "admits": (pipeline.can_begin, *[pipeline.admits(one) for one in self.probes]),
            "settled": [self._name(item) for item in machine.take_settled()],
            "transactions": [_fields(one) for one in self.begun],
        }

    def _name(self, subject: Any) -> Any:
        if isinstance(subject, Exchange):
            return subject.verb, subject.reply
        return None if subject is None else self.begun.index(subject)


async def _gate() -> None: ...


def _fields(transaction: Transaction) -> dict[str, Any]:
    told = {name: getattr(transaction, name) for name in Transaction.__slots__}
    for name in ("content", "extensions", "recipients"):
        del told[name]
    told["receipt"] = _told(transaction.receipt)
    return told


def _told(receipt: Receipt | None) -> Any:
    if receipt is None:
        return None
    verdicts = [(str(one.recipient.address), one.outcome, one.reply) for one in receipt.verdicts]
    return verdicts, receipt.reply, repr(receipt.error), receipt.bytes_sent


def _good(verb: Verb) -> str:
    return "354" if verb is Verb.DATA else "250"


def _replies(machine: ClientProtocol, codes: list[str], *, beyond: bool) -> bytes:
    """What a server says to what is owed; `beyond`: and to what it was not asked, too."""
    owed = [verb for verb, _ in machine.owed.entries]
    said = []
    for at, code in enumerate(codes):
        if at >= len(owed) and not beyond:
            break
        chosen = _good(owed[at] if at < len(owed) else Verb.MAIL) if code == "good" else code
        if chosen == "251-":
            said += ["251-two", "251 lines"]
        else:
            said.append("what?" if chosen == "!" else f"{chosen} 2.0.0 so it is")
    return lines(*said)


def _cut(data: bytes, places: list[int]) -> list[bytes]:
    cuts = [0, *sorted({place % (len(data) + 1) for place in places}), len(data)]
    return [data[a:b] for a, b in zip(cuts, cuts[1:], strict=False) if a < b]


_PLAIN: dict[str, Any] = {
    "recipients": 1,
    "must_accept": NOBODY,
    "gated": False,
    "streamed": False,
    "chunked": False,
    "hold": False,
}
_plans = st.fixed_dictionaries(
    {
        "recipients": st.sampled_from([1, 1, 1, 2, 3]),
        "must_accept": st.sampled_from([NOBODY, EVERYONE]),
        "gated": st.sampled_from([False, False, False, True]),
        "streamed": st.sampled_from([False, False, False, True]),
        "chunked": st.booleans(),
        "hold": st.sampled_from([False, False, True]),
    }
)
_steps = st.lists(
    st.tuples(
        st.sampled_from(_STEPS),
        _plans,
        st.lists(st.sampled_from(_CODES), min_size=1, max_size=6),
        st.lists(st.integers(0, 200), max_size=3),
        # Does the server say more than it was asked? Is what the client writes handed over at once?
        st.sampled_from([False] * 9 + [True]),
        st.sampled_from([False] + [True] * 9),
    ),
    min_size=4,
    max_size=30,
)


@given(
    offer=st.sampled_from([["PIPELINING"], ["PIPELINING", "CHUNKING"], ["PIPELINING", "CHUNKING"], ["SIZE"]]),
    lmtp=st.sampled_from([False, False, False, True]),
    window=st.sampled_from([1, 1, 8]),
    send_rset=st.sampled_from([True, True, False]),
    steps=_steps,
)
def test_whatever_a_server_says_both_ways_come_to_the_same(
    offer: list[str], lmtp: bool, window: int, send_rset: bool, steps: list[Any]
) -> None:
    options = {"lmtp": lmtp, "window": window, "send_rset": send_rset}
    quick = Side(offer, watched=False, **options)
    slow = Side(offer, watched=True, **options)
    assert quick.state() == slow.state()
    for step, plan, codes, places, beyond, flush in steps:
        if step == "hear":
            for chunk in _cut(_replies(quick.machine, codes, beyond=beyond), places):
                assert quick.hear(chunk) == slow.hear(chunk)
                assert quick.state(flush=flush) == slow.state(flush=flush)
        for side in (quick, slow):
            _do(side, step, {**plan, "chunked": plan["chunked"] and "CHUNKING" in offer})
        assert quick.state(flush=flush) == slow.state(flush=flush)
    for side in (quick, slow):
        side.machine.fail(Interrupted("the end"))
    assert quick.state() == slow.state()


def _do(side: Side, step: str, plan: dict[str, Any]) -> None:
    if step == "begin":
        side.begin(plan)
    elif step == "turn":
        side.turn()
    elif step == "withdraw":
        side.withdraw()
    elif step in ("noop", "reset"):
        side.single(step)


def test_the_quick_way_is_taken_by_the_messages_it_is_meant_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without this the comparison above could not fail."""
    side = Side(["PIPELINING"], watched=False)
    grouped: list[int] = []
    answer_group = Pipeline.answer_group

    def counting(pipeline: Pipeline, replies: list[Reply], at: int) -> int:
        grouped.append(answer_group(pipeline, replies, at))
        return grouped[-1]

    monkeypatch.setattr(Pipeline, "answer_group", counting)
    for _ in range(2):
        side.begin(_PLAIN)
        side.machine.data_to_send()
        side.hear(lines("250 2.1.0 Ok", "250 2.1.5 Ok", "354 go"))
        side.machine.data_to_send()
        side.hear(lines("250 2.0.0 Ok"))
    assert grouped == [3, 1, 3, 1]
    assert [one.receipt is not None and one.receipt.accepted for one in side.begun]


@pytest.mark.parametrize("reply", ["354 go", "250 Ok", "554 no"])
def test_a_reply_to_a_body_that_was_not_handed_over_counts_for_nothing(reply: str) -> None:
    """The end of data is written within the same call, and was not sent."""
    side = Side(["PIPELINING"], watched=False)
    side.begin(_PLAIN)
    side.machine.data_to_send()
    with pytest.raises(ProtocolViolation, match="no command asked for"):
        side.machine.receive_data(lines("250 Ok", "250 Ok", "354 go", reply))
    side.machine.fail(Interrupted("the end"))
    receipt = side.begun[0].receipt
    assert receipt is not None
    assert receipt.outcome.value == "not sent"
