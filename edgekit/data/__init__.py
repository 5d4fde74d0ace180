"""Where data comes from: a recipe's `data` becomes train, validation and test, decoded to the network's size.

Sets whose decoded images take less than SMALL_BYTES are decoded once and kept in memory as uint8; larger ones are
decoded when they are read. The fingerprint is a sha256 over the classes, the preprocessing, and of each split the
labels and the images: their pixels where they are in memory, else the files' names, sizes and times.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgekit.data.batches import Split, batches
from edgekit.data.image_arrays import digits, npz, python
from edgekit.data.image_folder import image_folder
from edgekit.data.image_set import Source
from edgekit.data.partition import Cut, partition
from edgekit.data.shards import webdataset
from edgekit.data.torchvision_sets import torchvision
from edgekit.errors import InputError, did_you_mean
from edgekit.preprocess import Preprocess
from edgekit.settings import DataSettings

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Data", "Split", "batches", "open_data"]

SMALL_BYTES = 2 * 10**9
SAMPLE = 10_000  # images that mean and std are computed from

# name -> function(settings, the recipe's folder); written `python:file.py:function`, `torchvision:CIFAR10`
SOURCES: dict[str, Callable[[DataSettings, Path], Source]] = {
    "digits": digits,
    "image_folder": image_folder,
    "npz": npz,
    "python": python,
    "torchvision": torchvision,
    "webdataset": webdataset,
}


@dataclass(frozen=True, eq=False)
class Data:
    """A data set, ready for a network.

    fingerprint: 64 hex digits, other when anything a network could learn from is other.
    split_by:    how images were kept together, in words.
    notes:       what a person should know: images left out, numbers computed instead of given.
    """

    train: Split
    validation: Split
    test: Split
    class_names: tuple[str, ...]
    preprocess: Preprocess
    fingerprint: str
    split_by: str
    notes: tuple[str, ...] = ()

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """What a network is fed for one image: (channels, height, width)."""
        return (self.preprocess.channels, *self.preprocess.size)


def open_data(settings: DataSettings, *, folder: Path, seed: int) -> Data:
    """Opens what a recipe's `data` names. folder: the recipe's, where relative paths begin. seed: of the split.

    Raises:
        InputError: the source, a path, an image, a label or a split is wrong; the message says which and what to write.
    """
    name = settings.source.partition(":")[0]
    if name not in SOURCES:
        raise InputError(f"data.source: '{settings.source}' is not known." + did_you_mean(name, SOURCES))
    source = SOURCES[name](settings, folder)
    geometry = _geometry(settings, source)
    loaded = _load(source, geometry, settings.max_corrupt)
    labels = {part: images.labels for part, images in loaded.splits.items()}
    cut = partition(labels, loaded.names, settings.split, seed)
    splits = {name: loaded.splits[part].take(rows) for name, (part, rows) in cut.rows.items()}
    _every_class(splits["train"], source.class_names)
    preprocess, computed = _statistics(settings, geometry, splits["train"])
    return Data(
        **splits,
        class_names=source.class_names,
        preprocess=preprocess,
        fingerprint=_fingerprint(source.class_names, preprocess, loaded.digests, cut, splits),
        split_by=cut.by,
        notes=(*source.notes, *loaded.notes, *cut.notes, *computed),
    )


@dataclass(frozen=True)
class _Loaded:
    """Sound images by part. names: of the part `train`. digests: of the images of each part."""

    splits: dict[str, Split]
    names: tuple[str, ...] | None
    digests: dict[str, str]
    notes: tuple[str, ...]


def _geometry(settings: DataSettings, source: Source) -> Preprocess:
    """The preprocessing; where the recipe has none, the images' own size, with mean and std still to be computed."""
    if settings.preprocess is not None:
        return Preprocess.from_settings(settings.preprocess)
    shapes = {part: images.shape() for part, images in source.parts.items()}
    if len({shape[:2] for shape in shapes.values()}) > 1:
        raise InputError(
            f"data: images differ in size between parts: {shapes}", next="write data.preprocess with a size"
        )
    height, width, _ = shapes["train"]
    gray = all(shape[2] == 1 for shape in shapes.values())
    ones = (1.0,) if gray else (1.0, 1.0, 1.0)
    return Preprocess((height, width), mean=ones, std=ones, colour="gray" if gray else "rgb")


def _load(source: Source, geometry: Preprocess, max_corrupt: int) -> _Loaded:
    count = sum(len(images.labels) for images in source.parts.values())
    if count * geometry.size[0] * geometry.size[1] * geometry.channels >= SMALL_BYTES:
        return _stream(source, geometry)
    splits, digests, corrupt = {}, {}, []
    names = source.parts["train"].names
    for part, images in source.parts.items():
        pixels, broken = images.load(geometry)
        sound = np.setdiff1d(np.arange(len(pixels)), list(broken))
        corrupt += [f"{part}/{(images.names or ())[row]} ({why})" for row, why in sorted(broken.items())]
        if broken:
            pixels = pixels[sound]
            names = tuple(names[row] for row in sound) if names and part == "train" else names
        splits[part] = Split(images.labels[sound], len(source.class_names), _reader(pixels))
        digests[part] = hashlib.sha256(pixels.data).hexdigest()
    return _Loaded(splits, names, digests, _corrupt_notes(corrupt, max_corrupt))


def _stream(source: Source, geometry: Preprocess) -> _Loaded:
    splits = {}
    for part, images in source.parts.items():
        images.read(np.zeros(1, dtype=np.int64), geometry)  # wrong channels show now, not after an hour
        splits[part] = Split(images.labels, len(source.class_names), partial(images.read, preprocess=geometry))
    digests = {part: images.digest() for part, images in source.parts.items()}
    note = "too large to keep in memory: images are decoded when they are read, and a corrupt one stops the run"
    return _Loaded(splits, source.parts["train"].names, digests, (note,))


def _reader(pixels: NDArray[np.uint8]) -> Callable[[NDArray[np.int64]], NDArray[np.uint8]]:
    return lambda indices: pixels[indices]


def _corrupt_notes(corrupt: list[str], max_corrupt: int) -> tuple[str, ...]:
    if len(corrupt) > max_corrupt:
        more = f" and {len(corrupt) - 10} more" if len(corrupt) > 10 else ""
        raise InputError(
            f"data: {len(corrupt)} corrupt image(s), {max_corrupt} allowed: {'; '.join(corrupt[:10])}{more}",
            next=f"repair or delete them, or allow them: `max_corrupt: {len(corrupt)}`",
        )
    return (f"{len(corrupt)} corrupt image(s) left out: {'; '.join(corrupt)}",) if corrupt else ()


def _every_class(train: Split, class_names: tuple[str, ...]) -> None:
    counts = np.bincount(train.labels, minlength=len(class_names))
    empty = [name for name, count in zip(class_names, counts, strict=True) if count == 0]
    if empty:
        raise InputError(
            f"data: no training images of class {', '.join(empty[:10])}", next="add some, or drop the class"
        )


def _statistics(settings: DataSettings, geometry: Preprocess, train: Split) -> tuple[Preprocess, tuple[str, ...]]:
    """mean and std of the training images (evenly spaced ones of many), to four digits, where the recipe has none."""
    if settings.preprocess is not None:
        return geometry, ()
    rows = np.unique(np.linspace(0, len(train) - 1, min(len(train), SAMPLE)).astype(np.int64))
    counts = np.zeros((geometry.channels, 256), dtype=np.int64)
    for start in range(0, len(rows), 256):
        images = train.images(rows[start : start + 256])
        counts += [np.bincount(images[..., c].ravel(), minlength=256) for c in range(geometry.channels)]
    shares, values = counts / counts.sum(axis=1, keepdims=True), np.arange(256) / 255
    mean = shares @ values
    std = np.sqrt((shares * (values - mean[:, None]) ** 2).sum(axis=1))
    if std.min() < 1e-4:
        raise InputError(
            "data: a channel has one value in all training images", next="write data.preprocess with mean and std"
        )
    preprocess = replace(geometry, mean=_rounded(mean), std=_rounded(std))
    fields = {key: value for key, value in preprocess.as_dict().items() if key in ("size", "mean", "std", "colour")}
    return preprocess, (f"preprocess computed from {len(rows)} training images; to fix it, write {json.dumps(fields)}",)


def _rounded(numbers: NDArray[np.float64]) -> tuple[float, ...]:
    return tuple(round(float(number), 4) for number in numbers)


def _fingerprint(
    class_names: tuple[str, ...], preprocess: Preprocess, digests: dict[str, str], cut: Cut, splits: dict[str, Split]
) -> str:
    digest = hashlib.sha256(json.dumps([class_names, preprocess.as_dict(), digests], sort_keys=True).encode())
    for name in ("train", "validation", "test"):
        digest.update(f"{name} {cut.rows[name][0]} {len(splits[name])}\n".encode())
        digest.update(cut.rows[name][1].tobytes() + splits[name].labels.tobytes())
    return digest.hexdigest()
