"""The end of a run on the terminal: the table, the verdict, the doubts, where the files are. Fits 100 columns."""

from __future__ import annotations

from typing import TextIO

from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from edgekit.report import table
from edgekit.report.record import Report

WIDTH = 100


def show(report: Report, stream: TextIO | None = None) -> None:
    """Prints to stdout, or to `stream`; without colours where that is no terminal or NO_COLOR is set."""
    console = console_on(stream)
    ledger, verdict = report.ledger, report.verdict
    console.print(rich_table("After every step", table.steps(ledger)))
    for choice in verdict.boards:
        console.print(rich_table(f"Files on {choice.board}", table.finals(ledger, choice.board, choice.ship)))
    console.print(Text(table.caption(ledger), style="dim"))
    for note in (*table.unproven(ledger), *report.notes):
        console.print(Text.assemble(("note  ", "yellow"), note))
    console.print()
    for choice in verdict.boards:
        console.print(
            Text.assemble((f"{choice.board}: ", "bold"), (choice.reason, "bold green" if choice.ship else "red"))
        )
    _goal(console, report)
    for label, path in dict(report.facts.get("files", {})).items():
        console.print(Text.assemble((f"{label:10}", "dim"), str(path)), soft_wrap=True)


def _goal(console: Console, report: Report) -> None:
    if report.verdict.goal_met:
        console.print(Text("Goal met.", style="green"))
    for miss in report.verdict.misses:
        console.print(Text.assemble(("goal missed  ", "red"), miss))


def console_on(stream: TextIO | None) -> Console:
    """Colours and the window's width on a terminal; plain text of 100 columns elsewhere."""
    console = Console(file=stream, highlight=False)
    return console if console.is_terminal else Console(file=stream, width=WIDTH, highlight=False, no_color=True)


def say(console: Console, word: str, style: str, text: str) -> None:
    """A line that begins with its kind, in colour."""
    console.print(Text.assemble((f"{word:9} ", style), text))


def rich_table(title: str, found: table.Table) -> RichTable:
    """Numbers are never wrapped or cut; a long name in the first column is."""
    made = RichTable(
        title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0)
    )
    made.add_column(found.headings[0], overflow="fold")
    for heading in found.headings[1:]:
        made.add_column(heading, justify="right", no_wrap=True)
    for cells, marked in zip(found.lines, found.marked, strict=True):
        made.add_row(*(Text(cell) for cell in cells), style="bold" if marked else "")
    return made
