"""Lint: where a fusion will break or int8 falls back to float, read from the ONNX graph, without a GPU.

One file per family of rules: numbers (zero points, scales, types), placement (where Q/DQ stand), structure (operators,
opsets, weights). layers.py reads what TensorRT says it built. Where the numbers come from: docs/tensorrt.md.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgekit.errors import UsageError, did_you_mean
from edgekit.lint import numbers, placement, structure
from edgekit.lint.graph import label, read
from edgekit.lint.rule import NEWEST, Rule, Severity, parse_version

RULES: dict[str, Rule] = {**numbers.RULES, **placement.RULES, **structure.RULES}
RUNTIMES = ("tensorrt", "onnxruntime", "openvino")


@dataclass(frozen=True)
class Finding:
    """One place where a rule is broken. node: its name, None for the whole file."""

    rule: str
    severity: Severity
    node: str | None
    what: str
    cost: str
    remedy: str

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        place = f"{self.node}: " if self.node else ""
        return f"{self.severity} {self.rule}: {place}{self.what}\n  cost: {self.cost}\n  next: {self.remedy}"


def lint(source: str | Path | Any, runtime: str, version: str | None = None) -> list[Finding]:
    """What a runtime will not fuse, not execute in int8, or not take; errors first.

    source: an ONNX file or a ModelProto. runtime: `tensorrt` (tensorrt_rtx too), `onnxruntime` or `openvino`.
    version: of the runtime (`10.3`); None is the newest.

    Raises:
        UsageError: no such runtime, or the version is none.
        InputError: the file is no ONNX model.
    """
    if runtime == "tensorrt_rtx":
        runtime, version = "tensorrt", "11"  # TensorRT-RTX is strongly typed, as TensorRT is from 11 on
    if runtime not in RUNTIMES:
        raise UsageError(f"lint: no rules for '{runtime}'." + did_you_mean(runtime, RUNTIMES))
    wanted = NEWEST if version is None else parse_version(version)
    graph = read(source)
    findings = [
        Finding(name, rule.severity, None if node is None else label(node), what, rule.cost, rule.remedy)
        for name, rule in RULES.items()
        if rule.holds(runtime, wanted)
        for node, what in rule.check(graph)
    ]
    return sorted(findings, key=lambda finding: finding.severity)
