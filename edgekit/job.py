"""What a run works with: the sources, files and rows of its steps, and the candidates they are profiled as."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgekit import lookup, parity
from edgekit.artifact import Artifact, Candidate
from edgekit.data import Data
from edgekit.device import Board
from edgekit.errors import EdgekitError, InputError
from edgekit.evaluate import outputs_of
from edgekit.ledger import FLOAT, Ledger, Row
from edgekit.lint import lint
from edgekit.model import Model, load_model
from edgekit.profile import Inputs, profile
from edgekit.run import Run, Step
from edgekit.settings import ModelSettings
from edgekit.stages import Context

if TYPE_CHECKING:
    from edgekit.progress import Progress
    from edgekit.recipe import Recipe

QUICK_S = 1.0


@dataclass
class Job:
    """What one run of a recipe works with, and what it has so far.

    brief_s: how long a file is measured on its way; the final profile takes the recipe's seconds.
    rehearsal: trained for one step only, a network's outputs nearly tie: which class is largest then means nothing.
    failed:  why a board was not measured, by its name.
    """

    recipe: Recipe
    run: Run
    data: Data
    boards: list[Board]
    progress: Progress
    inputs: Inputs
    brief_s: float = QUICK_S
    rehearsal: bool = False
    ledger: Ledger = field(default_factory=Ledger)
    steps: list[Step] = field(default_factory=list)
    artifacts: dict[tuple[str, str], Artifact] = field(default_factory=dict)  # by format and step
    notes: list[str] = field(default_factory=list)
    failed: dict[str, EdgekitError] = field(default_factory=dict)
    started: float = field(default_factory=time.time)


def load_source(job: Job, settings: ModelSettings) -> Model:
    """A model source, with as many outputs as the data has classes."""
    recipe, classes = job.recipe, len(job.data.class_names)
    model = load_model(settings, folder=recipe.folder, shape=job.data.input_shape, seed=recipe.seed)
    if model.outputs != (classes,):
        raise InputError(
            f"model.source '{settings.source}': gives {list(model.outputs)} outputs, the data has {classes} classes",
            next=f"write classes: {classes} under model, or give the data of this network",
        )
    return model


def context(job: Job, work: Path) -> Context:
    recipe = job.recipe

    def load(source: str) -> Model:
        settings = recipe.model.model_copy(update={"source": source, "weights": None, "pretrained": None})
        return load_source(job, settings)

    def earlier(name: str) -> Model:
        known = {step.name: step.model for step in job.steps}
        return known[name].copy() if name in known else load(name)

    def measure_ms(model: Model) -> float:
        artifact = _export(job, model, format_for(job, recipe.goal.runtime), work / "measured.onnx")
        candidate = Candidate("measured", artifact, recipe.goal.runtime)
        measured = profile([candidate], job.boards[0], job.inputs, seconds=job.brief_s, rounds=1, accuracy=False)[0]
        return float(np.median(measured.samples_ms))

    return Context(work, recipe.seed, job.progress, earlier, load, measure_ms, recipe.goal, job.boards[0])


def row_of(job: Job, step: Step) -> Row:
    """Exports a step, checks that the file is the network, and measures it briefly on the goal's board."""
    artifact = artifact_of(job, format_for(job, job.recipe.goal.runtime), step)
    candidate = Candidate(step.name, artifact, job.recipe.goal.runtime)
    measured = profile([candidate], job.boards[0], job.inputs, seconds=job.brief_s, rounds=1)[0]
    expected = outputs_of(step.model.net, job.data.test, job.data.preprocess)
    got = next(iter(measured.outputs.values()))
    quantized = artifact.precision == "int8"
    agreed = parity.agreement(expected, got)
    if not (job.rehearsal and quantized):
        parity.check(step.name, agreed, quantized=quantized)
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


def _export(job: Job, model: Model, form: str, path: Path) -> Artifact:
    artifact: Artifact = lookup.find("exporters", form).export(model, path, preprocess=job.data.preprocess.as_dict())
    return artifact


def artifact_of(job: Job, form: str, step: Step) -> Artifact:
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


def format_for(job: Job, runtime: str) -> str:
    """The one of the recipe's exports that a runtime gets: of several the most its own (an IR before an ONNX file)."""
    readers = {form: lookup.find("exporters", form).runtimes for form in job.recipe.export}
    return min((form for form in readers if runtime in readers[form]), key=lambda form: len(readers[form]))


def candidates(job: Job, board: Board) -> Iterator[Candidate]:
    """Every step's file in the goal's runtime; in other runtimes the last float file and the final one.

    A float file runs in every precision that the runtime offers on this board.
    """
    for form in job.recipe.export:
        for runtime in lookup.find("exporters", form).runtimes:
            if runtime not in board.device.runtimes or form != format_for(job, runtime):
                continue
            if board.link == "local" and (reason := lookup.find("runtimes", runtime).missing()):
                job.notes.append(f"not measured in {runtime}: {reason}")
                continue
            steps = _measured_steps(job) if runtime == job.recipe.goal.runtime else _last_float_and_final(job)
            for step in steps:
                artifact = artifact_of(job, form, step)
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


def inputs_of(data: Data) -> Inputs:
    """All test images, as they are fed to files."""
    images = data.test.images(np.arange(len(data.test)))
    return Inputs(images, data.test.labels, data.preprocess.as_dict())
