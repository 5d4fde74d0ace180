"""trtexec command lines, word for word."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

import edgekit.engine
from edgekit.engine.command import build_command, measure_command
from edgekit.errors import UsageError

BUILD = (
    "trtexec --onnx=model.onnx --saveEngine=model.engine --timingCacheFile=t.cache --memPoolSize=workspace:1024 "
    "--profilingVerbosity=detailed --skipInference --builderOptimizationLevel=3"
)
MEASURE = (
    "trtexec --loadEngine=model.engine --warmUp=500 --duration=10 --iterations=10 --avgRuns=10 --infStreams=1 "
    "--percentile=90,95,99 --separateProfileRun "
    "--exportTimes=out/times.json --exportProfile=out/profile.json --exportLayerInfo=out/layers.json"
)


def build(version: str, int8: bool = True) -> str:
    files = Path("model.onnx"), Path("model.engine")
    return " ".join(build_command(version, *files, workspace_mib=1024, cache=Path("t.cache"), int8=int8))


@pytest.mark.parametrize(
    ("version", "extra"),
    [
        ("8.6.1", " --fp16 --int8"),
        ("10.3.0.30", " --stronglyTyped"),
        ("10.16.2.10", " --stronglyTyped"),
        ("11.4.1", ""),
    ],
)
def test_an_engine_is_built_with_every_choice_said(version: str, extra: str) -> None:
    assert build(version) == BUILD + extra


def test_a_float_model_asks_8_6_for_no_int8() -> None:
    assert build("8.6.1", int8=False) == BUILD + " --fp16"


def test_8_5_has_another_word_for_building_only() -> None:
    assert build("8.5.2") == BUILD.replace("--skipInference --builderOptimizationLevel=3", "--buildOnly --fp16 --int8")


@pytest.mark.parametrize(
    ("version", "extra"),
    [
        ("8.6.1", ""),
        ("10.3.0.30", ""),
        ("10.16.2.10", ""),
        ("11.4.1", " --includeDataTransfers --noCudaGraph --noSpinWait"),
    ],
)
def test_an_engine_is_measured_the_same_way_although_11_flipped_its_defaults(version: str, extra: str) -> None:
    command = measure_command(version, Path("model.engine"), Path("out"), seconds=10, warmup_ms=500)
    assert " ".join(command) == MEASURE + extra


@pytest.mark.parametrize("version", ["8.2.1", "8", "new", "10.x"])
def test_a_version_that_edgekit_does_not_know_is_refused(version: str) -> None:
    with pytest.raises(UsageError):
        build(version)


def test_what_travels_to_a_board_parses_as_python_3_8_and_imports_no_other_package() -> None:
    allowed = {"numpy", "edgekit", "__future__", *sys.stdlib_module_names}
    folder = Path(edgekit.engine.__path__[0])
    files = [*folder.glob("*.py"), *(folder.parent / "runtimes").glob("tensorrt*.py")]
    assert len(files) == 8
    for path in files:
        tree = ast.parse(path.read_text(), feature_version=(3, 8))
        nodes = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
        roots = {
            name.split(".")[0]
            for node in nodes
            for name in ([node.module or ""] if isinstance(node, ast.ImportFrom) else [one.name for one in node.names])
        }
        assert roots <= allowed, path
