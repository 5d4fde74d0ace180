"""Recipes that Hypothesis writes for a tiny network: each is rehearsed to its end or refused by an error of ours."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from edgekit.errors import GateError, RecipeError
from edgekit.plan import plan
from edgekit.progress import silent
from edgekit.recipe import load_recipe
from tests.tiny import NETS, RECIPE

HEAD, TAIL = RECIPE.partition("stages:")[0], "export: [onnx]\nprofile: {seconds: 0.5}\n"
TRAINING = {
    "epochs": st.integers(1, 50),
    "batch": st.sampled_from([1, 16, 64, 100_000]),
    "optimizer": st.sampled_from(["sgd", "adamw"]),
    "schedule": st.sampled_from(["cosine", "one-cycle", "step", "constant"]),
    "lr": st.floats(1e-4, 0.1),
    "precision": st.sampled_from(["auto", "float32", "bfloat16"]),
    "smoothing": st.floats(0, 0.2),
    "augment": st.fixed_dictionaries({}, optional={"shift": st.floats(0, 0.2), "mixup": st.floats(0, 0.4)}),
}


def stage(kind: str, required: dict[str, Any], **optional: Any) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({kind: st.fixed_dictionaries(required, optional=optional)})


def training(kind: str, **more: Any) -> st.SearchStrategy[dict[str, Any]]:
    rest = {key: value for key, value in TRAINING.items() if key != "epochs"}
    return stage(kind, {"epochs": TRAINING["epochs"]}, **rest, **more)


REQUEST = st.sampled_from([("ratio", 0.3), ("ratio", 0.7), ("macs", 0.5), ("macs", 0.8), ("params", 0.5)])
PRUNE = REQUEST.flatmap(
    lambda asked: stage(
        "prune",
        {asked[0]: st.just(asked[1])},
        score=st.sampled_from(["l1", "l2", "taylor", "bn_scale", "geometric_median", "random"]),
        align=st.sampled_from([1, 4]),
    )
)
STAGES = st.tuples(
    st.none() | training("finetune"),
    st.none() | training("distill", loss=st.sampled_from(["kd", "kd_standardized", "dkd"]), alpha=st.floats(0, 1)),
    st.none() | PRUNE,
    st.none() | stage("quantize", {}, qat_epochs=st.integers(0, 3), images=st.integers(1, 600)),
).map(lambda found: [one for one in found if one is not None])


@pytest.mark.slow
@pytest.mark.timeout(1200)
@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(stages=STAGES)
def test_a_generated_recipe_is_rehearsed_or_refused(
    tmp_path_factory: pytest.TempPathFactory, stages: list[Any]
) -> None:
    folder: Path = tmp_path_factory.mktemp("generated")
    (folder / "nets.py").write_text(NETS)
    path = folder / "recipe.yaml"
    path.write_text(f"{HEAD}stages: {json.dumps(stages)}\n{TAIL}")
    try:
        planned = plan(load_recipe(path), runs=folder / "runs", progress=silent())
    except (GateError, RecipeError) as error:  # a cut that cannot be made; anything else is a bug
        event(f"refused: {error.what}")  # `pytest --hypothesis-show-statistics` tells how many
        return
    kinds = [step.kind for step in planned.steps]
    assert [kind for kind in kinds if kind != "original"] == [next(iter(one)) for one in stages]
    assert not (folder / "runs").exists()
