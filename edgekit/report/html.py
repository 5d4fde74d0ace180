"""report.html: one file that loads nothing from anywhere and runs no script (its Content-Security-Policy says so)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from edgekit import __version__
from edgekit.ledger import Final
from edgekit.report import chart, table
from edgekit.report.record import Report
from edgekit.verdict import Choice


def render(report: Report) -> str:
    """The page; every text from outside is escaped by the template, and by the chart for its own part."""
    folder = FileSystemLoader(Path(__file__).parent)
    page = Environment(loader=folder, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return page.get_template("report.html.j2").render(
        report=report,
        verdict=report.verdict,
        boards=[_board(report, choice) for choice in report.verdict.boards],
        steps=table.steps(report.ledger),
        caption=table.caption(report.ledger),
        notes=[*table.unproven(report.ledger), *report.notes],
        goal=table.fact(report.facts.get("goal") or {}),
        facts={key: table.fact(value) for key, value in report.facts.items() if key not in ("name", "notes", "goal")},
        version=__version__,
    )


def _board(report: Report, choice: Choice) -> dict[str, Any]:
    here = [final for final in report.ledger.finals if final.board == choice.board]
    first = choice is report.verdict.boards[0]
    goal = report.facts.get("goal") or {}
    return {
        "choice": choice,
        "table": table.finals(report.ledger, choice.board, choice.ship, wide=True),
        "precisions": sorted({final.precision for final in here}),
        "svg": chart.svg(
            here, choice.ship, limit_ms=goal.get("latency_p50_ms") if first else None, floor=_floor(here, goal)
        ),
    }


def _floor(finals: Sequence[Final], goal: Mapping[str, Any]) -> float | None:
    """The least accuracy that the goal allows, as a share: the higher of the two ways to say it."""
    floors = [goal["accuracy"]] if goal.get("accuracy") else []
    if goal.get("accuracy_drop") is not None:
        known = [f.accuracy.value + f.accuracy_drop / 100 for f in finals if f.accuracy and f.accuracy_drop is not None]
        floors += [baseline - goal["accuracy_drop"] / 100 for baseline in known[:1]]
    return max(floors, default=None)
