"""Augmentation: each one alone, with an expected value a reader can work out; the same seed gives the same batch."""

from __future__ import annotations

from typing import Any

import torch

from edgekit.data.augment import augment
from edgekit.settings import AugmentSettings


def run(images: torch.Tensor, seed: int = 0, **settings: Any) -> tuple[torch.Tensor, torch.Tensor]:
    labels = torch.arange(len(images)) % 3
    generator = torch.Generator().manual_seed(seed)
    return augment(images, labels, AugmentSettings.model_validate(settings), classes=3, generator=generator)


def noise(n: int = 8, height: int = 12, width: int = 16) -> torch.Tensor:
    return torch.randint(0, 256, (n, 3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(7))


EVERYTHING: dict[str, Any] = {
    "flip": True,
    "shift": 0.1,
    "rotate": 15.0,
    "scale": 0.1,
    "brightness": 0.2,
    "contrast": 0.2,
    "erase": 0.5,
    "trivial": True,
    "mixup": 0.4,
    "cutmix": 1.0,
}


def test_the_same_seed_gives_the_same_batch_and_another_seed_another() -> None:
    first, second, other = (run(noise(), seed, **EVERYTHING) for seed in (1, 1, 2))
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])
    assert not torch.equal(first[0], other[0])


def test_every_augmentation_alone_changes_something_and_keeps_shape_and_range() -> None:
    for name, value in EVERYTHING.items():
        images, _ = run(noise(), **{name: value})
        assert images.shape == noise().shape, name
        assert not torch.equal(images, noise().float()), name
        assert images.min() >= 0, name
        assert images.max() <= 255, name


def test_no_augmentation_changes_nothing() -> None:
    images, labels = run(noise())
    assert torch.equal(images, noise().float())
    assert labels.tolist() == [0, 1, 2, 0, 1, 2, 0, 1]


def test_flip_mirrors_about_half_of_the_images_and_leaves_the_rest() -> None:
    images, _ = run(noise(200), flip=True)
    mirrored = (images == noise(200).flip(3).float()).all(dim=(1, 2, 3))
    kept = (images == noise(200).float()).all(dim=(1, 2, 3))
    assert torch.equal(mirrored, ~kept)
    assert 70 <= int(mirrored.sum()) <= 130  # 100 +- 4 standard deviations of sqrt(200) / 2


def test_shift_moves_a_ramp_by_at_most_its_share_of_the_side() -> None:
    ramp = torch.arange(16.0).expand(50, 3, 10, 16) * 10  # 10 a pixel to the right
    moved, _ = run(ramp, shift=0.125)
    by_pixels = (moved - ramp)[:, 0, 5, 4:12] / 10
    assert by_pixels.abs().max() <= 0.125 * 16 + 1e-4
    assert by_pixels.max() > 1.5
    assert by_pixels.min() < -1.5
    assert torch.allclose(by_pixels, by_pixels[:, :1], atol=1e-4)  # the whole image moves by the same


def test_what_comes_in_from_outside_repeats_the_edge() -> None:
    images, _ = run(torch.full((20, 3, 8, 8), 77, dtype=torch.uint8), shift=0.5, rotate=180.0, scale=0.5)
    assert torch.allclose(images, torch.full_like(images, 77), atol=1e-4)


def test_rotation_keeps_distances_in_an_image_that_is_not_square() -> None:
    height, width = 40, 80
    y, x = torch.meshgrid(torch.arange(height) - 19.5, torch.arange(width) - 39.5, indexing="ij")
    disc = ((x**2 + y**2).sqrt() * 4).clamp(0, 255).expand(10, 1, height, width)
    turned, _ = run(disc, rotate=90.0)
    inner = slice(8, 32), slice(28, 52)  # away from the tip of the cone and from the edge
    assert (turned - disc)[:, 0, inner[0], inner[1]].abs().max() < 2  # half a pixel: the cone looks the same turned


def test_rotation_of_a_ramp_shows_angles_up_to_the_limit() -> None:
    ramp = ((torch.arange(64.0) - 31.5) * 2 + 128).expand(200, 1, 64, 64)  # 2 a pixel to the right
    turned, _ = run(ramp, rotate=30.0)
    right = (turned[:, 0, 32, 40] - turned[:, 0, 32, 24]) / 32  # the cosine of the angle
    down = (turned[:, 0, 40, 32] - turned[:, 0, 24, 32]) / 32  # its sine, by sign
    angles = torch.rad2deg(torch.atan2(down, right))
    assert angles.abs().max() < 30.1
    assert angles.max() > 25
    assert angles.min() < -25


def test_scale_stretches_a_ramp_within_its_limits() -> None:
    ramp = ((torch.arange(64.0) - 31.5) * 2 + 128).expand(200, 1, 64, 64)
    scaled, _ = run(ramp, scale=0.25)
    steps = (scaled[:, 0, 32, 40] - scaled[:, 0, 32, 24]) / 32  # 1 / size
    assert 1 / 1.25 - 1e-3 <= steps.min() < 0.85
    assert 1.25 < steps.max() <= 1 / 0.75 + 1e-3


def test_brightness_multiplies_and_contrast_keeps_the_mean() -> None:
    flat = torch.full((100, 3, 4, 4), 100, dtype=torch.uint8)
    bright, _ = run(flat, brightness=0.5)
    assert 50 <= bright.min() < 60
    assert 140 < bright.max() <= 150
    images = torch.where(torch.arange(16).reshape(4, 4) % 2 == 0, 90.0, 110.0).expand(100, 3, 4, 4)
    contrasted, _ = run(images, contrast=0.5)
    assert torch.allclose(contrasted.mean(dim=(1, 2, 3)), torch.full((100,), 100.0))
    half_span = (contrasted[:, 0, 0, 1] - contrasted[:, 0, 0, 0]) / 2  # 10 times 0.5 to 1.5
    assert 5 <= half_span.min() < 6
    assert 14 < half_span.max() <= 15


def test_erase_takes_one_rectangle_from_the_asked_share_of_images() -> None:
    images, _ = run(noise(400, 32, 32), erase=0.25)
    erased = (images != noise(400, 32, 32).float()).any(dim=1)
    touched = erased.any(dim=(1, 2))
    assert 65 <= int(touched.sum()) <= 135  # 100 +- 4 standard deviations of sqrt(400 / 4 * 3 / 4)
    for mask in erased[touched]:
        rows, columns = torch.nonzero(mask.any(1)).ravel(), torch.nonzero(mask.any(0)).ravel()
        area = (rows[-1] - rows[0] + 1) * (columns[-1] - columns[0] + 1)
        assert mask.sum() == area  # every pixel inside changed, none outside
        assert 0.01 <= area / 1024 <= 0.36  # 2 to 33 %, up to rounding


def test_mixup_blends_images_and_labels_in_the_same_share() -> None:
    # pixels say the class: an image of class c is c * 100 everywhere, so blended pixels are the blended labels
    images = (torch.arange(9) % 3 * 100).float().reshape(9, 1, 1, 1).expand(9, 3, 4, 4)
    blended, labels = run(images, mixup=1.0)
    assert labels.shape == (9, 3)
    assert labels.dtype == torch.float32
    assert torch.allclose(labels.sum(dim=1), torch.ones(9))
    assert torch.allclose(blended[:, 0, 0, 0], labels @ torch.tensor([0.0, 100.0, 200.0]), atol=1e-3)
    assert ((labels > 0).sum(dim=1) == 2).any()
