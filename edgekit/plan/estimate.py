"""What a run will cost, from its rehearsal. Rough on purpose: within a factor of two or so.

time    of a stage: epochs * (training images + validation images / 3) * seconds an image, and what the rehearsed stage
        took besides; seconds an image: forward and backward of the network as it leaves the stage and a forward pass of
        each teacher, or reading the image where that takes longer
        of a file at the end: the seconds asked for, a warm-up as long at most, an inference of every test image
memory  the rehearsal's own peak, and for the largest training: weights, gradients, optimizer, average (4 or 5 times the
        weights), and what one image leaves for the backward pass * batch
disk    weights and files of the rehearsal, which are as large as the real ones; 20 bytes a sample; the bundle
"""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgekit.settings import Settings

if TYPE_CHECKING:
    from torch import Tensor, nn

    from edgekit.data import Data
    from edgekit.job import Job
    from edgekit.model import Model
    from edgekit.recipe import Recipe
    from edgekit.stages import Stage

BRIEF_S = 3.0  # bench process, warm-up and load of a file that is measured on its way
FORWARD = 1 / 3  # of a training step: the backward pass takes twice the forward pass
SAMPLE_BYTES = 20


@dataclass(frozen=True)
class Estimate:
    """stage_s: seconds by step. profile_s: of the measuring at the end. memory_of: the step that needs the most."""

    stage_s: Mapping[str, float]
    profile_s: float
    memory_bytes: int
    memory_of: str | None
    disk_bytes: int

    @property
    def seconds(self) -> float:
        return sum(self.stage_s.values()) + self.profile_s


@dataclass(frozen=True)
class Probe:
    """One image in training: seconds of the network, seconds to read it, bytes kept for the backward pass."""

    train_s: float
    read_s: float
    kept_bytes: int


def estimate(recipe: Recipe, job: Job, data: Data, files: Mapping[str, tuple[str, ...]]) -> Estimate:
    """job: the finished rehearsal. data: all of it. files: names of the candidates by board."""
    probes = {step.name: _probe(step.model, job.data) for step in job.steps}
    p50_s = {row.step: (row.p50_ms or 0.0) / 1e3 for row in job.ledger.rows}
    steps = {step.name: step for step in job.steps}
    before = dict(zip([stage.step for stage in recipe.stages], steps, strict=False))
    stage_s, memory = {}, {}
    for stage in recipe.stages:
        image_s = _image_s(stage, probes, before[stage.step])
        images = len(data.train) + FORWARD * len(data.validation)
        epochs = sum(epochs for epochs, _ in _trainings(stage))
        briefly_s = BRIEF_S + len(data.test) * p50_s[stage.step]
        stage_s[stage.step] = steps[stage.step].seconds + epochs * images * image_s + briefly_s
        memory[stage.step] = _training_bytes(stage, steps[stage.step].model, probes[stage.step])
    largest = max(memory, key=lambda name: memory[name], default=None)
    loads = sum(map(len, files.values())) * len(recipe.profile.scenarios)
    seconds, fastest_s = recipe.profile.seconds, min(filter(None, p50_s.values()), default=1.0)
    return Estimate(
        stage_s=stage_s,
        profile_s=loads * (2 * seconds + len(data.test) * max(p50_s.values(), default=0.0)),
        memory_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 + (memory[largest] if largest else 0),
        memory_of=largest,
        disk_bytes=int(_size(job) + loads * seconds / fastest_s * SAMPLE_BYTES),
    )


def _image_s(stage: Stage, probes: Mapping[str, Probe], before: str) -> float:
    """Seconds that one image takes in the stage's training. A teacher that is no step of the recipe is not counted."""
    named = list(_teachers(dict(stage)))
    teachers = named or ([before] if stage.kind == "distill" else [])
    taught = sum(FORWARD * probes[name].train_s for name in teachers if name in probes)
    return max(probes[stage.step].train_s + taught, probes[stage.step].read_s)


def _teachers(fields: Mapping[str, Any]) -> Iterator[str]:
    for key, value in fields.items():
        if key == "teacher" and value is not None:
            yield from [value] if isinstance(value, str) else value
        elif isinstance(value, Settings):
            yield from _teachers(dict(value))


def _trainings(settings: Settings) -> Iterator[tuple[int, int]]:
    """(epochs, batch) of every training that a stage's settings ask for."""
    fields = dict(settings)
    epochs = fields.get("epochs", fields.get("qat_epochs"))
    if epochs:
        yield epochs, fields["batch"]
    for value in fields.values():
        if isinstance(value, Settings):
            yield from _trainings(value)


def _training_bytes(stage: Stage, model: Model, probe: Probe) -> int:
    """Weights, gradients, momentum (twice for adamw), the average, and the activations of a batch."""
    batches = [batch for _, batch in _trainings(stage)]
    if not batches:
        return 0
    copies = 4 + (getattr(stage, "optimizer", "sgd") == "adamw")
    return copies * 4 * model.parameters + max(batches) * probe.kept_bytes


def _probe(model: Model, data: Data) -> Probe:
    """Steps on the same few images: the first counts what autograd saves, the fastest of the others is the time."""
    from edgekit.data import batches

    started = time.perf_counter()
    images, _ = next(batches(data.train, len(data.train), preprocess=data.preprocess))
    read_s = time.perf_counter() - started
    net = model.copy().net.train()
    kept_bytes = _kept_bytes(net, images)
    times = []
    for _ in range(3):
        started = time.perf_counter()
        net(images).sum().backward()
        times.append(time.perf_counter() - started)
    return Probe(min(times) / len(images), read_s / len(images), kept_bytes // len(images))


def _kept_bytes(net: nn.Module, images: Tensor) -> int:
    """What a forward pass leaves for the backward pass, besides the weights; every storage once."""
    from torch.autograd.graph import saved_tensors_hooks

    own = {parameter.untyped_storage().data_ptr() for parameter in net.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        net(images).sum().backward()
    return sum(kept.values())


def _size(job: Job) -> int:
    files = [path for path in job.run.folder.rglob("*") if path.is_file()]
    return sum(path.stat().st_size for path in files) + max(one.bytes for one in job.artifacts.values())
