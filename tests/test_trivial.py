"""TrivialAugment's operations, against Pillow where it has the same, and CutMix's areas."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from edgekit.data.augment import augment
from edgekit.data.trivial import COLOUR, GEOMETRY, _moved, trivial_augment
from edgekit.settings import AugmentSettings

LEVEL, PLUS, MINUS = (torch.full((1, 1, 1, 1), value) for value in (0.4, 1.0, -1.0))


def noise(n: int = 1, channels: int = 3, size: int = 16) -> torch.Tensor:
    generator = torch.Generator().manual_seed(7)
    return torch.randint(30, 200, (n, channels, size, size), generator=generator).float()


def pillow(images: torch.Tensor) -> Image.Image:
    return Image.fromarray(images[0].permute(1, 2, 0).byte().numpy())


def apply(name: str, sign: torch.Tensor = PLUS) -> np.ndarray:
    return COLOUR[name](noise(), LEVEL, sign).clamp(0, 255)[0].permute(1, 2, 0).numpy()


def close(ours: np.ndarray, theirs: Image.Image, within: float = 1.5) -> bool:
    return float(np.abs(ours - np.asarray(theirs)).max()) <= within


def test_enhancements_are_those_of_pillow_but_for_its_rounding() -> None:
    image, factor = pillow(noise()), 1 + 0.99 * 0.4
    assert close(apply("brightness"), ImageEnhance.Brightness(image).enhance(factor))
    assert close(apply("colour"), ImageEnhance.Color(image).enhance(factor))
    assert close(apply("contrast"), ImageEnhance.Contrast(image).enhance(factor))
    assert close(apply("brightness", MINUS), ImageEnhance.Brightness(image).enhance(2 - factor))


def test_sharpness_goes_away_from_pillows_smoothed_image() -> None:
    image = pillow(noise())
    smooth = np.asarray(image.filter(ImageFilter.SMOOTH)).astype(float)
    expected = np.clip(smooth + (1 + 0.99 * 0.4) * (np.asarray(image) - smooth), 0, 255)
    assert np.abs(apply("sharpness") - expected).max() <= 1


def test_equalize_is_exactly_pillows() -> None:
    # 64x64: enough pixels that a step holds more than none
    images = noise(size=64)
    ours = COLOUR["equalize"](images, LEVEL, PLUS)[0].permute(1, 2, 0).numpy()
    assert np.array_equal(ours, np.asarray(ImageOps.equalize(pillow(images))))
    assert torch.equal(COLOUR["equalize"](noise(size=4), LEVEL, PLUS), noise(size=4))  # too few pixels: unchanged


def test_autocontrast_stretches_each_channel_to_the_whole_range() -> None:
    assert close(apply("autocontrast"), ImageOps.autocontrast(pillow(noise())))
    flat = torch.full((1, 1, 4, 4), 7.0)
    assert torch.equal(COLOUR["autocontrast"](flat, LEVEL, PLUS), flat)


def test_posterize_keeps_bits_and_solarize_inverts_bright_values() -> None:
    values = torch.tensor([0.0, 5.0, 100.0, 152.0, 153.0, 255.0]).view(1, 1, 1, 6)
    # level 0.4: round(2.4) = 2 bits go; values from 255 * 0.6 = 153 on are inverted
    assert COLOUR["posterize"](values, LEVEL, PLUS).flatten().tolist() == [0, 4, 100, 152, 152, 252]
    assert COLOUR["solarize"](values, LEVEL, PLUS).flatten().tolist() == [0, 5, 100, 152, 102, 0]


def test_a_shift_by_one_level_moves_pixels_and_repeats_the_edge() -> None:
    images = torch.arange(8.0).view(1, 1, 1, 8).expand(1, 1, 8, 8)
    moved = _moved(images, torch.tensor([GEOMETRY.index("shift x")]), torch.tensor([0.5]))
    # half of the strongest shift is a quarter of the side: output pixel i shows input pixel i + 2
    torch.testing.assert_close(moved[0, 0, 0], torch.tensor([2.0, 3, 4, 5, 6, 7, 7, 7]))


def test_strength_zero_moves_nothing() -> None:
    for number in range(len(GEOMETRY)):
        torch.testing.assert_close(
            _moved(noise(), torch.tensor([number]), torch.tensor([0.0])), noise(), atol=1e-3, rtol=0
        )


def test_every_image_gets_one_operation_and_the_same_seed_the_same() -> None:
    first, second, other = (trivial_augment(noise(200), torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    assert first.shape == noise(200).shape
    assert first.min() >= 0
    assert first.max() <= 255
    unchanged = (first == noise(200)).all(dim=(1, 2, 3)).sum().item()
    assert 200 / 14 / 3 < unchanged < 200 / 14 * 3  # identity is one of fourteen


def test_the_order_in_memory_does_not_matter() -> None:
    plain, last = noise(64), noise(64).contiguous(memory_format=torch.channels_last)
    first, second = (trivial_augment(images, torch.Generator().manual_seed(3)) for images in (plain, last))
    torch.testing.assert_close(first, second, atol=1e-2, rtol=0)


def test_gray_images_are_augmented_too() -> None:
    assert trivial_augment(noise(64, channels=1), torch.Generator().manual_seed(0)).shape == (64, 1, 16, 16)


def test_cutmix_pastes_a_rectangle_and_labels_by_its_area() -> None:
    images = torch.arange(2.0).view(2, 1, 1, 1).expand(2, 1, 20, 20) * 100
    for seed in range(5):
        mixed, shares = augment(
            images, torch.tensor([0, 1]), AugmentSettings(cutmix=1.0), classes=2,
            generator=torch.Generator().manual_seed(seed),
        )  # fmt: skip
        own = (mixed[0] == 0).float().mean().item()
        torch.testing.assert_close(shares[0], torch.tensor([own, 1 - own]))
        torch.testing.assert_close(shares.sum(1), torch.ones(2))


def test_of_mixup_and_cutmix_each_batch_gets_one() -> None:
    images = torch.arange(2.0).view(2, 1, 1, 1).expand(2, 1, 20, 20) * 100
    settings = AugmentSettings(mixup=1.0, cutmix=1.0)
    kinds = []
    for seed in range(30):
        mixed, _ = augment(
            images, torch.tensor([0, 1]), settings, classes=2, generator=torch.Generator().manual_seed(seed)
        )
        kinds.append(mixed[0].min().item() == mixed[0].max().item() and 0 < mixed[0, 0, 0, 0].item() < 100)
    assert 0 < sum(kinds) < 30
