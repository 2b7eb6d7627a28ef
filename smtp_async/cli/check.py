"""`smtp-async check`: show what a server is, what it offers, and what is wrong with it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Final

from rich.padding import Padding
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from ..client.client import SMTPClient
from ..client.diagnose import ServerReport
from ..events import PITrail
from ..model.reply import printable
from .exits import Exit, exit_for_error
from .output import Output, sentence
from .report import Node, as_object, chain_of, rows_after_chain, rows_before_chain, rows_of_times

__all__ = ["check"]

#: Columns for all stages together.
_BARS: Final = 30

_Rows = Iterable[tuple[str, str]]


async def check(output: Output, client: SMTPClient, *, verbose: bool, as_json: bool) -> Exit:
    """Check the server, show the report, and return the exit code."""
    if verbose:
        client.on(PITrail, output.trail)
    async with client:
        report = await client.check()
    if as_json:
        output.line(json.dumps(as_object(report)))
    else:
        _show(output, report)
    if report.error is not None:
        return exit_for_error(report.error)
    return Exit.REFUSED if report.findings else Exit.OK


def _show(output: Output, report: ServerReport) -> None:
    if output.is_terminal:
        _show_on_a_terminal(output, report)
    else:
        _show_in_a_pipe(output, report)
    for finding in report.findings:
        output.problem(sentence(finding))
    if report.ok:
        output.success("Nothing wrong was found.")


def _show_in_a_pipe(output: Output, report: ServerReport) -> None:
    output.line(f"Server: {report.server}")
    for label, text in rows_before_chain(report):
        output.line(f"{label}: {_shown(text)}")
    for depth, node in enumerate(chain_of(report)):
        for label, text in ((node.label, node.title), *node.rows):
            output.line(f"{'  ' * depth}{label}: {_shown(text)}")
    for label, text in (*rows_after_chain(report), *rows_of_times(report, 0)):
        output.line(f"{label}: {_shown(text)}")


def _show_on_a_terminal(output: Output, report: ServerReport) -> None:
    output.line(report.server, "bold")
    output.out.print(_table(rows_before_chain(report)))
    if nodes := chain_of(report):
        output.out.print(Padding(_tree(nodes), (0, 0, 0, 2)))
    output.out.print(_table(rows_after_chain(report)))
    # A terminal that cannot show the bars gets the figures.
    width = _BARS if (output.out.encoding or "").lower().startswith("utf") else 0
    output.out.print(_table(rows_of_times(report, width)))
    output.line()


def _table(rows: _Rows) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    for label, text in rows:
        table.add_row(f"  {label}", Text(_shown(text)))
    return table


def _tree(nodes: list[Node]) -> Tree:
    """Return the server's certificate with its issuers below, each under the one that it has issued."""
    root = branch = _branch(None, nodes[0])
    for node in nodes[1:]:
        branch = _branch(branch, node)
    return root


def _branch(parent: Tree | None, node: Node) -> Tree:
    title = Text.assemble((node.label, "dim"), " ", Text(_shown(node.title)))
    branch = Tree(title, guide_style="dim") if parent is None else parent.add(title)
    for label, text in node.rows:
        style = _style(label, node)
        branch.add(Text.assemble((label, "dim"), " ", (_shown(text), style)))
    return branch


def _style(label: str, node: Node) -> str:
    if label == "Problem":
        return "red"
    return "yellow" if label == "Valid" and node.ends_soon else ""


def _shown(text: str) -> str:
    return printable(text, 2000)
