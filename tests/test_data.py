"""Image folders, splits and fingerprints on small sets written to a folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import edgekit.data
from edgekit.data import Data, Split, batches, open_data
from edgekit.errors import InputError
from edgekit.settings import DataSettings

PREPROCESS = {"size": [6, 6], "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]}


def write(path: Path, value: int = 0, size: tuple[int, int] = (6, 6)) -> None:
    """An image of one colour, (value, value, 255 - value)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value, value, 255 - value)).save(path)


@pytest.fixture
def signs(tmp_path: Path) -> Path:
    """train: 2 classes of 5 tracks of 4 frames, red value = 100 * class + 10 * track + frame; test: 3 a class."""
    for label, name in enumerate(("go", "stop")):
        for track in range(5):
            for frame in range(4):
                write(tmp_path / f"train/{name}/{track:04}_{frame}.png", 100 * label + 10 * track + frame)
        for index in range(3):
            write(tmp_path / f"test/{name}/{index}.png", 200 + index)
    return tmp_path


def open_signs(folder: Path, seed: int = 0, **fields: object) -> Data:
    given = {"source": "image_folder", "train": "train", "test": "test", "preprocess": PREPROCESS}
    return open_data(DataSettings.model_validate({**given, **fields}), folder=folder, seed=seed)


def red(split: Split) -> list[int]:
    return [int(image[0, 0, 0]) for image in split.images(np.arange(len(split)))]


def test_an_image_folder_gives_classes_by_name_and_images_at_the_networks_size(signs: Path) -> None:
    data = open_signs(signs)
    assert data.class_names == ("go", "stop")
    assert (len(data.train), len(data.validation), len(data.test)) == (36, 4, 6)
    assert data.train.images(np.array([5, 0, 5])).shape == (3, 6, 6, 3)
    assert all(value // 100 == label for value, label in zip(red(data.train), data.train.labels, strict=True))


def test_validation_takes_its_share_of_every_class_and_every_image_stays_in_one_split(signs: Path) -> None:
    data = open_signs(signs, split={"validation": 0.25})
    assert np.bincount(data.validation.labels).tolist() == [5, 5]
    everything = [100 * c + 10 * t + f for c in range(2) for t in range(5) for f in range(4)]
    assert sorted(red(data.train) + red(data.validation)) == everything


def test_frames_of_one_track_stay_together(signs: Path) -> None:
    data = open_signs(signs, split={"validation": 0.3, "by": r"(?P<group>\w+/\d+)_"})
    tracks = [{value // 10 for value in red(split)} for split in (data.train, data.validation)]
    assert tracks[0] & tracks[1] == set()
    assert len(data.validation) == 2 * 2 * 4  # 6 of 20 frames: one track, and a second since half of it still fits
    assert data.split_by.startswith("10 groups")


def test_equal_track_numbers_of_two_classes_are_two_groups(signs: Path) -> None:
    assert open_signs(signs, split={"by": r"/(\d+)_"}).split_by.startswith("10 groups")


def test_a_pattern_that_does_not_match_is_refused_with_a_path(signs: Path) -> None:
    with pytest.raises(InputError, match=r"does not match 40 of 40 paths, e\.g\. go/0000_0\.png"):
        open_signs(signs, split={"by": r"track(\d+)"})
    with pytest.raises(InputError, match="not a regular expression"):
        open_signs(signs, split={"by": "("})


def test_without_a_test_folder_the_share_is_drawn_or_asked_for(signs: Path) -> None:
    data = open_signs(signs, test=None, split={"test": 0.2, "validation": 0.4})
    assert (len(data.train), len(data.validation), len(data.test)) == (16, 16, 8)
    assert set(red(data.test)) & set(red(data.train) + red(data.validation)) == set()
    with pytest.raises(InputError, match="no test images"):
        open_signs(signs, test=None)
    with pytest.raises(InputError, match=r"data\.split\.test: the data has test images"):
        open_signs(signs, split={"test": 0.2})
    with pytest.raises(InputError, match="nothing to train on"):
        open_signs(signs, test=None, split={"test": 0.5, "validation": 0.5})


def test_the_fingerprint_changes_with_an_image_the_seed_or_the_preprocessing_and_with_nothing_else(signs: Path) -> None:
    first = open_signs(signs).fingerprint
    assert open_signs(signs).fingerprint == first
    assert open_signs(signs, seed=1).fingerprint != first
    assert open_signs(signs, preprocess={**PREPROCESS, "mean": [0.4, 0.5, 0.5]}).fingerprint != first
    write(signs / "test/go/0.png", 199)
    changed = open_signs(signs).fingerprint
    assert changed != first
    (signs / "test/go/0.png").rename(signs / "test/stop/0a.png")
    assert open_signs(signs).fingerprint not in (first, changed)


def test_a_set_too_large_for_memory_gives_the_same_images(signs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = open_signs(signs)
    monkeypatch.setattr(edgekit.data, "SMALL_BYTES", 0)
    large = open_signs(signs)
    assert "too large to keep in memory" in large.notes[0]
    assert red(large.validation) == red(small.validation)
    fingerprint = large.fingerprint
    assert open_signs(signs).fingerprint == fingerprint
    write(signs / "test/go/0.png", 199)
    assert open_signs(signs).fingerprint != fingerprint


def test_a_corrupt_image_of_a_large_set_stops_the_batch_with_its_name(
    signs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edgekit.data, "SMALL_BYTES", 0)
    (signs / "test/stop/2.png").write_bytes(b"no image")
    data = open_signs(signs)
    with pytest.raises(InputError, match=r"stop/2\.png: cannot be decoded"):
        list(batches(data.test, 4, preprocess=data.preprocess))


def test_corrupt_images_are_named_and_refused_or_left_out_up_to_the_limit(signs: Path) -> None:
    whole = (signs / "train/go/0000_0.png").read_bytes()
    (signs / "train/go/0000_0.png").write_bytes(whole[: len(whole) // 2])
    (signs / "test/stop/1.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"2 corrupt image\(s\), 1 allowed: train/go/0000_0\.png") as refusal:
        open_signs(signs, max_corrupt=1)
    assert refusal.value.next is not None
    assert "max_corrupt: 2" in refusal.value.next
    data = open_signs(signs, max_corrupt=2)
    assert len(data.train) + len(data.validation) == 39
    assert 0 not in red(data.train) + red(data.validation)
    assert red(data.test) == [200, 201, 202, 200, 202]
    assert "test/stop/1.png" in data.notes[0]


def test_sixteen_bit_images_are_not_quietly_clipped(signs: Path) -> None:
    Image.fromarray(np.full((6, 6), 40_000, dtype=np.uint16)).save(signs / "train/go/deep.png")
    with pytest.raises(InputError, match="more than 8 bits"):
        open_signs(signs)


def test_files_that_are_no_images_are_left_out_and_counted(signs: Path) -> None:
    (signs / "train/labels.csv").write_text("a,b")
    (signs / "train/go/Thumbs.db").write_text("x")
    (signs / "train/.cache").mkdir()
    data = open_signs(signs)
    assert data.class_names == ("go", "stop")
    assert data.notes == ("train: 2 file(s) that are no images left out, e.g. labels.csv",)


def test_links_that_lead_in_circles_do_no_harm(signs: Path) -> None:
    (signs / "train/go/all").symlink_to(signs / "train", target_is_directory=True)
    (signs / "train/stop/deep").mkdir()
    (signs / "train/stop/deep/up").symlink_to(signs / "train/stop", target_is_directory=True)
    data = open_signs(signs)
    assert len(data.train) + len(data.validation) == 40


def test_images_lie_as_their_camera_says(signs: Path) -> None:
    image = Image.new("RGB", (6, 6), (0, 0, 255))
    image.putpixel((0, 0), (255, 255, 255))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise: the upper left corner becomes the upper right
    image.save(signs / "test/go/0.png", exif=exif)
    first = open_signs(signs).test.images(np.array([0]))[0]
    assert first[0, 5].tolist() == [255, 255, 255]


def test_a_missing_folder_names_the_path_and_a_missing_variable_the_variable(
    signs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match=r"data\.train: .*nowhere: not found"):
        open_signs(signs, train="nowhere")
    monkeypatch.delenv("EDGEKIT_DATA", raising=False)
    with pytest.raises(InputError, match="variable EDGEKIT_DATA is not set"):
        open_signs(signs, train="$EDGEKIT_DATA/train")
    monkeypatch.setenv("EDGEKIT_DATA", str(signs))
    assert len(open_signs(Path("elsewhere"), train="$EDGEKIT_DATA/train", test="${EDGEKIT_DATA}/test").test) == 6


def test_train_and_test_must_have_the_same_classes_and_every_class_images(signs: Path) -> None:
    (signs / "train/yield").mkdir()
    with pytest.raises(InputError, match=r"test: lacks 1 class folder\(s\) of the other part: yield"):
        open_signs(signs)
    write(signs / "test/yield/0.png")
    with pytest.raises(InputError, match="train/yield: holds no images"):
        open_signs(signs)


def test_without_preprocess_an_image_folder_keeps_the_size_of_its_images(signs: Path) -> None:
    preprocess = open_signs(signs, preprocess=None).preprocess
    assert (preprocess.size, preprocess.colour) == ((6, 6), "rgb")
    for path in signs.rglob("*.png"):
        Image.open(path).convert("L").save(path)
    assert open_signs(signs, preprocess=None).preprocess.colour == "gray"


def test_a_class_of_one_image_stays_in_training(signs: Path) -> None:
    for path in list((signs / "train/stop").iterdir())[1:]:
        path.unlink()
    data = open_signs(signs)
    assert np.bincount(data.train.labels).tolist() == [18, 1]
    assert data.notes == ("validation: 1 class(es) have too few images or groups to give any",)
    for path in list((signs / "train/go").iterdir())[1:]:
        path.unlink()
    with pytest.raises(InputError, match=r"split\.validation: 0\.1 of 2 images is none"):
        open_signs(signs)


def test_images_of_different_sizes_ask_for_preprocess(signs: Path) -> None:
    write(signs / "train/go/large.png", size=(9, 7))
    with pytest.raises(InputError, match=r"2 different \(height, width\), from \[\(6, 6\)\] to \[\(7, 9\)\]"):
        open_signs(signs, preprocess=None)


def test_gray_networks_get_gray_images_from_colour_files(signs: Path) -> None:
    data = open_signs(signs, preprocess={"size": [6, 6], "mean": [0.5], "std": [0.2], "colour": "gray"})
    assert data.test.images(np.array([0]))[0, 0, 0].tolist() == [
        (19595 * 200 + 38470 * 200 + 7471 * 55 + (1 << 15)) >> 16
    ]


def test_an_unknown_source_suggests_a_known_one() -> None:
    with pytest.raises(InputError, match="Did you mean 'image_folder'"):
        open_data(DataSettings(source="imagefolder"), folder=Path(), seed=0)
