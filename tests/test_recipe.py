"""Reading recipes: what is accepted and filled in, and the exact words in which a wrong one is refused."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest

from edgekit import lookup
from edgekit.errors import RecipeError
from edgekit.recipe import Recipe, load_recipe, schema

HERE = Path(__file__).parent / "recipes"
SHIPPED = sorted((HERE.parents[1] / "recipes").glob("*.yaml"))


@dataclass(frozen=True)
class Case:
    """One broken recipe of tests/recipes/broken.txt."""

    name: str
    edit: tuple[str, ...]
    expected: tuple[str, ...]


def cases_of(text: str) -> list[Case]:
    """The sections of broken.txt: `## name`, then `- ` and `+ ` lines that change good.yaml, then `> ` messages."""
    cases = []
    for section in text.split("## ")[1:]:
        name, *lines = section.splitlines()
        edit = tuple(line for line in lines if line[:1] in ("-", "+"))
        cases.append(Case(name, edit, tuple(line[2:] for line in lines if line.startswith("> "))))
    return cases


def recipe_text(edit: tuple[str, ...]) -> str:
    """good.yaml with the edit's `- ` lines replaced by the `+ ` lines; without `- ` lines, a text of its own."""
    if all(line.startswith("+") for line in edit):
        return "".join(line[2:] + "\n" for line in edit)
    text = (HERE / "good.yaml").read_text()
    at = 0
    for line in edit:
        content = line[2:] + "\n"
        if line.startswith("-"):
            at = text.index(content)
            text = text[:at] + text[at + len(content) :]
        else:
            text = text[:at] + content + text[at:]
            at += len(content)
    return text


BROKEN = cases_of((HERE / "broken.txt").read_text())
GOOD = (HERE / "good.yaml").read_text()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with networks.py, which is the current one, so that places begin with `recipe.yaml:`."""
    shutil.copy(HERE / "networks.py", tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def load(text: str, *overrides: str) -> Recipe:
    Path("recipe.yaml").write_text(text, encoding="utf-8")
    return load_recipe(Path("recipe.yaml"), overrides=overrides)


def refusal(text: str, *overrides: str) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        load(text, *overrides)
    return str(caught.value).splitlines()


@pytest.mark.parametrize("case", BROKEN, ids=lambda case: case.name.replace(" ", "-"))
def test_a_broken_recipe_is_refused_in_these_words(case: Case, folder: Path) -> None:
    assert refusal(recipe_text(case.edit)) == list(case.expected)


def test_at_least_sixty_broken_recipes_have_their_words_on_record() -> None:
    assert len({case.edit for case in BROKEN}) >= 60
    assert all(case.expected for case in BROKEN)


def test_a_recipe_is_read_with_its_defaults(folder: Path) -> None:
    recipe = load(GOOD)
    assert [(stage.kind, stage.step) for stage in recipe.stages] == [
        ("finetune", "teacher"),
        ("distill", "distill"),
        ("prune", "prune"),
        ("quantize", "quantize"),
    ]
    assert (recipe.name, recipe.seed, recipe.goal.latency_p99_ms) == ("recipe", 0, 0.5)
    assert recipe.folder == folder.resolve()
    assert recipe.code() == [folder.resolve() / "networks.py"]
    assert recipe.text == GOOD


def test_devices_are_the_goals_unless_named_and_its_board_comes_first(folder: Path) -> None:
    assert load(GOOD.replace("devices: [x86-cpu], ", "")).profile.devices == ["x86-cpu"]
    assert load(GOOD.replace("devices: [x86-cpu]", "devices: [my-orin, x86-cpu]")).boards() == ["x86-cpu", "my-orin"]


def test_a_stage_without_settings_takes_its_defaults(folder: Path) -> None:
    for empty in ("- quantize:", "- quantize: {}", "- quantize: null"):
        recipe = load(GOOD.replace("- quantize: {qat_epochs: 2, teacher: teacher}", empty))
        assert recipe.resolved()["stages"][-1]["quantize"]["teacher"] is None


def test_a_whole_number_is_a_number_and_an_exponent_needs_no_point(folder: Path) -> None:
    recipe = load(GOOD.replace("epochs: 6}", "epochs: 6, lr: 1, weight_decay: 1e-3}"))
    settings = recipe.resolved()["stages"][0]["finetune"]
    assert (settings["lr"], settings["weight_decay"]) == (1.0, 0.001)


def test_the_name_comes_from_the_file_in_letters_a_folder_can_have(folder: Path) -> None:
    Path("My recipe (2).yaml").write_text(GOOD)
    assert load_recipe(Path("My recipe (2).yaml")).name == "My-recipe-2"
    assert load("name: signs\n" + GOOD).name == "signs"


def test_the_resolved_recipe_reads_back_as_the_same(folder: Path) -> None:
    resolved = load(GOOD).resolved()
    assert load(json.dumps(resolved)).resolved() == resolved


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_recipe_is_right(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEKIT_DATA", "/data")
    assert load_recipe(path).path == path.resolve()


def test_variables_are_expanded_in_paths_and_nowhere_else(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEKIT_DATA", "/data")
    text = GOOD.replace("images/train", "$EDGEKIT_DATA/a").replace("images/test", "${EDGEKIT_DATA}/b")
    recipe = load(text.replace("validation: 0.1", "validation: 0.1, by: '$HOME$'"))
    assert (recipe.data.train, recipe.data.test, recipe.data.split.by) == ("/data/a", "/data/b", "$HOME$")


def test_an_empty_variable_is_not_the_root_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEKIT_DATA", "")
    [line] = refusal(GOOD.replace("images/train", "$EDGEKIT_DATA/train"))
    assert "EDGEKIT_DATA is not set" in line


def test_code_outside_the_folder_needs_leave(folder: Path) -> None:
    outside = folder / "elsewhere.py"
    inside = folder / "project"
    inside.mkdir()
    shutil.copy(folder / "networks.py", inside)
    outside.write_text("")
    recipe = inside / "recipe.yaml"
    recipe.write_text(GOOD.replace("python:networks.py:teacher", "python:../elsewhere.py:teacher"))
    with pytest.raises(RecipeError, match=r"lies outside the recipe's folder; move it there, or give --allow-code"):
        load_recipe(recipe)
    assert load_recipe(recipe, allow_code=True).code() == [outside.resolve(), (inside / "networks.py").resolve()]


def test_a_link_that_leads_outside_the_folder_lies_outside(folder: Path) -> None:
    inside = folder / "project"
    inside.mkdir()
    (inside / "networks.py").symlink_to(folder / "networks.py")
    (inside / "recipe.yaml").write_text(GOOD)
    with pytest.raises(RecipeError, match="outside the recipe's folder"):
        load_recipe(inside / "recipe.yaml")


def test_a_recipe_is_laid_over_the_one_it_extends(folder: Path) -> None:
    Path("base.yaml").write_text(GOOD)
    recipe = load("extends: base.yaml\ngoal: {size_kb: 100}\nstages:\n  - quantize:\n")
    assert (recipe.goal.latency_p99_ms, recipe.goal.size_kb) == (0.5, 100.0)
    assert [stage.kind for stage in recipe.stages] == ["quantize"]


def test_a_mistake_is_told_in_the_file_where_it_stands(folder: Path) -> None:
    Path("base.yaml").write_text(GOOD.replace("latency_p99_ms", "latency_ms"))
    assert refusal("extends: base.yaml\ngoal: {size_kb: -1}\n") == [
        "recipe.yaml:2:17 goal.size_kb: must be greater than 0, got -1",
        "base.yaml:2:47 goal.latency_ms: unknown field. Did you mean 'latency_p99_ms'?",
    ]


def test_a_file_that_is_extended_and_is_no_yaml_is_told_with_its_place(folder: Path) -> None:
    Path("base.yaml").write_text("version: 1\ngoal: {")
    assert refusal("extends: base.yaml\n") == ["base.yaml:2:8: the file ends inside a bracket"]


def test_extending_goes_one_level_only(folder: Path) -> None:
    Path("base.yaml").write_text("extends: other.yaml\n" + GOOD)
    assert refusal("extends: base.yaml\n") == ["base.yaml:1:1 extends: a recipe that is extended cannot extend another"]
    assert refusal("extends: recipe.yaml\n" + GOOD) == [
        "recipe.yaml:1:1 extends: a recipe that is extended cannot extend another"
    ]


def test_set_changes_one_value(folder: Path) -> None:
    recipe = load(
        GOOD, "quantize.qat_epochs=3", "seed=7", "finetune.lr=1e-2", "teacher.augment.rotate=10", "export=[onnx]"
    ).resolved()
    assert recipe["seed"] == 7
    assert recipe["stages"][3]["quantize"]["qat_epochs"] == 3
    assert recipe["stages"][0]["finetune"]["lr"] == 0.01
    assert recipe["stages"][0]["finetune"]["augment"]["rotate"] == 10.0


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("quantize.qat_epoch=3", "--set quantize.qat_epoch: unknown field. Did you mean 'qat_epochs'?"),
        (
            "qantize.images=3",
            "--set qantize.images: no field or step is called 'qantize'. Did you mean 'quantize'?",
        ),
        ("quantize.qat_epochs=few", "--set quantize.qat_epochs: expected a whole number, got the text 'few'"),
        ("quantize.qat_epochs=", "--set quantize.qat_epochs: expected a whole number, got nothing"),
        ("seed", "--set seed: write `path=value`, for example `quantize.qat_epochs=3`"),
        ("data.=3", "--set data.: write `path=value`, for example `quantize.qat_epochs=3`"),
        ("quantize=3", "--set quantize: name a field of the step, like `quantize.name=a`"),
        ("version.major=3", "--set version.major: the number 1 has no fields to set"),
        ("stages=[]", "--set stages: cannot be set here; set single fields of a step, like `prune.speedup=3`"),
        ("extends=a.yaml", "--set extends: cannot be set here; set single fields of a step, like `prune.speedup=3`"),
        ("export=[onnx", "--set export: the file ends inside a bracket"),
        ("seed=!!int 3", "--set seed: tags are not read; remove `!!int`"),
    ],
)
def test_an_override_that_cannot_be_obeyed_is_refused(override: str, message: str, folder: Path) -> None:
    assert refusal(GOOD, override) == [message]


def test_set_names_a_step_by_its_kind_only_when_there_is_one(folder: Path) -> None:
    text = GOOD.replace("export:", "  - finetune: {name: more, epochs: 1}\nexport:")
    assert load(text, "more.epochs=9").resolved()["stages"][4]["finetune"]["epochs"] == 9
    assert refusal(text, "finetune.epochs=9") == [
        "--set finetune.epochs: 2 steps are called 'finetune'; give each a `name:` in the recipe"
    ]


def test_an_export_is_refused_when_nothing_reads_it_or_the_goal_needs_another(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With two exporters and one runtime, each case is one of the two."""
    readers = {"onnx": ("onnxruntime", "openvino"), "tensorrt": ("tensorrt",)}
    folders = {"exporters": list(readers), "runtimes": ["onnxruntime", "openvino"]}
    names, find = lookup.names, lookup.find
    monkeypatch.setattr(lookup, "names", lambda folder: folders.get(folder) or names(folder))
    fakes = {name: SimpleNamespace(runtimes=runtimes) for name, runtimes in readers.items()}
    monkeypatch.setattr(lookup, "find", lambda folder, name: fakes[name] if folder in folders else find(folder, name))
    assert refusal(GOOD.replace("[onnx]", "[tensorrt]")) == [
        "recipe.yaml:2:34 goal.runtime: no export gives files for onnxruntime; add onnx to `export`",
        "recipe.yaml:15:10 export[0]: no runtime of this edgekit reads tensorrt files; remove it",
    ]


def test_as_json_every_problem_has_its_parts(folder: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        load(GOOD.replace("epochs: 6", "epoch: 6"))
    first, second = caught.value.problems
    assert (first.file, first.line, first.column, first.field) == ("recipe.yaml", 11, 5, "teacher.epochs")
    assert (second.line, second.column, second.field) == (11, 31, "teacher.epoch")
    assert caught.value.exit_code == 3


def test_no_torch_is_imported_and_a_second_of_processor_time_is_enough(folder: Path) -> None:
    Path("good.yaml").write_text(GOOD)
    Path("bad.yaml").write_text(recipe_text(BROKEN[-1].edit))
    script = """
import sys, time
from pathlib import Path
from edgekit.errors import RecipeError
from edgekit.recipe import load_recipe, schema
load_recipe(Path("good.yaml"))
try:
    load_recipe(Path("bad.yaml"))
except RecipeError as error:
    print(len(error.problems), time.process_time() < 1, [n for n in ("torch", "onnx", "nncf") if n in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == f"{len(BROKEN[-1].expected)} True []\n"


def test_the_schema_knows_every_stage_and_closes_every_record() -> None:
    stages = schema()["properties"]["stages"]["items"]["oneOf"]
    assert [stage["required"] for stage in stages] == [[name] for name in lookup.names("stages")]
    assert "onnx" in schema()["properties"]["export"]["items"]["enum"]
    assert all(record["additionalProperties"] is False for record in schema()["$defs"].values())
    assert not {"path", "text", "python_files"} & set(schema()["properties"])


def test_editors_find_the_good_recipe_right_and_a_wrong_key_wrong(folder: Path) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    recipe = load(GOOD).resolved()
    jsonschema.validate(recipe, schema())
    recipe["stages"][0]["finetune"]["epoch"] = 3
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(recipe, schema())
