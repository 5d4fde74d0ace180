"""What this machine is, read from the system: nothing is imported, nothing is asked of a runtime."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any

# The instruction sets that decide how fast a precision is, as Linux spells them; asimddp is what Arm calls dotprod.
INSTRUCTION_SETS = (
    "avx2",
    "avx512f",
    "avx512_vnni",
    "avx_vnni",
    "amx_int8",
    "avx512_bf16",
    "amx_bf16",
    "asimddp",
    "i8mm",
)
RUNTIME_PACKAGES = {
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino"),
    "openvino": ("openvino",),
    "tensorrt": ("tensorrt", "tensorrt-cu12", "tensorrt-cu13"),
}


def detect() -> dict[str, Any]:
    """What this machine is: processor, its instruction sets, cores, memory, runtimes found with their versions.

    Read from the system without importing a runtime; what cannot be read is None.
    """
    cpuinfo = _cpuinfo()
    return {
        "cpu": cpuinfo.get("model name") or platform.processor() or None,
        "arch": platform.machine(),
        "instruction_sets": [flag for flag in INSTRUCTION_SETS if flag in cpuinfo.get("flags", "").split()],
        "cores": len(os.sched_getaffinity(0)),  # what this process may use, not what the machine has
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "runtimes": {name: version for name in RUNTIME_PACKAGES if (version := _version(name))},
        "os": platform.platform(),
    }


def _cpuinfo() -> dict[str, str]:
    """The first processor of /proc/cpuinfo, Arm's `Features` under `flags`; empty where there is no such file."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return {}
    pairs = (line.partition(":") for line in text.split("\n\n")[0].splitlines())
    facts = {key.strip(): value.strip() for key, _, value in pairs}
    return {**facts, "flags": facts.get("flags") or facts.get("Features", "")}


def _version(runtime: str) -> str | None:
    for package in RUNTIME_PACKAGES[runtime]:
        try:
            return importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None
