"""WebDataset shards and torchvision's data sets, on small ones written here."""

from __future__ import annotations

import io
import struct
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import edgekit.data
from edgekit.data import Data, open_data
from edgekit.errors import DependencyError, InputError
from edgekit.settings import DataSettings

PREPROCESS = {"size": [4, 4], "mean": [0.5] * 3, "std": [0.25] * 3}


def png(value: int) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (4, 4), (value, 0, 0)).save(stream, "png")
    return stream.getvalue()


def shard(path: Path, members: dict[str, bytes], mode: str = "w") -> None:
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """Two training shards of 10 images, image i of class i % 2 and red value i; a test shard of 4 from 100 on."""
    for number, values in (("train-08", range(10)), ("train-09", range(10, 20)), ("test", range(100, 104))):
        members = {}
        for value in values:
            members[f"{value:03}.png"] = png(value)
            members[f"{value:03}.cls"] = str(value % 2).encode()
        shard(tmp_path / f"{number}.tar", members)
    return tmp_path


def open_(folder: Path, **fields: object) -> Data:
    given = {"source": "webdataset", "train": "train-{08..09}.tar", "test": "test.tar", "preprocess": PREPROCESS}
    return open_data(DataSettings.model_validate({**given, **fields}), folder=folder, seed=0)


def red(data: Data) -> dict[str, list[int]]:
    splits = {"train": data.train, "validation": data.validation, "test": data.test}
    return {name: split.images(np.arange(len(split)))[:, 0, 0, 0].tolist() for name, split in splits.items()}


@pytest.mark.parametrize("train", ["train-{08..09}.tar", "train-*.tar"])
def test_shards_give_their_images_with_their_labels(shards: Path, train: str) -> None:
    data = open_(shards, train=train)
    values = red(data)
    assert sorted(values["train"] + values["validation"]) == list(range(20))
    assert values["test"] == [100, 101, 102, 103]
    assert all(value % 2 == label for value, label in zip(values["train"], data.train.labels, strict=True))
    assert data.class_names == ("0", "1")


def test_shards_too_large_for_memory_are_read_in_place(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = red(open_(shards))
    monkeypatch.setattr(edgekit.data, "SMALL_BYTES", 0)
    large = open_(shards)
    assert red(large) == small
    shard(shards / "test.tar", {"0.png": png(1), "0.cls": b"0", "1.png": png(2), "1.cls": b"1"})
    assert open_(shards).fingerprint != large.fingerprint


def test_a_group_pattern_sees_the_shard_and_the_members_name(shards: Path) -> None:
    assert open_(shards, split={"by": r"(?P<group>train-\d+)/"}).split_by.startswith("4 groups")  # 2 shards, 2 classes


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"0.png": png(0)}, r"0\.png has no label 0\.cls"),
        ({"0.png": png(0), "0.cls": b"cat"}, "cannot be read as a shard"),
        ({"notes.txt": b"x"}, "holds no images"),
        ({"0.png": png(0), "0.cls": b"9"}, "labels from 9 to 9, training has 2 classes"),
    ],
)
def test_a_shard_that_is_wrong_is_named(shards: Path, members: dict[str, bytes], message: str) -> None:
    shard(shards / "test.tar", members)
    with pytest.raises(InputError, match=message):
        open_(shards)


def test_other_members_are_left_out_and_counted(shards: Path) -> None:
    shard(shards / "test.tar", {"0.png": png(0), "0.cls": b"0", "0.json": b"{}", "1.jpg": png(3), "1.cls": b"1"})
    assert open_(shards).notes[0] == "test: 1 member(s) that are neither image nor label left out"


def test_a_compressed_a_broken_or_a_missing_shard_is_refused(shards: Path) -> None:
    shard(shards / "test.tar", {"0.png": png(0), "0.cls": b"0"}, mode="w:gz")
    with pytest.raises(InputError, match="cannot be read as a shard"):
        open_(shards)
    (shards / "test.tar").write_bytes((shards / "train-08.tar").read_bytes()[:700])
    with pytest.raises(InputError, match=r"cannot be read as a shard|has no label"):
        open_(shards)
    with pytest.raises(InputError, match="no shard stands there"):
        open_(shards, test="nothing-*.tar")
    with pytest.raises(InputError, match=r"train-10\.tar: not found"):
        open_(shards, train="train-{08..10}.tar")


def test_a_member_that_points_out_of_the_shard_is_no_image(shards: Path) -> None:
    link = tarfile.TarInfo("0.png")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    with tarfile.open(shards / "test.tar", "w") as tar:
        tar.addfile(link)
    with pytest.raises(InputError, match="holds no images"):
        open_(shards)


# ---- torchvision


def mnist(folder: Path) -> Path:
    """MNIST's files with 40 training and 4 test images of 4x4, label i % 10, every pixel i."""
    raw = folder / "MNIST/raw"
    raw.mkdir(parents=True)
    for part, count in (("train", 40), ("t10k", 4)):
        pixels = np.repeat(np.arange(count, dtype=np.uint8), 16)
        labels = (np.arange(count) % 10).astype(np.uint8)
        (raw / f"{part}-images-idx3-ubyte").write_bytes(struct.pack(">IIII", 2051, count, 4, 4) + pixels.tobytes())
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 2049, count) + labels.tobytes())
    return folder


def torchvision(folder: Path, name: str, **fields: object) -> Data:
    pytest.importorskip("torchvision")
    return open_(folder, source=f"torchvision:{name}", **{"train": ".", "test": None, **fields})


def test_a_data_set_of_torchvision_gives_its_training_and_test_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = torchvision(mnist(tmp_path), "MNIST")
    assert sorted(red(data)["train"] + red(data)["validation"]) == list(range(40))
    assert red(data)["test"] == data.test.labels.tolist() == [0, 1, 2, 3]
    monkeypatch.setattr(edgekit.data, "SMALL_BYTES", 0)
    assert red(torchvision(tmp_path, "MNIST")) == red(data)


def test_gray_images_keep_one_channel_without_preprocess(tmp_path: Path) -> None:
    assert torchvision(mnist(tmp_path), "MNIST", preprocess=None).input_shape == (1, 4, 4)


def test_a_data_set_with_validation_images_of_its_own_uses_them(tmp_path: Path) -> None:
    for part, count in (("train", 4), ("valid", 2), ("test", 3)):
        for label in ("negative", "positive"):
            (tmp_path / f"rendered-sst2/{part}/{label}").mkdir(parents=True)
            for index in range(count):
                (tmp_path / f"rendered-sst2/{part}/{label}/{index}.png").write_bytes(png(index))
    data = torchvision(tmp_path, "RenderedSST2")
    assert (len(data.train), len(data.validation), len(data.test)) == (8, 4, 6)
    assert data.class_names == ("negative", "positive")


def test_a_data_set_that_is_not_there_is_not_downloaded(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="torchvision cannot open CIFAR10 there") as refusal:
        torchvision(tmp_path, "CIFAR10")
    assert "download=True" in str(refusal.value.next)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_data_set_suggests_a_near_one(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has no data set 'CIFAR-10'\. Did you mean 'CIFAR10'"):
        torchvision(tmp_path, "CIFAR-10")


def test_torchvision_that_is_not_installed_names_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision.datasets", None)
    with pytest.raises(DependencyError) as refusal:
        torchvision(tmp_path, "MNIST")
    assert refusal.value.next == "pip install 'edgekit[torchvision]'"
