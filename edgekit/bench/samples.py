"""Inputs on the board: .npy files, normalised where they are images, given to a session one batch after the other.

Runs on boards: Python 3.8 and numpy.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, Iterator, List, Mapping, Optional, Sequence

import numpy as np

from edgekit.artifact import TensorSpec
from edgekit.errors import InputError, did_you_mean
from edgekit.runtimes import Session

Prepare = Callable[[np.ndarray], np.ndarray]


class Samples:
    """Inputs from .npy files, given to the session one batch after the other.

    batch: samples in one inference, the file's own or 1 where it is free (`free`). n: samples in all.
    preprocessed: the arrays are images, which become network inputs here.
    """

    def __init__(self, session: Session, paths: Mapping[str, str], preprocess: Optional[Mapping[str, Any]]):
        self._specs = {spec.name: spec for spec in session.inputs}
        only = session.inputs[0].name if len(session.inputs) == 1 else ""
        self._arrays = {name or only: np.load(path, mmap_mode="r") for name, path in paths.items()}
        self.preprocessed = preprocess is not None
        self._prepare = _preparation(preprocess)
        absent = sorted(self._specs.keys() - self._arrays.keys())
        if absent:
            raise InputError(f"input '{absent[0]}' of the file is given no values.")
        unknown = sorted(self._arrays.keys() - self._specs.keys()) if self._specs else []
        if unknown:
            raise InputError(f"the file has no input '{unknown[0]}'." + did_you_mean(unknown[0], self._specs))
        sizes = [_first(self._specs.get(name)) for name in self._arrays]
        self.free = all(size is None for size in sizes)
        self.batch = sizes[0] or 1
        self.n = len(next(iter(self._arrays.values())))
        self._check()

    def feeds(self, index: int, batch: int = 1) -> Dict[str, np.ndarray]:
        """The inputs of inference `index`; samples are taken in turn, from the beginning again after the last."""
        taken = {}
        for name, array in self._arrays.items():
            size = _first(self._specs.get(name)) or batch
            rows = np.arange(index * size, (index + 1) * size) % len(array)
            taken[name] = np.ascontiguousarray(self._prepare(array[rows]))
        return taken

    def spread(self, most: int) -> List[Dict[str, np.ndarray]]:
        """At most that many feeds, evenly over all samples."""
        count = self._count()
        return [self.feeds(k * count // min(most, count)) for k in range(min(most, count))]

    def every(self) -> Iterator[Dict[str, np.ndarray]]:
        return map(self.feeds, range(self._count()))

    def joined(self, parts: List[np.ndarray]) -> np.ndarray:
        """Outputs of every feed in one array, without what a last, filled-up batch gave twice."""
        whole = np.concatenate([np.atleast_1d(part) for part in parts])
        return whole[: len(whole) * self.n // (len(parts) * self.batch)]

    def _count(self) -> int:
        return -(-self.n // self.batch)

    def _check(self) -> None:
        """Types and shapes of the first feed against what the file wants."""
        for name, values in self.feeds(0).items():
            spec = self._specs.get(name)
            if spec is None:
                continue
            if str(values.dtype) != spec.dtype:
                raise InputError(f"input '{name}': the file wants {spec.dtype}, the values given are {values.dtype}.")
            fits = [not isinstance(size, int) or size == given for size, given in zip(spec.shape, values.shape)]
            if len(spec.shape) != values.ndim or not all(fits):
                raise InputError(f"input '{name}': the file wants {_shape(spec.shape)}, got {_shape(values.shape)}.")


def _preparation(preprocess: Optional[Mapping[str, Any]]) -> Prepare:
    """Nothing, or from images to what the network is fed; images that have its size already are not resampled."""
    if preprocess is None:
        return lambda values: values
    from edgekit.preprocess import Preprocess

    made = Preprocess.from_dict(preprocess)

    def prepare(images: np.ndarray) -> np.ndarray:
        sized = images.shape[1:3] == tuple(made.size)
        return made.normalize(images if sized else made.resample(images))

    return prepare


def _shape(sizes: Sequence[Any]) -> str:
    return "[" + ", ".join(map(str, sizes)) + "]"


def _first(spec: Optional[TensorSpec]) -> Optional[int]:
    """The fixed first dimension of an input; None where it is free."""
    return spec.shape[0] if spec is not None and spec.shape and isinstance(spec.shape[0], int) else None
