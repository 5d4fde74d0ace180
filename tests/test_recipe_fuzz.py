"""Recipes nobody would write: generated from the schema, or spoilt at random. Each is read, or refused with a place."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgekit.errors import EdgekitError, RecipeError
from edgekit.recipe import load_recipe, schema

HERE = Path(__file__).parent / "recipes"
GOOD = (HERE / "good.yaml").read_text()

# What the schema leaves open, and a recipe does not: names, sources, the only runtime.
KNOWN: dict[str, st.SearchStrategy[Any]] = {
    "source": st.just("python:networks.py:f"),
    "student": st.sampled_from([None, "python:networks.py:f", "teacher"]),
    "teacher": st.sampled_from([None, "original", "python:networks.py:f", "first", ["original", "finetune"]]),
    "device": st.just("x86-cpu"),
    "devices": st.sampled_from([None, ["x86-cpu"], ["x86-cpu", "my-orin"], ["my-orin"]]),
    "runtime": st.just("onnxruntime"),
    "name": st.sampled_from([None, "first", "second", "original"]),
    "by": st.sampled_from([None, r"(?P<group>\d+)_", "("]),
    "extends": st.none(),
    "preprocess": st.sampled_from([None, {"size": [8, 8], "mean": [0.5], "std": [0.5]}]),
    "train": st.sampled_from([None, "images", "$EDGEKIT_NOT_SET/images"]),
    "test": st.none(),
    "weights": st.none(),
    "scenarios": st.sampled_from([["single-stream"], ["offline", "camera@30"], ["camera"]]),
}
ONE_OF_FOUR = ("speedup", "macs", "params", "ratio")


def values(part: dict[str, Any], shared: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Values that a part of the JSON Schema allows."""
    if "$ref" in part:
        return values(shared[part["$ref"].rpartition("/")[2]], shared)
    for key in ("anyOf", "oneOf"):
        if key in part:
            return st.one_of([values(branch, shared) for branch in part[key]])
    if "enum" in part or "const" in part:
        return st.sampled_from(part.get("enum") or [part["const"]])
    low = part.get("minimum", part.get("exclusiveMinimum"))
    high = part.get("maximum", part.get("exclusiveMaximum"))
    simple = {
        "null": st.none(),
        "boolean": st.booleans(),
        "string": st.text(max_size=8),
        "integer": st.integers(low, min(high or 10**6, 10**6)),
        "number": st.floats(low, high, exclude_min="exclusiveMinimum" in part, exclude_max="exclusiveMaximum" in part),
    }
    if part["type"] in simple:
        return simple[part["type"]]
    if part["type"] == "array":
        return st.lists(values(part["items"], shared), min_size=part.get("minItems", 0), max_size=4)
    return records(part, shared)


def records(part: dict[str, Any], shared: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    if "properties" not in part:  # any key, one kind of value
        named = values(part["additionalProperties"], shared)
        return st.dictionaries(st.text(min_size=1, max_size=8), named, max_size=3)
    fields = {key: KNOWN[key] if key in KNOWN else values(field, shared) for key, field in part["properties"].items()}
    needed = {key: fields.pop(key) for key in part.get("required", [])}
    if not set(ONE_OF_FOUR) <= set(fields):
        return st.fixed_dictionaries(needed, optional=fields)
    asked = {key: fields.pop(key) for key in ONE_OF_FOUR}
    return st.sampled_from(ONE_OF_FOUR).flatmap(
        lambda key: st.fixed_dictionaries({**needed, key: asked[key]}, optional=fields)
    )


def generated() -> st.SearchStrategy[dict[str, Any]]:
    """Recipes from the schema; in some, a key at the top is misspelt or its value is of another kind."""
    whole = schema()
    right = records(whole, whole["$defs"])
    wrong: st.SearchStrategy[Any] = st.sampled_from([None, "x", 3, -1.5, [], {}, True])
    return st.one_of(right, st.tuples(right, wrong, st.randoms()).map(lambda drawn: spoilt(*drawn)))


def spoilt(recipe: dict[str, Any], wrong: Any, random: Random) -> dict[str, Any]:
    key = random.choice(sorted(recipe))
    return {**{k: v for k, v in recipe.items() if k != key}, random.choice([key, key + "s"]): wrong}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copy(HERE / "networks.py", tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def told(text: str) -> tuple[dict[str, Any], list[str]]:
    """The resolved recipe, or what is wrong with it."""
    Path("recipe.yaml").write_text(text, encoding="utf-8")
    try:
        return load_recipe(Path("recipe.yaml")).resolved(), []
    except RecipeError as error:
        return {}, str(error).splitlines()


def check_generated(examples: int) -> None:
    outcomes: Counter[str] = Counter()

    @settings(max_examples=examples, deadline=None, suppress_health_check=[HealthCheck.too_slow], database=None)
    @given(generated(), st.sampled_from([None, 1]))
    def accepted_or_refused_with_a_place(data: dict[str, Any], indent: int | None) -> None:
        resolved, lines = told(json.dumps(data, ensure_ascii=False, indent=indent))
        outcomes["accepted" if resolved else "refused"] += 1
        assert all(re.match(r"recipe\.yaml:[1-9]\d*:[1-9]\d*[ :]", line) for line in lines)
        assert not resolved or told(json.dumps(resolved, ensure_ascii=False)) == (resolved, [])

    accepted_or_refused_with_a_place()
    assert min(outcomes["accepted"], outcomes["refused"]) > examples // 50


def test_a_recipe_from_the_schema_is_accepted_or_refused_with_a_place(folder: Path) -> None:
    check_generated(100)


@pytest.mark.slow
def test_two_thousand_recipes_from_the_schema_are_accepted_or_refused_with_a_place(folder: Path) -> None:
    check_generated(2000)


SNIPPETS = ["&a ", "*a", "!!x ", "<<: ", "...", "\n---\n", ": ", "- ", "\n", "\t", "0x", "1e999", "python:", "null"]
SNIPPETS += ["\\U00110000", "\\ud800", "\x00", "\ufeff", "\u2028", "\ud800", "extends: recipe.yaml\n"]
SNIPPETS += "{}[]:'\"|>#%?=$~,"
edits = st.lists(st.tuples(st.integers(0, len(GOOD)), st.sampled_from(SNIPPETS) | st.text(max_size=5)), max_size=4)
fuzzing = settings(deadline=5000, suppress_health_check=[HealthCheck.function_scoped_fixture], database=None)


@settings(fuzzing, max_examples=300)
@given(edits, st.sampled_from([GOOD, ""]))
def test_no_text_brings_the_reader_down(folder: Path, edits: list[tuple[int, str]], text: str) -> None:
    for at, piece in edits:
        text = text[:at] + piece + text[at:]
    Path("recipe.yaml").write_bytes(text.encode("utf-8", "surrogatepass"))
    with contextlib.suppress(EdgekitError):
        load_recipe(Path("recipe.yaml"))


@settings(fuzzing, max_examples=200)
@given(st.binary(max_size=200))
def test_no_bytes_bring_the_reader_down(folder: Path, raw: bytes) -> None:
    Path("recipe.yaml").write_bytes(raw)
    with pytest.raises(RecipeError, match=r"recipe\.yaml"):
        load_recipe(Path("recipe.yaml"))


@settings(fuzzing, max_examples=200)
@given(st.text(max_size=30) | st.sampled_from(["goal", "prune", "seed"]), st.text(max_size=30))
def test_no_override_brings_the_reader_down(folder: Path, path: str, value: str) -> None:
    Path("recipe.yaml").write_text(GOOD)
    with contextlib.suppress(RecipeError):
        load_recipe(Path("recipe.yaml"), overrides=[f"{path}={value}", f"{path}.{value}"])
