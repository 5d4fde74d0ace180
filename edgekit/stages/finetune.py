"""Trains the network with labels, from its weights as they are (a fresh network is trained from nothing)."""

from __future__ import annotations

from edgekit.settings import TrainSettings
from edgekit.stages import Stage as Base


class Stage(Base, TrainSettings):
    """The fields are those of TrainSettings."""
