"""`smtp-async demo` shows what was counted."""

import asyncio
import io
import re
from collections import Counter

from rich.console import Console

from smtp_async.cli import demo
from smtp_async.cli.exits import Exit
from smtp_async.cli.output import Output
from smtp_async.model.receipt import Outcome


def test_a_few_hundred_messages_are_counted(shell):
    done = shell("demo --count 200 --connections 4")
    assert done.exit_code == 0
    shown = done.stdout
    assert re.search(r"Messages per second +[\d,]+ ", shown)
    assert re.search(r"Connections +4 ", shown)
    assert re.search(r"Accepted +196 ", shown) and re.search(r"Partial +2 ", shown)
    assert re.search(r"Refused +2 ", shown) and re.search(r"Received +198 ", shown)
    assert "Subject: Das Sommerfest 🎉 (8)" in shown and "\n.\n" in shown
    assert "Köstlichkeiten.csv" in shown and "Violation" not in shown


def test_flights_are_counted_by_the_server(shell):
    shown = shell("demo --count 10 --connections 1").stdout
    [(per_message, counted)] = re.findall(r"Flights per message +([\d.]+) +(\d+) round trips", shown)
    assert float(per_message) == int(counted) / 10 and 10 <= int(counted) <= 50


def test_one_message_is_enough(shell):
    assert shell("demo --count 1").exit_code == 0


def test_a_terminal_gets_a_panel():
    output = Output()
    text = io.StringIO()
    output.out = Console(file=text, force_terminal=True, width=100, markup=False, highlight=False)
    assert asyncio.run(demo.demo(output, count=60, connections=3)) is Exit.OK
    assert "One of them, as its reader sees it" in text.getvalue() and "60/60" in text.getvalue()


def test_violations_are_shown(capsys):
    counts = demo.Counts(Counter({Outcome.ACCEPTED: 1}), 0.0, 2, 1, [], ["connection 0: a bare LF"])
    Console().print(demo.result_table(counts, 1))
    assert "a bare LF" in capsys.readouterr().out


def test_no_message_is_shown_if_none_was_received(capsys):
    demo.show_one_message(Output(), [])
    assert capsys.readouterr().out == ""
