"""The gate between a network and its exported file: they must agree on real images, in the runtime that runs it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from edgekit.errors import GateError

FLOAT_ERROR = 1e-3  # largest difference, relative to the largest output; sums in another order stay far below
INT8_FLIPS = 0.005  # share of the images: int8 kernels round some sums to the next step


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


def check(name: str, network: np.ndarray, file: np.ndarray, *, quantized: bool) -> Agreement:
    """Refuses a file that is not its network.

    quantized: int8, judged by how many images change their class; a float file by its outputs.

    Raises:
        GateError: says how far off the file is and what would be allowed.
    """
    found = agreement(network, file)
    allowed = math.ceil(INT8_FLIPS * found.n)
    same = found.flips <= allowed and math.isfinite(found.error) if quantized else found.error <= FLOAT_ERROR
    if same:
        return found
    limit = f"{allowed} are allowed" if quantized else f"{FLOAT_ERROR:g} is allowed"
    raise GateError(
        f"{name}: the exported file is not its network",
        why=f"{found.flips} of {found.n} images are classified differently, the largest relative difference is "
        f"{found.error:.2g} ({limit})",
        next="export again; if it stays so, keep the file and report it",
    )
