"""The main job: a recipe's model goes through its stages, is exported after each, and every file is measured.

compress() is the page to read first. From here it is one hop to a stage (edgekit/stages/), an exporter
(edgekit/exporters/) or the measuring (edgekit/profile/).
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekit import lookup
from edgekit.bundle import GOLDEN, write_bundle
from edgekit.data import Data, open_data
from edgekit.device import Board, detect, open_board
from edgekit.errors import DependencyError, DeviceError, EdgekitError, InputError, did_you_mean
from edgekit.job import Job, candidates, context, inputs_of, load_source, row_of
from edgekit.keys import origin_key, step_key
from edgekit.ledger import COMPRESSING
from edgekit.profile import Profile, profile
from edgekit.profile.boards import missing
from edgekit.report import write
from edgekit.report.record import Report
from edgekit.run import Run, Step
from edgekit.stages import Stage
from edgekit.verdict import verdict

if TYPE_CHECKING:
    from edgekit.progress import Progress
    from edgekit.recipe import Recipe


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
        job.ledger.add(row_of(job, job.steps[0]))  # what was given is the baseline
    for number, stage in enumerate(stages, start=1):
        job.progress.stage(number, len(stages), stage.step)
        job.steps.append(_step(job, stage))
        job.progress.done(job.steps[-1].seconds, cached=job.steps[-1].cached)
        job.ledger.add(row_of(job, job.steps[-1]))


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
    model = load_source(job, job.recipe.model)
    job.notes += model.notes
    return Step("original", "original", origin_key(job.recipe, job.data.fingerprint), model)


def _step(job: Job, stage: Stage) -> Step:
    """A stage's result: found, or made now."""
    before = job.steps[-1]
    stage.requires(before.model)
    key = step_key(stage, job.recipe, before.key)
    return job.run.once(
        stage, key=key, after=before.model, make=lambda work: stage.apply(before.model, job.data, context(job, work))
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


def _made(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    return folder
