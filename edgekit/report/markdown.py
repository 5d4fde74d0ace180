"""report.md: the same tables for a pull request or a wiki."""

from __future__ import annotations

import re

from edgekit.report import table
from edgekit.report.record import Report


def render(report: Report) -> str:
    """Markdown; text from outside cannot open a tag, a link or a table cell."""
    ledger, verdict = report.ledger, report.verdict
    parts = [f"# {_escape(report.name)}", f"**{_escape(verdict.reason)}**", _goal(report)]
    for choice in verdict.boards:
        parts += [f"## Files on {_escape(choice.board)}"]
        parts += [_table(table.finals(ledger, choice.board, choice.ship, wide=True))]
        parts += [_escape(choice.reason)] if choice is not verdict.boards[0] else []
    parts += [_escape(table.caption(ledger)), "## After every step", _table(table.steps(ledger))]
    parts += ["The baseline stands in bold. Each step was exported plainly and measured briefly on the goal's board."]
    notes = [*table.unproven(ledger), *report.notes]
    parts += ["## Notes", *[_list(notes)]] if notes else []
    parts += [_facts(report)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _goal(report: Report) -> str:
    if report.verdict.goal_met:
        return "Goal met."
    return "Goal not met:\n\n" + _list(list(report.verdict.misses))


def _table(found: table.Table) -> str:
    lines = ["| " + " | ".join(found.headings) + " |", "|---" + "|---:" * (len(found.headings) - 1) + "|"]
    for cells, marked in zip(found.lines, found.marked, strict=True):
        texts = [f"**{_escape(cell)}**" if marked else _escape(cell) for cell in cells]
        lines.append("| " + " | ".join(texts) + " |")
    return "\n".join(lines)


def _facts(report: Report) -> str:
    shown = {key: value for key, value in report.facts.items() if key not in ("name", "notes", "goal")}
    lines = [f"{key}: {table.fact(value)}" for key, value in shown.items()]
    return "## Run\n\n" + _list(lines) if lines else ""


def _list(lines: list[str]) -> str:
    return "\n".join(f"- {_escape(line)}" for line in lines)


def _escape(text: str) -> str:
    """Backslash before what Markdown or HTML would read; one line."""
    return re.sub(r"([\\`*_\[\]<>|])", r"\\\1", " ".join(text.split()))
