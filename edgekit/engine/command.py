"""trtexec command lines, for boards without TensorRT's Python package. Argument lists, never a shell.

Every default that changed between versions is said: 11 leaves out the copies, replays a CUDA graph and spins unless
told otherwise, 8 to 10 do the opposite. Here: copies included, no CUDA graph, no spinning.
"""

from __future__ import annotations

from pathlib import Path
from typing import List, Tuple

from edgekit.engine.build import OPTIMIZATION_LEVEL
from edgekit.errors import UsageError

OLDEST = (8, 5)


def build_command(version: str, onnx: Path, engine: Path, *, workspace_mib: int, cache: Path, int8: bool) -> List[str]:
    """Builds an engine and measures nothing. int8: whether the file holds quantizers.

    Raises:
        UsageError: edgekit knows no such version.
    """
    number = _parse(version)
    command = [
        "trtexec",
        f"--onnx={onnx}",
        f"--saveEngine={engine}",
        f"--timingCacheFile={cache}",
        f"--memPoolSize=workspace:{workspace_mib}",
        "--profilingVerbosity=detailed",
        "--skipInference" if number >= (8, 6) else "--buildOnly",
    ]
    if number >= (8, 6):
        command.append(f"--builderOptimizationLevel={OPTIMIZATION_LEVEL}")
    if number < (10,):  # later ones take precision from the file
        command += ["--fp16", "--int8"] if int8 else ["--fp16"]
    elif number < (11,):
        command.append("--stronglyTyped")  # 11 knows nothing else
    return command


def measure_command(version: str, engine: Path, folder: Path, *, seconds: int, warmup_ms: int) -> List[str]:
    """Measures an engine; times, profile and layer information go into `folder`.

    Raises:
        UsageError: edgekit knows no such version.
    """
    number = _parse(version)
    command = [
        "trtexec",
        f"--loadEngine={engine}",
        f"--warmUp={warmup_ms}",
        f"--duration={seconds}",
        "--iterations=10",
        "--avgRuns=10",
        "--infStreams=1",
        "--percentile=90,95,99",
        "--separateProfileRun",
        f"--exportTimes={folder / 'times.json'}",
        f"--exportProfile={folder / 'profile.json'}",
        f"--exportLayerInfo={folder / 'layers.json'}",
    ]
    if number >= (11,):
        command += ["--includeDataTransfers", "--noCudaGraph", "--noSpinWait"]
    return command


def _parse(version: str) -> Tuple[int, ...]:
    parts = version.split(".")
    if not all(part.isdigit() for part in parts) or len(parts) < 2:
        raise UsageError(f"'{version}' is no version of TensorRT", next="write it as 10.3 or 10.3.0.30")
    number = tuple(int(part) for part in parts)
    if number < OLDEST:
        raise UsageError(f"TensorRT {version} is older than edgekit knows", next="8.5 or later")
    return number
