"""A recipe: one YAML file that says what is wanted, and the steps that lead there. It is data and runs no code.

Read in this order: the YAML text with its limits, `extends`, `--set`, every field against its type, the fields against
one another. All mistakes are told at once. Imports no torch, so that a bad recipe is refused within a second.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator
from pydantic.json_schema import models_json_schema

from edgekit import lookup
from edgekit.errors import Problem, RecipeError, did_you_mean
from edgekit.recipe.checks import SCENARIO, Step, check, expand_paths, user_code
from edgekit.recipe.tree import merged, override, step_name
from edgekit.settings import DataSettings, GoalSettings, ModelSettings, ProfileSettings, Settings
from edgekit.stages import Stage, StepName
from edgekit.validate import describe, validate
from edgekit.yaml_reader import Node, read_yaml


class RecipeSettings(Settings):
    """What the file says. extends: a recipe beside this one, whose values hold where this one says nothing.

    name: names the run folder. stages: in the file, each is a mapping with one key, `- prune: {speedup: 2.0}`.
    """

    version: Literal[1]
    extends: str | None = None
    name: StepName | None = None
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    goal: GoalSettings
    model: ModelSettings
    data: DataSettings
    stages: list[Stage] = Field(default=[])
    export: Annotated[list[str], Field(min_length=1)]
    profile: ProfileSettings = ProfileSettings()

    @field_validator("version", mode="before")
    @classmethod
    def _known_version(cls, value: object) -> object:
        if type(value) is not int or value != 1:  # Literal[1] alone would take `true`
            raise ValueError("this edgekit reads recipes of `version: 1`")
        return value


class Recipe(RecipeSettings):
    """A recipe that was read and found right: name and profile.devices are filled in, environment variables expanded.

    path, text: the file as given. python_files: the user's own files that sources name, in the recipe's order.
    """

    path: Path
    text: str
    python_files: list[Path]

    @property
    def folder(self) -> Path:
        """What relative paths in the recipe are relative to."""
        return self.path.parent

    def boards(self) -> list[str]:
        """Boards to measure on, the goal's first."""
        return sorted(self.profile.devices or [], key=lambda device: device != self.goal.device)

    def code(self) -> list[Path]:
        """Files of the user's that will be imported."""
        return list(self.python_files)

    def resolved(self) -> dict[str, Any]:
        """Everything, defaults included, as JSON values; written as YAML it is a recipe that reads back the same."""
        record = self.model_dump(mode="json", exclude={"stages", "path", "text", "python_files", "extends"})
        record["stages"] = [{stage.kind: stage.model_dump(mode="json")} for stage in self.stages]
        return record


def load_recipe(path: Path, *, overrides: Sequence[str] = (), allow_code: bool = False) -> Recipe:
    """Reads and checks a recipe.

    overrides: `prune.speedup=3`, as given to `--set`. allow_code: sources outside the recipe's folder may be named.

    Raises:
        RecipeError: holds every mistake, each with its file, line and column.
    """
    document = merged(read_yaml(path))
    root, problems = document.root, document.problems
    keys = set(RecipeSettings.model_fields)
    problems += override(root, overrides, keys - {"extends", "stages"})
    problems += expand_paths(root)
    settings, found = validate(RecipeSettings, _without_stages(root))
    steps, wrong = _steps(root)
    folder = path.resolve().parent
    problems += [*found, *wrong, *check(root, steps, folder, reserved=keys, allow_code=allow_code)]
    if problems or settings is None:
        raise RecipeError(_in_order(problems, str(path)))
    filled = {
        "name": settings.name or _slug(path.stem),
        "stages": [step.stage for step in steps],
        "profile": settings.profile.model_copy(update={"devices": settings.profile.devices or [settings.goal.device]}),
    }
    files = user_code(root, steps, folder)
    return Recipe(**{**dict(settings), **filled}, path=path.resolve(), text=document.text, python_files=files)


def schema() -> dict[str, Any]:
    """JSON Schema of a recipe, for editors; every stage that has a file in `stages/` is in it."""
    stages = {kind: lookup.find("stages", kind).Stage for kind in lookup.names("stages")}
    records = [RecipeSettings, *stages.values()]
    references, shared = models_json_schema([(record, "validation") for record in records])
    definitions = shared["$defs"]
    recipe = definitions.pop(references[RecipeSettings, "validation"]["$ref"].rpartition("/")[2])
    recipe["properties"]["stages"]["items"] = {
        "oneOf": [_stage_schema(kind, references[record, "validation"]) for kind, record in stages.items()]
    }
    recipe["properties"]["export"]["items"]["enum"] = lookup.names("exporters")
    definitions["GoalSettings"]["properties"]["runtime"]["enum"] = lookup.names("runtimes")
    definitions["ProfileSettings"]["properties"]["scenarios"]["items"]["pattern"] = f"^({SCENARIO.pattern})$"
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **recipe, "$defs": definitions}


def _stage_schema(kind: str, reference: dict[str, Any]) -> dict[str, Any]:
    value = {"oneOf": [reference, {"type": "null"}]}
    return {"type": "object", "properties": {kind: value}, "required": [kind], "additionalProperties": False}


def _without_stages(root: Node) -> Node:
    """The recipe with an empty list of stages, which are checked one by one; what is no list stays, to be refused."""
    stages = root.get("stages")
    if stages is None or not isinstance(stages.value, list) or not isinstance(root.value, dict):
        return root
    return Node({**root.value, "stages": Node([], stages.place, stages.key)}, root.place, root.key)


def _steps(root: Node) -> tuple[list[Step], list[Problem]]:
    """The stages in order, as far as they can be told; a step whose settings are wrong has `stage` None."""
    stages, steps, problems = root.get("stages"), [], []
    items = stages.value if stages is not None and isinstance(stages.value, list) else []
    known = lookup.names("stages")
    for index, item in enumerate(items):
        field = f"stages[{index}]"
        if not isinstance(item.value, dict) or len(item.value) != 1:
            got = f"{len(item.value)} keys" if isinstance(item.value, dict) else describe(item.value)
            message = f"a step is one stage with its settings, like `prune: {{speedup: 2.0}}`; got {got}"
            problems.append(Problem(*item.place, field, message))
            continue
        [(kind, node)] = item.value.items()
        if kind not in known:
            problems.append(Problem(*node.key, field, f"no stage is called '{kind}'." + did_you_mean(kind, known)))
            continue
        step, found = _step(kind, node)
        steps.append(step)
        problems += found
    return steps, problems


def _step(kind: str, node: Node) -> tuple[Step, list[Problem]]:
    if node.value is None:
        node.value = {}
    record: type[Stage] = lookup.find("stages", kind).Stage
    name = step_name(kind, node)
    stage, problems = validate(record, node, name)
    return Step(kind, name, node, stage), problems


def _slug(stem: str) -> str:
    """A file's name as the name of a run: `My recipe (2)` -> `My-recipe-2`."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", stem).strip("-_")[:64] or "recipe"


def _in_order(problems: list[Problem], file: str) -> list[Problem]:
    """By place: the recipe itself first, then what it extends, then `--set`; the same sentence once."""
    order = {file: 0, "--set": 2}
    return sorted(dict.fromkeys(problems), key=lambda p: (order.get(p.file, 1), p.line, p.column, p.field))
