"""Structured pruning: whole channels leave the network (dependency graph: Fang et al., arXiv 2301.12900).

The least important channels go first, by one threshold over all groups, until what was asked for is reached: a measured
speed-up on the goal's board, a share of the MACs or of the parameters.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, model_validator

from edgekit.errors import GateError, InputError
from edgekit.settings import Count, Positive, TrainSettings
from edgekit.stages import Context, Outcome
from edgekit.stages import Stage as Base

if TYPE_CHECKING:
    from torch import Tensor, nn

    from edgekit.channels import Cut
    from edgekit.data import Data
    from edgekit.model import Model
    from edgekit.teacher import Loss
    from edgekit.training import Trained

SEARCH_STEPS = 7  # halvings of the share to remove: 1 % resolution
MEASURED_STEPS = 5
NEAR = 0.03  # a measured time this near to the budget ends the search; the promise is 5 %
PROMISE = 0.05
TAYLOR_BATCHES = 16


class Recover(TrainSettings):
    """Training after the cut. teacher: an earlier step, `original` or a source; None trains with labels alone."""

    teacher: str | None = None
    lr: Positive = 0.02
    temperature: Positive = 4.0
    alpha: Annotated[float, Field(ge=0, le=1)] = 0.7


class Stage(Base):
    """Ask for exactly one of: speedup (times, measured on the goal's board), macs, params (share that remains), ratio

    (share of channels that leaves every group). at_least: the measured speed-up below which the run stops.
    align: channel counts are multiples of it; None takes the board's.
    """

    uses_goal = True
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

    def requires(self, model: Model) -> None:
        if any(edit["kind"] == "quantize" for edit in model.edits):
            raise InputError("prune: the model is quantized already", next="put prune before quantize in the recipe")

    def apply(self, model: Model, data: Data, context: Context) -> Outcome:
        from edgekit import channels

        groups, frozen = channels.find_groups(model.net, model.example)
        if not groups:
            reasons = "; ".join(f"{one.layer or 'network'}: {one.reason}" for one in frozen)
            raise GateError("prune: no channel of this network can be removed", why=reasons)
        scores = self._scores(model, data, context, groups)
        cuts = self._cuts(model, context, scores)
        if not cuts:
            raise GateError(
                "prune: 0 channels pruned",
                why="what was asked for is met already",
                next="ask for more, or drop the stage",
            )
        pruned = model.edited(channels.cut(model.net, model.example, cuts), channels.as_edit(cuts))
        metrics: dict[str, Any] = {
            "kept": {c.layer: [c.kept, c.width] for c in cuts},
            "frozen": [asdict(one) for one in frozen],
        }
        gain, doubts = self._gain(model, pruned, context)
        metrics |= gain
        notes = (*(f"'{one.layer}' keeps its channels: {one.reason}" for one in frozen), *doubts)
        trained = self._recover(pruned, data, context)
        if trained is None:
            return Outcome(pruned, metrics, notes)
        return Outcome(pruned, {**metrics, **trained.metrics}, (*notes, *trained.notes))

    def _scores(self, model: Model, data: Data, context: Context, groups: Any) -> dict[str, Tensor]:
        import torch

        from edgekit import channels

        torch.manual_seed(context.seed)
        net = model.copy().net
        if self.score == "taylor":
            _gradients(net, data)
        return channels.importance(net, model.example, groups, self.score)

    def _cuts(self, model: Model, context: Context, scores: dict[str, Tensor]) -> list[Cut]:
        """The fewest channels whose removal meets the request."""
        from edgekit import channels

        align = self.align or context.board.device.channel_multiple("float32")
        if self.ratio is not None:
            return channels.choose(scores, self.ratio, align, uniform=True)

        def pruned(share: float) -> Model:
            cuts = channels.choose(scores, share, align)
            return model.edited(channels.cut(model.net, model.example, cuts))

        if self.speedup is not None:
            share = self._timed(self.speedup, model, pruned, context)
        elif self.macs is not None:
            share = self._counted(lambda m: m.macs, self.macs, model, pruned)
        else:
            assert self.params is not None
            share = self._counted(lambda m: m.parameters, self.params, model, pruned)
        return channels.choose(scores, share, align)

    def _counted(
        self, count: Callable[[Model], float], part: float, model: Model, pruned: Callable[[float], Model]
    ) -> float:
        """The smallest share of channels without which at most `part` of the count remains."""
        budget = count(model) * part
        share = _smallest(lambda share: count(pruned(share)) <= budget, SEARCH_STEPS)
        if share is None:
            raise self._unreachable(count(pruned(1.0)), budget)
        return share

    def _timed(self, speedup: float, model: Model, pruned: Callable[[float], Model], context: Context) -> float:
        """The share of channels without which the network is that many times faster, measured on the goal's board."""
        before_ms, least_ms = context.measure_ms(model), context.measure_ms(pruned(1.0))
        if least_ms > before_ms / speedup:
            raise self._unreachable(least_ms, before_ms / speedup)
        return _nearest(lambda share: context.measure_ms(pruned(share)), before_ms, least_ms, before_ms / speedup)

    def _unreachable(self, least: float, budget: float) -> GateError:
        return GateError(
            f"prune: {self._request()} cannot be reached",
            why=f"with every group at its least width {least:.4g} remain, {budget:.4g} were asked for",
            next="ask for less, or start from another student",
        )

    def _request(self) -> str:
        asked = {key: getattr(self, key) for key in ("speedup", "macs", "params", "ratio")}
        return next(f"{key}: {value}" for key, value in asked.items() if value is not None)

    def _gain(self, before: Model, after: Model, context: Context) -> tuple[dict[str, float], list[str]]:
        """Both networks measured on the goal's board, before any training: before, after, before again."""
        first_ms, new_ms, again_ms = (context.measure_ms(model) for model in (before, after, before))
        old_ms = (first_ms + again_ms) / 2
        gain = old_ms / new_ms
        context.progress.note(
            f"prune: {old_ms:.3f} ms before the cut, {new_ms:.3f} ms after it: {gain:.2f} times faster"
        )
        if self.at_least is not None and gain < self.at_least:
            raise GateError(
                f"prune: {gain:.2f} times faster, at_least asks for {self.at_least:g}",
                why=f"{old_ms:.3f} ms before the cut, {new_ms:.3f} ms after it, on {context.board.name}",
                next="ask for more pruning or lower prune.at_least",
            )
        doubts = []
        if abs(math.log(first_ms / again_ms)) > PROMISE:
            doubts.append(
                f"the speed-up is uncertain: the same network took {first_ms:.3f} and {again_ms:.3f} ms; "
                "measure on a quiet board"
            )
        if self.speedup is not None and abs(gain / self.speedup - 1) > PROMISE:
            doubts.append(f"speedup: {self.speedup:g} was asked for, {gain:.2f} was reached")
        return {"before_ms": old_ms, "after_ms": new_ms, "speedup": gain}, doubts

    def _recover(self, pruned: Model, data: Data, context: Context) -> Trained | None:
        from edgekit.training import reestimate_batchnorm, train

        reestimate_batchnorm(pruned.net, data)
        if self.recover is None:
            return None
        seed, folder, loss = context.seed, context.step_dir, _taught(self.recover, data, context)
        return train(pruned.net, data, self.recover, seed=seed, progress=context.progress, loss=loss, folder=folder)


def _taught(recover: Recover, data: Data, context: Context) -> Loss | None:
    from edgekit.losses import kd, of_labels
    from edgekit.teacher import distilled

    if recover.teacher is None:
        return None
    teacher = context.model(recover.teacher).net
    labelled = of_labels(recover, data.train)
    return distilled([teacher], kd, temperature=recover.temperature, alpha=recover.alpha, labelled=labelled)


def _gradients(net: nn.Module, data: Data) -> None:
    """Leaves the gradient of the cross-entropy over a few training batches in the parameters (first-order Taylor)."""
    from edgekit.data import batches
    from edgekit.losses import cross_entropy

    for images, labels in islice(batches(data.train, 64, preprocess=data.preprocess, seed=0), TAYLOR_BATCHES):
        cross_entropy(net(images), labels).backward()  # type: ignore[no-untyped-call]


def _smallest(enough: Callable[[float], bool], steps: int) -> float | None:
    """The smallest share in 0..1 that is enough, by halving; None when not even 1 is."""
    if not enough(1.0):
        return None
    low, high = 0.0, 1.0
    for _ in range(steps):
        middle = (low + high) / 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def _nearest(measure_ms: Callable[[float], float], before_ms: float, least_ms: float, budget_ms: float) -> float:
    """The share in 0..1 whose time is nearest to the budget, in few measurements.

    Each next share is interpolated between the nearest slower and faster ones, on the root of the time: the work of a
    convolution falls with the square of its width. before_ms: without a cut; least_ms: share 1, within the budget.
    """
    slower, faster = (0.0, before_ms), (1.0, least_ms)
    best = faster
    for _ in range(MEASURED_STEPS):
        if abs(best[1] / budget_ms - 1) <= NEAR:
            break
        high, low = math.sqrt(slower[1]), math.sqrt(faster[1])
        part = min(0.9, max(0.1, (high - math.sqrt(budget_ms)) / (high - low)))
        share = slower[0] + part * (faster[0] - slower[0])
        tried = (share, measure_ms(share))
        best = min(best, tried, key=lambda one: abs(math.log(one[1] / budget_ms)))
        slower, faster = (tried, faster) if tried[1] > budget_ms else (slower, tried)
    return best[0]
