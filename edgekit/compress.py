"""The main job: a recipe's model goes through its stages, is exported after each, and every file is measured.

compress() is the page to read first. From here it is one hop to a stage (edgekit/stages/), an exporter
(edgekit/exporters/) or the measuring (edgekit/profile/).
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekit import lookup, parity
from edgekit.artifact import Artifact, Candidate
from edgekit.bundle import GOLDEN, write_bundle
from edgekit.data import Data, open_data
from edgekit.device import Board, detect, open_board
from edgekit.errors import DependencyError, DeviceError, EdgekitError, InputError, did_you_mean
from edgekit.evaluate import outputs_of
from edgekit.keys import origin_key, step_key
from edgekit.ledger import COMPRESSING, FLOAT, Ledger, Row
from edgekit.lint import lint
from edgekit.model import Model, load_model
from edgekit.profile import Inputs, Profile, profile
from edgekit.profile.boards import missing
from edgekit.report import write
from edgekit.report.record import Report
from edgekit.run import Run, Step
from edgekit.settings import ModelSettings
from edgekit.stages import Context, Stage
from edgekit.verdict import verdict

if TYPE_CHECKING:
    from edgekit.progress import Progress
    from edgekit.recipe import Recipe

QUICK_S = 1.0


@dataclass
class Job:
    """What one run of a recipe works with, and what it has so far.

    brief_s: how long a file is measured on its way; the final profile takes the recipe's seconds.
    failed:  why a board was not measured, by its name.
    """

    recipe: Recipe
    run: Run
    data: Data
    boards: list[Board]
    progress: Progress
    inputs: Inputs
    brief_s: float = QUICK_S
    ledger: Ledger = field(default_factory=Ledger)
    steps: list[Step] = field(default_factory=list)
    artifacts: dict[tuple[str, str], Artifact] = field(default_factory=dict)  # by format and step
    notes: list[str] = field(default_factory=list)
    failed: dict[str, EdgekitError] = field(default_factory=dict)
    started: float = field(default_factory=time.time)


def compress(recipe: Recipe, *, runs: Path, progress: Progress) -> Report:
    """Runs a recipe to its end: steps, ledger, profiles, verdict, report and bundle, all in a folder under `runs`.

    Raises:
        EdgekitError: whatever goes wrong, with what was kept; the same command goes on from there.
    """
    boards, data = opened(recipe)
    with Run.open(recipe, runs) as run:
        job = Job(recipe, run, data, boards, progress, inputs_of(data), notes=list(data.notes))
        try:
            take_steps(job)
            report = _finish(job, _profile_all(job))
            _all_boards_answered(job)
            return report
        except EdgekitError as error:
            error.kept = error.kept or f"every finished step, in {run.folder}"
            run.failed(error)
            raise


def opened(recipe: Recipe) -> tuple[list[Board], Data]:
    """The boards, the goal's first, and the data: what can be refused before time is spent is refused here."""
    boards = [open_board(name, folder=recipe.folder) for name in recipe.boards()]
    _goal_can_be_measured(recipe, boards[0])
    _exports_are_read(recipe, boards)
    return boards, open_data(recipe.data, folder=recipe.folder, seed=recipe.seed)


def take_steps(job: Job) -> None:
    """Every step, found or made, and the file of each on the goal's board."""
    job.steps.append(_origin(job))
    stages = job.recipe.stages
    if not stages or stages[0].kind in COMPRESSING:
        job.ledger.add(_row(job, job.steps[0]))  # what was given is the baseline
    for number, stage in enumerate(stages, start=1):
        job.progress.stage(number, len(stages), stage.step)
        job.steps.append(_step(job, stage))
        job.progress.done(job.steps[-1].seconds, cached=job.steps[-1].cached)
        job.ledger.add(_row(job, job.steps[-1]))


def _goal_can_be_measured(recipe: Recipe, board: Board) -> None:
    runtime = recipe.goal.runtime
    if runtime not in board.device.runtimes:
        near = did_you_mean(runtime, board.device.runtimes)
        raise InputError(f"goal.runtime: {board.name} has no runtime '{runtime}'." + near)
    if reason := missing(board, runtime):  # asks a board behind a link: one that is off is known now, not in an hour
        raise DependencyError(f"goal.runtime: {reason}", next="edgekit doctor")


def _exports_are_read(recipe: Recipe, boards: list[Board]) -> None:
    known = {runtime for board in boards for runtime in board.device.runtimes}
    for name in recipe.export:
        readers = lookup.find("exporters", name).runtimes
        if not known & set(readers):
            raise InputError(
                f"export: no board of this recipe ({', '.join(board.name for board in boards)}) reads {name} files",
                next=f"remove it, or profile a device that has {' or '.join(readers)}",
            )


def _origin(job: Job) -> Step:
    """The model as the recipe names it, before any stage; not saved, since its source builds it again."""
    model = _loaded(job, job.recipe.model)
    job.notes += model.notes
    return Step("original", "original", origin_key(job.recipe, job.data.fingerprint), model)


def _loaded(job: Job, settings: ModelSettings) -> Model:
    """A model source, with as many outputs as the data has classes."""
    recipe, classes = job.recipe, len(job.data.class_names)
    model = load_model(settings, folder=recipe.folder, shape=job.data.input_shape, seed=recipe.seed)
    if model.outputs != (classes,):
        raise InputError(
            f"model.source '{settings.source}': gives {list(model.outputs)} outputs, the data has {classes} classes",
            next=f"write classes: {classes} under model, or give the data of this network",
        )
    return model


def _step(job: Job, stage: Stage) -> Step:
    """A stage's result: found, or made now."""
    before = job.steps[-1]
    stage.requires(before.model)
    key = step_key(stage, job.recipe, before.key)
    return job.run.once(
        stage, key=key, after=before.model, make=lambda work: stage.apply(before.model, job.data, _context(job, work))
    )


def _context(job: Job, work: Path) -> Context:
    recipe = job.recipe

    def load(source: str) -> Model:
        settings = recipe.model.model_copy(update={"source": source, "weights": None, "pretrained": None})
        return _loaded(job, settings)

    def earlier(name: str) -> Model:
        known = {step.name: step.model for step in job.steps}
        return known[name].copy() if name in known else load(name)

    def measure_ms(model: Model) -> float:
        artifact = _export(job, model, _format_for(job, recipe.goal.runtime), work / "measured.onnx")
        candidate = Candidate("measured", artifact, recipe.goal.runtime)
        measured = profile([candidate], job.boards[0], job.inputs, seconds=job.brief_s, rounds=1, accuracy=False)[0]
        return float(np.median(measured.samples_ms))

    return Context(work, recipe.seed, job.progress, earlier, load, measure_ms, recipe.goal, job.boards[0])


def _export(job: Job, model: Model, form: str, path: Path) -> Artifact:
    artifact: Artifact = lookup.find("exporters", form).export(model, path, preprocess=job.data.preprocess.as_dict())
    return artifact


def _artifact(job: Job, form: str, step: Step) -> Artifact:
    """A step's file in one format, written when it is first asked for."""
    if (form, step.name) not in job.artifacts:
        name = f"{step.name}.onnx" if form == "onnx" else f"{step.name}.{form}.onnx"
        artifact = _export(job, step.model, form, job.run.folder / "artifacts" / name)
        if form == "onnx":
            parity.check_layers(step.name, step.model.net, artifact.path, job.data)
        job.artifacts[form, step.name] = artifact
    return job.artifacts[form, step.name]


def _linted(artifact: Artifact, runtime: str) -> tuple[str, ...]:
    """Where int8 falls back to float in a file of ours, as notes: the file is measured, and the verdict knows."""
    if artifact.path.suffix != ".onnx":
        return ()
    return tuple(f"{one.what} ({one.cost})" for one in lint(artifact.path, runtime) if one.severity == "error")


def _format_for(job: Job, runtime: str) -> str:
    """The one of the recipe's exports that a runtime gets: of several the most its own (an IR before an ONNX file)."""
    readers = {form: lookup.find("exporters", form).runtimes for form in job.recipe.export}
    return min((form for form in readers if runtime in readers[form]), key=lambda form: len(readers[form]))


def _row(job: Job, step: Step) -> Row:
    """Exports a step, checks that the file is the network, and measures it briefly on the goal's board."""
    artifact = _artifact(job, _format_for(job, job.recipe.goal.runtime), step)
    candidate = Candidate(step.name, artifact, job.recipe.goal.runtime)
    measured = profile([candidate], job.boards[0], job.inputs, seconds=job.brief_s, rounds=1)[0]
    expected = outputs_of(step.model.net, job.data.test, job.data.preprocess)
    got = next(iter(measured.outputs.values()))
    agreed = parity.check(step.name, expected, got, quantized=artifact.precision == "int8")
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
        metrics={**step.metrics, "parity": vars(agreed)},
        notes=(*step.notes, *_linted(artifact, job.recipe.goal.runtime)),
    )


def _profile_all(job: Job) -> list[Profile]:
    """Every candidate on every board in every scenario, the candidates of a board taking turns."""
    settings = job.recipe.profile
    results: list[Profile] = []
    for board in job.boards:
        files = list(candidates(job, board))
        for scenario in settings.scenarios:
            job.progress.note(f"profiling {len(files)} files on {board.name}, {scenario}, {settings.seconds:g} s each")
            try:
                results += profile(files, board, job.inputs, seconds=settings.seconds, scenario=scenario)
            except (DeviceError, DependencyError) as error:
                if board is job.boards[0]:  # without the goal's there is no verdict
                    raise
                job.failed[board.name] = error
                job.notes.append(f"failed: {board.name}: {error.what}")
                break
    return results


def _all_boards_answered(job: Job) -> None:
    """One board that fails does not stop the others; it is said when all is done."""
    if job.failed:
        raise DeviceError(
            "\n".join(f"{name} was not measured: {error.what}" for name, error in job.failed.items()),
            kept=f"the report and everything else, in {job.run.folder}",
            next="see to it, then run the same command again: every step is reused",
        )


def candidates(job: Job, board: Board) -> Iterator[Candidate]:
    """Every step's file in the goal's runtime; in other runtimes the last float file and the final one.

    A float file runs in every precision that the runtime offers on this board.
    """
    for form in job.recipe.export:
        for runtime in lookup.find("exporters", form).runtimes:
            if runtime not in board.device.runtimes or form != _format_for(job, runtime):
                continue
            if board.link == "local" and (reason := lookup.find("runtimes", runtime).missing()):
                job.notes.append(f"not measured in {runtime}: {reason}")
                continue
            steps = _measured_steps(job) if runtime == job.recipe.goal.runtime else _last_float_and_final(job)
            for step in steps:
                artifact = _artifact(job, form, step)
                yield Candidate(step.name, artifact, runtime)
                if artifact.precision == "float32":
                    others = [p for p in board.precisions(runtime) if p in FLOAT and p != "float32"]
                    yield from (Candidate(step.name, artifact, runtime, {"precision": p}) for p in others)


def _measured_steps(job: Job) -> list[Step]:
    """The steps that have a row: `original` only where it is the baseline."""
    rows = {row.step for row in job.ledger.rows}
    return [step for step in job.steps if step.name in rows]


def _last_float_and_final(job: Job) -> list[Step]:
    steps = _measured_steps(job)
    floats = [step for step in steps if not any(edit["kind"] == "quantize" for edit in step.model.edits)]
    return [*floats[-1:], *(steps[-1:] if steps[-1:] != floats[-1:] else [])]


def _finish(job: Job, profiles: list[Profile]) -> Report:
    """Verdict, bundle and report; raw samples are kept beside them."""
    job.ledger.add_finals(profiles)
    offered = {board.name: {name: board.precisions(name) for name in board.device.runtimes} for board in job.boards}
    decided = verdict(job.ledger.finals, job.recipe.goal, offered)
    folder = job.run.folder
    for number, one in enumerate(profiles):
        one.write_samples(_made(folder / "samples") / f"{number:02}-{one.candidate.name.replace(' ', '-')}.jsonl")
    shipped = next((p for p in profiles if p.candidate.name == decided.ship), None)
    if shipped is not None:
        images = job.data.test.images(np.arange(min(GOLDEN, len(job.data.test))))
        write_bundle(folder / "bundle", shipped, images, job.data.class_names)
    (folder / "ledger.json").write_text(json.dumps(job.ledger.as_dict(), indent=1))
    return write(folder, job.ledger, decided, _facts(job, bundled=shipped is not None))


def _facts(job: Job, *, bundled: bool) -> dict[str, Any]:
    folder = job.run.folder
    files = {"report": folder / "report.html", **({"bundle": folder / "bundle"} if bundled else {}), "run": folder}
    return {
        "name": job.recipe.name,
        "goal": job.recipe.goal.model_dump(),
        "command": f"edgekit compress {job.recipe.path.name}",
        "started": time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(job.started)),
        "seconds": time.time() - job.started,
        "machine": detect(),
        "files": {label: str(path) for label, path in files.items()},
        "notes": job.notes,
    }


def inputs_of(data: Data) -> Inputs:
    """All test images, as they are fed to files."""
    images = data.test.images(np.arange(len(data.test)))
    return Inputs(images, data.test.labels, data.preprocess.as_dict())


def _made(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    return folder
