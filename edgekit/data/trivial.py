"""TrivialAugment (Müller and Hutter, arXiv 2103.10158, wide space): one random operation of random strength an image.

Fourteen operations, strength uniform over 31 levels 0..1, sign by a coin. Rotation up to 135 degrees, shear up to 0.99,
shift up to half of the side (the paper: 32 pixels); what comes in from outside repeats the edge.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

LEVELS = 31
GEOMETRY = ("rotate", "shear x", "shear y", "shift x", "shift y")


def trivial_augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """Images float32 of 0..255 [n, C, h, w] -> the same shape and range, each by one operation."""
    n = len(images)
    chosen = torch.randint(len(GEOMETRY) + len(COLOUR) + 1, (n,), generator=generator)  # the last one is identity
    level = torch.randint(LEVELS, (n,), generator=generator) / (LEVELS - 1)
    sign = torch.randint(2, (n,), generator=generator) * 2 - 1
    moved = chosen < len(GEOMETRY)
    images = images.clone()
    if moved.any():
        rows = moved.nonzero().flatten().to(images.device)
        images[rows] = _moved(images[rows], chosen[moved], (level * sign)[moved])
    for number, operation in enumerate(COLOUR.values(), start=len(GEOMETRY)):
        mine = chosen == number
        if mine.any():
            rows = mine.nonzero().flatten().to(images.device)
            strength, direction = (v[mine].view(-1, 1, 1, 1).to(images.device) for v in (level, sign))
            images[rows] = operation(images[rows], strength, direction).clamp(0, 255)
    return images


def _moved(images: Tensor, chosen: Tensor, strength: Tensor) -> Tensor:
    """strength: -1..1 an image. The map goes from output to input places, both in -1..1 per axis."""
    height, width = images.shape[2:]
    by = {name: torch.where(chosen == number, strength, 0.0) for number, name in enumerate(GEOMETRY)}
    angle = by["rotate"] * math.radians(135)
    cos, sin = torch.cos(angle), torch.sin(angle)
    rows = [
        torch.stack([cos, (0.99 * by["shear x"] - sin) * height / width, by["shift x"]], dim=1),
        torch.stack([(0.99 * by["shear y"] + sin) * width / height, cos, by["shift y"]], dim=1),
    ]
    grid = F.affine_grid(torch.stack(rows, dim=1).to(images.device), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)


def _blend(other: Callable[[Tensor], Tensor]) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """other + (1 + sign * 0.99 * level) * (image - other): away from it or towards it."""

    def operation(images: Tensor, level: Tensor, sign: Tensor) -> Tensor:
        base = other(images)
        return base + (1 + 0.99 * level * sign) * (images - base)

    return operation


def _gray(images: Tensor) -> Tensor:
    """Luminance, [n, 1, h, w]; images of one channel are gray already."""
    if images.shape[1] == 1:
        return images
    weights = torch.tensor([0.299, 0.587, 0.114], device=images.device).view(1, 3, 1, 1)
    return (images * weights).sum(dim=1, keepdim=True)


def _smooth(images: Tensor) -> Tensor:
    """3x3 smoothing with weight 5 in the centre, over 13; the outermost pixels stay."""
    kernel = torch.ones(3, 3, device=images.device)
    kernel[1, 1] = 5
    channels = images.shape[1]
    inner = F.conv2d(images, (kernel / 13).expand(channels, 1, 3, 3), groups=channels)
    result = images.clone()
    result[:, :, 1:-1, 1:-1] = inner
    return result


def _posterize(images: Tensor, level: Tensor, sign: Tensor) -> Tensor:
    """Keeps 8 to 2 bits."""
    step = 2.0 ** (6 * level).round()
    return (images / step).floor() * step


def _solarize(images: Tensor, level: Tensor, sign: Tensor) -> Tensor:
    """Inverts values from 255 * (1 - level) on."""
    return torch.where(images >= 255 * (1 - level), 255 - images, images)


def _autocontrast(images: Tensor, level: Tensor, sign: Tensor) -> Tensor:
    """Stretches each channel to 0..255; one of a single value stays."""
    low, high = images.amin(dim=(2, 3), keepdim=True), images.amax(dim=(2, 3), keepdim=True)
    return torch.where(high > low, (images - low) * (255 / (high - low).clamp_min(1e-6)), images)


def _equalize(images: Tensor, level: Tensor, sign: Tensor) -> Tensor:
    """Each channel's values spread by their cumulative counts, as Pillow's ImageOps.equalize does."""
    n, channels, height, width = images.shape
    values = images.round().long().clamp(0, 255).reshape(n * channels, -1)
    counts = torch.zeros(n * channels, 256, dtype=torch.long, device=images.device)
    counts.scatter_add_(1, values, torch.ones_like(values))
    last = counts.gather(1, values.amax(dim=1, keepdim=True))
    step = (height * width - last) // 255
    before = counts.cumsum(1) - counts
    table = torch.where(step > 0, (step // 2 + before) // step.clamp_min(1), torch.arange(256, device=images.device))
    return table.clamp(0, 255).gather(1, values).reshape(images.shape).to(images.dtype)


# images [k, C, h, w], level 0..1 and sign +-1 [k, 1, 1, 1] -> images
COLOUR: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "brightness": _blend(torch.zeros_like),
    "colour": _blend(_gray),
    "contrast": _blend(lambda images: _gray(images).mean(dim=(1, 2, 3), keepdim=True)),
    "sharpness": _blend(_smooth),
    "posterize": _posterize,
    "solarize": _solarize,
    "autocontrast": _autocontrast,
    "equalize": _equalize,
}
