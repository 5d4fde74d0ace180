"""A tree of Nodes -> a pydantic record, or one plain sentence for every mistake in it, each with its place."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from edgekit.errors import Problem, did_you_mean
from edgekit.yaml_reader import Node, Place, join

Record = TypeVar("Record", bound=BaseModel)
Path = tuple[int | str, ...]

_KINDS = {
    "int_type": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "string_type": "text",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
}
_BOUNDS = {
    "greater_than": "must be greater than {gt}, got {got}",
    "greater_than_equal": "must be at least {ge}, got {got}",
    "less_than": "must be less than {lt}, got {got}",
    "less_than_equal": "must be at most {le}, got {got}",
    "too_short": "needs {min_length} or more entries, got {actual_length}",
    "too_long": "takes {max_length} entries at most, got {actual_length}",
    "string_pattern_mismatch": "up to 64 letters, digits, '-' and '_', the first a letter or digit; got {got}",
}
_EXAMPLES = {
    "classes": "10",
    "data": "{source: image_folder, train: images/train, test: images/test}",
    "device": "x86-cpu",
    "epochs": "8",
    "export": "[onnx]",
    "goal": "{device: x86-cpu, runtime: onnxruntime}",
    "mean": "[0.485, 0.456, 0.406]",
    "model": '{source: "python:networks.py:build"}',
    "runtime": "onnxruntime",
    "size": "[224, 224]",
    "std": "[0.229, 0.224, 0.225]",
    "version": "1",
}


def validate(model: type[Record], node: Node, field: str = "") -> tuple[Record | None, list[Problem]]:
    """The record, or None and its problems. field: path of the node in the recipe, put before every field's own."""
    try:
        return model.model_validate(node.plain()), []
    except ValidationError as error:
        return None, list(_problems(error, model, node, field))


def describe(value: object) -> str:
    """What was written, in words: `the text 'fast'`, `the number 3`, `nothing`."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f"the text {_shorten(value)}"
    if isinstance(value, int | float):
        return f"the number {value}"
    return "a list" if isinstance(value, list) else "a mapping"


def _problems(error: ValidationError, model: type[BaseModel], root: Node, field: str) -> Iterator[Problem]:
    """One problem for each place; the branches of a union (`str | list[str]`) speak with one voice."""
    unions: dict[Path, list[str]] = {}  # what would have been accepted, by path
    meant: set[Path] = set()  # unions of which one branch had the right type, and a mistake of its own
    for item in error.errors(include_url=False):
        path, union = _walk(root, item)
        if union is not None and len(path) == union and item["type"] in _KINDS:
            unions.setdefault(path, []).append(_KINDS[item["type"]])
            continue
        meant.add(path[:union] if union is not None else path)
        place, node = _locate(root, path, item["type"])
        yield Problem(*place, join(field, *path), _sentence(item, path, node, model))
    for path in unions.keys() - meant:
        place, node = _locate(root, path, "union")
        wanted = " or ".join(dict.fromkeys(unions[path]))
        yield Problem(*place, join(field, *path), f"expected {wanted}, got {describe(node.value)}")


def _walk(root: Node, item: ErrorDetails) -> tuple[Path, int | None]:
    """The mistake's path in the tree, and its length where pydantic first put the name of a union's branch."""
    path: Path = ()
    union = None
    node: Node | None = root
    for part in item["loc"]:
        below = _child(node, part)
        if below is None and not (item["type"] == "missing" and part == item["loc"][-1]):
            union = len(path) if union is None else union
            continue
        path, node = (*path, part), below
    return path, union


def _child(node: Node | None, part: int | str) -> Node | None:
    value = node.value if node else None
    if isinstance(value, list) and isinstance(part, int):
        return value[part]
    return value.get(part) if isinstance(value, dict) and isinstance(part, str) else None


def _locate(root: Node, path: Path, kind: str) -> tuple[Place, Node]:
    """Where to point: at a key that should not be there, at the owner of one that should, else at the value."""
    node = root
    for part in path:
        below = _child(node, part)
        if below is None:
            break
        node = below
    return (node.key if kind in ("extra_forbidden", "missing") else node.place), node


def _sentence(item: ErrorDetails, path: Path, node: Node, model: type[BaseModel]) -> str:
    kind, context = item["type"], item.get("ctx", {})
    if kind == "missing":
        example = _EXAMPLES.get(str(path[-1]))
        return f"missing; write `{path[-1]}: {example}`" if example else "missing"
    if kind == "extra_forbidden":
        return "unknown field." + did_you_mean(str(path[-1]), _fields(model, path[:-1]))
    if kind == "literal_error":
        return _choice(node.value, re.findall(r"'([^']*)'", context["expected"]))
    if kind in _KINDS:
        return f"expected {_KINDS[kind]}, got {describe(node.value)}"
    if kind in _BOUNDS:
        got = _shorten(node.value) if isinstance(node.value, str) else node.value
        bounds = {key: f"{value:g}" if isinstance(value, float) else value for key, value in context.items()}
        return _BOUNDS[kind].format(got=got, **bounds)
    return str(context.get("error", item["msg"]))


def _choice(value: object, choices: list[str]) -> str:
    if isinstance(value, str):
        return f"unknown choice {_shorten(value)}." + did_you_mean(value, choices)
    return f"expected {' or '.join(choices)}, got {describe(value)}"


def _fields(model: type[BaseModel], path: Path) -> list[str]:
    """The fields of the record at a path below `model`."""
    for part in path:
        if isinstance(part, str):
            model = next(_records(model.model_fields[part].annotation))
    return list(model.model_fields)


def _records(annotation: Any) -> Iterator[type[BaseModel]]:
    """The records named in an annotation such as `Recover | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _records(part)


def _shorten(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")
