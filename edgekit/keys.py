"""Step keys: everything that could change a step's result, by name, so that two of them can be compared in words."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit.artifact import sha256_of

if TYPE_CHECKING:
    from edgekit.recipe import Recipe
    from edgekit.stages import Stage

# What of edgekit's own code can change what a stage gives, besides the stage's file.
CODE = [
    "adds",
    "channels/*",
    "data/*",
    "evaluate",
    "losses",
    "model/*",
    "preprocess",
    "quantizers",
    "sensitivity",
    "settings",
    "teacher",
    "training/*",
    "user_code",
]
LIBRARIES = ("torch", "nncf", "torch-pruning", "numpy")


@dataclass(frozen=True)
class Key:
    """parts: JSON values by name. `original` holds those of the model as loaded, `before` the digest one step back."""

    parts: Mapping[str, Any]

    @property
    def digest(self) -> str:
        """sha256 of the parts, 64 hex digits: the name of the step's folder."""
        return hashlib.sha256(json.dumps(self.parts, sort_keys=True).encode()).hexdigest()


def origin_key(recipe: Recipe, fingerprint: str) -> Key:
    """The key of the model as loaded: source, weights, data, seed, libraries."""
    from edgekit.model import source_hash

    weights = recipe.model.weights
    original = {
        "model": recipe.model.model_dump(mode="json"),
        "source": source_hash(recipe.model.source, recipe.folder),
        "weights": sha256_of(recipe.folder / weights) if weights else None,
        "data": fingerprint,
        "seed": recipe.seed,
        "code": _code_hash(*CODE),
        "libraries": _versions(),
    }
    return Key({"original": original})


def step_key(stage: Stage, recipe: Recipe, before: Key) -> Key:
    """The key of a step that follows the one of key `before`."""
    settings = stage.model_dump(mode="json", exclude={"name"})
    goal = {"device": recipe.goal.device, "runtime": recipe.goal.runtime}
    return Key(
        {
            "original": before.parts["original"],
            "before": before.digest,
            "stage": stage.kind,
            "settings": settings,
            "sources": _sources(settings, recipe.folder),
            "goal": goal if stage.uses_goal else None,
            "goal.accuracy_drop": recipe.goal.accuracy_drop if stage.uses_budget else None,
            "code": _code_hash(f"stages/{stage.kind}"),
        }
    )


def changes(old: Mapping[str, Any], new: Mapping[str, Any], step: str) -> list[str]:
    """What differs between the parts of two keys, in words: `prune.speedup changed 1.5 -> 2.0`."""
    said = []
    before, after = dict(_flat(old)), dict(_flat(json.loads(json.dumps(new))))
    for name in sorted(before.keys() | after.keys()):
        was, now = before.get(name), after.get(name)
        if was != now and name != "before":
            said.append(_in_words(name, was, now, step))
    if not said and old.get("before") != new.get("before"):
        return ["the step before it changed"]
    return list(dict.fromkeys(said))


def _in_words(name: str, was: Any, now: Any, step: str) -> str:
    top, _, rest = name.partition(".")
    if top == "original":
        top, _, rest = rest.partition(".")
        plain = {"source": "the file of model.source", "weights": "the weights file", "data": "the data"}
        if top in plain or top == "code":
            return f"{plain.get(top, 'the code of edgekit')} changed"
        return f"{rest if top == 'libraries' else '.'.join(filter(None, (top, rest)))} changed {_text(was, now)}"
    if top == "sources":
        return "a Python file that it names changed"
    if top == "code":
        return "the code of this stage in edgekit changed"
    return f"{f'{step}.{rest}' if top == 'settings' else name} changed {_text(was, now)}"


def _text(was: Any, now: Any) -> str:
    return f"{json.dumps(was)} -> {json.dumps(now)}"


def _flat(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Leaves of nested mappings by dotted path."""
    if not isinstance(value, Mapping):
        yield path, value
        return
    for key, below in value.items():
        yield from _flat(below, f"{path}.{key}" if path else str(key))


def _sources(settings: Any, folder: Path) -> list[str]:
    """Hashes of all user files that a stage's settings name."""
    from edgekit.model import source_hash

    if isinstance(settings, str):
        return [source_hash(settings, folder)] if ":" in settings else []
    inner = settings.values() if isinstance(settings, dict) else settings if isinstance(settings, list) else []
    return [found for value in inner for found in _sources(value, folder)]


@cache
def _code_hash(*modules: str) -> str:
    package = Path(__file__).parent
    files = [path for name in modules for path in sorted(package.glob(f"{name}.py"))]
    return hashlib.sha256("".join(map(sha256_of, files)).encode()).hexdigest()


@cache
def _versions() -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in LIBRARIES}
