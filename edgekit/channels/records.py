"""The words of pruning: a group of channels, a frozen one, a cut."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Group:
    """Channels that leave together, named by the layer whose outputs they are. width: how many there are."""

    layer: str
    width: int


@dataclass(frozen=True)
class Frozen:
    """A layer whose channels stay, and why. An empty layer means the whole network."""

    layer: str
    reason: str


@dataclass(frozen=True)
class Cut:
    """removed: indices of the channels that leave the group of `layer`, ascending."""

    layer: str
    width: int
    removed: tuple[int, ...]

    @property
    def kept(self) -> int:
        return self.width - len(self.removed)
