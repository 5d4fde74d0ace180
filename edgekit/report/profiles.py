"""Rows of `edgekit profile` on the terminal. Fits 100 columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TextIO

from rich.text import Text

from edgekit.profile import Profile
from edgekit.report.table import UNKNOWN, Table, accuracy, ms
from edgekit.report.terminal import console_on, rich_table, say

STYLES = {"valid": "green", "degraded": "yellow", "invalid": "red"}


def show(rows: Sequence[Profile], notes: Sequence[str] = (), stream: TextIO | None = None) -> None:
    """One line a row; then what really ran, what is doubtful, and what could not be read. rows: at least one."""
    console, first = console_on(stream), rows[0]
    console.print(rich_table(f"{first.scenario} on {first.board}", _table(rows)))
    console.print(Text(_load(first), style="dim"))
    for row in rows:
        say(console, "ran", "dim", f"{row.candidate.name}: {_ran(row)}")
    for row in rows:
        for reason in row.reasons:
            say(console, row.state, STYLES[row.state], f"{row.candidate.name}: {reason}")
    for note in (*notes, *dict.fromkeys(note for row in rows for note in _notes(row))):
        say(console, "note", "yellow", note)


def _table(rows: Sequence[Profile]) -> Table:
    """Columns that no row fills are left out."""
    columns: dict[str, list[str]] = {
        "candidate": [row.candidate.name for row in rows],
        "p50 ms": [ms(row.p50_ms) for row in rows],
        "p99 ms": [ms(row.p99_ms) for row in rows],
        "p99 ≤": [ms(row.percentile(99).upper) for row in rows],
        "n": [f"{len(row.samples_ms):,}" for row in rows],
        "per s": [UNKNOWN if row.per_s is None else _rate(row.per_s) for row in rows],
        "missed": [UNKNOWN if row.deadline is None else f"{row.deadline['missed_pct']:.3g} %" for row in rows],
        "longest": [UNKNOWN if row.deadline is None else str(row.deadline["max_run"]) for row in rows],
        "dropped": [UNKNOWN if row.deadline is None else str(row.deadline["dropped"]) for row in rows],
        "accuracy %": [accuracy(row.accuracy) for row in rows],
        "mJ": [_millijoules(row) for row in rows],
        "state": [row.state for row in rows],
    }
    filled = {heading: cells for heading, cells in columns.items() if set(cells) != {UNKNOWN}}
    lines = tuple(zip(*filled.values(), strict=True))
    return Table(tuple(filled), lines, tuple(False for _ in rows))


def _rate(per_s: float) -> str:
    return f"{per_s:,.0f}" if per_s >= 100 else f"{per_s:.3g}"


def _millijoules(row: Profile) -> str:
    joules = row.energy.j_per_inference if row.energy else None
    return UNKNOWN if joules is None else f"{1000 * joules:.3g}"


def _load(row: Profile) -> str:
    scopes = {"host": "submit to result, without preprocessing", "e2e": "preprocessing of an image to result"}
    what = f"{row.load_s or 0:.3g} s of load in {len(row.rounds_ms)} rounds after {row.warmup_s:.2g} s of warm-up"
    return f"Scope {row.scope}: {scopes[row.scope]}; inputs: {row.input_kind}; {what}. p99 ≤: with 99 % confidence."


def _ran(row: Profile) -> str:
    """What the runtime said of itself."""
    engine: dict[str, Any] = dict(row.engine)
    facts = [
        f"{engine.get('runtime', row.candidate.runtime)} {str(engine.get('version', '')).partition('-')[0]}".strip()
    ]
    facts += [f"{row.threads} thread{'s' * (row.threads > 1)}, batch {row.batch}"]
    facts += [f"{row.streams} streams"] if row.streams > 1 else []
    facts += [f"cores {', '.join(map(str, engine['cores']))}"] if engine.get("cores") else []
    facts += [f"float parts in {engine['precision']}"] if engine.get("precision") else []
    if engine.get("convolutions_int8") is not None:
        facts += [f"convolutions: {engine['convolutions_int8']} int8, {engine['convolutions_float']} float"]
    facts += [f"{row.peak_memory_bytes / 1e6:.0f} MB at most"] if row.peak_memory_bytes else []
    return "; ".join(facts)


def _notes(row: Profile) -> list[str]:
    """What is not known, and why."""
    notes = [f"p99 of {row.candidate.name}: {row.percentile(99)}"] if row.p99_ms is None else []
    notes += [f"p50 of {row.candidate.name}: {row.percentile(50)}"] if row.p50_ms is None else []
    if row.energy is not None and row.energy.reason is not None:
        notes.append(f"no energy: {row.energy.reason}")
    if row.thermal is not None and "settled" in row.thermal:
        told = f"{row.candidate.name}: the last 30 s took {row.last_over_first or 1:.3f} of the first 30 s"
        why = "; this machine tells no temperature, so the soak ran for a fixed time"
        notes.append(told + (why if row.thermal["settled"] is None else ""))
    return notes
