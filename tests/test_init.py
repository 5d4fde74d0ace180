"""Every template that `init` writes passes `plan` on a folder of images; nothing is overwritten."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from typer.testing import CliRunner, Result

from edgekit import resources
from edgekit.cli import app
from edgekit.init import Answers, init
from edgekit.recipe import load_recipe, schema

BUILD = """\
from torch import nn

def build():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 3),
    )
"""


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """data/train and data/test: noise of 40x48 pixels, three classes, 12 and 4 images of each."""
    rng = np.random.default_rng(0)
    for part, count in (("train", 12), ("test", 4)):
        for name in ("bird", "cat", "dog"):
            folder = tmp_path / "data" / part / name
            folder.mkdir(parents=True)
            for index in range(count):
                Image.fromarray(rng.integers(0, 256, (40, 48, 3), dtype=np.uint8)).save(folder / f"{index}.png")
    return tmp_path


def write_own_network(folder: Path) -> None:
    """network.py and weights.safetensors, as the templates for a trained network expect them."""
    (folder / "network.py").write_text(BUILD)
    scope: dict[str, object] = {}
    exec(BUILD, scope)
    build = scope["build"]
    assert callable(build)
    torch.manual_seed(0)
    save_file(build().state_dict(), folder / "weights.safetensors")


@pytest.mark.slow
@pytest.mark.parametrize("template", sorted(resources.templates()))
def test_every_template_passes_plan_on_a_folder_of_images(template: str, images: Path) -> None:
    recipe = images / "recipe.yaml"
    assert run("init", str(recipe), "--template", template).exit_code == 0
    if not (images / "network.py").exists():
        write_own_network(images)
    result = run("plan", str(recipe), "--runs", str(images / "runs"), "--json", "--quiet")
    assert result.exit_code == 0, result.output
    plan = json.loads(result.stdout)
    assert plan["data"]["classes"] == 3
    assert "12 images" in plan["budget"] if template != "profile-only" else plan["budget"] is None


@pytest.mark.parametrize("template", sorted(resources.templates()))
def test_a_template_is_commented_and_its_first_line_names_the_schema(template: str, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    written = init(recipe, template)
    lines = recipe.read_text().splitlines()
    assert lines[0] == "# yaml-language-server: $schema=recipe.schema.json"
    assert sum("#" in line for line in lines) >= 8
    assert tmp_path / "recipe.schema.json" in written
    assert json.loads((tmp_path / "recipe.schema.json").read_text()) == schema()


def test_init_writes_the_users_folders_and_counts_the_classes(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(images)
    (images / "data").rename(images / "my data")
    init(Path("project/signs.yaml"), "classification", Answers(Path("my data/train"), Path("my data/test")))
    recipe = load_recipe(Path("project/signs.yaml"))
    assert recipe.model.classes == 3
    assert (recipe.data.train, recipe.data.test) == ("../my data/train", "../my data/test")
    assert "edgekit plan signs.yaml" in recipe.text


def test_init_overwrites_nothing(tmp_path: Path) -> None:
    (tmp_path / "network.py").write_text("mine")
    result = run("init", str(tmp_path / "recipe.yaml"), "--json")
    assert result.exit_code == 2
    assert json.loads(result.stdout)["what"] == f"{tmp_path / 'network.py'}: exists already"
    assert [path.name for path in tmp_path.iterdir()] == ["network.py"]
    assert (tmp_path / "network.py").read_text() == "mine"


def test_a_second_recipe_shares_the_schema_of_the_first(tmp_path: Path) -> None:
    init(tmp_path / "a.yaml", "quantize-only")
    assert init(tmp_path / "b.yaml", "quantize-only") == [tmp_path / "b.yaml"]


def test_a_template_nobody_knows_is_refused_with_the_nearest(tmp_path: Path) -> None:
    result = run("init", str(tmp_path / "recipe.yaml"), "--template", "quantise-only")
    assert result.exit_code == 2
    assert "Did you mean 'quantize-only'?" in result.output


def test_init_asks_nothing_where_there_is_no_terminal(tmp_path: Path) -> None:
    result = run("init", str(tmp_path / "recipe.yaml"))
    assert result.exit_code == 0
    assert "Template" not in result.output
    assert f"next: edgekit plan {tmp_path / 'recipe.yaml'}" in result.stdout
    assert (tmp_path / "network.py").exists()


def test_without_the_users_network_the_plan_says_which_file_is_missing(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    init(recipe, "quantize-only")
    result = run("plan", str(recipe))
    assert result.exit_code == 3
    assert "model.source: no file network.py in the recipe's folder" in result.output


def test_an_empty_data_folder_and_a_corrupt_image_each_end_with_one_error(images: Path) -> None:
    recipe = images / "recipe.yaml"
    init(recipe, "classification")
    (images / "data/train/cat/0.png").write_bytes(b"no image")
    broken = run("plan", str(recipe), "--json", "--quiet")
    assert broken.exit_code == 3
    assert "1 corrupt image(s), 0 allowed: train/cat/0.png" in json.loads(broken.stdout)["what"]
    for image in (images / "data/train/cat").iterdir():
        image.unlink()
    empty = run("plan", str(recipe), "--json", "--quiet")
    assert empty.exit_code == 3
    assert "cat" in json.loads(empty.stdout)["what"]
