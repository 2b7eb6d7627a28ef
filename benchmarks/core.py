"""What a message costs in the protocol core alone: planned, written and answered, without sockets or an event loop.

The steady state across messages: one connection, a body of 1 KiB, the server's replies as a Postfix gives them, with
another queue ID for each message. Three ways to use a connection, and for each shortcut in the core what it saves.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import count
from statistics import median
from typing import NamedTuple
from unittest.mock import patch

from benchmarks.race import Answer, Table
from smtp_async import SendOptions
from smtp_async.model.content import Content
from smtp_async.model.envelope import Envelope
from smtp_async.protocol import parser, plan
from smtp_async.protocol.machine import ClientProtocol
from smtp_async.protocol.pipeline import Pipeline
from smtp_async.protocol.pipelining_history import PipeliningHistory
from smtp_async.protocol.transaction import Transaction

_BODY = b"Subject: x\r\n\r\n" + b"x" * 62 + b"\r\n" + (b"y" * 62 + b"\r\n") * 15
_CONTENT = Content.of_bytes(_BODY)
_ENVELOPES = [Envelope("ann@example.com", [f"reader{number}@example.org"]) for number in range(5000)]
_OPTIONS = SendOptions()
_WINDOW = 64

_RESET = b"250 2.0.0 Ok\r\n"
_MAIL = b"250 2.1.0 Ok\r\n"
_RCPT = b"250 2.1.5 Ok\r\n"
_DATA = b"354 End data with <CR><LF>.<CR><LF>\r\n"

#: What makes every message another one.
_numbers = count()


def run(*, quick: bool = False) -> Answer:
    """Measure in turns."""
    rounds, messages = (5, 1000) if quick else (31, 5000)
    manners = _measured(dict(_MANNERS), rounds, messages)
    rows = [(name, f"{micros:.2f}") for name, micros in manners.items()]
    tables = [
        Table("A message of 1 KiB to one recipient", ("connection", "µs"), rows),
        _shortcuts(rounds, messages),
    ]
    notes = ["One process, one thread; µs of CPU time, the median of all rounds."]
    return Answer(tables, [], notes)


# --- conversations -------------------------------------------------------------------------------------------


def _planned(machine: ClientProtocol, *, chunking: bool = False) -> Transaction:
    envelope = _ENVELOPES[next(_numbers) % len(_ENVELOPES)]
    return plan.plan(envelope, _CONTENT, machine.extensions, _OPTIONS, chunking=chunking)


def _ready(*offer: str, window: int = 1) -> ClientProtocol:
    history = PipeliningHistory()
    history.proven = True
    machine = ClientProtocol(window=window, pipelining_history=history)
    machine.receive_data(b"220 mx.example.org ESMTP\r\n")
    machine.hello("client.example.com")
    machine.data_to_send()
    said = ["mx.example.org", *offer, "SIZE 10240000", "ENHANCEDSTATUSCODES", "8BITMIME"]
    machine.receive_data(b"".join(b"250-%b\r\n" % line.encode() for line in said) + b"250 DSN\r\n")
    machine.take_settled()
    return machine


def _queued() -> bytes:
    return b"250 2.0.0 Ok: queued as %08X\r\n" % next(_numbers)


def _across(messages: int) -> None:
    """The next envelope shares its write with the end of the message before."""
    machine = _ready("PIPELINING")
    pipeline = machine.pipeline
    pipeline.begin(_planned(machine))
    machine.data_to_send()
    machine.receive_data(_MAIL + _RCPT + _DATA)
    for _ in range(messages):
        pipeline.begin(_planned(machine))
        machine.data_to_send()
        machine.receive_data(_queued() + _RESET + _MAIL + _RCPT + _DATA)
        machine.take_settled()


def _lock_step(messages: int) -> None:
    """Every command waits for its reply."""
    machine = _ready()
    for _ in range(messages):
        machine.pipeline.begin(_planned(machine))
        for reply in (_MAIL, _RCPT, _DATA, _queued()):
            machine.data_to_send()
            machine.receive_data(reply)
        machine.take_settled()


def _windowed(messages: int) -> None:
    """Whole messages, one behind the other, many unanswered."""
    machine = _ready("PIPELINING", "CHUNKING", window=_WINDOW)
    pipeline = machine.pipeline
    left = messages
    while left > 0:
        begun = 0
        transaction = _planned(machine, chunking=True)
        while pipeline.can_begin and pipeline.admits(transaction) and begun < left:
            pipeline.begin(transaction)
            begun += 1
            transaction = _planned(machine, chunking=True)
        said = machine.data_to_send().count(b"RSET\r\n")
        # No RSET precedes the first message of a fresh connection.
        heads = [b""] * (begun - said) + [_RESET] * said
        machine.receive_data(b"".join(head + _MAIL + _RCPT + _queued() for head in heads))
        machine.take_settled()
        left -= begun


_MANNERS: dict[str, Callable[[int], None]] = {
    "pipelined across messages": _across,
    f"window of {_WINDOW}, in chunks": _windowed,
    "lock-step": _lock_step,
}


# --- shortcuts -----------------------------------------------------------------------------------------------


class Shortcut(NamedTuple):
    """Code that exists for its speed alone.

    Attributes:
        title: what it does.
        manner: the conversation that shows what it saves.
        without: makes the core do without it.
    """

    title: str
    manner: Callable[[int], None]
    without: Callable[[], AbstractContextManager[object]]


@contextmanager
def _forgetful_parser() -> Iterator[None]:
    with patch.object(parser, "_REMEMBERED", 0):
        yield


_SHORTCUTS = (
    Shortcut(
        "replies of a group paired in one go (`Pipeline.answer_group`)",
        _across,
        lambda: patch.object(Pipeline, "answer_group", lambda *_: 0),
    ),
    Shortcut("reply lines remembered (`ReplyParser`)", _across, _forgetful_parser),
    Shortcut(
        "MAIL lines remembered (`plan`)",
        _across,
        lambda: patch.object(plan, "_mail", plan._mail.__wrapped__),
    ),
)


def _shortcuts(rounds: int, messages: int) -> Table:
    rows = []
    for shortcut in _SHORTCUTS:
        entries = {"with": shortcut.manner, "without": shortcut.manner}
        times = _measured(entries, rounds, messages, without=shortcut.without)
        saved = times["without"] - times["with"]
        rows.append((shortcut.title, f"{times['with']:.2f}", f"{times['without']:.2f}", f"{saved:.2f}"))
    return Table("What each shortcut saves", ("shortcut", "µs", "µs without it", "µs saved"), rows)


# --- measurement ---------------------------------------------------------------------------------------------


def _measured(
    entries: dict[str, Callable[[int], None]],
    rounds: int,
    messages: int,
    *,
    without: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> dict[str, float]:
    """Return µs per message of each entry; the entry called "without" runs inside `without`."""
    times: dict[str, list[float]] = {name: [] for name in entries}
    for _ in range(rounds):
        for name, conversation in entries.items():
            with without() if name == "without" else nullcontext():
                conversation(100)
                gc.collect()
                start = time.process_time()
                conversation(messages)
                times[name].append((time.process_time() - start) / messages * 1e6)
    return {name: median(found) for name, found in times.items()}
