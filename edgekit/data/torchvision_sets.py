"""torchvision's classification data sets: `torchvision:CIFAR10`, read in the folder `data.train`, never downloaded."""

from __future__ import annotations

import hashlib
import importlib
import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekit.data.image_folder import FileSet, resolve
from edgekit.data.image_set import Source
from edgekit.errors import DependencyError, InputError, did_you_mean

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgekit.settings import DataSettings

# edgekit's parts as the data sets spell them in `split`
SPLITS = {"train": "train", "validation": "val", "test": "test"}


def torchvision(settings: DataSettings, folder: Path) -> Source:
    """A data set's own training, validation and test images, as far as it has them.

    Raises:
        InputError: there is no such data set, it is not in the folder, or it is not made of images and class numbers.
        DependencyError: torchvision is not installed.
    """
    name = settings.source.partition(":")[2]
    if settings.test is not None:
        raise InputError("data.test: has no meaning for torchvision's data sets", next="remove the line")
    if settings.train is None:
        raise InputError("data.train: torchvision needs a folder", next=f"write `train: folder/with/{name}`")
    make = _data_set(name)
    root = resolve("train", settings.train, folder, Path.is_dir)
    opened = {part: _open(make, name, root, wanted) for part, wanted in _parts(make).items()}
    opened = {part: items for part, items in opened.items() if items is not None}
    sets = {part: ItemSet.of(data, root, name) for part, data in opened.items()}
    classes = getattr(opened["train"], "classes", None)
    count = int(sets["train"].labels.max()) + 1
    names = tuple(map(str, classes)) if classes and len(classes) >= count else tuple(map(str, range(count)))
    return Source(dict(sets), names)


@dataclass(frozen=True, eq=False)
class ItemSet(FileSet):
    """Images that a data set hands out as Pillow images. names: their positions."""

    items: Any

    @classmethod
    def of(cls, items: Any, root: Path, name: str) -> ItemSet:
        image, label = items[0]
        if not hasattr(image, "convert") or not isinstance(label, int | np.integer):
            raise InputError(f"data.source: torchvision:{name} is no data set of images and class numbers")
        return cls(root, tuple(f"{name}-{row}" for row in range(len(items))), _labels(items), items)

    def decode(self, row: int) -> NDArray[np.uint8]:
        return np.asarray(self.items[row][0].convert("RGB"))

    def _header(self, row: int) -> tuple[int, int, int] | None:
        image = self.items[row][0]
        return (image.height, image.width, 1 if image.mode == "L" else 3)

    def digest(self) -> str:
        """Of the files in the data set's folder: names, sizes and times."""
        digest = hashlib.sha256(repr(self.items).encode())
        for path in sorted(path for path in self.root.rglob("*") if path.is_file()):
            stat = path.stat()
            digest.update(f"{path.relative_to(self.root)}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
        return digest.hexdigest()


def _data_set(name: str) -> Any:
    try:
        datasets = importlib.import_module("torchvision.datasets")
    except ModuleNotFoundError:
        raise DependencyError(
            "data.source: torchvision is not installed", next="pip install 'edgekit[torchvision]'"
        ) from None
    except Exception as error:  # a torchvision built for another torch fails on import
        raise DependencyError("data.source: torchvision does not fit the installed torch", why=str(error)) from error
    known = [one for one in datasets.__all__ if _parts(getattr(datasets, one))]
    if name not in known:
        raise InputError(f"data.source: torchvision has no data set '{name}'." + did_you_mean(name, known))
    return getattr(datasets, name)


def _parts(make: Any) -> dict[str, dict[str, Any]]:
    """By part, the arguments that choose it: a flag `train`, or a `split` with a name; empty where it has neither."""
    parameters = inspect.signature(make).parameters
    if "train" in parameters:
        return {"train": {"train": True}, "test": {"train": False}}
    if "split" in parameters:
        return {part: {"split": word} for part, word in SPLITS.items()}
    return {}


def _open(make: Any, name: str, root: Path, wanted: dict[str, Any]) -> Any:
    """The part of a data set; None where it has no split of that name."""
    try:
        return make(str(root), **wanted)
    except Exception as error:  # each data set says in its own way what it misses
        if "Unknown value" in str(error):
            return None
        raise InputError(
            f"data.train: {root}: torchvision cannot open {name} there",
            why=f"{type(error).__name__}: {error}",
            next=f"get it once, in Python: torchvision.datasets.{name}({str(root)!r}, download=True)",
        ) from error


def _labels(items: Any) -> NDArray[np.int64]:
    """Without decoding the images, where the data set keeps its labels by themselves."""
    for key in ("targets", "labels", "_labels"):
        if getattr(items, key, None) is not None:
            return np.asarray(getattr(items, key), dtype=np.int64)
    pairs = getattr(items, "_samples", None) or (items[row] for row in range(len(items)))
    return np.array([label for _, label in pairs], dtype=np.int64)
