"""The rehearsal of a recipe of seconds, before and after the run it announces, and with all that can be wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner, Result

from edgekit.cli import app
from edgekit.data import Split
from edgekit.keys import changes
from edgekit.plan import resolution
from edgekit.plan.small import _few, one_step
from edgekit.settings import GoalSettings
from edgekit.stages import prune, quantize
from tests.tiny import RECIPE, write_recipe

SHORT = RECIPE.replace("  - distill:", "  # - distill:").replace("epochs: 6,", "epochs: 1,")


def run(verb: str, recipe: Path, *options: str) -> Result:
    return CliRunner().invoke(app, [verb, str(recipe), "--runs", str(recipe.parent / "runs"), "--quiet", *options])


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The recipe, and its plan before anything was run."""
    folder = tmp_path_factory.mktemp("plan")
    recipe = write_recipe(folder, SHORT)
    result = run("plan", recipe, "--json")
    assert result.exit_code == 0, result.output
    return recipe, json.loads(result.stdout)


@pytest.mark.slow
def test_a_plan_leaves_nothing_behind(planned: tuple[Path, dict[str, Any]]) -> None:
    assert sorted(path.name for path in planned[0].parent.iterdir() if path.name != "__pycache__") == [
        "nets.py",
        "tiny.yaml",
    ]


@pytest.mark.slow
def test_a_plan_names_the_code_the_data_and_every_step(planned: tuple[Path, dict[str, Any]]) -> None:
    recipe, plan = planned
    assert plan["code"] == [str(recipe.parent / "nets.py")]
    assert plan["data"]["train"] + plan["data"]["validation"] + plan["data"]["test"] == 1797
    assert plan["data"]["input"] == [1, 8, 8]
    assert [step["step"] for step in plan["steps"]] == ["teacher", "prune", "quantize"]
    assert all(step["why"].startswith("not made in") for step in plan["steps"])
    assert plan["resolved"]["stages"][0]["finetune"]["epochs"] == 1


@pytest.mark.slow
def test_the_cut_is_made_for_real_and_what_cannot_be_cut_is_named(planned: tuple[Path, dict[str, Any]]) -> None:
    teacher, prune, _ = planned[1]["steps"]
    # half of the channels: conv1 16 -> 8 filters of 8 -> 4 channels, as in the run itself
    assert prune["macs"] == 64 * 8 * 4 * 9 + 64 * 4 * 8 * 9 + 64 * 4 * 1 * 9 + 4 * 10
    assert prune["macs"] < teacher["macs"]
    assert [one["layer"] for one in prune["frozen"]] == ["classifier"]


@pytest.mark.slow
def test_quantizers_are_counted_and_named(planned: tuple[Path, dict[str, Any]]) -> None:
    places = planned[1]["steps"][-1]["quantizers"]
    assert len(places["weights"]) == 4  # stem, conv1, conv2, classifier
    assert any(name.startswith("classifier") for name in places["weights"])
    assert places["activations"]


@pytest.mark.slow
def test_every_file_is_opened_in_every_runtime_of_its_board(planned: tuple[Path, dict[str, Any]]) -> None:
    names = planned[1]["files"]["x86-cpu"]
    assert {"teacher float32 onnxruntime", "quantize int8 onnxruntime", "quantize int8 openvino"} <= set(names)
    assert all(step["parity"]["error"] < 0.1 for step in planned[1]["steps"])


@pytest.mark.slow
def test_time_memory_and_disk_are_estimated(planned: tuple[Path, dict[str, Any]]) -> None:
    estimate = planned[1]["estimate"]
    assert set(estimate["stage_s"]) == {"teacher", "prune", "quantize"}
    assert all(0 < seconds < 120 for seconds in estimate["stage_s"].values())
    assert estimate["memory_bytes"] > 100e6  # torch alone takes that
    assert estimate["disk_bytes"] > 3 * 1000 * planned[1]["steps"][1]["size_kb"]


@pytest.mark.slow
def test_after_the_run_every_step_is_reused_and_a_changed_setting_says_what_it_changes(
    planned: tuple[Path, dict[str, Any]],
) -> None:
    recipe, _ = planned
    assert run("compress", recipe, "--json").exit_code == 0
    again = json.loads(run("plan", recipe, "--json").stdout)
    assert [step["cached"] for step in again["steps"]] == [True, True, True]
    other = json.loads(run("plan", recipe, "--json", "--set", "prune.ratio=0.25").stdout)
    assert [(step["cached"], step["why"]) for step in other["steps"][1:]] == [
        (False, "prune.ratio changed 0.5 -> 0.25"),
        (False, "the step before it changed"),
    ]
    text = run("plan", recipe, "--set", "prune.ratio=0.25").stdout
    assert "teacher: reused, kept in tiny-" in text
    assert "prune: classifier: its channels are outputs of the network" in text
    assert max(map(len, text.splitlines())) <= 100


WRONG = {
    "a source that does not import": ("nets.py:build", "broken.py:build", 3, "ZeroDivisionError"),
    "a network without that function": ('"python:nets.py:build", classes', '"python:nets.py:bild", classes', 3, "bild"),
    "weights of another network": ("classes: 10}", "classes: 10, weights: other.pt}", 3, "do not fit the network"),
    "weights that are no weights": ("classes: 10}", "classes: 10, weights: nets.py}", 3, "cannot be read as weights"),
    "another number of classes": ("classes: 10}", "classes: 7}", 3, ""),
    "images that are not there": ("source: digits", "source: image_folder\n  train: none\n  test: none", 3, "none"),
    "a board that is not there": ("device: x86-cpu", "device: x86-gpu", 3, "no board is called 'x86-gpu'"),
    "a layer that is not there": ("images: 64}", "images: 64, keep_float: [head]}", 3, "keep_float 'head'"),
    "a cut that cannot be made": ("ratio: 0.5, align: 4", "macs: 0.001", 5, "cannot be reached"),
    "an export that nobody reads": ("export: [onnx]", "export: [onnx, tensorrt]", 3, "no board of this recipe"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_ends_a_plan_with_one_clear_error_and_its_exit_code(case: str, tmp_path: Path) -> None:
    right, wrong, code, words = WRONG[case]
    assert right in SHORT
    (tmp_path / "broken.py").write_text("1 / 0\n")
    torch.save({"fc.weight": torch.zeros(2, 2)}, tmp_path / "other.pt")
    result = run("plan", write_recipe(tmp_path, SHORT.replace(right, wrong, 1)), "--json")
    error = json.loads(result.stdout)
    assert (result.exit_code, error["exit_code"]) == (code, code)
    assert words in " ".join(map(str, (error["what"], error["why"])))
    assert "Traceback" not in result.output


def test_a_budget_finer_than_the_test_images_resolve_is_said() -> None:
    goal = GoalSettings(device="x86-cpu", runtime="onnxruntime", accuracy_drop=0.5)
    # 1.96 * sqrt(0.85 * 0.15 / 540) = 0.0301
    assert resolution(goal, 540) == (
        "0.5 points cannot be told apart with 540 images: about 3.0 points is what n = 540 resolves at 95 % "
        "(at 85 % accuracy)"
    )
    # 1.96 * sqrt(0.85 * 0.15 / 20000) = 0.0049
    assert resolution(goal, 20_000) is None
    assert resolution(GoalSettings(device="x86-cpu", runtime="onnxruntime"), 10) is None


def test_an_accuracy_in_the_goal_replaces_the_assumed_one() -> None:
    goal = GoalSettings(device="x86-cpu", runtime="onnxruntime", accuracy_drop=0.5, accuracy=0.99)
    # 1.96 * sqrt(0.99 * 0.01 / 540) = 0.0084, and Wilson's interval is a little wider near 1
    assert "about 0.9 points" in str(resolution(goal, 540))


def test_few_images_take_every_class_in_turn() -> None:
    labels = np.array([0, 0, 0, 0, 1, 1, 2, 2])
    split = Split(labels, 3, lambda rows: np.asarray(rows))
    assert _few(split, 5).images(np.arange(5)).tolist() == [0, 4, 6, 1, 5]


def test_one_step_shortens_every_training_and_leaves_everything_else() -> None:
    stage = prune.Stage.model_validate({"ratio": 0.5, "recover": {"epochs": 9, "batch": 128, "lr": 0.3}})
    short = one_step(stage, 16)
    assert short.recover is not None
    assert (short.recover.epochs, short.recover.batch, short.recover.lr, short.ratio) == (1, 16, 0.3, 0.5)
    calibrated, trained = one_step(quantize.Stage(qat_epochs=0), 16), one_step(quantize.Stage(qat_epochs=3), 16)
    assert (calibrated.qat_epochs, calibrated.images) == (0, 16)
    assert (trained.qat_epochs, trained.qat) == (1, "always")


def test_changes_are_told_in_the_words_of_the_recipe() -> None:
    old = {
        "original": {"seed": 0, "data": "a", "libraries": {"torch": "2.10"}, "source": "x"},
        "settings": {"speedup": 1.5, "recover": {"epochs": 3}},
        "before": "1",
        "goal": None,
        "code": "c",
    }
    new = {
        "original": {"seed": 1, "data": "b", "libraries": {"torch": "2.11"}, "source": "y"},
        "settings": {"speedup": 2.0, "recover": {"epochs": 4}},
        "before": "2",
        "goal": None,
        "code": "d",
    }
    assert sorted(changes(old, new, "prune")) == [
        "prune.recover.epochs changed 3 -> 4",
        "prune.speedup changed 1.5 -> 2.0",
        "seed changed 0 -> 1",
        "the code of this stage in edgekit changed",
        "the data changed",
        "the file of model.source changed",
        'torch changed "2.10" -> "2.11"',
    ]
    assert changes(old, {**old, "before": "2"}, "prune") == ["the step before it changed"]
