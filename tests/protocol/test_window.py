"""window.py: how many messages may be on their way; and what the machine makes of a window of them."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtp_async.errors import ConnectionLost
from smtp_async.model.content import Content
from smtp_async.model.envelope import NOBODY, Envelope
from smtp_async.model.receipt import Outcome
from smtp_async.protocol.options import SendOptions
from smtp_async.protocol.plan import plan
from smtp_async.protocol.transaction import Transaction
from smtp_async.protocol.window import MAX_OCTETS, MAX_REPLIES, Window
from tests.lab import case
from tests.protocol.talk import Deliver, Talk, bob, receipt_of


def admits(window, octets=100, *, chunked=True, replies=3):
    return window.admits(octets, chunked=chunked, replies=replies)


def sizes(most, answers):
    window = Window(most)
    for accepted in answers:
        window.began(100)
        window.ended(100, accepted=accepted)
        yield window.size


@pytest.mark.parametrize(
    ("most", "answers", "expected"),
    [
        (64, [True] * 8, [2, 4, 8, 16, 32, 64, 64, 64]),
        (1, [True] * 3, [1, 1, 1]),
        (3, [True] * 3, [2, 3, 3]),
        (64, [True, True, False, True], [2, 4, 1, 2]),
        (64, [False, False], [1, 1]),
    ],
)
def test_it_doubles_with_success_and_falls_to_one_after_a_refusal(most, answers, expected):
    assert list(sizes(most, answers)) == expected


def test_a_refusal_makes_cautious_until_a_message_is_accepted():
    window = Window(8)
    assert not window.cautious
    for accepted in (False, False, True, True):
        window.began(1)
        window.ended(1, accepted=accepted)
        assert window.cautious is not accepted


def test_one_message_is_always_admitted():
    assert admits(Window(1), 10 * MAX_OCTETS, replies=10 * MAX_REPLIES)
    assert admits(Window(1), None)


def test_the_window_counts_messages():
    window = Window(8)
    window.began(1)
    assert not admits(window)
    window.ended(1, accepted=True)
    for expected in (True, True, False):
        assert admits(window) is expected
        window.began(1)
    window.ended(1, accepted=True)
    assert window.messages == 2
    assert admits(window)


def test_without_chunking_the_next_may_always_be_written_behind_the_dot():
    window = Window(1)
    window.began(1)
    assert admits(window, chunked=False)
    window.began(1)
    assert not admits(window, chunked=False)


def test_the_window_counts_octets_and_replies():
    window = Window(64)
    window.size = 64
    window.began(MAX_OCTETS - 100)
    assert admits(window, 100)
    assert not admits(window, 101)
    assert admits(window, 1, replies=MAX_REPLIES)
    assert not admits(window, 1, replies=MAX_REPLIES + 1)


def test_a_streamed_message_needs_an_empty_window():
    window = Window(64)
    window.size = 64
    window.began(1)
    assert not admits(window, None)
    window.ended(1, accepted=True)
    assert admits(window, None)
    window.began(None)
    window.ended(None, accepted=True)
    assert window.messages == 0


@given(st.integers(1, 64), st.lists(st.tuples(st.integers(0, 10**6), st.booleans()), max_size=60))
def test_its_bounds_hold_whatever_comes(most, messages):
    window = Window(most)
    under_way: list[int] = []
    for octets, accepted in messages:
        while not admits(window, octets, replies=4 * len(under_way)):
            window.ended(under_way.pop(0), accepted=accepted)
        window.began(octets)
        under_way.append(octets)
        assert 1 <= window.size <= most
        assert window.messages == len(under_way)
        assert len(under_way) == 1 or sum(under_way) <= MAX_OCTETS


# --- the machine with a window: every pattern of refusals ----------------------------------------------------

OFFER = ["PIPELINING", "CHUNKING"]
#: What a strict server may do with a message, and what must become of it.
FATES = {
    "good": Outcome.ACCEPTED,
    "sender": Outcome.REFUSED,
    "recipient": Outcome.REFUSED,
    "content": Outcome.REFUSED,
    "one of two": Outcome.PARTIAL,
}


class Strict:
    """What a strict server answers to the lines of a window; it keeps a transaction open until RSET or a 250."""

    def __init__(self, fates: list[str], *, lmtp: bool = False) -> None:
        self.fates = fates
        self.lmtp = lmtp
        self.begun = 0
        self.sender: str | None = None
        self.accepted = 0
        #: (sender, how many recipients) of what it delivered.
        self.delivered: list[tuple[str, int]] = []

    def answer(self, wire: bytes) -> list[str]:
        replies = []
        while wire:
            line, _, wire = wire.partition(b"\r\n")
            verb = line[:4]
            if verb == b"BDAT":
                wire = wire[int(line.split()[1]) :]
            replies += getattr(self, verb.decode().lower())(line.decode())
        return replies

    @property
    def fate(self) -> str:
        return self.fates[self.begun - 1]

    def rset(self, line: str) -> list[str]:
        self.sender, self.accepted = None, 0
        return ["250 reset"]

    def mail(self, line: str) -> list[str]:
        if self.sender is not None:
            return ["503 nested MAIL"]
        self.begun += 1
        if self.fate == "sender":
            return ["550 not from you"]
        self.sender = line.split("<")[1].split(">")[0]
        return ["250 ok"]

    def rcpt(self, line: str) -> list[str]:
        if self.sender is None:
            return ["503 MAIL first"]
        if self.fate == "recipient" or (self.fate == "one of two" and "second" in line):
            return ["550 nobody"]
        self.accepted += 1
        return ["250 ok"]

    def bdat(self, line: str) -> list[str]:
        if self.sender is None or not self.accepted:
            return ["503 no transaction"]
        count = self.accepted if self.lmtp else 1
        if self.fate == "content":
            return ["554 spam"] * count
        self.delivered.append((self.sender, self.accepted))
        self.sender, self.accepted = None, 0
        return ["250 queued"] * count


def message(talk: Talk, n: int) -> Transaction:
    envelope = Envelope(f"s{n}@example.com", [bob("first"), bob("second")])
    content = Content.of_bytes(b"Subject: %d\r\n\r\nx\r\n" % n)
    return plan(envelope, content, talk.machine.extensions, SendOptions(must_accept=NOBODY), chunking=True)


def grown(deliver: Deliver, fates: list[str], *, lmtp: bool) -> tuple[Talk, Strict]:
    """A conversation whose window has become as wide as it goes."""
    talk = Talk.ready(deliver, OFFER, window=64, lmtp=lmtp)
    server = Strict(["good"] * 7 + fates, lmtp=lmtp)
    for n in range(7):
        talk.machine.pipeline.begin(message(talk, n))
        talk.says(*server.answer(talk.machine.data_to_send()))
    assert len(talk.settled()) == 7
    server.delivered.clear()
    return talk, server


@pytest.mark.parametrize("lmtp", [False, True], ids=["SMTP", "LMTP"])
@pytest.mark.parametrize("first", FATES)
def test_every_pattern_of_refusals_in_a_window(deliver: Deliver, first: str, lmtp: bool) -> None:
    """Three messages in one write, two behind them: each has its own outcome, and no other's sender."""
    for others in itertools.product(FATES, repeat=2):
        with case(others):
            check_pattern(deliver, [first, *others, "good", "good"], lmtp=lmtp)


def check_pattern(deliver: Deliver, whole: list[str], *, lmtp: bool) -> None:
    talk, server = grown(deliver, whole, lmtp=lmtp)
    transactions = [message(talk, n) for n in range(5)]
    waiting = list(transactions)
    for _ in range(3):
        assert talk.machine.pipeline.admits(waiting[0])
        talk.machine.pipeline.begin(waiting.pop(0))
    for _ in range(20):
        wire = talk.machine.data_to_send()
        if wire:
            talk.says(*server.answer(wire))
        while waiting and talk.machine.pipeline.admits(waiting[0]):
            talk.machine.pipeline.begin(waiting.pop(0))
    assert talk.machine.idle and not waiting
    assert talk.settled() == transactions
    assert [receipt_of(one).outcome for one in transactions] == [FATES[fate] for fate in whole]
    expected = [
        (f"s{n}@example.com", 1 if fate == "one of two" else 2)
        for n, fate in enumerate(whole)
        if fate in ("good", "one of two")
    ]
    assert server.delivered == expected
    assert talk.machine.pipeline.breakdown is None and not talk.machine.pipeline.exhausted


@pytest.mark.parametrize("goodbye", [False, True], ids=["EOF", "421"])
@pytest.mark.parametrize("read", range(13))
def test_a_window_that_ends_after_any_reply(deliver: Deliver, read: int, goodbye: bool) -> None:
    """Three messages of four replies each; behind the 421, or the end of the stream, nothing more is read."""
    talk, server = grown(deliver, ["good"] * 3, lmtp=False)
    transactions = [message(talk, n) for n in range(3)]
    for one in transactions:
        talk.machine.pipeline.begin(one)
    replies = server.answer(talk.machine.data_to_send())
    # The first needs no RSET: the server is known to have nothing open.
    assert len(replies) == 4 + 5 + 5
    ends = [4, 9, 14]
    heard = replies[:read] + (["421 bye"] if goodbye else [])
    talk.says(*heard)
    talk.machine.fail(ConnectionLost("lost"))
    outcomes = [receipt_of(one).outcome for one in transactions]
    for end, outcome in zip(ends, outcomes, strict=True):
        if read >= end:
            assert outcome is Outcome.ACCEPTED
        elif not goodbye:
            assert outcome is Outcome.UNKNOWN
        elif read == end - 1:
            # The 421 is the answer to its content.
            assert outcome is Outcome.REFUSED
        else:
            assert outcome is Outcome.NOT_SENT
    assert len(talk.settled()) == 3


def test_a_window_that_was_not_handed_over_was_not_sent(deliver: Deliver) -> None:
    talk, _ = grown(deliver, [], lmtp=False)
    first, second = message(talk, 1), message(talk, 2)
    talk.machine.pipeline.begin(first)
    talk.machine.data_to_send()
    talk.machine.pipeline.begin(second)
    talk.machine.fail(ConnectionLost("lost"))
    assert [receipt_of(one).outcome for one in (first, second)] == [Outcome.UNKNOWN, Outcome.NOT_SENT]
