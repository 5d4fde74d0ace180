"""The command line: quick help, one message and one exit code for every mistake."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from edgekit.cli import app
from tests.tiny import NETS, RECIPE, write_recipe

VERBS = {"compress", "verify", "schema"}


def test_help_imports_neither_torch_nor_pydantic_nor_numpy() -> None:
    code = (
        "import sys\n"
        "from typer.testing import CliRunner\n"
        "from edgekit.cli import app\n"
        "result = CliRunner().invoke(app, ['--help'])\n"
        "assert result.exit_code == 0, result.output\n"
        "print([m for m in ('torch', 'pydantic', 'numpy', 'onnx', 'nncf') if m in sys.modules])\n"
    )
    root = Path(__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert done.stdout.strip() == "[]"


def test_help_lists_the_verbs_and_each_has_help_of_its_own() -> None:
    listed = {command.name or getattr(command.callback, "__name__", "") for command in app.registered_commands}
    assert listed >= VERBS
    for verb in listed:
        result = CliRunner().invoke(app, [verb, "--help"])
        assert result.exit_code == 0
        assert "Usage" in result.output


@pytest.mark.parametrize(
    ("change", "exit_code", "message"),
    [
        (
            ("seconds: 0.5", "secnods: 0.5"),
            3,
            "tiny.yaml:14:11 profile.secnods: unknown field. Did you mean 'seconds'?",
        ),
        (("runtime: onnxruntime", "runtime: tensorrt"), 3, "goal.runtime"),
        (("source: digits", "source: image_folder, train: nowhere, test: nowhere"), 3, "nowhere"),
        (("device: x86-cpu", "device: x86-gpu"), 3, "no board is called 'x86-gpu'. Did you mean 'x86-cpu'?"),
        (("nets.py:build", "nets.py:bulid"), 3, "has no function 'bulid'"),
        (("classes: 10}\ndata", "classes: 7}\ndata"), 3, "gives [7] outputs, the data has 10 classes"),
    ],
)
def test_a_mistake_in_the_recipe_is_one_clear_error(
    tmp_path: Path, change: tuple[str, str], exit_code: int, message: str
) -> None:
    text = RECIPE.replace(*change)
    assert text != RECIPE
    if "image_folder" in text:
        text = text.replace("  source: image_folder, train: nowhere, test: nowhere\n", IMAGE_FOLDER)
    result = CliRunner().invoke(app, ["compress", str(write_recipe(tmp_path, text)), "--runs", str(tmp_path / "runs")])
    assert (result.exit_code, "Traceback" in result.output) == (exit_code, False), result.output
    assert message in result.output


IMAGE_FOLDER = "  source: image_folder\n  train: nowhere/train\n  test: nowhere/test\n"


def test_weights_of_the_wrong_shapes_name_the_first_of_them(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    from tests.networks import Residual

    weights = Residual().state_dict()
    weights["conv1.weight"] = torch.zeros(3, 3, 3, 3)
    save_file(weights, tmp_path / "w.safetensors")
    path = write_recipe(tmp_path, RECIPE.replace("classes: 10}", "classes: 10, weights: w.safetensors}"))
    result = CliRunner().invoke(app, ["compress", str(path), "--runs", str(tmp_path / "runs")])
    assert result.exit_code == 3
    assert "w.safetensors: the weights do not fit the network" in result.output
    assert "conv1.weight is [3, 3, 3, 3], the network has [16, 8, 3, 3]" in result.output


def test_a_truncated_checkpoint_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "w.pt").write_bytes(b"PK\x03\x04 and then nothing")
    path = write_recipe(tmp_path, RECIPE.replace("classes: 10}", "classes: 10, weights: w.pt}"))
    result = CliRunner().invoke(app, ["compress", str(path), "--runs", str(tmp_path / "runs"), "--json"])
    assert result.exit_code == 3
    error = json.loads(result.stdout)
    assert error["exit_code"] == 3
    assert "w.pt" in error["what"]


def test_a_runs_folder_that_cannot_be_written_is_exit_code_7(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = CliRunner().invoke(app, ["compress", str(write_recipe(tmp_path)), "--runs", str(tmp_path / "file" / "x")])
    assert result.exit_code == 7
    assert "--runs DIR" in result.output


def test_verify_without_a_bundle_says_what_to_give(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["verify", str(tmp_path)])
    assert result.exit_code == 3
    assert "give RUN/bundle" in result.output


def test_schema_is_json_and_knows_every_stage() -> None:
    record = json.loads(CliRunner().invoke(app, ["schema"]).stdout)
    kinds = [key for one in record["properties"]["stages"]["items"]["oneOf"] for key in one["properties"]]
    assert sorted(kinds) == ["distill", "finetune", "prune", "quantize"]


def test_the_network_of_the_tiny_recipe_is_the_one_tests_know() -> None:
    assert "Residual" in NETS
