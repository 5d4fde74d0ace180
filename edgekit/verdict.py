"""The verdict: which candidate to ship on each board, and why, in sentences. A pure function.

int8 is shipped only inside the accuracy budget and if the 95 % interval of its time over the fastest float
candidate's, in any runtime of the board, lies below 1. Nobody wins inside the noise: there the smaller file is taken.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, get_args

from edgekit.device import Precision
from edgekit.ledger import Final
from edgekit.settings import GoalSettings
from edgekit.statistics import Percentile

Offered = Mapping[str, Mapping[str, Sequence[str]]]  # board -> runtime -> precisions it executes


@dataclass(frozen=True)
class Choice:
    """What to ship on one board.

    ship: the candidate's name, None where nothing is inside the budget. judged: the one held against the goal, the
    best one in the goal's runtime. misses: what of the goal that one misses. notes: doubts, and what was left out.
    """

    board: str
    ship: str | None
    reason: str
    judged: str | None = None
    misses: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Verdict:
    """ship, reason, misses: of the goal's board. boards: a choice for each board, the goal's first."""

    ship: str | None
    reason: str
    goal_met: bool
    misses: tuple[str, ...]
    boards: tuple[Choice, ...]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Verdict:
        choices = [{**c, "misses": tuple(c["misses"]), "notes": tuple(c["notes"])} for c in record["boards"]]
        fields = {**record, "misses": tuple(record["misses"]), "boards": tuple(Choice(**c) for c in choices)}
        return cls(**fields)


def verdict(finals: Sequence[Final], goal: GoalSettings, offered: Offered | None = None) -> Verdict:
    """finals: of all boards and scenarios; only single-stream decides. offered: what each runtime executes there."""
    others = sorted({final.board for final in finals} - {goal.device})
    choices = tuple(_choose(board, finals, goal, (offered or {}).get(board, {})) for board in (goal.device, *others))
    first = choices[0]
    return Verdict(first.ship, first.reason, not first.misses, first.misses, choices)


def _choose(board: str, finals: Sequence[Final], goal: GoalSettings, offered: Mapping[str, Sequence[str]]) -> Choice:
    here = [f for f in finals if f.board == board and f.scenario == "single-stream"]
    measured = [f for f in here if f.state != "invalid" and f.p50.value is not None]
    notes = tuple([_left_out(final) for final in here if final not in measured] + _not_offered(here, offered))
    if not any(_inside(final, goal) for final in measured):
        reason = _nothing_to_ship(board, measured, goal)
        return Choice(board, None, reason, misses=(reason,) if board == goal.device else (), notes=notes)
    ship, reason = _pick(measured, goal)
    choice = Choice(board, ship.name, reason + _degraded(ship), notes=(*notes, *_doubts(ship, goal)))
    return _against_goal(choice, ship, measured, goal) if board == goal.device else choice


def _against_goal(choice: Choice, ship: Final, measured: Sequence[Final], goal: GoalSettings) -> Choice:
    """Holds the best candidate in the goal's runtime against the goal; usually it is the one to ship."""
    asked = [final for final in measured if final.runtime == goal.runtime]
    if not any(_inside(final, goal) for final in asked):
        return replace(choice, misses=(f"no candidate in {goal.runtime} is inside the accuracy budget.",))
    judged, _ = _pick(asked, goal)
    choice = replace(choice, judged=judged.name, misses=_misses(judged, goal))
    if judged is ship:
        return choice
    reason = (
        f"{choice.reason} The goal names {goal.runtime}: {judged.name} is the best there ({_ms(judged.p50.value)})."
    )
    return replace(choice, reason=reason + _degraded(judged), notes=(*choice.notes, *_doubts(judged, goal)))


def _pick(measured: Sequence[Final], goal: GoalSettings) -> tuple[Final, str]:
    """The candidate to ship, and why; at least one must be inside the accuracy budget."""
    inside = [final for final in measured if _inside(final, goal)]
    small = [final for final in inside if goal.size_kb is None or final.size_kb <= goal.size_kb]
    floats = [final for final in small or inside if final.is_float]
    ints = [final for final in small or inside if not final.is_float]
    best, tied = _fastest(floats or ints)
    if not floats or not ints:
        return best, f"Ship {best.name}: {_alone(best, measured, inside)}{_tied(tied)}."
    best_int, tied_int = _fastest(ints)
    fastest_float = min(floats, key=_p50)
    ratio = best_int.time_over(fastest_float)
    if ratio is not None and ratio.high < 1:
        gain = f"{1 / ratio.value:.2f} times faster [{1 / ratio.high:.2f}, {1 / ratio.low:.2f}]"
        why = f"{gain} than the best float candidate, {fastest_float.name}{_drop(best_int)}"
        return best_int, f"Ship {best_int.name}: {why}{_tied(tied_int)}."
    return best, f"Ship {best.name}: {_why_not(best_int, fastest_float)}{_tied(tied)}."


def _why_not(best_int: Final, fastest_float: Final) -> str:
    ratio = best_int.time_over(fastest_float)
    if ratio is None:
        return f"{best_int.name} was not measured in rounds interleaved with it, so it is not proven faster"
    times = f"it takes {ratio.value:.2f} [{ratio.low:.2f}, {ratio.high:.2f}] of the time of {fastest_float.name}"
    beyond = "is slower" if ratio.low > 1 else "is not faster beyond the noise"
    return f"{best_int.name} {beyond}, {times}"


def _alone(best: Final, measured: Sequence[Final], inside: Sequence[Final]) -> str:
    """Why there was nothing of the other kind to compare with."""
    kind, other = ("float", "int8") if best.is_float else ("int8", "float")
    if all(final.is_float == best.is_float for final in measured):
        return f"the fastest {kind} candidate; no {other} candidate was measured"
    if all(final.is_float == best.is_float for final in inside):
        return f"the fastest {kind} candidate; no {other} candidate is inside the accuracy budget"
    return f"the fastest {kind} candidate; no {other} candidate is as small as the goal asks"


def _fastest(finals: Sequence[Final]) -> tuple[Final, list[Final]]:
    """The fastest one, or the smallest file of those no slower beyond the noise; and the rest of those."""
    first = min(finals, key=_p50)
    near = [final for final in finals if final is first or _inside_noise(final, first)]
    best = min(near, key=lambda final: (final.bytes, _p50(final)))
    return best, [final for final in near if final is not best]


def _inside_noise(final: Final, first: Final) -> bool:
    """Not proven slower than `first`; without paired rounds nothing is known, and the medians stand."""
    ratio = final.time_over(first)
    return ratio is not None and ratio.low <= 1


def _p50(final: Final) -> float:
    return float("inf") if final.p50.value is None else final.p50.value


def _inside(final: Final, goal: GoalSettings) -> bool:
    return not _over_accuracy(final, goal)


def _over_accuracy(final: Final, goal: GoalSettings) -> list[str]:
    """Which accuracy thresholds it misses; an accuracy that is not known misses them."""
    over = []
    if goal.accuracy_drop is not None and final.accuracy_drop is None:
        over.append(f"accuracy_drop: not known for {final.name}.")
    elif (
        goal.accuracy_drop is not None and final.accuracy_drop is not None and final.accuracy_drop > goal.accuracy_drop
    ):
        over.append(f"accuracy_drop: {final.accuracy_drop:.2f} points, the goal is {goal.accuracy_drop:g}.")
    if goal.accuracy is not None and final.accuracy is None:
        over.append(f"accuracy: not known for {final.name}.")
    elif goal.accuracy is not None and final.accuracy is not None and final.accuracy.value < goal.accuracy:
        over.append(f"accuracy: {final.accuracy.value:.4f}, the goal is {goal.accuracy:g}.")
    return over


def _misses(final: Final, goal: GoalSettings) -> tuple[str, ...]:
    """Each threshold of the goal that is not reached, or not proven, as a sentence."""
    misses = _over_accuracy(final, goal)
    for key, found, limit in (
        ("latency_p50_ms", final.p50, goal.latency_p50_ms),
        ("latency_p99_ms", final.p99, goal.latency_p99_ms),
    ):
        misses += _late(key, found, limit)
    if goal.size_kb is not None and final.size_kb > goal.size_kb:
        misses.append(f"size_kb: {final.size_kb:.1f} kB, the goal is {goal.size_kb:g}.")
    return tuple(misses)


def _late(key: str, found: Percentile, limit: float | None) -> list[str]:
    if limit is None:
        return []
    if found.value is None:
        return [f"{key}: not proven, {found.n} samples where {found.needed} are needed; measure longer."]
    return [f"{key}: {_ms(found.value)}, the goal is {_ms(limit)}."] if found.value > limit else []


def _doubts(final: Final, goal: GoalSettings) -> list[str]:
    """What a reader should know before trusting the choice."""
    doubts = []
    limit, p99 = goal.latency_p99_ms, final.p99
    if limit and p99.value and p99.upper and p99.value <= limit < p99.upper:
        doubts.append(f"p99 of {final.name} meets the goal, its upper bound {_ms(p99.upper)} does not.")
    if goal.accuracy_drop is not None and final.accuracy is not None:
        half = 50 * (final.accuracy.ci95[1] - final.accuracy.ci95[0])
        if half > goal.accuracy_drop:
            resolved = f"{final.accuracy.n} test images resolve accuracy to ±{half:.1f} points"
            doubts.append(f"{resolved}, coarser than the budget of {goal.accuracy_drop:g}.")
    return doubts


def _left_out(final: Final) -> str:
    if final.state == "invalid":
        return f"{final.name} was left out, its measurement is invalid: {'; '.join(final.reasons)}."
    return f"{final.name} was left out: {final.p50.n} samples give no median, {final.p50.needed} are needed."


def _not_offered(here: Sequence[Final], offered: Mapping[str, Sequence[str]]) -> list[str]:
    """Which precisions each runtime that was measured does not execute, and which it does but nobody measured."""
    notes = []
    for runtime in sorted({final.runtime for final in here} & set(offered)):
        measured = {final.precision for final in here if final.runtime == runtime}
        missing = [p for p in get_args(Precision) if p not in offered[runtime]]
        idle = [p for p in offered[runtime] if p not in measured]
        if missing:
            notes.append(f"{', '.join(missing)}: not offered by this runtime ({runtime}).")
        if idle:
            notes.append(f"{', '.join(idle)}: offered by {runtime}, not measured.")
    return notes


def _nothing_to_ship(board: str, measured: Sequence[Final], goal: GoalSettings) -> str:
    if not measured:
        return f"Nothing can be shipped on {board}: no candidate has a valid measurement."
    known = [final for final in measured if final.accuracy is not None]
    if not known:
        return f"Nothing can be shipped on {board}: the goal asks for accuracy, and no candidate's is known."
    best = max(known, key=lambda final: final.accuracy.value if final.accuracy else 0.0)
    return f"Nothing is inside the accuracy budget; the nearest is {best.name}: {' '.join(_over_accuracy(best, goal))}"


def _degraded(final: Final) -> str:
    return "" if final.state == "valid" else f" It was measured on a degraded board: {'; '.join(final.reasons)}."


def _drop(final: Final) -> str:
    if final.accuracy_drop is None:
        return ""
    return f", {abs(final.accuracy_drop):.2f} points {'above' if final.accuracy_drop < 0 else 'below'} the baseline"


def _tied(tied: Sequence[Final]) -> str:
    names = ", ".join(final.name for final in tied)
    return (
        f"; inside the noise of it {'lie' if len(tied) > 1 else 'lies'} {names}, whose file is no smaller"
        if tied
        else ""
    )


def _ms(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.4g} ms"
