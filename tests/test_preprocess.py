"""Preprocessing against arithmetic, against Pillow one axis at a time, and numpy against torch bit for bit."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_sample_images

import edgekit.preprocess
from edgekit.errors import InputError
from edgekit.preprocess import FILTERS, Preprocess
from edgekit.settings import PreprocessSettings

PILLOW = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "box": Image.Resampling.BOX,
    "lanczos": Image.Resampling.LANCZOS,
}


def rgb(size: tuple[int, int], **fields: object) -> Preprocess:
    return Preprocess(size, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), **fields)  # type: ignore[arg-type]


def gray_row(*values: int) -> NDArray[np.uint8]:
    return np.array(values, dtype=np.uint8).reshape(1, -1, 1)


def to_gray_row(width: int, image: NDArray[np.uint8], filter: str = "bilinear") -> list[int]:
    preprocess = Preprocess((1, width), (0.0,), (1.0,), filter=filter, colour="gray")
    return preprocess.resample(image).ravel().tolist()


@cache
def photographs() -> tuple[NDArray[np.uint8], ...]:
    return tuple(load_sample_images().images)


def crops(count: int) -> list[NDArray[np.uint8]]:
    """Crops of the photographs with sides of 5 to 400 pixels, the same every time."""
    rng, found = np.random.default_rng(0), []
    for index in range(count):
        photo = photographs()[index % 2]
        height, width = rng.integers(5, 400, 2)
        top, left = rng.integers(0, photo.shape[0] - height), rng.integers(0, photo.shape[1] - width)
        found.append(photo[top : top + height, left : left + width])
    return found


def pillow_two_passes(image: NDArray[np.uint8], size: tuple[int, int], filter: str) -> NDArray[np.uint8]:
    """Width, then height, as two calls: whatever order Pillow would choose for both at once."""
    wide = Image.fromarray(image).resize((size[1], image.shape[0]), PILLOW[filter])
    return np.asarray(wide.resize((size[1], size[0]), PILLOW[filter]))


def test_an_image_of_the_right_size_keeps_its_bytes() -> None:
    for filter in FILTERS:
        image = crops(1)[0]
        assert np.array_equal(rgb((image.shape[0], image.shape[1]), filter=filter).resample(image), image)


def test_doubling_a_row_weighs_its_neighbours_three_to_one() -> None:
    assert to_gray_row(4, gray_row(0, 100)) == [0, 25, 75, 100]


def test_halving_a_row_weighs_by_distance_from_the_new_centre() -> None:
    # centre 1 of 4: distances 1/2 1/2 3/2 in a filter 2 wide weigh 3/4 3/4 1/4; 70 * (1/4) / (7/4) = 10
    assert to_gray_row(2, gray_row(0, 0, 70, 70)) == [10, 60]


def test_box_averages_and_rounds_a_half_up() -> None:
    assert to_gray_row(2, gray_row(10, 20, 30, 41), "box") == [15, 36]


def test_overshoot_is_clipped_to_bytes() -> None:
    assert to_gray_row(8, gray_row(0, 0, 255, 255), "bicubic")[0::7] == [0, 255]


@pytest.mark.parametrize("filter", sorted(FILTERS))
def test_the_bytes_are_those_of_pillow_axis_by_axis(filter: str) -> None:
    for image in (*crops(12), *photographs()):
        for size in ((224, 224), (32, 48), (17, 301), (image.shape[0], 50), (60, image.shape[1])):
            ours = rgb(size, filter=filter).resample(image)
            assert np.array_equal(ours, pillow_two_passes(image, size, filter)), (image.shape, size)


def test_the_bytes_are_those_of_pillow_where_it_resizes_horizontally_first() -> None:
    image = photographs()[0]  # 427 x 640
    for height, width in ((224, 224), (400, 100), (600, 900)):
        assert not (height < 427 and 427 - height > 2 * (640 - width))  # Pillow 13's rule for vertical first
        theirs = np.asarray(Image.fromarray(image).resize((width, height), PILLOW["bilinear"]))
        assert np.array_equal(rgb((height, width)).resample(image), theirs)


def test_a_stack_of_images_is_resampled_like_each_alone() -> None:
    stack = np.stack([image[:64, :80] for image in photographs()])
    together = rgb((33, 21)).resample(stack)
    assert np.array_equal(together, np.stack([rgb((33, 21)).resample(image) for image in stack]))


@pytest.mark.parametrize(
    ("height", "width", "top", "left"),
    [
        (427, 640, 16, 80),  # 640 * 256 // 427 = 383 wide: (383 - 224) / 2 = 79.5 to the even 80; (256 - 224) / 2 = 16
        (300, 301, 16, 16),  # 301 * 256 // 300 = 256 wide
        (200, 202, 16, 17),  # upwards; 202 * 256 // 200 = 258 wide
    ],
)
def test_the_shorter_side_is_resized_and_the_centre_cropped(height: int, width: int, top: int, left: int) -> None:
    image = photographs()[0][:height, :width]
    grid = rgb((256, 256 * width // height)).resample(image)
    cropped = rgb((224, 224), resize="shorter", resize_to=256).resample(image)
    assert np.array_equal(cropped, grid[top : top + 224, left : left + 224])


def test_a_tall_image_is_cropped_like_a_wide_one_on_its_side() -> None:
    image = photographs()[0].transpose(1, 0, 2)
    grid = rgb((256 * 640 // 427, 256)).resample(image)
    cropped = rgb((224, 224), resize="shorter", resize_to=256).resample(image)
    assert np.array_equal(cropped, grid[80 : 80 + 224, 16 : 16 + 224])


def test_gray_is_pillows_luma() -> None:
    image = photographs()[0]
    gray = Preprocess((427, 640), (0.5,), (0.5,), colour="gray").resample(image)
    assert np.array_equal(gray[..., 0], np.asarray(Image.fromarray(image).convert("L")))


def test_normalising_subtracts_then_multiplies() -> None:
    unit = Preprocess((1, 2), (10 / 255, 20 / 255, 30 / 255), (1 / 255, 1 / 255, 1 / 255))
    images = np.array([[[[10, 20, 31], [255, 0, 30]]]], dtype=np.uint8)
    assert unit.normalize(images).tolist() == [[[[0, 245]], [[0, -20]], [[1, 0]]]]


def test_bgr_turns_the_channels_round_and_means_are_in_its_order() -> None:
    bgr = Preprocess((1, 1), (3 / 255, 2 / 255, 0.0), (1 / 255,) * 3, colour="bgr")
    assert bgr.normalize(np.array([[[[1, 2, 3]]]], dtype=np.uint8)).ravel().tolist() == [0, 0, 1]


def test_numpy_and_torch_agree_bit_for_bit_on_a_hundred_images() -> None:
    sizes = ((64, 64), (33, 47), (128, 96))
    for index, image in enumerate(crops(100)):
        for colour in ("rgb", "bgr"):
            preprocess = rgb(sizes[index % 3], colour=colour)
            images = preprocess.resample(image)[None]
            ours, theirs = preprocess.normalize(images), preprocess.normalize_torch(torch.from_numpy(images)).numpy()
            assert ours.tobytes() == theirs.tobytes()


def test_torch_takes_augmented_floats_too() -> None:
    images = torch.arange(12, dtype=torch.uint8).reshape(1, 2, 2, 3)
    assert torch.equal(rgb((2, 2)).normalize_torch(images.float()), rgb((2, 2)).normalize_torch(images))


def test_the_json_form_brings_back_the_same_preprocessing_and_exact_constants() -> None:
    preprocess = rgb((224, 192), resize="shorter", resize_to=256, filter="bicubic", colour="bgr")
    record = json.loads(json.dumps(preprocess.as_dict()))
    assert Preprocess.from_dict(record) == preprocess
    assert record["version"] == "edgekit-resample/1"
    assert record["mean255"] == [float(np.float32(mean * 255)) for mean in (0.485, 0.456, 0.406)]
    assert record["inv_std255"] == [float(np.float32(1 / (std * 255))) for std in (0.229, 0.224, 0.225)]


def test_a_recipes_settings_become_the_preprocessing() -> None:
    settings = PreprocessSettings(size=[8, 9], mean=[0.3], std=[0.4], colour="gray", filter="box")
    assert Preprocess.from_settings(settings) == Preprocess((8, 9), (0.3,), (0.4,), filter="box", colour="gray")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": "edgekit-resample/2"}, "version"),
        ({"mean255": [1.0, 2.0, 3.0]}, "does not follow"),
        ({"colour": "grey"}, "Did you mean 'gray'"),
        ({"filter": "hamming"}, "hamming"),
        ({"resize": "longer"}, "longer"),
        ({"layout": "nhwc"}, "layout"),
        ({"mean": [0.5]}, "1 numbers for colour rgb"),
        ({"std": [0.1, 0.1, 0.0]}, "std above 0"),
        ({"mean": [0.1, 0.1, float("nan")]}, "finite"),
        ({"resize_to": 256}, "no meaning"),
        ({"resize": "shorter"}, "resize_to: 224"),
        ({"resize": "shorter", "resize_to": 223}, "resize_to: 224"),
        ({"size": [0, 224]}, "size"),
    ],
)
def test_a_contradiction_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Preprocess.from_dict({**rgb((224, 224)).as_dict(), **change})


def test_images_of_other_channels_or_types_are_refused() -> None:
    with pytest.raises(InputError, match="1 channel"):
        rgb((4, 4)).resample(np.zeros((8, 8, 1), dtype=np.uint8))
    with pytest.raises(InputError, match="float32, not uint8"):
        rgb((4, 4)).resample(np.zeros((8, 8, 3), dtype=np.float32))


def test_the_module_travels_to_boards() -> None:
    ast.parse(Path(edgekit.preprocess.__file__).read_text(), feature_version=(3, 8))
    code = "import sys, edgekit.preprocess; assert not {'torch', 'PIL', 'pydantic'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
