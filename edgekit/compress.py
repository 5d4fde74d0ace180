"""The main job: a recipe's model goes through its stages, is exported after each, and every file is measured on the board.

compress() is the page to read first. From here it is one hop to a stage (edgekit/stages/), an exporter (edgekit/exporters/)
or the measuring (edgekit/profile.py).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgekit import lookup
from edgekit.artifact import Artifact, Candidate
from edgekit.bundle import write_bundle
from edgekit.data import Data, open_data
from edgekit.device import Board, open_board
from edgekit.errors import EdgekitError, GateError
from edgekit.evaluate import outputs_of
from edgekit.ledger import Ledger, Row
from edgekit.model import Model, load_model
from edgekit.profile import Inputs, Profile, profile
from edgekit.report import Facts, write
from edgekit.run import Run, Step, origin_key, step_key
from edgekit.stages import Context, Stage
from edgekit.verdict import Verdict, verdict

if TYPE_CHECKING:
    from edgekit.progress import Progress
    from edgekit.recipe import Recipe

QUICK_S = 1.0  # how long a step is measured on its way; the final profile takes the recipe's seconds
FLIPS = {"int8": 0.005}  # share of test images that a file may class differently from its network; none in float
ERROR = 1e-3  # largest difference of a float file's outputs from its network's, relative to the largest output


@dataclass(frozen=True)
class Result:
    """What a run leaves: its folder, the ledger, the verdict, and the paths a person opens."""

    folder: Path
    ledger: Ledger
    verdict: Verdict
    report: Path
    bundle: Path | None


@dataclass
class Job:
    """What the functions below share while one recipe runs."""

    recipe: Recipe
    run: Run
    data: Data
    boards: list[Board]
    progress: Progress
    inputs: Inputs
    ledger: Ledger = field(default_factory=Ledger)
    steps: list[Step] = field(default_factory=list)
    artifacts: dict[str, Artifact] = field(default_factory=dict)


def compress(recipe: Recipe, *, runs: Path, progress: Progress) -> Result:
    """Runs a recipe to its end: steps, ledger, report, bundle.

    Raises:
        EdgekitError: whatever goes wrong, with what was kept; the same command goes on from there.
    """
    boards = [open_board(name, folder=recipe.folder) for name in recipe.boards()]
    data = open_data(recipe.data, folder=recipe.folder, seed=recipe.seed)
    with Run.open(recipe, runs) as run:
        job = Job(recipe, run, data, boards, progress, _inputs(data))
        try:
            job.steps.append(_origin(job))
            for number, stage in enumerate(recipe.stages, start=1):
                progress.stage(number, len(recipe.stages), stage.step)
                step = _step(job, stage)
                progress.done(step.seconds, cached=step.cached)
                job.steps.append(step)
                job.ledger.add(_row(job, step))
            return _finish(job, _profile_all(job))
        except EdgekitError as error:
            error.kept = error.kept or f"every finished step, in {run.folder}"
            run.failed(error)
            raise


def _origin(job: Job) -> Step:
    """The model as the recipe names it, before any stage; not saved, since its source builds it again."""
    model = load_model(job.recipe.model, folder=job.recipe.folder, example=_example(job.data), seed=job.recipe.seed)
    key = origin_key(job.recipe, job.data.fingerprint)
    return Step("original", "original", key, model, {}, (), 0.0, cached=False)


def _step(job: Job, stage: Stage) -> Step:
    """A stage's result: found, or made now."""
    before = job.steps[-1]
    stage.requires(before.model)
    key = step_key(stage, job.recipe, before.key)
    return job.run.once(
        stage,
        name=stage.step,
        key=key,
        after=before.model,
        make=lambda work: stage.apply(before.model, job.data, _context(job, work)),
    )


def _context(job: Job, work: Path) -> Context:
    def load(source: str) -> Model:
        settings = replace_source(job, source)
        return load_model(settings, folder=job.recipe.folder, example=_example(job.data), seed=job.recipe.seed)

    def earlier(name: str) -> Model:
        known = {step.name: step.model for step in job.steps}
        return known[name].copy() if name in known else load(name)

    def measure_ms(model: Model) -> float:
        artifact = _export(job, model, work / "measured.onnx")
        candidate = Candidate("measured", artifact, job.recipe.goal.runtime)
        measured = profile([candidate], job.boards[0], job.inputs, seconds=QUICK_S, accuracy=False)[0]
        return float(np.median(measured.samples_ms))

    return Context(
        step_dir=work,
        seed=job.recipe.seed,
        progress=job.progress,
        model=earlier,
        load=load,
        measure_ms=measure_ms,
        goal=job.recipe.goal,
        board=job.boards[0],
    )


def replace_source(job: Job, source: str):  # type: ignore[no-untyped-def]
    """The recipe's model settings for another source: same classes, no weights file."""
    return job.recipe.model.model_copy(update={"source": source, "weights": None, "pretrained": None})


def _export(job: Job, model: Model, path: Path) -> Artifact:
    exporter = lookup.find("exporters", "onnx")
    artifact: Artifact = exporter.export(model, path, preprocess=job.data.preprocess.as_dict())
    return artifact


def _row(job: Job, step: Step) -> Row:
    """Exports a step, checks that the file is the model, and measures it briefly on the goal's board."""
    artifact = _export(job, step.model, job.run.folder / "artifacts" / f"{step.name}.onnx")
    job.artifacts[step.name] = artifact
    candidate = Candidate(step.name, artifact, job.recipe.goal.runtime)
    measured = profile([candidate], job.boards[0], job.inputs, seconds=QUICK_S, rounds=1)[0]
    _same_as_network(job, step, measured)
    return Row(
        step=step.name,
        kind=step.kind,
        accuracy=measured.accuracy,
        parameters=step.model.parameters,
        macs=step.model.macs,
        bytes=artifact.bytes,
        p50_ms=measured.p50_ms,
        p99=measured.percentile(99),
        n=len(measured.samples_ms),
        cached=step.cached,
        seconds=step.seconds,
        metrics=step.metrics,
        notes=step.notes,
    )


def _same_as_network(job: Job, step: Step, measured: Profile) -> None:
    """The gate between a network and its file: the same classes for the test images, within what the precision allows."""
    expected = outputs_of(step.model.net, job.data.test, job.data.preprocess)
    got = next(iter(measured.outputs.values()))
    flips = int((expected.argmax(axis=1) != got.argmax(axis=1)).sum())
    allowed = int(np.ceil(FLIPS.get(measured.candidate.precision, 0.0) * len(got)))
    error = float(np.abs(expected - got).max() / np.abs(expected).max())
    quantized = measured.candidate.precision == "int8"
    if flips > allowed or not np.isfinite(error) or (error > ERROR and not quantized):
        raise GateError(
            f"{step.name}: the exported file is not the network",
            why=f"{flips} of {len(got)} test images are classified differently ({allowed} allowed), largest relative "
            f"difference {error:.2g}",
            next=f"keep {measured.candidate.artifact.path} and report it",
        )


def _profile_all(job: Job) -> list[Profile]:
    """Every step's file in every runtime that reads it, on every board, interleaved."""
    settings = job.recipe.profile
    results: list[Profile] = []
    for board in job.boards:
        for scenario in settings.scenarios:
            job.progress.note(f"profiling on {board.name}, {scenario}, {settings.seconds:g} s for each file")
            results += profile(
                _candidates(job, board), board, job.inputs, seconds=settings.seconds, scenario=scenario
            )
    return results


def _candidates(job: Job, board: Board) -> list[Candidate]:
    """Each exported file in each of the board's runtimes that reads it."""
    readers = lookup.find("exporters", "onnx").runtimes
    runtimes = [name for name in board.device.runtimes if name in readers and name == job.recipe.goal.runtime]
    return [Candidate(label, artifact, runtime) for runtime in runtimes for label, artifact in job.artifacts.items()]


def _finish(job: Job, profiles: list[Profile]) -> Result:
    """Verdict, bundle and report."""
    job.ledger.add_finals(profiles)
    decided = verdict(job.ledger.finals, job.recipe.goal)
    shipped = next((p for p in profiles if p.candidate.name == decided.ship), None)
    bundle = None
    if shipped is not None:
        images = job.data.test.images(np.arange(8))
        bundle = write_bundle(job.run.folder / "bundle", shipped, images, job.data.class_names, {"profile": shipped.as_dict()})
    return Result(job.run.folder, job.ledger, decided, job.run.folder / "report.html", bundle)


def _inputs(data: Data) -> Inputs:
    images = data.test.images(np.arange(len(data.test)))
    return Inputs(images, data.test.labels, data.preprocess.as_dict())


def _example(data: Data):  # type: ignore[no-untyped-def]
    import torch

    return torch.zeros(1, data.preprocess.channels, *data.preprocess.size)
