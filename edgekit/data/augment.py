"""Augmentation of whole batches on tensors: flip, shift, rotate, scale, colour, TrivialAugment, erase, mixup, cutmix.

Shift, rotate and scale are one affine map per image and one bilinear sampling; what comes in from outside repeats the
edge. Erase: Random Erasing, arXiv 1708.04896 (one rectangle of 2 to 33 % of the image, here in its mean colour).
Mixup: arXiv 1710.09412 (one Beta-distributed share per batch). CutMix: arXiv 1905.04899 (one rectangle per batch, the
labels by its area). Every random number comes from the CPU generator given,
so that the same seed gives the same images on every device.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F

from edgekit.data.trivial import trivial_augment

if TYPE_CHECKING:
    from edgekit.settings import AugmentSettings


def augment(
    images: torch.Tensor,
    labels: torch.Tensor,
    settings: AugmentSettings,
    *,
    classes: int,
    generator: torch.Generator,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Images uint8 or float32 of 0..255 [n, C, h, w] -> float32 of 0..255; labels int64 [n] stay.

    Only mixup and cutmix change labels: to shares of each class, float32 [n, classes].
    """
    images = images.to(torch.float32)
    if settings.flip:
        images = torch.where(_uniform(images, 0, 1, generator) < 0.5, images.flip(3), images)
    if settings.shift or settings.rotate or settings.scale:
        images = _affine(images, settings, generator)
    if settings.brightness or settings.contrast:
        images = _colour(images, settings, generator)
    if settings.trivial:
        images = trivial_augment(images, generator)
    if settings.erase:
        images = _erase(images, settings.erase, generator)
    if settings.mixup or settings.cutmix:
        return _mixed(images, labels, settings, classes, generator)
    return images, labels


def _affine(images: torch.Tensor, settings: AugmentSettings, generator: torch.Generator) -> torch.Tensor:
    """Shift of up to +-shift of each side, rotation of up to +-rotate degrees, size times 1 - scale to 1 + scale.

    The map goes from output to input places, both in -1..1 per axis, so a rotation is corrected by the sides' ratio.
    """
    n, _, height, width = images.shape
    angle, size, across, down = torch.rand(4, n, generator=generator) * 2 - 1
    angle = angle * settings.rotate * (math.pi / 180)
    cos, sin = torch.cos(angle) / (1 + settings.scale * size), torch.sin(angle) / (1 + settings.scale * size)
    rows = [
        torch.stack([cos, -sin * height / width, 2 * settings.shift * across], dim=1),
        torch.stack([sin * width / height, cos, 2 * settings.shift * down], dim=1),
    ]
    grid = F.affine_grid(torch.stack(rows, dim=1).to(images.device), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)


def _colour(images: torch.Tensor, settings: AugmentSettings, generator: torch.Generator) -> torch.Tensor:
    """brightness: values times 1 - b to 1 + b; contrast: their distance from the image's mean times 1 - c to 1 + c."""
    bright = _uniform(images, 1 - settings.brightness, 1 + settings.brightness, generator)
    contrast = _uniform(images, 1 - settings.contrast, 1 + settings.contrast, generator)
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    return (images * (bright * contrast) + mean * bright * (1 - contrast)).clamp_(0, 255)


def _erase(images: torch.Tensor, share: float, generator: torch.Generator) -> torch.Tensor:
    """share: of the images that lose a rectangle. Its sides' ratio is 0.3 to 3.3; a side ends at the image's."""
    n, _, height, width = images.shape
    chosen, area, ratio, top, left = torch.rand(5, n, generator=generator)
    area = 0.02 + 0.31 * area
    ratio = torch.exp((2 * ratio - 1) * math.log(3.3))
    tall = (torch.sqrt(area * ratio) * height).clamp(1, height).round()
    wide = (torch.sqrt(area / ratio) * width).clamp(1, width).round()
    top, left = (top * (height - tall + 1)).floor(), (left * (width - wide + 1)).floor()
    y, x = torch.arange(height), torch.arange(width)
    in_rows = (y >= top[:, None]) & (y < (top + tall)[:, None]) & (chosen < share)[:, None]
    in_columns = (x >= left[:, None]) & (x < (left + wide)[:, None])
    mask = (in_rows[:, None, :, None] & in_columns[:, None, None, :]).to(images.device)
    return torch.where(mask, images.mean(dim=(2, 3), keepdim=True), images)


def _mixed(
    images: torch.Tensor, labels: torch.Tensor, settings: AugmentSettings, classes: int, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Every image mixed with another of the batch, its share ~ Beta(alpha, alpha); the labels in the same share."""
    cut = bool(settings.cutmix)
    if settings.mixup and cut:
        cut = bool(torch.rand((), generator=generator) < 0.5)
    seed = int(torch.randint(1 << 62, (), generator=generator))
    alpha = settings.cutmix if cut else settings.mixup
    share = float(np.random.default_rng(seed).beta(alpha, alpha))  # torch's Beta takes no generator
    other = torch.randperm(len(images), generator=generator).to(images.device)
    if cut:
        images, share = _pasted(images, images[other], share, generator)
    else:
        images = torch.lerp(images[other], images, share)
    soft = F.one_hot(labels, classes).to(torch.float32)
    return images, torch.lerp(soft[other], soft, share)


def _pasted(
    images: torch.Tensor, others: torch.Tensor, share: float, generator: torch.Generator
) -> tuple[torch.Tensor, float]:
    """With a rectangle of 1 - share of the area (less at the edge) from the others; and the share that stays."""
    height, width = images.shape[2:]
    side = math.sqrt(1 - share) / 2
    y, x = (float(value) for value in torch.rand(2, generator=generator))
    top, bottom = (round(height * min(max(y + half, 0), 1)) for half in (-side, side))
    left, right = (round(width * min(max(x + half, 0), 1)) for half in (-side, side))
    images = images.clone()
    images[:, :, top:bottom, left:right] = others[:, :, top:bottom, left:right]
    return images, 1 - (bottom - top) * (right - left) / (height * width)


def _uniform(images: torch.Tensor, low: float, high: float, generator: torch.Generator) -> torch.Tensor:
    """One number per image, shape [n, 1, 1, 1]."""
    return (torch.rand(len(images), 1, 1, 1, generator=generator) * (high - low) + low).to(images.device)
