"""The two tables that every format shows, as text: each step, and each file as it will ship."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edgekit.ledger import Final, Ledger, Row
from edgekit.profile import Accuracy
from edgekit.progress import duration
from edgekit.statistics import Interval, Percentile

UNKNOWN = "–"


@dataclass(frozen=True)
class Table:
    """lines: one list of cells a line, as many as there are headings; marked: which lines stand out."""

    headings: tuple[str, ...]
    lines: tuple[tuple[str, ...], ...]
    marked: tuple[bool, ...]


def steps(ledger: Ledger) -> Table:
    """Accuracy and speed after every step; the baseline's line is marked."""
    baseline = ledger.baseline
    headings = ("step", "accuracy %", "drop", "params", "MACs", "kB", "p50 ms", "p99 ms", "n", "time")
    lines = tuple(_step(row, ledger.drop(row.accuracy, baseline.accuracy if baseline else None)) for row in ledger.rows)
    return Table(headings, lines, tuple(row is baseline for row in ledger.rows))


def finals(ledger: Ledger, board: str, ship: str | None, *, wide: bool = False) -> Table:
    """The candidates on one board, slowest first; the one to ship is marked.

    wide: ratios with their 95 % intervals, and energy where some candidate has it.
    """
    here = [final for final in ledger.finals if final.board == board]
    here.sort(key=lambda final: (final.scenario != "single-stream", final.scenario, -(final.p50.value or 0)))
    energy = wide and any(final.energy and final.energy.j_per_inference is not None for final in here)
    headings = ("candidate", "accuracy %", "drop", "kB", "p50 ms", "p99 ms", "n", "× base", "× float")
    lines = tuple(_final(final, wide) + ((_millijoules(final),) if energy else ()) for final in here)
    return Table(headings + (("mJ",) if energy else ()), lines, tuple(final.name == ship for final in here))


def _step(row: Row, drop: float | None) -> tuple[str, ...]:
    return (
        row.step,
        accuracy(row.accuracy),
        points(drop),
        count(row.parameters),
        count(row.macs),
        kilobytes(row.bytes),
        ms(row.p50_ms),
        UNKNOWN if row.p99 is None else tail(row.p99),
        f"{row.n:,}",
        "reused" if row.cached else duration(row.seconds),
    )


def _final(final: Final, wide: bool) -> tuple[str, ...]:
    scenario = "" if final.scenario == "single-stream" else f" ({final.scenario})"
    doubt = "" if final.state == "valid" else f" [{final.state}]"
    return (
        final.name + scenario + doubt,
        accuracy(final.accuracy),
        points(final.accuracy_drop),
        kilobytes(final.bytes),
        ms(final.p50.value),
        tail(final.p99),
        f"{final.p50.n:,}",
        times(final.speedup, wide),
        times(final.speedup_over_float, wide),
    )


def accuracy(found: Accuracy | None) -> str:
    """`97.2 ±1.4`: percent, with half of the 95 % interval."""
    if found is None:
        return UNKNOWN
    low, high = found.ci95
    return f"{100 * found.value:.2f} ±{50 * (high - low):.1f}"


def points(drop: float | None) -> str:
    return UNKNOWN if drop is None else f"{drop + 0.0:.2f}"


def count(number: int | None) -> str:
    """`267 k`, `2.1 M`."""
    if number is None:
        return UNKNOWN
    for size, letter in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if number >= size:
            return f"{number / size:.3g}{letter}"
    return str(number)


def kilobytes(size: int) -> str:
    return f"{size / 1000:,.1f}" if size < 1e6 else f"{size / 1000:,.0f}"


def ms(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:#.3g}".rstrip(".") if value < 1000 else f"{value:,.0f}"


def tail(found: Percentile) -> str:
    return "n/a" if found.value is None else ms(found.value)


def times(ratio: Interval | None, wide: bool = False) -> str:
    """`2.05`, or with its interval `2.05 [1.98, 2.12]`."""
    if ratio is None:
        return UNKNOWN
    digits = 2 if ratio.value < 10 else 1
    interval = f" [{ratio.low:.{digits}f}, {ratio.high:.{digits}f}]" if wide else ""
    return f"{ratio.value:.{digits}f}{interval}"


def _millijoules(final: Final) -> str:
    joules = final.energy.j_per_inference if final.energy else None
    return UNKNOWN if joules is None else f"{1000 * joules:.3g}"


def unproven(ledger: Ledger) -> list[str]:
    """Why a p99 reads n/a."""
    short = [final for final in ledger.finals if final.p99.value is None]
    return [f"p99 of {f.name} on {f.board}: n/a (n = {f.p99.n}, needs {f.p99.needed})." for f in short]


def caption(ledger: Ledger) -> str:
    """What the numbers of the final table are: sample counts, load, inputs, references."""
    if not ledger.finals:
        return "No candidate was profiled."
    counts = sorted({final.accuracy.n for final in ledger.finals if final.accuracy})
    loads = sorted(
        {f"{f.threads} thread{'s' * (f.threads > 1)}, batch {f.batch}, scope {f.scope}" for f in ledger.finals}
    )
    inputs = sorted({final.input_kind for final in ledger.finals})
    base = ledger.baseline
    told = (
        [f"Accuracy of the file itself on n = {', '.join(map(str, counts))} images, ±: 95 % interval"] if counts else []
    )
    told += [f"latency with {'; '.join(loads)}, inputs: {', '.join(inputs)}; n: timed inferences"]
    told += [f"drop in points and × base against {base.step}"] if base else []
    told += ["× float against the smallest float file in the same runtime"]
    return "; ".join(told) + "."


def fact(value: object) -> str:
    """A fact of the run as one line of text; what is unknown inside a mapping is left out."""
    if isinstance(value, Mapping):
        return " · ".join(f"{key} {fact(item)}" for key, item in value.items() if item is not None)
    if isinstance(value, list | tuple):
        return ", ".join(fact(item) for item in value)
    return f"{value:.6g}" if isinstance(value, float) else str(value)
