"""The gate between a network and its exported file: they must agree on real images, in the runtime that runs it.

check() judges what comes out. check_layers() holds every module's output against that of its nodes in the file, which
ONNX Runtime runs as it is written, without optimizations: a wrong weight or a lost quantizer that flips no class is
found too, and the layer is named.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekit.errors import GateError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from edgekit.data import Data

FLOAT_ERROR = 1e-3  # largest difference, relative to the largest output; sums in another order stay far below
INT8_FLIPS = 0.005  # share of the images: int8 kernels round some sums to the next step
LEAST_IMAGES, MOST_IMAGES = 8, 16  # for check_layers
PIXELS = 400_000  # of these images together: every layer's output of all of them is held in memory
DEPARTED = 0.2  # share of a channel's values beyond FLOAT_ERROR: sums in another order round far fewer to the next step


@dataclass(frozen=True)
class Agreement:
    """flips: images classified differently, of n. error: largest difference relative to the largest output."""

    flips: int
    n: int
    error: float


def agreement(network: np.ndarray, file: np.ndarray) -> Agreement:
    """How far a file's outputs are from its network's, both [n, classes]."""
    if network.shape != file.shape:
        raise GateError(f"the file gives outputs of shape {list(file.shape)}, its network {list(network.shape)}")
    flips = int((network.argmax(axis=1) != file.argmax(axis=1)).sum())
    return Agreement(flips, len(network), float(np.abs(network - file).max() / np.abs(network).max()))


def check(name: str, found: Agreement, *, quantized: bool) -> None:
    """Refuses a file that is not its network.

    quantized: int8, judged by how many images change their class; a float file by its outputs.

    Raises:
        GateError: says how far off the file is and what would be allowed.
    """
    allowed = math.ceil(INT8_FLIPS * found.n)
    same = found.flips <= allowed and math.isfinite(found.error) if quantized else found.error <= FLOAT_ERROR
    if same:
        return
    limit = f"{allowed} are allowed" if quantized else f"{FLOAT_ERROR:g} is allowed"
    raise GateError(
        f"{name}: the exported file is not its network",
        why=f"{found.flips} of {found.n} images are classified differently, the largest relative difference is "
        f"{found.error:.2g} ({limit})",
        next="export again; if it stays so, keep the file and report it",
    )


def check_layers(name: str, net: nn.Module, path: Path, data: Data) -> None:
    """Refuses an ONNX file one of whose layers is not that of its network, on a few test images.

    Raises:
        GateError: names the first such layer.
    """
    from edgekit.data import batches

    count = min(MOST_IMAGES, max(LEAST_IMAGES, PIXELS // math.prod(data.preprocess.size)))
    rows = np.unique(np.linspace(0, len(data.test) - 1, count).astype(np.int64))
    images, _ = next(iter(batches(data.test.take(rows), len(rows), preprocess=data.preprocess)))
    layer = first_departure(net, path, images)
    if layer is not None:
        raise GateError(
            f"{name}: the exported file is not its network",
            why=f"the first layer that departs is {layer}: fed the same, it gives something else in {path.name}",
            next="export again; if it stays so, keep the file and report it",
        )


def first_departure(net: nn.Module, path: Path, images: Tensor) -> str | None:
    """Path of the first module whose output in the file is not what the network gives; None where there is none.

    The network goes on with what the file gave, so that a difference is a module's own, not that of those before it.

    path: an ONNX file of edgekit's exporter, whose nodes are named after modules. images: float32 [n, channels, height,
    width]; a few suffice. Modules that run several times, or are made of others, are not compared.
    """
    import onnx
    import torch

    from edgekit.quantizers import fold_batchnorm

    proto = onnx.load(path)
    if not any(node.op_type == "BatchNormalization" for node in proto.graph.node):
        net, _ = fold_batchnorm(net, images[:1])
    made = {node.name.rpartition("/")[0]: node.output[0] for node in proto.graph.node}  # by its last node
    modules = [name for name in _run_once(net, images[:1]) if name in made]
    file = _exposed(proto, [made[name] for name in modules], images)
    departed: list[str] = []

    def compare(name: str, output: Tensor) -> Tensor:
        got = file[made[name]]
        if departed or _departs(output.numpy(), got):
            departed.append(name)
            return output
        return torch.from_numpy(got.astype(np.float32))

    _watch(net, modules, compare, images)
    return departed[0] if departed else None


def _run_once(net: nn.Module, images: Tensor) -> list[str]:
    """Modules without parts that run once and give a tensor, in the order they run."""
    import torch

    runs: list[str] = []
    leaves = [name for name, module in net.named_modules() if not any(module.children())]
    _watch(net, leaves, lambda name, output: runs.append(name) if isinstance(output, torch.Tensor) else None, images)
    return [name for name, count in Counter(runs).items() if count == 1]


def _watch(net: nn.Module, names: Sequence[str], saw: Callable[[str, Any], Tensor | None], images: Tensor) -> None:
    """Runs the network; what `saw` gives for a module's output, if anything, takes its place."""
    import torch

    def hook(name: str) -> Any:
        return lambda module, args, output: saw(name, output)

    handles = [net.get_submodule(name).register_forward_hook(hook(name)) for name in names]
    try:
        with torch.no_grad():
            net.eval()(images)
    finally:
        for handle in handles:
            handle.remove()


def _exposed(proto: Any, tensors: Sequence[str], images: Tensor) -> dict[str, np.ndarray]:
    """Tensors from inside a file, for every image: the file is run with them as outputs."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import onnxruntime
    from onnx import helper

    present = {value.name for value in proto.graph.output}
    proto.graph.output.extend(helper.make_empty_tensor_value_info(one) for one in tensors if one not in present)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    feed = session.get_inputs()[0].name
    parts = [session.run(list(tensors), {feed: image[None].numpy()}) for image in images]
    return {name: np.concatenate([part[at] for part in parts]) for at, name in enumerate(tensors)}


def _departs(network: np.ndarray, file: np.ndarray) -> bool:
    """Both [n, channels, ...]; judged by the worst channel, so that one wrong filter of hundreds shows."""
    if network.shape != file.shape:
        return True
    same = np.abs(network - file) <= FLOAT_ERROR * np.abs(network).max()  # NaN is never <=
    channels = np.moveaxis(same, 1, 0).reshape(same.shape[1], -1)
    return bool((1 - channels.mean(axis=1)).max() > DEPARTED)
