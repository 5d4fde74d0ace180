"""A recipe that runs through in seconds: digits, a small network, one epoch of everything."""

from __future__ import annotations

from pathlib import Path

RECIPE = """\
version: 1
name: tiny
goal: {device: x86-cpu, runtime: onnxruntime, accuracy_drop: 100}
model: {source: "python:nets.py:build", classes: 10}
data:
  source: digits
  preprocess: {size: [8, 8], mean: [0.305], std: [0.376], colour: gray}
stages:
  - finetune: {name: teacher, epochs: 6, batch: 64, lr: 0.05, precision: float32}
  - distill: {name: student, student: "python:nets.py:build", epochs: 6, batch: 64, lr: 0.05, precision: float32}
  - prune: {ratio: 0.5, align: 4, recover: {epochs: 1, batch: 64, teacher: teacher, precision: float32}}
  - quantize: {qat: always, qat_epochs: 1, batch: 64, images: 64}
export: [onnx]
profile: {seconds: 0.5}
"""

NETS = """\
from tests.networks import Residual

def build(classes):
    return Residual(classes)
"""


def write_recipe(folder: Path, text: str = RECIPE) -> Path:
    """The recipe and its network in a folder; returns the recipe's path."""
    (folder / "nets.py").write_text(NETS)
    path = folder / "tiny.yaml"
    path.write_text(text)
    return path
