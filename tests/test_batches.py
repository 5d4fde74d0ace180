"""Batches: their order, their arithmetic, and the thread that makes them ahead of time."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from edgekit.data.batches import AHEAD, Split, batches
from edgekit.errors import InputError
from edgekit.preprocess import Preprocess
from edgekit.settings import AugmentSettings

PLAIN = Preprocess((6, 6), (0.0,) * 3, (1 / 255,) * 3)


def numbered(n: int) -> Split:
    """Image i is i everywhere, label i % 3."""

    def read(rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        return np.broadcast_to(rows[:, None, None, None], (len(rows), 6, 6, 3)).astype(np.uint8)

    return Split(np.arange(n, dtype=np.int64) % 3, 3, read)


def seen(**fields: Any) -> list[int]:
    """The numbers of the images in the order in which batches of 4 out of 10 bring them."""
    fields = {"preprocess": PLAIN, **fields}
    return [int(x) for images, _ in batches(numbered(10), 4, **fields) for x in images[:, 0, 0, 0]]


def test_without_a_seed_batches_keep_the_order() -> None:
    assert seen() == list(range(10))
    assert seen(drop_last=True) == list(range(8))
    first, labels = next(batches(numbered(10), 4, preprocess=PLAIN))
    assert first.shape == (4, 3, 6, 6)
    assert first.dtype == torch.float32
    assert labels.tolist() == [0, 1, 2, 0]


def test_seed_and_epoch_give_the_order_and_every_image_comes_once() -> None:
    assert seen(seed=1, epoch=2) == seen(seed=1, epoch=2)
    assert sorted(seen(seed=1, epoch=2)) == list(range(10))
    assert len({tuple(seen(seed=seed, epoch=epoch)) for seed in (1, 2) for epoch in (0, 1)}) == 4


def test_a_resumed_epoch_gives_the_batches_that_were_left() -> None:
    fields: Any = {"preprocess": PLAIN, "seed": 5, "augment": AugmentSettings(shift=0.2, brightness=0.5, mixup=0.3)}
    whole = list(batches(numbered(10), 4, **fields))
    rest = list(batches(numbered(10), 4, skip=1, **fields))
    for (x, y), (x_again, y_again) in zip(whole[1:], rest, strict=True):
        assert torch.equal(x, x_again)
        assert torch.equal(y, y_again)
    assert whole[0][1].shape == (4, 3)


def test_batches_are_normalised_as_preprocess_does() -> None:
    preprocess = Preprocess((6, 6), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), colour="bgr")
    images, _ = next(batches(numbered(6), 6, preprocess=preprocess))
    assert images.numpy().tobytes() == preprocess.normalize(numbered(6).images(np.arange(6))).tobytes()


def test_an_error_while_reading_reaches_the_one_who_reads() -> None:
    def read(rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        if 5 in rows:
            raise InputError("image 5")
        return np.zeros((len(rows), 6, 6, 3), dtype=np.uint8)

    stream = batches(Split(np.zeros(10, dtype=np.int64), 1, read), 4, preprocess=PLAIN)
    next(stream)
    with pytest.raises(InputError, match="image 5"):
        next(stream)


def test_leaving_early_ends_the_thread_that_reads_ahead() -> None:
    asked: list[int] = []

    def read(rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        asked.append(int(rows[0]))
        return np.zeros((len(rows), 6, 6, 3), dtype=np.uint8)

    stream = batches(Split(np.zeros(1000, dtype=np.int64), 1, read), 1, preprocess=PLAIN)
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert len(asked) <= 1 + AHEAD + 1
    assert "edgekit-batches" not in {thread.name for thread in threading.enumerate()}


def test_augmentation_without_a_seed_is_refused() -> None:
    with pytest.raises(ValueError, match="needs a seed"):
        next(batches(numbered(4), 2, preprocess=PLAIN, augment=AugmentSettings(flip=True)))
