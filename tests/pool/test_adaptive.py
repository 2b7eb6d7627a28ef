"""adaptive.py: the bound follows a simulated server whose capacity changes; time is an argument."""

import math
import random
from collections.abc import Callable

import pytest

from smtp_async.errors import MessageRefused, RecipientsRefused, SenderRefused, SMTPError
from smtp_async.model.envelope import Recipient
from smtp_async.model.receipt import Outcome, Receipt, Verdict
from smtp_async.model.reply import Reply
from smtp_async.pool.adaptive import AdaptiveBound, is_congestion

# --- which refusals count ------------------------------------------------------------------------------------


def refused(code: int, text: str, kind: type[SMTPError] = MessageRefused) -> Receipt:
    reply = Reply(code, (text.encode(),))
    verdict = Verdict(Recipient("bob@example.org"), Outcome.REFUSED, reply)
    return Receipt((verdict,), reply=reply, error=kind("", reply=reply))


@pytest.mark.parametrize(
    ("code", "text", "kind", "counts"),
    [
        (421, "4.7.0 too many connections", MessageRefused, True),
        (421, "closing", MessageRefused, True),
        (421, "4.4.2 idle for too long", MessageRefused, False),
        (450, "4.7.1 Error: too much mail from 192.0.2.1", SenderRefused, True),
        (450, "4.7.1 greylisted", RecipientsRefused, False),
        (450, "4.2.1 mailbox busy", RecipientsRefused, False),
        (450, "try later", RecipientsRefused, False),
        (451, "4.7.500 server busy", MessageRefused, True),
        (451, "4.7.1 greylisted", RecipientsRefused, False),
        (451, "local error", MessageRefused, True),
        (452, "4.3.1 insufficient system storage", SenderRefused, True),
        (452, "4.4.5 messages per second", SenderRefused, True),
        (452, "4.5.3 too many recipients", RecipientsRefused, False),
        (452, "4.2.2 over quota", RecipientsRefused, False),
        (454, "Throttling failure: maximum sending rate exceeded", MessageRefused, True),
        (421, "4.7.28 unusual rate", MessageRefused, True),
        (550, "5.7.1 no", SenderRefused, False),
        (552, "5.3.4 too large", MessageRefused, False),
    ],
)
def test_only_refusals_because_of_the_load_count(
    code: int, text: str, kind: type[SMTPError], counts: bool
) -> None:
    assert is_congestion(refused(code, text, kind)) is counts


def test_a_message_without_a_reply_does_not_count() -> None:
    assert not is_congestion(Receipt((), error=MessageRefused("")))


# --- single decisions ----------------------------------------------------------------------------------------


def test_a_refused_connection_leaves_those_that_are_borne() -> None:
    bound = AdaptiveBound(10)
    bound.connection_refused(0, accepted=4)
    assert (bound.current, bound.rises_at) == (4, 60)
    bound.connection_refused(1, accepted=0)
    assert bound.current == 3


def test_the_bound_stays_between_one_and_the_limit() -> None:
    bound = AdaptiveBound(3)
    for second in range(0, 100, 2):
        bound.congested(second, used=3)
        bound.connection_refused(second, accepted=0)
    assert bound.current == 1
    while bound.rises_at < math.inf:
        bound.rise(bound.rises_at)
    assert bound.current == 3


def test_refusals_of_one_moment_count_once() -> None:
    bound = AdaptiveBound(10)
    for _ in range(10):
        bound.congested(5.0, used=10)
    assert bound.current == 7
    bound.congested(6.0, used=7)
    assert bound.current == 4


def test_what_was_in_use_counts_and_not_the_bound() -> None:
    bound = AdaptiveBound(10)
    bound.congested(0, used=4)
    assert bound.current == 2


def test_below_what_was_refused_it_climbs_quickly_and_then_probes() -> None:
    bound = AdaptiveBound(10)
    bound.congested(0, used=10)
    times = []
    while bound.rises_at < math.inf:
        times.append(bound.rises_at)
        bound.rise(bound.rises_at)
    assert times == [1, 2, 62]
    assert bound.current == 10


def test_probes_that_are_refused_become_rare_and_those_that_are_borne_frequent() -> None:
    bound = AdaptiveBound(100)
    bound.connection_refused(0, accepted=5)
    pauses, now = [], 0.0
    for _ in range(6):
        pauses.append(bound.rises_at - now)
        now = bound.rises_at
        bound.rise(now)
        bound.connection_refused(now, accepted=5)
    assert pauses == [60, 120, 240, 300, 300, 300]
    pauses = []
    for _ in range(7):
        pauses.append(bound.rises_at - now)
        now = bound.rises_at
        bound.rise(now)
    assert pauses == [300, 300, 75, 18.75, 4.6875, 1.171875, 1]


def test_risen_reply_times_lower_the_bound_but_short_ones_and_single_ones_do_not() -> None:
    bound = AdaptiveBound(10)
    for second in range(10):
        bound.replies_took(second, 0.002, 10)
    for second in range(10, 20):
        bound.replies_took(second, 0.4, 10)  # two hundred times as long, but nothing to spare the server
    assert bound.current == 10
    for second in range(20, 40, 2):
        bound.replies_took(second, 3.0, 10)
        bound.replies_took(second + 1, 0.002, 10)
    assert bound.current == 10
    for second in range(40, 43):
        bound.replies_took(second, 3.0, 10)
    assert bound.current == 7


def test_no_rise_while_replies_are_slow() -> None:
    bound = AdaptiveBound(10)
    bound.replies_took(0, 0.2, 10)
    bound.congested(1, used=10)
    bound.replies_took(1.5, 3.0, 7)
    bound.rise(2)
    assert (bound.current, bound.rises_at) == (7, 3)


# --- a simulated server --------------------------------------------------------------------------------------

Capacity = Callable[[float], int]


def steady(_: float) -> int:
    return 6


def falling_and_rising(now: float) -> int:
    return (12, 4, 9)[int(now // 1800) % 3]


def one_only(_: float) -> int:
    return 1


def restless(now: float) -> int:
    return 5 + int(2 * math.sin(now / 900))


class Simulation:
    """A client of 20 connections at most, with messages without end, and a server, in steps of a tenth of a second.

    Each connection carries two messages per second. What `kind` of limit the server has: more connections than its
    capacity are refused ("connections"), or more messages per second than its capacity allows ("rate"), or they are
    all served, but more slowly ("queue").
    """

    STEP = 0.1
    PER_STEP = 0.2

    def __init__(self, kind: str, capacity: Capacity, most: int = 20) -> None:
        self.kind = kind
        self.capacity = capacity
        self.bound = AdaptiveBound(most)
        self.now = 0.0
        self.open = 0
        self.sent = self.refused = self.possible = 0.0
        self.random = random.Random(1)
        self.next_sample = 1.0

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while self.now < end:
            self.now += self.STEP
            if self.now >= self.bound.rises_at:
                self.bound.rise(self.now)
            capacity = self.capacity(self.now)
            self.possible += capacity * self.PER_STEP
            self.step(capacity)

    def step(self, capacity: int) -> None:
        self.open = min(self.open, self.bound.current)
        if self.kind == "connections":
            if self.open > capacity:
                # The server ends those that it no longer bears, with 421.
                self.refused += self.open - capacity
                self.bound.connection_refused(self.now, accepted=capacity)
                self.open = min(capacity, self.bound.current)
            elif self.open < self.bound.current:
                if self.open < capacity:
                    self.open += 1
                else:
                    self.refused += 1
                    self.bound.connection_refused(self.now, accepted=self.open)
            self.sent += self.open * self.PER_STEP
            return
        self.open = self.bound.current
        offered = self.open * self.PER_STEP
        served = min(offered, capacity * self.PER_STEP)
        self.sent += served
        if self.kind == "rate":
            self.refused += offered - served
            if offered > served:
                self.bound.congested(self.now, self.open)
        elif self.now >= self.next_sample:
            self.next_sample += 1
            took = 0.5 * max(1.0, self.open / capacity) * self.random.uniform(0.9, 1.1)
            self.bound.replies_took(self.now, took, self.open)


@pytest.mark.parametrize("capacity", [steady, falling_and_rising, one_only, restless])
@pytest.mark.parametrize("kind", ["connections", "rate", "queue"])
def test_nine_tenths_of_what_is_possible_with_one_refusal_in_a_hundred(kind: str, capacity: Capacity) -> None:
    """A bound of the capacity, at every moment, would be the best; no fixed one can be better than that."""
    simulation = Simulation(kind, capacity)
    simulation.run(120)
    simulation.sent = simulation.refused = simulation.possible = 0.0
    simulation.run(3 * 5400)
    assert simulation.sent >= 0.9 * simulation.possible
    assert simulation.refused <= 0.01 * (simulation.sent + simulation.refused)


def test_a_server_that_bears_all_is_never_tried_less() -> None:
    simulation = Simulation("connections", lambda _: 100)
    simulation.run(600)
    assert (simulation.bound.current, simulation.refused) == (20, 0)


def test_a_server_that_has_become_slow_is_spared() -> None:
    simulation = Simulation("queue", lambda now: 20 if now < 60 else 2)
    simulation.run(60)
    bounds = []
    for _ in range(600):
        simulation.run(1)
        bounds.append(simulation.bound.current)
    # Replies take four times as long as before with 8 connections.
    assert sum(bounds[60:]) / len(bounds[60:]) <= 10
