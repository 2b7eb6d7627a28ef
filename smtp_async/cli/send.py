"""`smtp-async send`: one message, and what became of each recipient."""

from __future__ import annotations

import contextlib
import time
from dataclasses import replace
from pathlib import Path

from rich.table import Table
from rich.text import Text

from ..client.client import SMTPClient
from ..errors import SMTPError
from ..events import ConnectionKind, ConnectionStatus, PITrail
from ..model.envelope import NOBODY
from ..model.receipt import Outcome, Receipt, Verdict
from ..model.reply import printable
from ..protocol.options import SendOptions
from .exits import Exit, exit_for_receipt
from .message_options import MessageOptions
from .output import Output
from .transfer import TransferBar

__all__ = ["send"]

_STYLES = {
    Outcome.ACCEPTED: "green",
    Outcome.PARTIAL: "yellow",
    Outcome.REFUSED: "red",
    Outcome.NOT_SENT: "yellow",
    Outcome.UNKNOWN: "bold red",
}


async def send(
    output: Output,
    client: SMTPClient,
    message: MessageOptions,
    eml: Path | None,
    *,
    each: bool,
    deadline: float | None,
    verbose: bool,
    quiet: bool,
) -> Exit:
    """Send the message, or the complete message in `eml`, and show its receipt.

    Raises:
        SMTPError: no recipient was accepted; the receipt has been shown.
    """
    tls: list[str] = []
    _watch(output, client, tls, verbose=verbose)
    started = time.perf_counter()
    try:
        # No bar with --verbose, because the lines of the dialogue would break it.
        receipt = await _sent(
            client,
            message,
            eml,
            each,
            deadline,
            TransferBar(output) if output.is_terminal and not (quiet or verbose) else None,
        )
    except SMTPError as error:
        if (refused := Receipt.of(error)) is not None:
            _show(output, refused)
        raise
    if quiet and receipt.outcome is Outcome.ACCEPTED:
        return Exit.OK
    if output.is_terminal:
        _show_success(output, client, receipt, tls, time.perf_counter() - started)
    _show(output, receipt)
    return exit_for_receipt(receipt)


async def _sent(
    client: SMTPClient,
    message: MessageOptions,
    eml: Path | None,
    each: bool,
    deadline: float | None,
    bar: TransferBar | None,
) -> Receipt:
    options = SendOptions(progress=bar)
    if each:
        options = replace(options, must_accept=NOBODY)
    with bar or contextlib.nullcontext():
        async with client:
            if eml is None:
                return await client.send(message.message(), options=options, deadline=deadline)
            return await client.send_raw(
                message.raw(eml),
                sender=message.sender,
                recipients=message.recipients or None,
                options=options,
                deadline=deadline,
            )


def _watch(output: Output, client: SMTPClient, tls: list[str], *, verbose: bool) -> None:
    @client.on(ConnectionStatus)
    def note_tls(event: ConnectionStatus) -> None:
        if event.kind is ConnectionKind.TLS_UP:
            tls.append(event.description)

    if verbose:
        client.on(PITrail, output.trail)


def _show_success(
    output: Output, client: SMTPClient, receipt: Receipt, tls: list[str], seconds: float
) -> None:
    how = f"over {tls[-1]}" if tls else "without TLS"
    where = client.host if client.host.startswith("/") else f"{client.host}:{client.port}"
    if receipt.outcome is Outcome.ACCEPTED:
        output.success(f"Accepted by {where} {how} in {seconds:.2f} s")
    else:
        output.problem(
            f"{where} accepted it for {len(receipt.accepted)} of {len(receipt.verdicts)} recipients"
        )


def _show(output: Output, receipt: Receipt) -> None:
    if not output.is_terminal:
        for verdict in receipt.verdicts:
            output.line(
                f"{verdict.outcome.value}\t{verdict.recipient.address}\t{_reply_text(receipt, verdict)}"
            )
        return
    if receipt.outcome is Outcome.NOT_SENT and receipt.reply is None:
        # The error message that follows says everything.
        return
    table = Table(box=None, padding=(0, 2), header_style="dim")
    for heading in ("", "Recipient", "Outcome", "Why" if receipt.error else "The server said"):
        table.add_column(heading)
    for verdict in receipt.verdicts:
        table.add_row(
            verdict.recipient.kind.value,
            Text(printable(str(verdict.recipient.address), 80)),
            Text(verdict.outcome.value, style=_STYLES[verdict.outcome]),
            Text(_reply_text(receipt, verdict)),
        )
    output.out.print(table)
    if receipt.message_id and receipt.bytes_sent:
        output.line(
            f"    Message-ID {printable(receipt.message_id, 200)}, {receipt.bytes_sent:,} bytes sent", "dim"
        )


def _reply_text(receipt: Receipt, verdict: Verdict) -> str:
    if verdict.outcome is Outcome.NOT_SENT and receipt.refused:
        return "another recipient was refused, so it was sent to none (see --each)"
    return printable(str(verdict.reply)) if verdict.reply is not None else ""
