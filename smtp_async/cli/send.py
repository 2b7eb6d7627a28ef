"""`smtp-async send`: one message, and what became of each recipient."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table
from rich.text import Text

from ..address import NOBODY, Address, Kind, Recipient, parse_list
from ..client import SMTPClient
from ..errors import InvalidArgument, SMTPError
from ..events import ConnectionKind, ConnectionStatus, PITrail, SSLStatus
from ..message import Message
from ..protocol.options import SendOptions
from ..receipt import Outcome, Receipt, Verdict
from ..reply import printable
from .exits import Exit, exit_for_receipt
from .screen import Screen
from .server import read_file

__all__ = ["Letter", "send"]

_STYLES = {
    Outcome.ACCEPTED: "green",
    Outcome.PARTIAL: "yellow",
    Outcome.REFUSED: "red",
    Outcome.NOT_SENT: "yellow",
    Outcome.UNKNOWN: "bold red",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """What was typed about the message."""

    sender: str | None = None
    to: tuple[str, ...] = ()
    cc: tuple[str, ...] = ()
    bcc: tuple[str, ...] = ()
    subject: str | None = None
    text: str | None = None
    text_file: Path | None = None
    html: str | None = None
    html_file: Path | None = None
    eml: Path | None = None
    attach: tuple[Path, ...] = ()

    @property
    def recipients(self) -> list[Recipient]:
        """Everybody, by kind; each option may hold a comma list."""
        kinds = ((Kind.TO, self.to), (Kind.CC, self.cc), (Kind.BCC, self.bcc))
        return [
            Recipient(address, kind)
            for kind, texts in kinds
            for text in texts
            for address in parse_list(text)
        ]

    def message(self) -> Message:
        """Return the message; reads the files it is made of.

        Raises:
            SMTPError: an address, a file or a combination of options that cannot be.
        """
        message = Message(
            sender=None if self.sender is None else Address.parse(self.sender),
            subject=self.subject,
            text=self._text(),
            html=_either(self.html, self.html_file, "--html"),
        )
        message.recipients += self.recipients
        for path in self.attach:
            message.attach(read_file(path, "the attachment"), filename=path.name)
        return message

    def _text(self) -> str | None:
        given = _either(self.text, self.text_file, "--text")
        if given is not None or self.html is not None or self.html_file is not None or self.attach:
            return given
        if sys.stdin is None or sys.stdin.isatty():
            raise InvalidArgument("there is no text: use --text, --text-file or --eml, or pipe it in")
        return _decoded(read_file(Path("-"), "the text from"), "standard input")

    def raw(self, path: Path) -> bytes:
        """Return the complete message in the file.

        Raises:
            InvalidArgument: options that would change it.
        """
        parts = ("subject", "text", "text_file", "html", "html_file")
        if self.attach or any(getattr(self, name) is not None for name in parts):
            raise InvalidArgument(
                "the message of --eml is sent as it is: no --subject, --text, --html or --attach"
            )
        return read_file(path, "the message")


def _either(text: str | None, file: Path | None, option: str) -> str | None:
    if text is not None and file is not None:
        raise InvalidArgument(f"either {option} or {option}-file")
    if text is not None:
        # A shell leaves the bytes of an argument that are no UTF-8 as halves of surrogate pairs.
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return None if file is None else _decoded(read_file(file, "the text"), str(file))


def _decoded(data: bytes, name: str) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise InvalidArgument(f"{name} is not UTF-8 text: send it with --attach or as --eml") from None


async def send(
    screen: Screen, client: SMTPClient, letter: Letter, *, each: bool, deadline: float | None, verbose: bool
) -> Exit:
    """Send the letter and show its receipt.

    Raises:
        SMTPError: it was not accepted for anybody; the receipt has been shown.
    """
    options = SendOptions(must_accept=NOBODY) if each else None
    tls: list[str] = []
    _watch(screen, client, tls, verbose=verbose)
    started = time.perf_counter()
    async with client:
        try:
            if letter.eml is not None:
                receipt = await client.send_raw(
                    letter.raw(letter.eml),
                    sender=letter.sender,
                    recipients=letter.recipients or None,
                    options=options,
                    deadline=deadline,
                )
            else:
                receipt = await client.send(letter.message(), options=options, deadline=deadline)
        except SMTPError as error:
            if error.receipt is not None:
                _show(screen, error.receipt)
            raise
    if screen.rich:
        _praise(screen, client, receipt, tls, time.perf_counter() - started)
    _show(screen, receipt)
    return exit_for_receipt(receipt)


def _watch(screen: Screen, client: SMTPClient, tls: list[str], *, verbose: bool) -> None:
    @client.on(ConnectionStatus)
    def note_tls(event: ConnectionStatus) -> None:
        if event.kind is ConnectionKind.TLS_UP:
            tls.append(event.description)

    if verbose:
        client.on(PITrail, screen.trail)
        client.on(SSLStatus, screen.tls)


def _praise(screen: Screen, client: SMTPClient, receipt: Receipt, tls: list[str], seconds: float) -> None:
    how = f"over {tls[-1]}" if tls else "without TLS"
    where = client.host if client.host.startswith("/") else f"{client.host}:{client.port}"
    if receipt.outcome is Outcome.ACCEPTED:
        screen.good(f"Accepted by {where} {how} in {seconds:.2f} s")
    else:
        screen.bad(f"{where} accepted it for {len(receipt.accepted)} of {len(receipt.verdicts)} recipients")


def _show(screen: Screen, receipt: Receipt) -> None:
    if not screen.rich:
        for verdict in receipt.verdicts:
            screen.line(f"{verdict.outcome.value}\t{verdict.recipient.address}\t{_said(receipt, verdict)}")
        return
    if receipt.outcome is Outcome.NOT_SENT and receipt.reply is None:
        # The sentence that follows says it all.
        return
    table = Table(box=None, padding=(0, 2), header_style="dim")
    for heading in ("", "Recipient", "Outcome", "Why" if receipt.error else "The server said"):
        table.add_column(heading)
    for verdict in receipt.verdicts:
        table.add_row(
            verdict.recipient.kind.value,
            Text(printable(str(verdict.recipient.address), 80)),
            Text(verdict.outcome.value, style=_STYLES[verdict.outcome]),
            Text(_said(receipt, verdict)),
        )
    screen.out.print(table)
    if receipt.message_id and receipt.bytes_sent:
        screen.line(
            f"    Message-ID {printable(receipt.message_id, 200)}, {receipt.bytes_sent:,} bytes sent", "dim"
        )


def _said(receipt: Receipt, verdict: Verdict) -> str:
    if verdict.outcome is Outcome.NOT_SENT and receipt.refused:
        return "another recipient was refused, so nobody gets it (see --each)"
    return printable(str(verdict.reply)) if verdict.reply is not None else ""
