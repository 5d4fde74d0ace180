"""Digits, .npz files and a user's function."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgekit.data
from edgekit.data import Data, open_data
from edgekit.errors import InputError
from edgekit.preprocess import Preprocess
from edgekit.settings import DataSettings

PREPROCESS = {"size": [6, 6], "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]}


def test_the_digits_are_real_numbers_of_images_and_exact_bytes() -> None:
    from sklearn.datasets import load_digits

    data = open_data(DataSettings(source="digits"), folder=Path(), seed=3)
    assert len(data.test) == 540
    assert len(data.train) + len(data.validation) + len(data.test) == 1797
    assert data.class_names == tuple("0123456789")
    assert data.preprocess.size == (8, 8)
    assert data.preprocess.colour == "gray"
    held = [split.images(np.arange(len(split))) for split in (data.train, data.validation, data.test)]
    scaled = [round(v * 255 / 16) for v in range(17)]  # no v gives an exact half but 8: 127.5, up to 128
    assert scaled[8] == 128
    expected = np.array(scaled, dtype=np.uint8)[load_digits().images.astype(int)]
    assert sorted(image.tobytes() for part in held for image in part) == sorted(image.tobytes() for image in expected)


def test_the_digits_test_images_do_not_depend_on_the_seed_but_validation_does() -> None:
    first, second = (open_data(DataSettings(source="digits"), folder=Path(), seed=seed) for seed in (1, 2))
    every = np.arange(540)
    assert np.array_equal(first.test.images(every), second.test.images(every))
    assert not np.array_equal(first.validation.images(every[:100]), second.validation.images(every[:100]))


def arrays(n: int = 20) -> dict[str, Any]:
    images = np.arange(n, dtype=np.uint8)[:, None, None] * np.ones((1, 4, 4), dtype=np.uint8)
    return {"images": images, "labels": (np.arange(n) % 2).astype(np.uint8)}


def test_npz_files_give_gray_images_and_classes_by_number(tmp_path: Path) -> None:
    np.savez(tmp_path / "train.npz", **arrays())
    np.savez(tmp_path / "test.npz", **arrays(6))
    settings = DataSettings(source="npz", train="train.npz", test="test.npz")
    data = open_data(settings, folder=tmp_path, seed=0)
    assert data.class_names == ("0", "1")
    assert data.test.images(np.arange(6)).shape == (6, 4, 4, 1)
    assert data.test.images(np.arange(6))[:, 3, 3, 0].tolist() == [0, 1, 2, 3, 4, 5]
    assert len(data.validation) == 2


def test_npz_names_its_classes(tmp_path: Path) -> None:
    np.savez(tmp_path / "train.npz", **arrays(), class_names=np.array(["even", "odd"]))
    settings = DataSettings.model_validate({"source": "npz", "train": "train.npz", "split": {"test": 0.2}})
    assert open_data(settings, folder=tmp_path, seed=0).class_names == ("even", "odd")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": np.zeros((20, 4, 4, 2), np.uint8)}, r"images are uint8 \[20, 4, 4, 2\]"),
        ({"images": np.zeros((20, 4, 4), np.float32)}, "images are float32"),
        ({"labels": np.zeros(19, int)}, r"labels are int64 \[19\] for 20 images"),
        ({"labels": np.array(["a"] * 20)}, "labels are <U1"),
        ({"labels": np.arange(20) % 2 - 1}, "labels from -1 to 0"),
        ({"labels": np.arange(20) % 2 * 2}, "no training images of class 1"),
        ({"labels": np.array([{}] * 20, dtype=object)}, "cannot be read as npz"),
    ],
)
def test_arrays_of_another_form_are_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    np.savez(tmp_path / "train.npz", **{**arrays(), **change})
    settings = DataSettings.model_validate({"source": "npz", "train": "train.npz", "split": {"test": 0.2}})
    with pytest.raises(InputError, match=message):
        open_data(settings, folder=tmp_path, seed=0)


FUNCTION = """
import numpy as np
def pair(n):
    return np.arange(n, dtype=np.uint8)[:, None, None, None] * np.ones((1, 4, 4, 3), np.uint8), np.arange(n) % 2
def load():
    return {"train": pair(10), "validation": pair(4), "test": pair(6), "class_names": ["a", "b"]}
def two_values():
    train = np.array([51, 153], np.uint8)[:, None, None] * np.ones((1, 2, 3), np.uint8), np.arange(2)
    return {"train": train, "validation": train, "test": train}
def fails():
    return {}["x"]
def wrong():
    return {"training": pair(10)}
"""


def open_python(folder: Path, function: str, **fields: object) -> Data:
    (folder / "mine.py").write_text(FUNCTION)
    settings = DataSettings.model_validate({"source": f"python:mine.py:{function}", **fields})
    return open_data(settings, folder=folder, seed=0)


def test_a_users_function_gives_all_three_parts(tmp_path: Path) -> None:
    data = open_python(tmp_path, "load")
    assert (len(data.train), len(data.validation), len(data.test)) == (10, 4, 6)
    assert data.class_names == ("a", "b")


def test_a_users_function_that_is_wrong_or_missing_is_named(tmp_path: Path) -> None:
    for function, message in (
        ("wrong", "training"),
        ("fails", "KeyError: 'x'"),
        ("nothing", "has no function 'nothing'"),
    ):
        with pytest.raises(InputError, match=message):
            open_python(tmp_path, function)
    with pytest.raises(InputError, match="has no meaning"):
        open_python(tmp_path, "load", train="x")
    with pytest.raises(InputError, match="validation images of its own"):
        open_python(tmp_path, "load", split={"validation": 0.2})
    with pytest.raises(InputError, match="nothing is drawn"):
        open_python(tmp_path, "load", split={"by": "x"})


def test_a_network_of_three_channels_refuses_gray_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = DataSettings.model_validate({"source": "digits", "preprocess": PREPROCESS})
    for limit in (edgekit.data.SMALL_BYTES, 0):
        monkeypatch.setattr(edgekit.data, "SMALL_BYTES", limit)
        with pytest.raises(InputError, match=r"1 channel\(s\), the network takes 3"):
            open_data(settings, folder=tmp_path, seed=0)


def test_without_preprocess_size_mean_and_std_come_from_the_training_images_and_a_note_says_so(tmp_path: Path) -> None:
    data = open_python(tmp_path, "two_values")  # 51 and 153 are 0.2 and 0.6
    assert data.preprocess == Preprocess((2, 3), (0.4,), (0.2,), colour="gray")
    assert data.notes == (
        "preprocess computed from 2 training images; to fix it, write "
        '{"size": [2, 3], "mean": [0.4], "std": [0.2], "colour": "gray"}',
    )
