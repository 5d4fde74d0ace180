"""The small end of a rehearsal: a few images of every class, and stages that take one step."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from edgekit.settings import Settings

if TYPE_CHECKING:
    from edgekit.data import Data, Split

MOST, LEAST = 64, 8  # images
PIXELS = 500_000  # of all images together: ten at 224 x 224, so that a step of a large network stays within seconds

Kind = TypeVar("Kind", bound=Settings)


def few(data: Data) -> Data:
    """The first images of every class in turn, as many of each split as a step takes."""
    height, width = data.preprocess.size
    count = min(MOST, max(LEAST, PIXELS // (height * width)))
    return replace(
        data, train=_few(data.train, count), validation=_few(data.validation, count), test=_few(data.test, count)
    )


def one_step(settings: Kind, images: int) -> Kind:
    """The same settings, with one epoch of one batch that holds all `images`.

    Arithmetic is not chosen by timing it, which would take sixteen steps more; a precision that is named is obeyed.
    """
    changed: dict[str, object] = {}
    for name, value in settings:
        if isinstance(value, Settings):
            changed[name] = one_step(value, images)
        elif name in ("epochs", "qat_epochs"):
            changed[name] = min(value, 1)
        elif name in ("batch", "images"):
            changed[name] = images
        elif name == "accumulate":
            changed[name] = min(value, images)
        elif name == "qat":
            changed[name] = "always"  # whether calibration suffices is not known before: training is rehearsed
        elif name == "precision" and value == "auto":
            changed[name] = "float32"
    return settings.model_copy(update=changed)


def _few(split: Split, count: int) -> Split:
    """rank: how many images of its class stand before an image."""
    rank = np.zeros(len(split), dtype=np.int64)
    for label in np.unique(split.labels):
        members = np.flatnonzero(split.labels == label)
        rank[members] = np.arange(len(members))
    return split.take(np.argsort(rank, kind="stable")[:count])
