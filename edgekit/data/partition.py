"""Which training images become validation and test images: shares drawn class by class, groups kept together."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgekit.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgekit.settings import SplitSettings

    Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Cut:
    """rows: for `train`, `validation` and `test` the part they come from and their rows there, ascending.

    by: what was kept together, in words.
    """

    rows: Mapping[str, tuple[str, Rows]]
    by: str
    notes: tuple[str, ...] = ()


def partition(labels: Mapping[str, Rows], names: tuple[str, ...] | None, split: SplitSettings, seed: int) -> Cut:
    """labels: of the parts a source gives, int64 [n]; names: relative paths of the part `train`.

    A part that is given is taken as it is; the others are drawn from `train` by the shares of the recipe.

    Raises:
        InputError: a share or pattern for a part that is given, no test images at all, a pattern that does not match,
            too few images or groups.
    """
    drawn = _shares(labels, split)
    groups, by = _groups(labels["train"], names, split.by if drawn else None)
    if split.by and not drawn:
        raise InputError("data.split.by: nothing is drawn from the training images", next="remove the pattern")
    rows = {part: (part, np.arange(len(labels[part]))) for part in ("validation", "test") if part in labels}
    left, share_left, notes = np.arange(len(labels["train"])), 1.0, []
    rng = np.random.default_rng([seed, 0])
    for part, share in drawn.items():
        taken = _draw(labels["train"][left], groups[left], share / share_left, rng)
        if not taken.any():
            raise InputError(
                f"data.split.{part}: {share} of {len(labels['train'])} images is none: every class keeps one group",
                next=f"give more images, or raise data.split.{part}",
            )
        lacking = set(labels["train"][left]) - set(labels["train"][left[taken]])
        if lacking:
            notes.append(f"{part}: {len(lacking)} class(es) have too few images or groups to give any")
        rows[part] = ("train", left[taken])
        left, share_left = left[~taken], share_left - share
    return Cut({"train": ("train", left), **rows}, by, tuple(notes))


def _shares(labels: Mapping[str, Rows], split: SplitSettings) -> dict[str, float]:
    """The parts to draw and their shares of the training images, test first."""
    for part in ("validation", "test"):
        if part in labels and part in split.model_fields_set and getattr(split, part) is not None:
            raise InputError(f"data.split.{part}: the data has {part} images of its own", next="remove the line")
    if "test" not in labels and split.test is None:
        raise InputError("data: there are no test images", next="name them in data.test, or set data.split.test: 0.1")
    shares = {"test": split.test or 0.0, "validation": split.validation}
    shares = {part: share for part, share in shares.items() if part not in labels}
    if sum(shares.values()) >= 1:
        raise InputError(
            f"data.split: shares {shares} leave nothing to train on", next="let them add up to less than 1"
        )
    return shares


def _groups(labels: Rows, names: tuple[str, ...] | None, pattern: str | None) -> tuple[Rows, str]:
    """A number per image, equal for images that stay together; and in words what they are."""
    if pattern is None:
        return np.arange(len(labels)), "images one by one, drawn class by class"
    if names is None:
        raise InputError("data.split.by: the images of this source have no paths", next="remove data.split.by")
    try:
        found = [re.search(pattern, name) for name in names]
    except re.error as error:
        raise InputError(f"data.split.by: '{pattern}' is not a regular expression: {error}") from error
    lost = [name for name, match in zip(names, found, strict=True) if match is None]
    if lost:
        raise InputError(
            f"data.split.by: '{pattern}' does not match {len(lost)} of {len(names)} paths, e.g. {lost[0]}",
            next="write a pattern for the path below the training folder, with `/` between folders",
        )
    keys = [(label, _matched(match)) for label, match in zip(labels.tolist(), found, strict=True) if match is not None]
    numbers = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    return np.array([numbers[key] for key in keys]), f"{len(numbers)} groups by '{pattern}', drawn class by class"


def _matched(match: re.Match[str]) -> str:
    return str(match["group"] if "group" in match.re.groupindex else match[0])


def _draw(labels: Rows, groups: Rows, share: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Which images are taken: of each class, groups in random order until the share is reached as nearly as they allow.

    A class of two groups or more gives one at least and keeps one at least.
    """
    taken = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        names, sizes = np.unique(groups[members], return_counts=True)
        chosen: list[int] = []
        wanted, count = share * len(members), 0
        for position in rng.permutation(len(names)):
            first = not chosen and len(names) > 1
            if len(chosen) < len(names) - 1 and (first or count + sizes[position] / 2 <= wanted):
                chosen.append(names[position])
                count += sizes[position]
        taken[members] = np.isin(groups[members], chosen)
    return taken
