"""`smtp-async demo`: send a few hundred real messages to a server in this process, and show what became of them.

All numbers are counted: the outcomes are those of the receipts, flights and messages are what the server received.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from email.message import EmailMessage
from typing import NamedTuple

from rich.panel import Panel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from ..client.client import SMTPClient
from ..client.options import ClientOptions
from ..errors import SMTPError
from ..message import Message
from ..model.receipt import Outcome, Receipt
from ..model.reply import printable
from ..pool.limits import PoolLimits
from ..testing import ReceivedMessage, RecordingSink, reply
from ..tls.context import Security
from .exits import Exit
from .output import Output

__all__ = ["Counts", "demo", "result_table", "show_one_message"]

_GUESTS = ("Ann", "Bob", "Chloé", "Dário", "Ελένη", "Fatma", "Günther", "花子", "Иван", "Jānis")
_SUBJECTS = ("The summer party", "La fête d'été", "Das Sommerfest 🎉", "夏祭りのお知らせ", "Летний праздник")
_TEXT = """\
Dear {guest},

the party is on Saturday. Bring whom you like; the list of dishes is
attached for those who asked for it.

.
(The line above is a single dot. On the wire it would end a message,
so it travels doubled, and arrives as it was written.)

See you there
The committee
"""
#: The server refuses this address.
_REFUSED = "gone@example.net"


class Counts(NamedTuple):
    """The counted numbers.

    Attributes:
        outcomes: the outcomes of the receipts.
        seconds: the time from the first call to the last receipt.
        flights: round trips as the server counted them, greeting and QUIT included.
        connections: the connections that the server accepted.
        received: the messages that the server accepted.
        violations: the protocol violations that the server noticed.
    """

    outcomes: Counter[Outcome]
    seconds: float
    flights: int
    connections: int
    received: list[ReceivedMessage]
    violations: list[str]


async def demo(output: Output, *, count: int, connections: int) -> Exit:
    """Send `count` messages at once through one client, and show what became of them."""
    messages = [_invitation(number) for number in range(count)]
    output.line(
        f"Sending {count} messages at once through one SMTPClient, at most {connections} connections."
    )
    output.line("The server runs in this process; the numbers below are what it counted.", "dim")
    output.line()
    with _bar(output) as bar:
        task = bar.add_task("Sending", total=count)
        counts = await _run(messages, connections, lambda: bar.advance(task))
    output.out.print(result_table(counts, count))
    output.line()
    show_one_message(output, counts.received)
    return Exit.REFUSED if counts.violations or counts.outcomes[Outcome.UNKNOWN] else Exit.OK


def _invitation(number: int) -> Message:
    guest = _GUESTS[number % len(_GUESTS)]
    refused = number % 100 == 50
    message = Message(
        sender='"The committee" <party@example.com>',
        to=_REFUSED if refused else [f"{guest} <guest{number}@example.org>"],
        bcc=[_REFUSED] if number % 100 == 25 else [],
        subject=f"{_SUBJECTS[number % len(_SUBJECTS)]} ({number + 1})",
        text=_TEXT.format(guest=guest),
    )
    if number % 10 == 7:
        dishes = "dish,cook\r\n" + "".join(f"dish {line},{guest}\r\n" for line in range(200))
        message.attach(dishes.encode(), filename="Köstlichkeiten.csv", content_type="text/csv; charset=utf-8")
    return message


async def _run(messages: list[Message], connections: int, advance: Callable[[], object]) -> Counts:
    options = ClientOptions(pool=PoolLimits(max_connections=connections))
    outcomes: Counter[Outcome] = Counter()
    async with RecordingSink() as sink:
        refusal = reply(550, "5.1.1 no such user")
        # Optional, because a short demonstration has no message for that recipient.
        sink.on("RCPT", refusal, match=f"<{_REFUSED}>", optional=True)
        client = SMTPClient(sink.host, sink.port, security=Security.PLAINTEXT, options=options)

        async def send(message: Message) -> None:
            outcomes[(await _receipt(client, message)).outcome] += 1
            advance()

        async with client:
            started = time.perf_counter()
            await asyncio.gather(*map(send, messages))
            seconds = time.perf_counter() - started
        await sink.wait_for_disconnect()
        return Counts(
            outcomes, seconds, sink.flights, sink.connections.opened, sink.messages, sink.violations
        )


async def _receipt(client: SMTPClient, message: Message) -> Receipt:
    try:
        return await client.send(message)
    except SMTPError as error:
        receipt = Receipt.of(error)
        if receipt is None:
            raise
        return receipt


# --- output --------------------------------------------------------------------------------------------------


def _bar(output: Output) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=output.out, disable=not output.is_terminal)


def result_table(counts: Counts, count: int) -> Table:
    """Return the table of results of `count` messages."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim")
    table.add_column(justify="right", style="bold")
    table.add_column()
    rate = count / counts.seconds if counts.seconds else 0.0
    table.add_row(
        "Messages per second", f"{rate:,.0f}", f"{count} in {counts.seconds:.2f} s, server included"
    )
    table.add_row(
        "Flights per message",
        f"{counts.flights / count:.2f}",
        f"{counts.flights} round trips, counted by the server",
    )
    table.add_row("Connections", str(counts.connections), "opened, each used for many messages")
    for outcome, text in _OUTCOMES.items():
        if counts.outcomes[outcome] or outcome is Outcome.ACCEPTED:
            table.add_row(outcome.value.capitalize(), f"{counts.outcomes[outcome]}", text)
    table.add_row("Received", str(len(counts.received)), "messages were recorded by the server")
    for violation in counts.violations:
        table.add_row("Violation", "", Text(printable(violation)))
    return table


_OUTCOMES = {
    Outcome.ACCEPTED: "for every recipient",
    Outcome.PARTIAL: "a Bcc was refused, the others were accepted",
    Outcome.REFUSED: "no such user: RecipientsRefused",
    Outcome.NOT_SENT: "did not leave",
    Outcome.UNKNOWN: "the reply to the end of data did not come",
}


def show_one_message(output: Output, received: list[ReceivedMessage]) -> None:
    """Show a message as a mail reader would, if possible one with an attachment."""
    letters = [one.parsed for one in received[:50]]
    chosen = next((one for one in letters if any(one.iter_attachments())), letters[0] if letters else None)
    if chosen is None:
        return
    text = _as_read(chosen)
    if output.is_terminal:
        output.out.print(Panel(text, title="One of them, as its reader sees it", title_align="left"))
    else:
        output.line("One of them, as its reader sees it:")
        output.out.print(text, soft_wrap=True)


def _as_read(letter: EmailMessage) -> Text:
    text = Text()
    for name in ("From", "To", "Subject", "Date"):
        text.append(f"{name + ':':<9}", style="dim").append(f"{printable(str(letter[name]))}\n")
    body = letter.get_body(("plain",))
    text.append("\n").append(body.get_content().replace("\r\n", "\n").strip() if body is not None else "")
    for part in letter.iter_attachments():
        size = len(part.get_payload(decode=True) or b"")
        text.append(f"\n\n📎 {printable(part.get_filename() or 'a file')}", style="bold")
        text.append(f"  {part.get_content_type()}, {size:,} bytes", style="dim")
    return text
