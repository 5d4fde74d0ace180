"""The dress rehearsal: every part of a recipe runs once, small, so that what would fail after hours fails now.

Boards and data are really opened; every stage takes one step on a few images (cuts and quantizers are placed for real);
every file is exported, opened in its runtime on its board, and its outputs are held against the network's. It all
happens in a temporary folder: nothing is left behind.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit.compress import opened, take_steps
from edgekit.errors import ResourceError
from edgekit.job import Job, candidates, inputs_of
from edgekit.keys import Key, changes, origin_key, step_key
from edgekit.plan.estimate import Estimate, estimate
from edgekit.plan.small import few, one_step
from edgekit.profile import profile
from edgekit.run import Run, finished, last_parts
from edgekit.statistics import wilson

if TYPE_CHECKING:
    from edgekit.data import Data
    from edgekit.ledger import Row
    from edgekit.progress import Progress
    from edgekit.recipe import Recipe
    from edgekit.run import Step
    from edgekit.settings import GoalSettings
    from edgekit.stages import Stage

SCHEMA = "edgekit.plan/1"
ROUGH_S = 0.2  # how long files are measured: enough for an estimate
ASSUMED_ACCURACY = 0.85  # share; accuracy is not known before the run


@dataclass(frozen=True)
class Planned:
    """One step of the rehearsal.

    cached: `edgekit compress` will take it from an earlier run; why: what says so.
    parity: how far the file is from the network. frozen: {layer, reason} of the groups that cannot be pruned.
    quantizers: where Q/DQ stand: `weights` (int8, for each channel) and `activations`, names of operators.
    """

    step: str
    kind: str
    cached: bool
    why: str
    parameters: int
    macs: int
    size_kb: float
    p50_ms: float | None
    parity: Mapping[str, Any]
    frozen: tuple[Mapping[str, str], ...] = ()
    quantizers: Mapping[str, tuple[str, ...]] | None = None


@dataclass(frozen=True)
class Plan:
    """What a recipe will do. resolved: with every default. code: the user's files that were imported, and will be.

    files: the candidates that opened on each board. budget: what the test images can resolve, None without a budget.
    """

    name: str
    resolved: Mapping[str, Any]
    code: tuple[str, ...]
    data: Mapping[str, Any]
    steps: tuple[Planned, ...]
    files: Mapping[str, tuple[str, ...]]
    estimate: Estimate
    budget: str | None
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        return {"schema": SCHEMA, **asdict(self)}


def plan(recipe: Recipe, *, runs: Path, progress: Progress) -> Plan:
    """Rehearses a recipe. runs: where `edgekit compress` would keep its folders; it is only read.

    Raises:
        EdgekitError: whatever would stop `edgekit compress`, as the same error.
    """
    boards, data = opened(recipe)
    tiny = few(data)
    short = recipe.model_copy(update={"stages": [one_step(stage, len(tiny.train)) for stage in recipe.stages]})
    with tempfile.TemporaryDirectory() as folder, Run.open(short, Path(folder)) as run:
        job = Job(short, run, tiny, boards, progress, inputs_of(tiny), ROUGH_S, rehearsal=True)
        take_steps(job)
        files = _open_files(job)
        expected = estimate(recipe, job, data, files)
    _fits(expected, runs)
    cached = _cached(recipe, data, runs)
    steps = [_planned(step, row, *cached.get(step.name, (False, ""))) for step, row in _rows(job)]
    return Plan(
        name=str(recipe.name),
        resolved=recipe.resolved(),
        code=tuple(str(path) for path in recipe.code()),
        data=_facts(data),
        steps=tuple(steps),
        files=files,
        estimate=expected,
        budget=resolution(recipe.goal, len(data.test)),
        notes=(*data.notes, *job.notes),
    )


def resolution(goal: GoalSettings, images: int) -> str | None:
    """What `images` test images resolve, where the goal's accuracy budget is finer than that; else None.

    Half of Wilson's 95 % interval of a share p of n images (Wilson 1927): near 1.96 * sqrt(p * (1 - p) / n). p is the
    goal's `accuracy` or, since the real one is not known yet, 85 %: 540 images resolve 3.0 points.
    """
    share = goal.accuracy or ASSUMED_ACCURACY
    low, high = wilson(round(share * images), images)
    points = 50 * (high - low)
    if goal.accuracy_drop is None or goal.accuracy_drop >= points:
        return None
    return (
        f"{goal.accuracy_drop:g} points cannot be told apart with {images} images: about {points:.1f} points is what "
        f"n = {images} resolves at 95 % (at {100 * share:.0f} % accuracy)"
    )


def _open_files(job: Job) -> dict[str, tuple[str, ...]]:
    """Opens what the steps did not: the candidates of other boards, runtimes and precisions. Names by board."""
    names = {}
    for board in job.boards:
        here = list(candidates(job, board))
        seen = board is job.boards[0]
        fresh = [one for one in here if not (seen and one.runtime == job.recipe.goal.runtime and not one.options)]
        if fresh:
            profile(fresh, board, job.inputs, seconds=ROUGH_S, rounds=1)
        names[board.name] = tuple(one.name for one in here)
    return names


def _fits(expected: Estimate, runs: Path) -> None:
    place = next(path for path in (runs, *runs.resolve().parents) if path.exists())
    free = shutil.disk_usage(place).free
    if expected.disk_bytes > free:
        raise ResourceError(
            f"{runs}: the run will take about {expected.disk_bytes / 1e9:.1f} GB, {free / 1e9:.1f} GB are free",
            next="free some disk, or give another --runs DIR",
        )


def _cached(recipe: Recipe, data: Data, runs: Path) -> dict[str, tuple[bool, str]]:
    """Of every stage: whether an earlier run holds its result, and where, or what is different."""
    found, key = {}, origin_key(recipe, data.fingerprint)
    for stage in recipe.stages:
        key = step_key(stage, recipe, key)
        folder = finished(runs, key)
        found[stage.step] = (True, f"kept in {folder.parents[1].name}") if folder else (False, _miss(stage, key, runs))
    return found


def _miss(stage: Stage, key: Key, runs: Path) -> str:
    old = last_parts(runs, stage)
    if old is None:
        return f"not made in {runs} yet"
    return ", ".join(changes(old, key.parts, stage.step)) or "its files are damaged"


def _rows(job: Job) -> list[tuple[Step, Row]]:
    steps = {step.name: step for step in job.steps}
    return [(steps[row.step], row) for row in job.ledger.rows]


def _planned(step: Step, row: Row, cached: bool, why: str) -> Planned:
    places = [place for edit in step.model.edits if edit["kind"] == "quantize" for place in edit["quantizers"]]
    weights = tuple(place["op"] for place in places if place["axis"] is not None)
    activations = tuple(place["op"] for place in places if place["axis"] is None)
    return Planned(
        step=step.name,
        kind=step.kind,
        cached=cached,
        why=why or "loaded from its source",
        parameters=row.parameters,
        macs=row.macs,
        size_kb=row.bytes / 1000,
        p50_ms=row.p50_ms,
        parity=row.metrics["parity"],
        frozen=tuple(step.metrics.get("frozen", ())),
        quantizers={"weights": weights, "activations": activations} if places else None,
    )


def _facts(data: Data) -> dict[str, Any]:
    counts = {name: len(getattr(data, name)) for name in ("train", "validation", "test")}
    return {**counts, "classes": len(data.class_names), "input": list(data.input_shape), "split_by": data.split_by}
