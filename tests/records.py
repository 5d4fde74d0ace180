"""Rows and finals with round numbers, for the tests of ledger, verdict, report and compare."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.artifact import Artifact, Candidate
from edgekit.ledger import Final, Ledger, Row
from edgekit.profile import Accuracy, Profile
from edgekit.statistics import Percentile

ROUNDS = (1.0, 1.01, 0.99, 1.02, 0.98)  # a board that wavers by 2 %


def accuracy(value: float, n: int = 1000) -> Accuracy:
    return Accuracy(value, n, (value - 0.008, value + 0.008))


def row(step: str, kind: str, share: float = 0.98, **changes: Any) -> Row:
    made = Row(
        step=step,
        kind=kind,
        accuracy=accuracy(share),
        parameters=100_000,
        macs=2_000_000,
        bytes=400_000,
        p50_ms=1.0,
        p99=Percentile(99, 1.2, 700, 662, 1.3),
        n=700,
        cached=False,
        seconds=12.5,
    )
    return replace(made, **changes)


def final(name: str, p50_ms: float = 1.0, **changes: Any) -> Final:
    """name: `step precision runtime`. Rounds waver around p50_ms by ROUNDS, p99 is 1.2 times p50_ms."""
    step, precision, runtime = name.split()
    made = Final(
        name=name,
        step=step,
        runtime=runtime,
        precision=precision,
        board="x86-cpu",
        file=f"{step}.onnx",
        sha256="ab" * 32,
        bytes=100_000,
        parameters=25_000,
        macs=1_000_000,
        accuracy=accuracy(0.975),
        accuracy_drop=0.5,
        p50=Percentile(50, p50_ms, 5000, 11, p50_ms * 1.01),
        p99=Percentile(99, p50_ms * 1.2, 5000, 662, p50_ms * 1.3),
        rounds_p50_ms=tuple(p50_ms * share for share in ROUNDS),
        speedup=None,
        speedup_over_float=None,
        float_reference=None,
    )
    return replace(made, **changes)


def profile(label: str, precision: str, p50_ms: float, *, share: float = 0.98, size: int = 100_000) -> Profile:
    """Five rounds of 200 equal samples each."""
    artifact = Artifact(Path(f"{label}.onnx"), "onnx", "cd" * 32, size, (), (), precision)
    rounds = tuple(np.full(200, p50_ms) for _ in range(5))
    candidate = Candidate(label, artifact, "onnxruntime")
    return Profile(candidate, "x86-cpu", {"cpu": "test"}, {}, rounds, accuracy=accuracy(share))


def ledger() -> Ledger:
    """Teacher, student, pruned student and its int8 file: 8 times smaller and 8 times faster than the teacher."""
    made = Ledger()
    made.add(row("teacher", "finetune", 0.98, parameters=100_000, macs=8_000_000, bytes=400_000))
    made.add(row("distill", "distill", 0.975, parameters=40_000, macs=2_000_000, bytes=160_000, p50_ms=0.5))
    made.add(row("prune", "prune", 0.97, parameters=25_000, macs=1_000_000, bytes=100_000, p50_ms=0.25))
    made.add(row("quantize", "quantize", 0.965, parameters=25_000, macs=1_000_000, bytes=50_000, p50_ms=0.125))
    made.add_finals(
        [
            profile("teacher", "float32", 1.0, share=0.98, size=400_000),
            profile("distill", "float32", 0.5, share=0.975, size=160_000),
            profile("prune", "float32", 0.25, share=0.97, size=100_000),
            profile("quantize", "int8", 0.125, share=0.965, size=50_000),
        ]
    )
    return made
