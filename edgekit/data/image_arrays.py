"""Images that come as arrays: scikit-learn's handwritten digits, .npz files, a user's Python function."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekit import user_code
from edgekit.data.image_folder import resolve
from edgekit.data.image_set import ImageSet, Source
from edgekit.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgekit.preprocess import Preprocess
    from edgekit.settings import DataSettings

DIGITS_TEST = 540  # of 1,797; always the same images, whatever the seed, so that runs compare
CHUNK = 256


def digits(settings: DataSettings, folder: Path) -> Source:
    """scikit-learn's 1,797 handwritten digits, 8x8, gray. A value v of 0..16 becomes (255 v + 8) // 16 of 0..255.

    540 images, drawn by class, are the test split.
    """
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    _no_paths(settings)
    bunch = load_digits()
    images = ((bunch.images.astype(np.int64) * 255 + 8) // 16).astype(np.uint8)[..., None]
    labels = bunch.target.astype(np.int64)
    rows = train_test_split(np.arange(len(labels)), test_size=DIGITS_TEST, random_state=0, stratify=labels)
    parts = {name: ArraySet(images[part], labels[part]) for name, part in zip(("train", "test"), rows, strict=True)}
    return Source(parts, tuple(str(digit) for digit in range(10)))


def npz(settings: DataSettings, folder: Path) -> Source:
    """`data.train`, and `data.test` where given: files with `images` uint8 [n, H, W, C] or [n, H, W], and `labels` [n].

    An array `class_names` in the training file names the classes.

    Raises:
        InputError: a file is missing, is not npz, needs pickle, or lacks an array.
    """
    if settings.train is None:
        raise InputError("data.train: npz needs a file", next="write `train: path/to/train.npz`")
    given = {"train": settings.train} | ({"test": settings.test} if settings.test is not None else {})
    arrays = {part: _read_npz(resolve(part, text, folder, Path.is_file)) for part, text in given.items()}
    names = arrays["train"].get("class_names")
    parts = {part: (held.get("images"), held.get("labels")) for part, held in arrays.items()}
    return _source(parts, None if names is None else [str(name) for name in names], given["train"])


def python(settings: DataSettings, folder: Path) -> Source:
    """`python:file.py:function`: function() returns {'train': (images, labels), ...}, see `npz` for the arrays.

    `validation` and `test` may be given too, and `class_names`, a list of text.

    Raises:
        InputError: the file or the function is missing, or what it returned has another form.
    """
    _no_paths(settings)
    given = user_code.call(settings.source, folder, field="data.source")
    if not isinstance(given, Mapping) or not {"train"} <= set(given) <= {"train", "validation", "test", "class_names"}:
        found = sorted(map(str, given)) if isinstance(given, Mapping) else type(given).__name__
        raise InputError(
            f"data.source: {settings.source} returned {found}",
            next="return {'train': (images, labels)}, with 'validation', 'test', 'class_names' where there are any",
        )
    return _source(
        {part: given[part] for part in given if part != "class_names"}, given.get("class_names"), settings.source
    )


@dataclass(frozen=True, eq=False)
class ArraySet:
    """Images in memory at their own size. images: uint8 [n, H, W, C]; labels: int64 [n]."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    names: None = None

    def shape(self) -> tuple[int, int, int]:
        _, height, width, channels = self.images.shape
        return height, width, channels

    def load(self, preprocess: Preprocess) -> tuple[NDArray[np.uint8], dict[int, str]]:
        starts = range(0, len(self.images), CHUNK)
        return np.concatenate([preprocess.resample(self.images[at : at + CHUNK]) for at in starts]), {}

    def read(self, rows: NDArray[np.int64], preprocess: Preprocess) -> NDArray[np.uint8]:
        return preprocess.resample(self.images[rows])

    def digest(self) -> str:
        return hashlib.sha256(np.ascontiguousarray(self.images).data).hexdigest()


def _no_paths(settings: DataSettings) -> None:
    for field in ("train", "test"):
        if getattr(settings, field) is not None:
            raise InputError(f"data.{field}: has no meaning for source '{settings.source}'", next="remove the line")


def _source(parts: Mapping[str, Any], class_names: list[str] | None, where: str) -> Source:
    """Arrays, checked. Without names the classes are called `0`, `1`, ... up to the largest training label."""
    sets = {part: _array_set(arrays, f"{where}: {part}") for part, arrays in parts.items()}
    count = int(sets["train"].labels.max()) + 1
    names = tuple(str(name) for name in class_names) if class_names is not None else tuple(map(str, range(count)))
    for part, images in sets.items():
        if images.labels.min() < 0 or images.labels.max() >= len(names):
            raise InputError(
                f"{where}: {part}: labels from {images.labels.min()} to {images.labels.max()} for {len(names)} classes",
                next="number the classes 0, 1, 2, ... in all parts",
            )
    typed: dict[str, ImageSet] = dict(sets)
    return Source(typed, names)


def _array_set(arrays: Any, where: str) -> ArraySet:
    if not isinstance(arrays, tuple | list) or len(arrays) != 2 or any(part is None for part in arrays):
        raise InputError(f"{where}: is not a pair of images and labels", next="give both, as arrays")
    images, labels = np.asarray(arrays[0]), np.asarray(arrays[1])
    if images.ndim == 3:
        images = images[..., None]
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] not in (1, 3) or 0 in images.shape:
        raise InputError(
            f"{where}: images are {images.dtype} {list(images.shape)}",
            next="give uint8 [n, height, width, 1 or 3], or [n, height, width] for gray",
        )
    if labels.shape != (len(images),) or labels.dtype.kind not in "iu":
        raise InputError(
            f"{where}: labels are {labels.dtype} {list(labels.shape)} for {len(images)} images",
            next="give one integer per image",
        )
    return ArraySet(images, labels.astype(np.int64))


def _read_npz(path: Path) -> dict[str, NDArray[Any]]:
    try:
        with np.load(path, allow_pickle=False) as held:  # pickle would run code from the file
            return {name: held[name] for name in ("images", "labels", "class_names") if name in held}
    except Exception as error:
        raise InputError(
            f"{path}: cannot be read as npz",
            why=f"{type(error).__name__}: {error}",
            next="write it with numpy.savez(path, images=uint8 array, labels=integer array)",
        ) from error
