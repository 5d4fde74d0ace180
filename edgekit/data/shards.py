"""WebDataset shards: tar files whose members `key.jpg` and `key.cls` (a class number as text) are one labelled image.

Shards are indexed once and read in place, in any order; nothing is extracted. Other members are left out and counted.
"""

from __future__ import annotations

import hashlib
import io
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from edgekit.data.image_folder import SUFFIXES, FileSet, resolve
from edgekit.data.image_set import Source
from edgekit.errors import InputError

if TYPE_CHECKING:
    from edgekit.settings import DataSettings

MOST_DIGITS = 32  # of a class number; a member that claims more is no label


def webdataset(settings: DataSettings, folder: Path) -> Source:
    """The shards `data.train` and, where given, `data.test`. The classes are called `0`, `1`, ...

    Raises:
        InputError: no shard stands there, one is broken or compressed, an image lacks its label.
    """
    if settings.train is None:
        raise InputError("data.train: webdataset needs shards", next="write `train: shards/train-{0000..0009}.tar`")
    given = {"train": settings.train} | ({"test": settings.test} if settings.test is not None else {})
    parts, notes = {}, []
    for part, text in given.items():
        parts[part], ignored = _index(_shards(part, text, folder))
        if ignored:
            notes.append(f"{part}: {ignored} member(s) that are neither image nor label left out")
    count = int(parts["train"].labels.max()) + 1
    for part, images in parts.items():
        low, high = images.labels.min(), images.labels.max()
        if low < 0 or high >= count:
            raise InputError(
                f"data.{part}: labels from {low} to {high}, training has {count} classes",
                next="number the classes 0, 1, 2, ... in all shards",
            )
    return Source(dict(parts), tuple(map(str, range(count))), tuple(notes))


@dataclass(frozen=True, eq=False)
class ShardSet(FileSet):
    """Images inside tar files. spans: of each image its shard, the offset and length of its bytes there."""

    spans: tuple[tuple[Path, int, int], ...]

    def open(self, row: int) -> BinaryIO:
        path, offset, length = self.spans[row]
        with open(path, "rb") as stream:
            stream.seek(offset)
            return io.BytesIO(stream.read(length))

    def digest(self) -> str:
        digest = hashlib.sha256(repr(self.names).encode())
        for path in dict.fromkeys(path for path, _, _ in self.spans):
            stat = path.stat()
            digest.update(f"{path.name}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
        return digest.hexdigest()


def _shards(part: str, text: str, folder: Path) -> list[Path]:
    """The files that `train-{00..09}.tar` or `train-*.tar` stands for."""
    found: list[Path] = []
    for name in _braces(text):
        if "*" in name or "?" in name:
            # the folder must be there; what stands in it is sorted, so that the order is the same everywhere
            inner = Path(name)
            parent = resolve(part, str(inner.parent), folder, Path.is_dir)
            found += sorted(parent.glob(inner.name))
        else:
            found.append(resolve(part, name, folder, Path.is_file))
    if not found:
        raise InputError(f"data.{part}: {text}: no shard stands there", next=f"correct data.{part}")
    return found


def _braces(text: str) -> Iterator[str]:
    """`a-{08..10}.tar` -> `a-08.tar`, `a-09.tar`, `a-10.tar`."""
    match = re.search(r"\{(\d+)\.\.(\d+)\}", text)
    if match is None:
        yield text
        return
    for number in range(int(match[1]), int(match[2]) + 1):
        yield from _braces(f"{text[: match.start()]}{number:0{len(match[1])}}{text[match.end() :]}")


def _index(shards: list[Path]) -> tuple[ShardSet, int]:
    """The images of all shards, and how many members were left out."""
    names: list[str] = []
    labels: list[int] = []
    spans: list[tuple[Path, int, int]] = []
    ignored = 0
    for path in shards:
        images, classes, others = _members(path)
        ignored += others
        for key, (name, offset, length) in images.items():
            if key not in classes:
                raise InputError(f"{path}: {name} has no label {key}.cls", next="write one class number per image")
            names.append(f"{path.stem}/{name}")
            labels.append(classes[key])
            spans.append((path, offset, length))
    if not names:
        raise InputError(f"{shards[0]}: holds no images", next=f"images end in one of: {' '.join(SUFFIXES)}")
    return ShardSet(shards[0].parent, tuple(names), np.array(labels, dtype=np.int64), tuple(spans)), ignored


def _members(path: Path) -> tuple[dict[str, tuple[str, int, int]], dict[str, int], int]:
    """Of one shard: images by key, class numbers by key, and how many members are neither."""
    images: dict[str, tuple[str, int, int]] = {}
    classes: dict[str, int] = {}
    ignored = 0
    try:
        with tarfile.open(path, "r:") as tar:  # "r:": uncompressed, so that images can be read in place
            for member in tar:
                folder, _, file = member.name.rpartition("/")
                stem, _, suffix = file.partition(".")  # WebDataset's key ends at the first dot
                key = f"{folder}/{stem}" if folder else stem
                if member.isreg() and f".{suffix.lower()}" in SUFFIXES:
                    images[key] = (member.name, member.offset_data, member.size)
                elif member.isreg() and suffix == "cls" and member.size <= MOST_DIGITS:
                    stream = tar.extractfile(member)
                    classes[key] = int(stream.read()) if stream else -1
                else:
                    ignored += not member.isdir()
    except (tarfile.TarError, ValueError, EOFError) as error:
        raise InputError(
            f"{path}: cannot be read as a shard",
            why=f"{type(error).__name__}: {error}",
            next="write it as an uncompressed tar with a class number in each .cls",
        ) from error
    return images, classes, ignored
