"""Trains the network with labels, from its weights as they are (a fresh network is trained from nothing)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgekit.settings import TrainSettings
from edgekit.stages import Context, Outcome
from edgekit.stages import Stage as Base

if TYPE_CHECKING:
    from edgekit.data import Data
    from edgekit.model import Model


class Stage(Base, TrainSettings):
    """The fields are those of TrainSettings."""

    def apply(self, model: Model, data: Data, context: Context) -> Outcome:
        from edgekit.training import train

        tuned = model.copy()
        trained = train(tuned.net, data, self, seed=context.seed, progress=context.progress, folder=context.step_dir)
        return Outcome(tuned, trained.metrics, trained.notes)
