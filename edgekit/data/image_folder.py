"""Image folders: `train/<class>/**/*.png`, and the same for `test`. The classes are the folders' names, sorted.

Images are decoded to RGB and turned upright (EXIF); of several frames the first counts. Links are followed, but a
folder is read once, so a link that leads back does no harm. Files that are no images by their name are left out and
counted.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeVar

import numpy as np
from PIL import Image, ImageOps

from edgekit.data.image_set import Source
from edgekit.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgekit.preprocess import Preprocess
    from edgekit.settings import DataSettings

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".ppm", ".pgm", ".tif", ".tiff", ".gif")
WIDE_MODES = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")  # more than 8 bits: Pillow would clip, not scale them
GRAY_MODES = ("1", "L", "LA")
CHUNK = 16  # images a thread takes at a time

T = TypeVar("T")


def image_folder(settings: DataSettings, folder: Path) -> Source:
    """The folders `data.train` and, where given, `data.test`; relative paths begin at the recipe's folder.

    Raises:
        InputError: a folder is missing or holds no class, a class holds no images, train and test differ in classes.
    """
    if settings.train is None:
        raise InputError("data.train: image_folder needs a folder", next="write `train: path/to/train`")
    roots = {"train": resolve("train", settings.train, folder, Path.is_dir)}
    if settings.test is not None:
        roots["test"] = resolve("test", settings.test, folder, Path.is_dir)
    classes = {part: _classes(root) for part, root in roots.items()}
    _same_classes(roots, classes)
    names = tuple(classes["train"])
    parts, notes = {}, []
    for part, root in roots.items():
        parts[part], ignored = _list(root, names)
        if ignored:
            notes.append(f"{part}: {len(ignored)} file(s) that are no images left out, e.g. {ignored[0]}")
    return Source(parts, names, tuple(notes))


@dataclass(frozen=True, eq=False)
class FileSet:
    """Images in files, decoded by threads when they are wanted. names: paths relative to root, with `/`.

    Other sets of encoded images override `open` and `digest`.
    """

    root: Path
    names: tuple[str, ...]
    labels: NDArray[np.int64]

    def open(self, row: int) -> Path | BinaryIO:
        """What Pillow reads an image from."""
        return self.root / self.names[row]

    def decode(self, row: int) -> NDArray[np.uint8]:
        """One image as RGB, upright, uint8 [H, W, 3]."""
        with Image.open(self.open(row)) as image:
            if image.mode in WIDE_MODES:
                raise ValueError(f"pixels of mode {image.mode} hold more than 8 bits")
            return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))

    def shape(self) -> tuple[int, int, int]:
        shapes = {shape for shape in _in_threads(self._header, range(len(self.names))) if shape}
        sizes = sorted({shape[:2] for shape in shapes})
        if len(sizes) != 1:
            raise InputError(
                f"{self.root}: images have {len(sizes)} different (height, width), from {sizes[:1]} to {sizes[-1:]}",
                next="write `data.preprocess: {size: [height, width], mean: [...], std: [...]}`",
            )
        return (*sizes[0], max(shape[2] for shape in shapes))

    def load(self, preprocess: Preprocess) -> tuple[NDArray[np.uint8], dict[int, str]]:
        images = np.zeros((len(self.names), *preprocess.size, preprocess.channels), dtype=np.uint8)
        corrupt: dict[int, str] = {}

        def fill(row: int) -> None:
            try:
                images[row] = preprocess.resample(self.decode(row))
            except (
                Exception
            ) as error:  # Pillow raises whatever a broken file makes it raise: SyntaxError, zlib.error, ...
                corrupt[row] = f"{type(error).__name__}: {error}"

        _in_threads(fill, range(len(self.names)))
        return images, corrupt

    def read(self, rows: NDArray[np.int64], preprocess: Preprocess) -> NDArray[np.uint8]:
        def one(row: int) -> NDArray[np.uint8]:
            path = self.root / self.names[row]
            try:
                return preprocess.resample(self.decode(row))
            except Exception as error:
                raise InputError(
                    f"{path}: cannot be decoded",
                    why=f"{type(error).__name__}: {error}",
                    next="repair or delete the file; this set is too large to check before it is used",
                ) from error

        return np.stack(_in_threads(one, [int(row) for row in rows]))

    def digest(self) -> str:
        digest = hashlib.sha256()
        for name in self.names:
            stat = (self.root / name).stat()
            digest.update(f"{name}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
        return digest.hexdigest()

    def _header(self, row: int) -> tuple[int, int, int] | None:
        """(height, width, 1 or 3) without decoding, None for a corrupt file: `load` reports those."""
        try:
            with Image.open(self.open(row)) as image:
                turned = image.getexif().get(0x0112, 1) >= 5  # orientations 5 to 8 lie on their side
                width, height = reversed(image.size) if turned else image.size
                return height, width, 1 if image.mode in GRAY_MODES else 3
        except Exception:
            return None


def resolve(field: str, text: str, folder: Path, exists: Callable[[Path], bool]) -> Path:
    """`data.train` or `data.test` as a path: variables and `~` expanded, relative to the recipe's folder.

    Raises:
        InputError: a variable is not set, or nothing of the right kind stands there.
    """
    expanded = os.path.expandvars(os.path.expanduser(text))
    unset = re.search(r"\$(\w+|\{\w+\})", expanded)
    if unset:
        name = unset[1].strip("{}")
        raise InputError(
            f"data.{field}: {text}: the variable {name} is not set",
            next=f"export {name}=<the folder that holds the data>",
        )
    path = folder / expanded
    if not exists(path):
        raise InputError(f"data.{field}: {path}: not found", next=f"unpack the data there, or correct data.{field}")
    return path


def _classes(root: Path) -> list[str]:
    names = sorted(entry.name for entry in os.scandir(root) if entry.is_dir() and not entry.name.startswith("."))
    if not names:
        raise InputError(f"{root}: holds no class folders", next="put the images into one folder per class")
    return names


def _same_classes(roots: dict[str, Path], classes: dict[str, list[str]]) -> None:
    train, test = set(classes["train"]), set(classes.get("test", classes["train"]))
    if train != test:
        where, missing = ("test", train - test) if train - test else ("train", test - train)
        raise InputError(
            f"{roots[where]}: lacks {len(missing)} class folder(s) of the other part: {', '.join(sorted(missing)[:5])}",
            next="give train and test the same class folders",
        )


def _list(root: Path, classes: tuple[str, ...]) -> tuple[FileSet, list[str]]:
    """The images of one part in a fixed order, and the files left out."""
    seen = {_identity(root)} | {_identity(root / name) for name in classes}
    names: list[str] = []
    labels: list[int] = []
    ignored = [entry.name for entry in os.scandir(root) if entry.is_file()]
    for label, name in enumerate(classes):
        files = sorted(_walk(root / name, name, seen))
        images = [file for file in files if file.lower().endswith(SUFFIXES)]
        if not images:
            raise InputError(f"{root / name}: holds no images", next=f"images end in one of: {' '.join(SUFFIXES)}")
        ignored += [file for file in files if not file.lower().endswith(SUFFIXES)]
        names += images
        labels += [label] * len(images)
    return FileSet(root, tuple(names), np.array(labels, dtype=np.int64)), ignored


def _walk(folder: Path, name: str, seen: set[tuple[int, int]]) -> Iterator[str]:
    """Files under a folder as `name/...`; hidden folders are passed over, folders in `seen` too."""
    for entry in os.scandir(folder):
        inner = f"{name}/{entry.name}"
        if not entry.is_dir():
            yield inner
        elif not entry.name.startswith(".") and _identity(Path(entry.path)) not in seen:
            seen.add(_identity(Path(entry.path)))
            yield from _walk(Path(entry.path), inner, seen)


def _identity(path: Path) -> tuple[int, int]:
    stat = path.stat()
    return stat.st_dev, stat.st_ino


def _in_threads(work: Callable[[int], T], rows: range | list[int]) -> list[T]:
    """work(row) for every row, in order; Pillow and numpy let go of the interpreter's lock while they compute."""
    chunks = [rows[start : start + CHUNK] for start in range(0, len(rows), CHUNK)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return [
            result for results in pool.map(lambda chunk: [work(row) for row in chunk], chunks) for result in results
        ]
