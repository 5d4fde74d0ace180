"""One preprocessing definition for training, evaluation, calibration, the manifest and the app: pixels to input.

    resample:  uint8 [H, W, C] -> uint8 [h, w, C]            fixed-point, separable, our own, versioned
    normalize: uint8 [n, h, w, C] -> float32 [n, C, h, w]    (float32(x) - mean255) * inv_std255, two rounded operations

The resampler gives the bytes of Pillow before its version 13 (bilinear, bicubic, box, lanczos), but its order of passes
never changes: horizontal, then vertical, each rounded to uint8. Output pixel i of n from N has its centre at
(i + 0.5) * N / n; a tap x weighs filter((x + 0.5 - centre) / s) with s = max(N / n, 1), over support * s to each side.
The weights are normalised in float64 and rounded half away from zero to 22 fractional bits; a pixel is
clip((2^21 + sum(weight * value)) >> 22) in int32. An axis that keeps its size keeps its bytes.

Travels to boards: numpy only, Python 3.8.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Callable, Dict, Mapping, Tuple

import numpy as np

from edgekit.errors import InputError, did_you_mean

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

VERSION = "edgekit-resample/1"
BITS = 22  # 8 bits of value, 22 of weight, 2 spare: the sum fits int32 where the weights' magnitudes add up to < 2
CHANNELS = {"rgb": 3, "bgr": 3, "gray": 1}


@dataclass(frozen=True)
class Preprocess:
    """What happens to a decoded image (RGB or gray, uint8) before the network sees it.

    size:      (height, width) of the network's input.
    mean, std: per channel of the network's input, in the order of `colour`, of values scaled to 0..1.
    resize:    `stretch` takes the image to `size`; `shorter` takes its shorter side to `resize_to` (the longer side is
               truncated to whole pixels), then crops the centre (see `_centre`).
    colour:    the order of the input's channels; `gray` turns RGB into (19595 R + 38470 G + 7471 B + 2^15) >> 16 first.

    Raises:
        InputError: the fields contradict each other, or the version is not the one this edgekit computes.
    """

    size: Tuple[int, int]
    mean: Tuple[float, ...]
    std: Tuple[float, ...]
    resize: str = "stretch"
    resize_to: int | None = None
    filter: str = "bilinear"
    colour: str = "rgb"
    version: str = VERSION

    def __post_init__(self) -> None:
        _check(self)

    @classmethod
    def from_settings(cls, settings: Any) -> Preprocess:
        """From a recipe's `data.preprocess` (edgekit.settings.PreprocessSettings, or anything with its fields)."""
        return cls(
            size=(settings.size[0], settings.size[1]),
            mean=tuple(settings.mean),
            std=tuple(settings.std),
            resize=settings.resize,
            resize_to=settings.resize_to,
            filter=settings.filter,
            colour=settings.colour,
        )

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Preprocess:
        """The inverse of `as_dict`.

        Raises:
            InputError: a field is missing or unknown, or a derived constant is not what the fields give.
        """
        fields: Dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in record.items()}
        stated = {key: fields.pop(key) for key in ("mean255", "inv_std255") if key in fields}
        try:
            preprocess = cls(**fields)
        except TypeError as error:
            raise InputError(f"preprocess: {error}", next="take the record from the manifest unchanged") from error
        for key, value in stated.items():
            if value != tuple(preprocess.as_dict()[key]):
                raise InputError(f"preprocess.{key}: {value} does not follow from mean and std")
        return preprocess

    def as_dict(self) -> Dict[str, Any]:
        """JSON form, with the two float32 constants that another language needs to repeat `normalize` exactly."""
        record = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}
        return {**record, "mean255": self.mean255.tolist(), "inv_std255": self.inv_std255.tolist()}

    @property
    def channels(self) -> int:
        return CHANNELS[self.colour]

    @property
    def mean255(self) -> NDArray[np.float32]:
        return np.array([mean * 255.0 for mean in self.mean], dtype=np.float32)

    @property
    def inv_std255(self) -> NDArray[np.float32]:
        return np.array([1.0 / (std * 255.0) for std in self.std], dtype=np.float32)

    def resample(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Decoded images uint8 [..., H, W, 3 or 1] to the network's size, uint8 [..., h, w, channels], RGB or gray.

        Raises:
            InputError: the images' channels are not those the network takes.
        """
        images = _to_channels(images, self.channels)
        height, width = images.shape[-3:-1]
        if self.resize == "stretch":
            grid_h, grid_w = self.size
        else:
            short = min(height, width)
            assert self.resize_to is not None
            grid_h, grid_w = self.resize_to * height // short, self.resize_to * width // short
        images = _pass(images, -2, grid_w, _centre(grid_w, self.size[1]), self.filter)
        return _pass(images, -3, grid_h, _centre(grid_h, self.size[0]), self.filter)

    def normalize(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Resampled images uint8 [n, h, w, C] to what the network is fed, float32 [n, C, h, w]."""
        planes = np.moveaxis(images, -1, 1)
        if self.colour == "bgr":
            planes = planes[:, ::-1]
        values = np.ascontiguousarray(planes, dtype=np.float32)
        values -= self.mean255[:, None, None]
        values *= self.inv_std255[:, None, None]
        return values

    def normalize_torch(self, images: torch.Tensor) -> torch.Tensor:
        """`normalize`, bit for bit, on a tensor [n, h, w, C] on any device: uint8, or float32 of 0..255 (augmented)."""
        import torch

        planes = images.permute(0, 3, 1, 2)
        if self.colour == "bgr":
            planes = planes.flip(1)
        mean = torch.from_numpy(self.mean255).to(images.device)[:, None, None]
        scale = torch.from_numpy(self.inv_std255).to(images.device)[:, None, None]
        return ((planes.to(torch.float32) - mean) * scale).contiguous()


def _check(p: Preprocess) -> None:
    if p.version != VERSION:
        raise InputError(
            f"preprocess.version: '{p.version}' is not known here; this edgekit computes {VERSION}",
            next="use the edgekit that wrote the file, or compress again",
        )
    for field, value, choices in (
        ("colour", p.colour, tuple(CHANNELS)),
        ("filter", p.filter, tuple(FILTERS)),
        ("resize", p.resize, ("stretch", "shorter")),
    ):
        if value not in choices:
            raise InputError(f"preprocess.{field}: '{value}' is not known." + did_you_mean(value, choices))
    for field, numbers in (("mean", p.mean), ("std", p.std)):
        if len(numbers) != p.channels:
            raise InputError(
                f"preprocess.{field}: {len(numbers)} numbers for colour {p.colour}, which has {p.channels} channel(s)",
                next="write one number per channel; images with one channel need `colour: gray`",
            )
    if not all(math.isfinite(number) for number in p.mean + p.std) or min(p.std) <= 0:
        raise InputError(f"preprocess: mean {p.mean} and std {p.std} must be finite, and std above 0")
    if len(p.size) != 2 or min(p.size) < 1:
        raise InputError(f"preprocess.size: {p.size} is not a height and a width of 1 or more")
    _check_resize_to(p)


def _check_resize_to(p: Preprocess) -> None:
    if p.resize == "stretch" and p.resize_to is not None:
        raise InputError("preprocess.resize_to: has no meaning for resize: stretch", next="write `resize: shorter`")
    if p.resize == "shorter" and (p.resize_to is None or p.resize_to < max(p.size)):
        raise InputError(
            f"preprocess.resize_to: {p.resize_to} for a crop of {p.size}",
            next=f"write `resize_to: {max(p.size)}` or more",
        )


def _centre(grid: int, size: int) -> range:
    """The crop's pixels: from (grid - size) / 2, a half rounded to the even number (torchvision's centre crop)."""
    start = round((grid - size) / 2)
    return range(start, start + size)


def _to_channels(images: NDArray[np.uint8], channels: int) -> NDArray[np.uint8]:
    """RGB to gray where the network wants one channel; anything else must fit already."""
    if images.dtype != np.uint8:
        raise InputError(f"images are {images.dtype}, not uint8", next="give values 0..255 as uint8")
    if images.shape[-1] == channels:
        return images
    if (images.shape[-1], channels) != (3, 1):
        raise InputError(
            f"images have {images.shape[-1]} channel(s), the network takes {channels}",
            next="write `colour: gray` for images with one channel, `rgb` or `bgr` for three",
        )
    weighted = images.astype(np.int32) @ np.array([[19595], [38470], [7471]], dtype=np.int32)
    gray: NDArray[np.uint8] = ((weighted + (1 << 15)) >> 16).astype(np.uint8)
    return gray


def _pass(images: NDArray[np.uint8], axis: int, grid: int, crop: range, name: str) -> NDArray[np.uint8]:
    """Resample one axis (-2: width, -3: height) to `grid` pixels, of which those in `crop` are computed."""
    length = images.shape[axis]
    if grid == length:
        return np.take(images, crop, axis) if len(crop) < length else images
    first, weights = _taps(length, grid, name)
    first, weights = first[crop.start : crop.stop], weights[crop.start : crop.stop]
    trailing = (1,) * (-axis - 1)
    total: NDArray[np.int32] = np.full(1, 1 << (BITS - 1), dtype=np.int32)
    for tap in range(weights.shape[1]):
        taken = np.take(images, np.minimum(first + tap, length - 1), axis)
        total = total + np.multiply(taken, weights[:, tap].reshape(-1, *trailing), dtype=np.int32)
    values: NDArray[np.uint8] = np.clip(total >> BITS, 0, 255).astype(np.uint8)
    return values


@lru_cache(maxsize=256)
def _taps(length: int, grid: int, name: str) -> Tuple[NDArray[np.intp], NDArray[np.int32]]:
    """First tap of each output pixel [grid], and its weights in fixed point [grid, taps], zero where it has fewer.

    Plain floats in one order, not numpy's pairwise sums: C++ must get the same bits.
    """
    kernel, reach = FILTERS[name]
    scale = length / grid
    stretch = max(scale, 1.0)
    support = reach * stretch
    firsts = np.zeros(grid, dtype=np.intp)
    weights = np.zeros((grid, math.ceil(support) * 2 + 1), dtype=np.int32)
    for pixel in range(grid):
        centre = (pixel + 0.5) * scale
        first = max(int(centre - support + 0.5), 0)
        last = min(int(centre + support + 0.5), length)
        row = [kernel((tap - centre + 0.5) * (1.0 / stretch)) for tap in range(first, last)]
        whole = _sum(row)
        firsts[pixel] = first
        weights[pixel, : len(row)] = [_fixed(weight / whole) for weight in row]
    return firsts, weights


def _sum(row: list[float]) -> float:
    """Left to right, one rounding each: from Python 3.12 `sum` compensates, which would give other bits."""
    whole = 0.0
    for weight in row:
        whole += weight
    return whole


def _fixed(weight: float) -> int:
    return int(weight * (1 << BITS) + (0.5 if weight >= 0 else -0.5))


def _box(x: float) -> float:
    return 1.0 if -0.5 < x <= 0.5 else 0.0


def _bilinear(x: float) -> float:
    return max(1.0 - abs(x), 0.0)


def _bicubic(x: float) -> float:
    """Keys 1981 with a = -0.5."""
    a, x = -0.5, abs(x)
    if x < 1.0:
        return ((a + 2.0) * x - (a + 3.0)) * x * x + 1
    return (((x - 5) * x + 8) * x - 4) * a if x < 2.0 else 0.0


def _lanczos(x: float) -> float:
    return _sinc(x) * _sinc(x / 3) if -3.0 <= x < 3.0 else 0.0


def _sinc(x: float) -> float:
    return math.sin(x * math.pi) / (x * math.pi) if x else 1.0


# name -> (kernel, its support to each side in output pixels)
FILTERS: Dict[str, Tuple[Callable[[float], float], float]] = {
    "bilinear": (_bilinear, 1.0),
    "bicubic": (_bicubic, 2.0),
    "box": (_box, 0.5),
    "lanczos": (_lanczos, 3.0),
}
