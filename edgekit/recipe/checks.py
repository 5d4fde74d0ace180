"""Checks of a recipe's fields against one another: the order of steps, names, teachers, exports, sources, paths."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from edgekit import lookup
from edgekit.errors import Problem, did_you_mean
from edgekit.stages import Stage
from edgekit.yaml_reader import Node, join

ORIGINAL = "original"
PATHS = (("data", "train"), ("data", "test"), ("model", "weights"))
_VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)\})", re.ASCII)
SCENARIO = re.compile(r"single-stream|offline|camera@[1-9][0-9]{0,3}")


@dataclass(frozen=True)
class Step:
    """One entry of `stages`: its settings in the file, and the stage they make, None where they are wrong."""

    kind: str
    name: str
    node: Node
    stage: Stage | None


def check(
    root: Node, steps: list[Step], folder: Path, *, reserved: Collection[str], allow_code: bool
) -> Iterator[Problem]:
    """Every mistake that is seen only by looking at several fields, or outside the file.

    reserved: names a step cannot have, because `--set` would take them for a part of the recipe.
    """
    yield from _names(steps, reserved)
    yield from _teachers(steps)
    yield from _order(steps)
    yield from _exports(root)
    yield from _boards(root)
    yield from _preprocess(root)
    yield from _split(root)
    yield from _sources(root, steps, folder, allow_code)


def expand_paths(root: Node) -> list[Problem]:
    """Puts environment variables into the paths of the data and the weights, in place."""
    problems = []
    for path in PATHS:
        node = root.get(*path)
        if node is None or not isinstance(node.value, str):
            continue
        field = ".".join(path)
        names = [first or second for first, second in _VARIABLE.findall(node.value)]
        unset = [name for name in dict.fromkeys(names) if not os.environ.get(name)]
        for name in unset:
            message = f"the environment variable {name} is not set; write `export {name}=...` in the shell"
            problems.append(Problem(*node.place, field, message))
        if "$" in _VARIABLE.sub("", node.value):
            problems.append(Problem(*node.place, field, "a `$` begins a variable: `$NAME` or `${NAME}`"))
        if node.value.startswith("~"):
            problems.append(Problem(*node.place, field, "`~` is not expanded; write `$HOME`"))
        if not unset:
            node.value = _VARIABLE.sub(lambda match: os.environ[match[1] or match[2]], node.value)
    return problems


def user_code(root: Node, steps: list[Step], folder: Path) -> list[Path]:
    """The files that `python:file.py:function` sources name, each once."""
    return list(dict.fromkeys(_real(folder, text.split(":")[1]) for _, _, text in _python(root, steps)))


def _names(steps: list[Step], reserved: Collection[str]) -> Iterator[Problem]:
    first: dict[str, Step] = {}
    for step in steps:
        place = (step.node.get("name") or step.node).key
        if step.name == ORIGINAL or step.name in reserved:
            meaning = "the model as loaded" if step.name == ORIGINAL else "a part of the recipe"
            yield Problem(*place, join(step.kind, "name"), f"'{step.name}' is {meaning}; choose another name")
        elif step.name in first:
            line = first[step.name].node.key.line
            message = f"two steps are called '{step.name}', the first on line {line}; give one another `name:`"
            yield Problem(*place, join(step.name, "name"), message)
        first.setdefault(step.name, step)


def _teachers(steps: list[Step]) -> Iterator[Problem]:
    names = [step.name for step in steps]
    for index, step in enumerate(steps):
        earlier = {ORIGINAL, *names[:index]}
        for field, node in _found(step.node, "teacher", step.name):
            name = node.value
            if not isinstance(name, str) or ":" in name or name in earlier:
                continue
            if name == step.name:
                message = "a step cannot be its own teacher; name an earlier step"
            elif name in names:
                line = steps[names.index(name)].node.key.line
                message = f"'{name}' comes later, on line {line}; a teacher is an earlier step"
            else:
                message = f"no earlier step is called '{name}'." + did_you_mean(name, earlier)
            yield Problem(*node.place, field, message)


def _order(steps: list[Step]) -> Iterator[Problem]:
    """Refuses orders that cannot work: what one step made would be broken or thrown away by a later one."""
    done: dict[str, int] = {}  # kind -> line of its first step
    for step in steps:
        line = done.get("quantize")
        if line is not None and step.kind in ("prune", "quantize"):
            again = "already; keep one of the two"
            late = "and cannot lose channels any more; move `prune` before `quantize`"
            message = f"the model is quantized on line {line} {again if step.kind == 'quantize' else late}"
            yield Problem(*step.node.key, step.name, message)
        student = step.node.get("student") if step.kind == "distill" else None
        made = [kind for kind in ("prune", "quantize") if kind in done]
        if student is not None and student.value is not None and made:
            what = "pruned" if made[0] == "prune" else "quantized"
            message = (
                f"a new student throws away the model that is {what} on line {done[made[0]]}; "
                f"move `distill` before `{made[0]}`"
            )
            yield Problem(*student.key, join(step.name, "student"), message)
        done.setdefault(step.kind, step.node.key.line)


def _exports(root: Node) -> Iterator[Problem]:
    known, runtimes = lookup.names("exporters"), lookup.names("runtimes")
    served: set[str] = set()
    entries = _entries(root.get("export"))
    for index, node in entries:
        name, field = str(node.value), join("export", index)
        if name not in known:
            yield Problem(*node.place, field, f"no exporter is called '{name}'." + did_you_mean(name, known))
            continue
        readers = set(lookup.find("exporters", name).runtimes) & set(runtimes)
        served |= readers
        if not readers:
            yield Problem(*node.place, field, f"no runtime of this edgekit reads {name} files; remove it")
    yield from _repeated("export", entries)
    goal = root.get("goal", "runtime")
    if goal is None or not isinstance(goal.value, str):
        return
    if goal.value not in runtimes:
        message = f"no runtime is called '{goal.value}'." + did_you_mean(goal.value, runtimes)
        yield Problem(*goal.place, "goal.runtime", message)
    elif entries and goal.value not in served and all(str(node.value) in known for _, node in entries):
        able = [name for name in known if goal.value in lookup.find("exporters", name).runtimes]
        remedy = f"add {' or '.join(able)} to `export`" if able else "choose another runtime"
        message = f"no export gives files for {goal.value}; {remedy}"
        yield Problem(*goal.place, "goal.runtime", message)


def _boards(root: Node) -> Iterator[Problem]:
    goal, devices = root.get("goal", "device"), root.get("profile", "devices")
    entries = _entries(devices)
    if goal is not None and entries and goal.value not in [node.value for _, node in entries]:
        message = f"the goal's device '{goal.value}' is missing; add it, or leave `devices` out"
        yield Problem(*entries[0][1].place, "profile.devices", message)
    scenarios = _entries(root.get("profile", "scenarios"))
    for index, node in scenarios:
        if isinstance(node.value, str) and not SCENARIO.fullmatch(node.value):
            near = did_you_mean(node.value, ["single-stream", "offline", "camera@30"])
            yield Problem(*node.place, join("profile.scenarios", index), f"unknown scenario '{node.value}'." + near)
    yield from _repeated("profile.devices", entries)
    yield from _repeated("profile.scenarios", scenarios)


def _preprocess(root: Node) -> Iterator[Problem]:
    node = root.get("data", "preprocess")
    if node is None:
        return
    mean, std = node.get("mean"), node.get("std")
    lengths = [len(each.value) for each in (mean, std) if each is not None and isinstance(each.value, list)]
    if std is not None and len(lengths) == 2 and lengths[0] != lengths[1]:
        message = f"of length {lengths[1]}, but mean is of length {lengths[0]}; write one number for each channel"
        yield Problem(*std.place, "data.preprocess.std", message)
    resize, to = node.get("resize"), node.get("resize_to")
    shorter = resize is not None and resize.value == "shorter"
    if to is not None and to.value is not None and not shorter:
        message = "has a meaning only with `resize: shorter`; add that, or remove it"
        yield Problem(*to.key, "data.preprocess.resize_to", message)
    if resize is not None and shorter and (to is None or to.value is None):
        message = "says no length; add `resize_to: 256`, the shorter side before the crop"
        yield Problem(*resize.place, "data.preprocess.resize", message)


def _split(root: Node) -> Iterator[Problem]:
    by = root.get("data", "split", "by")
    if by is not None and isinstance(by.value, str):
        try:
            re.compile(by.value)
        except (re.error, OverflowError, RecursionError) as error:
            yield Problem(*by.place, "data.split.by", f"not a regular expression: {error}")
    shares = [root.get("data", "split", key) for key in ("validation", "test")]
    given = [node.value for node in shares if node is not None and isinstance(node.value, float)]
    if len(given) == 2 and sum(given) >= 1 and shares[1] is not None:
        yield Problem(*shares[1].place, "data.split.test", "validation and test together leave nothing to train on")


def _sources(root: Node, steps: list[Step], folder: Path, allow_code: bool) -> Iterator[Problem]:
    named = [("model.source", root.get("model", "source"))]
    named += [(join(step.name, "student"), step.node.get("student")) for step in steps]
    for field, node in named:
        if node is not None and isinstance(node.value, str) and ":" not in node.value:
            yield Problem(*node.place, field, f"'{node.value}' is no source; write `python:file.py:function`")
    for field, node, text in _python(root, steps):
        _, file, function = [*text.split(":"), "", ""][:3]
        if text.count(":") != 2 or not file.endswith(".py") or not function.isidentifier():
            yield Problem(*node.place, field, "write `python:file.py:function`")
            continue
        path = _real(folder, file)
        if not path.is_relative_to(folder) and not allow_code:
            message = f"{file} lies outside the recipe's folder; move it there, or give --allow-code"
            yield Problem(*node.place, field, message)
        elif not os.path.isfile(path):  # not Path.is_file, which raises on a name that is too long
            yield Problem(*node.place, field, f"no file {file} in the recipe's folder")


def _real(folder: Path, file: str) -> Path:
    """The file itself, links followed (os.path: a loop of links raises nothing)."""
    return Path(os.path.realpath(folder / file))


def _python(root: Node, steps: list[Step]) -> Iterator[tuple[str, Node, str]]:
    """Every `python:` source: its field, its node, its text."""
    parts = [(key, node) for key in ("model", "data") if (node := root.get(key)) is not None]
    for field, node in [*parts, *((step.name, step.node) for step in steps)]:
        for path, below in _leaves(node, field):
            if isinstance(below.value, str) and below.value.startswith("python:"):
                yield path, below, below.value


def _leaves(node: Node, field: str) -> Iterator[tuple[str, Node]]:
    if isinstance(node.value, dict | list):
        for key, below in _below(node):
            yield from _leaves(below, join(field, key))
    else:
        yield field, node


def _found(node: Node, key: str, field: str) -> Iterator[tuple[str, Node]]:
    """Every value called `key` below a node, the entries of a list one by one."""
    for name, below in _below(node):
        path = join(field, name)
        if name == key:
            yield from [(join(path, i), entry) for i, entry in _entries(below)] or [(path, below)]
        yield from _found(below, key, path)


def _below(node: Node) -> list[tuple[int | str, Node]]:
    if isinstance(node.value, dict):
        return list(node.value.items())
    return [(index, entry) for index, entry in _entries(node)]


def _entries(node: Node | None) -> list[tuple[int, Node]]:
    return list(enumerate(node.value)) if node is not None and isinstance(node.value, list) else []


def _repeated(field: str, entries: list[tuple[int, Node]]) -> Iterator[Problem]:
    seen: list[object] = []
    for index, node in entries:
        if node.value in seen:
            yield Problem(*node.place, join(field, index), f"'{node.value}' is named twice")
        seen.append(node.value)
