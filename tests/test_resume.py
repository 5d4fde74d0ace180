"""A step that is stopped amid its training leaves its checkpoints to the next run, and ends as if nothing happened."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edgekit.compress import compress
from edgekit.keys import Key
from edgekit.model import Model, load_model
from edgekit.progress import silent
from edgekit.recipe import load_recipe
from edgekit.run import Run, Step
from edgekit.stages import Outcome
from tests.tiny import write_recipe

ROOT = Path(__file__).parents[1]
ONE_STAGE = """\
version: 1
name: one
goal: {device: x86-cpu, runtime: onnxruntime, accuracy_drop: 100}
model: {source: "python:nets.py:build", classes: 10}
data: {source: digits, preprocess: {size: [8, 8], mean: [0.305], std: [0.376], colour: gray}}
stages:
  - finetune: {epochs: 12, batch: 64, lr: 0.05, precision: float32}
export: [onnx]
profile: {seconds: 0.5}
"""
KEY = Key({"a": 1})


def attempt(path: Path, *, checkpoint: bool, finish: bool) -> tuple[Step | None, bool]:
    """One run of the only stage: the step, None when it was stopped; and whether it found a checkpoint."""
    recipe = load_recipe(path)
    before = load_model(recipe.model, folder=path.parent, shape=(1, 8, 8), seed=0)
    after: Model = load_model(recipe.model, folder=path.parent, shape=(1, 8, 8), seed=1)
    found: list[bool] = []

    def make(work: Path) -> Outcome:
        found.append((work / "checkpoints/000001.json").exists())
        if checkpoint:
            (work / "checkpoints").mkdir(exist_ok=True)
            (work / "checkpoints/000001.json").write_text("{}")
        if not finish:
            raise KeyboardInterrupt
        return Outcome(after, {})

    with Run.open(recipe, path.parent / "runs") as run:
        try:
            return run.once(recipe.stages[0], key=KEY, after=before, make=make), found[0]
        except KeyboardInterrupt:
            return None, found[0]


def test_the_next_run_finds_the_checkpoints_and_the_finished_step_has_none(tmp_path: Path) -> None:
    path = write_recipe(tmp_path, ONE_STAGE)
    assert attempt(path, checkpoint=True, finish=False) == (None, False)
    step, found = attempt(path, checkpoint=True, finish=True)
    assert step is not None
    assert found
    steps = list((tmp_path / "runs").glob("*/steps/*"))
    assert [folder.name for folder in steps] == [KEY.digest]
    assert sorted(file.name for file in steps[0].iterdir()) == ["edits.json", "stage.json", "weights.safetensors"]


def test_a_step_that_left_no_checkpoint_begins_in_an_empty_folder(tmp_path: Path) -> None:
    path = write_recipe(tmp_path, ONE_STAGE)
    attempt(path, checkpoint=False, finish=False)
    assert list((tmp_path / "runs").glob("*/steps/*")) == []
    assert attempt(path, checkpoint=False, finish=True)[1] is False


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_run_stopped_amid_a_training_goes_on_in_it_and_ends_in_the_same_bytes(tmp_path: Path, name: str) -> None:
    for folder in ("whole", "stopped"):
        (tmp_path / folder).mkdir()
        write_recipe(tmp_path / folder, ONE_STAGE)
    compress(load_recipe(tmp_path / "whole/tiny.yaml"), runs=tmp_path / "whole/runs", progress=silent())
    process = start(tmp_path / "stopped")
    wait_for_epochs(tmp_path / "stopped", 2)
    process.send_signal(getattr(signal, name))
    assert process.wait(60) == 128 + getattr(signal, name)
    again = start(tmp_path / "stopped")
    _, progress = again.communicate(timeout=200)
    assert "going on after epoch" in progress
    weights = [next((tmp_path / name).glob("runs/*/steps/*/weights.safetensors")) for name in ("whole", "stopped")]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def start(folder: Path) -> subprocess.Popen[str]:
    command = [
        sys.executable,
        "-m",
        "edgekit.cli",
        "compress",
        str(folder / "tiny.yaml"),
        "--runs",
        str(folder / "runs"),
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_WAIT_POLICY": "passive"}
    return subprocess.Popen(command, cwd=folder, env=environment, text=True, stderr=subprocess.PIPE)


def wait_for_epochs(folder: Path, count: int) -> None:
    end = time.monotonic() + 120
    while sum(len(log.read_text().splitlines()) for log in folder.glob("runs/*/steps/*/training.jsonl")) < count:
        assert time.monotonic() < end, "no epoch ended in two minutes"
        time.sleep(0.01)
