"""Structured pruning: whole channels leave the network (dependency graph: Fang et al., arXiv 2301.12900)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from edgekit.settings import Count, Positive, TrainSettings
from edgekit.stages import Stage as Base


class Recover(TrainSettings):
    """Training after the cut. teacher: an earlier step, `original` or a source; None trains with labels alone."""

    teacher: str | None = None
    lr: Positive = 0.02


class Stage(Base):
    """Ask for exactly one of: speedup (times, measured on the goal's board), macs, params (share that remains),

    ratio (share of channels that leave every group). at_least: the measured speed-up below which the run stops.
    align: channel counts are multiples of it; None takes the board's.
    """

    speedup: Annotated[float, Field(gt=1, le=100)] | None = None
    macs: Annotated[float, Field(gt=0, lt=1)] | None = None
    params: Annotated[float, Field(gt=0, lt=1)] | None = None
    ratio: Annotated[float, Field(gt=0, lt=1)] | None = None
    score: Literal["l1", "l2", "taylor", "bn_scale", "geometric_median", "random"] = "l2"
    align: Count | None = None
    at_least: Annotated[float, Field(ge=1)] | None = None
    recover: Recover | None = None

    @model_validator(mode="after")
    def one_request(self) -> Stage:
        asked = [key for key in ("speedup", "macs", "params", "ratio") if getattr(self, key) is not None]
        if len(asked) != 1:
            raise ValueError(f"ask for exactly one of speedup, macs, params, ratio (got {', '.join(asked) or 'none'})")
        return self
