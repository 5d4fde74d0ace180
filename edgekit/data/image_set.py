"""What every data source hands over: labelled images that are not yet decoded to the network's size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgekit.preprocess import Preprocess


class ImageSet(Protocol):
    """n labelled images.

    names: one per image, the path relative to the set's folder with `/`; None where images have no names.
    """

    @property
    def labels(self) -> NDArray[np.int64]: ...

    @property
    def names(self) -> tuple[str, ...] | None: ...

    def shape(self) -> tuple[int, int, int]:
        """(height, width, 1 or 3) of every image.

        Raises:
            InputError: the images have different sizes.
        """

    def load(self, preprocess: Preprocess) -> tuple[NDArray[np.uint8], dict[int, str]]:
        """All images, resampled: uint8 [n, h, w, C]; and which could not be decoded (row -> why), left black."""

    def read(self, rows: NDArray[np.int64], preprocess: Preprocess) -> NDArray[np.uint8]:
        """The images of some rows, resampled: uint8 [k, h, w, C].

        Raises:
            InputError: an image cannot be decoded.
        """

    def digest(self) -> str:
        """Changes when an image changes; cheap for files (name, size, time), so that it needs no decoding."""


@dataclass(frozen=True)
class Source:
    """What a source gives: sets by part (`train` always; `validation` and `test` where it has its own)."""

    parts: Mapping[str, ImageSet]
    class_names: tuple[str, ...]
    notes: tuple[str, ...] = ()
