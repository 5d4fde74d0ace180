"""A recipe's tree before it is checked: `extends` lays it over another, `--set` changes single values."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

from edgekit.errors import Problem, RecipeError, did_you_mean
from edgekit.validate import describe
from edgekit.yaml_reader import Document, Node, Place, parse_yaml, read_yaml

SET = Place("--set", 0, 0)
HOW = "write `path=value`, for example `quantize.qat_epochs=3`"


def merged(document: Document) -> Document:
    """The document laid over the one it extends: mappings are joined key by key, everything else is replaced.

    Raises:
        RecipeError: that file cannot be read.
    """
    name = document.root.get("extends")
    if name is None or not isinstance(name.value, str):
        return document
    path = Path(document.root.place.file).parent / name.value
    try:
        base = read_yaml(path)
    except RecipeError as error:
        told = [p if p.line else Problem(*name.place, "extends", str(p)) for p in error.problems]
        raise RecipeError([*document.problems, *told]) from None
    problems = document.problems + base.problems
    deeper = base.root.get("extends")
    if deeper is not None and deeper.value is not None:
        problems.append(Problem(*deeper.key, "extends", "a recipe that is extended cannot extend another"))
    return replace(document, root=_over(document.root, base.root), problems=problems)


def override(root: Node, overrides: Sequence[str], keys: Collection[str]) -> list[Problem]:
    """Changes the tree by `path=value` texts; the value is YAML. A path begins with one of `keys`, or with a step.

    Returns what could not be understood.
    """
    problems = []
    for text in overrides:
        path, equals, value = text.partition("=")
        try:
            if not equals:
                raise ValueError(HOW)
            _put(root, path.strip(), _value(value), keys)
        except ValueError as error:
            problems.append(Problem(*SET, path.strip(), str(error)))
    return problems


def step_name(kind: str, settings: Node) -> str:
    """What other steps call a step: its `name:`, else its kind."""
    given = settings.get("name")
    return given.value if given is not None and isinstance(given.value, str) and given.value else kind


def _over(top: Node, below: Node) -> Node:
    if not isinstance(top.value, dict) or not isinstance(below.value, dict):
        return top
    both = {key: _over(node, below.value[key]) if key in below.value else node for key, node in top.value.items()}
    return replace(top, value={**below.value, **both})


def _value(text: str) -> Node:
    try:
        document = parse_yaml(text, SET.file)
    except RecipeError as error:
        raise ValueError(error.problems[0].message) from None
    if document.problems:
        raise ValueError(document.problems[0].message)
    return _placed(document.root)


def _placed(node: Node) -> Node:
    """The node, standing on the command line instead of in a file."""
    value = node.value
    if isinstance(value, dict):
        value = {key: _placed(below) for key, below in value.items()}
    elif isinstance(value, list):
        value = [_placed(below) for below in value]
    return Node(value, SET, SET)


def _put(root: Node, path: str, new: Node, keys: Collection[str]) -> None:
    """Puts a node where the path leads; mappings that do not stand there yet are made."""
    first, *rest = path.split(".")
    if not all([first, *rest]):
        raise ValueError(HOW)
    node, parts = (root, [first, *rest]) if first in keys else (_step(root, first, keys), rest)
    if not parts:
        raise ValueError(f"name a field of the step, like `{first}.name=a`")
    for part in parts[:-1]:
        node = _mapping(node).setdefault(part, Node({}, SET, SET))
    _mapping(node)[parts[-1]] = new


def _mapping(node: Node) -> dict[str, Node]:
    if node.value is None:
        node.value = {}
    if not isinstance(node.value, dict):
        raise ValueError(f"{describe(node.value)} has no fields to set")
    return node.value


def _step(root: Node, name: str, keys: Collection[str]) -> Node:
    """The settings of the step that has this name, else of the only step of this kind."""
    if name in ("extends", "stages"):
        raise ValueError("cannot be set here; set single fields of a step, like `prune.speedup=3`")
    stages = root.get("stages")
    items = stages.value if stages is not None and isinstance(stages.value, list) else []
    steps = [pair for item in items if isinstance(item.value, dict) for pair in item.value.items()]
    named = [node for kind, node in steps if step_name(kind, node) == name]
    found = named or [node for kind, node in steps if kind == name]
    if len(found) > 1:
        raise ValueError(f"{len(found)} steps are called '{name}'; give each a `name:` in the recipe")
    if not found:
        known = [*keys, *(step_name(kind, node) for kind, node in steps)]
        raise ValueError(f"no field or step is called '{name}'." + did_you_mean(name, known))
    return found[0]
