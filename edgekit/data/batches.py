"""Splits, and the batches a network is fed: shuffled by (seed, epoch), augmented, normalised, made ahead of time."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from edgekit.data.augment import augment as augmented

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgekit.preprocess import Preprocess
    from edgekit.settings import AugmentSettings

AHEAD = 3  # batches made before they are asked for


@dataclass(frozen=True, eq=False)
class Split:
    """Labelled images at the network's size.

    labels:  int64 [n].
    classes: how many there are in the whole data set.
    read:    gives the images of some positions, uint8 [k, h, w, C].
    """

    labels: NDArray[np.int64]
    classes: int
    read: Callable[[NDArray[np.int64]], NDArray[np.uint8]]

    def __len__(self) -> int:
        return len(self.labels)

    def images(self, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        """The images at some positions (any order, repeats allowed), RGB or gray, uint8 [k, h, w, C]."""
        return self.read(indices)

    def take(self, rows: NDArray[np.int64]) -> Split:
        """Only these rows, in this order."""
        return Split(self.labels[rows], self.classes, lambda indices: self.read(rows[indices]))


def batches(
    split: Split,
    size: int,
    *,
    preprocess: Preprocess,
    seed: int | None = None,
    epoch: int = 0,
    augment: AugmentSettings | None = None,
    drop_last: bool = False,
    skip: int = 0,
    device: torch.device | str = "cpu",
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Batches of (images float32 [n, C, h, w], labels int64 [n]); with mixup the labels are float32 [n, classes].

    seed:    shuffles, by seed and epoch; None keeps the order of the split. Augmentation needs one.
    skip:    batches already seen: the rest is what an uninterrupted epoch would have given (a resumed run).
    device:  where images are augmented and normalised; they travel there as uint8.
    """
    if augment is not None and seed is None:
        raise ValueError("augmentation needs a seed")
    order = np.arange(len(split)) if seed is None else np.random.default_rng([seed, epoch]).permutation(len(split))
    count = len(split) // size if drop_last else -(-len(split) // size)

    def make(step: int) -> tuple[torch.Tensor, torch.Tensor]:
        rows = order[step * size : (step + 1) * size]
        images = torch.from_numpy(split.images(rows)).to(device)
        labels = torch.from_numpy(split.labels[rows]).to(device)
        if augment is not None:
            # a generator of its own for every batch, so that a resumed epoch needs no replay
            state = np.random.SeedSequence([seed or 0, epoch, step]).generate_state(1, np.uint64)[0]
            generator = torch.Generator().manual_seed(int(state >> np.uint64(1)))
            planes, labels = augmented(
                images.permute(0, 3, 1, 2), labels, augment, classes=split.classes, generator=generator
            )
            images = planes.permute(0, 2, 3, 1)
        return preprocess.normalize_torch(images), labels

    return _ahead(make, range(skip, count))


def _ahead(
    make: Callable[[int], tuple[torch.Tensor, torch.Tensor]], steps: range
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """make(step) for every step, computed by one thread up to AHEAD batches early; its errors are raised here."""
    made: queue.Queue[tuple[torch.Tensor, torch.Tensor] | BaseException | None] = queue.Queue(AHEAD)
    stop = threading.Event()

    def offer(item: tuple[torch.Tensor, torch.Tensor] | BaseException | None) -> None:
        while not stop.is_set():
            with contextlib.suppress(queue.Full):
                made.put(item, timeout=0.1)
                return

    def work() -> None:
        try:
            for step in steps:
                if stop.is_set():
                    return
                offer(make(step))
            offer(None)
        except BaseException as error:
            offer(error)

    thread = threading.Thread(target=work, name="edgekit-batches", daemon=True)
    thread.start()
    try:
        while (item := made.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:  # also when the consumer leaves early
        stop.set()
        thread.join()
