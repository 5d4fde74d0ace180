"""Stage: one step of a recipe (finetune, distill, prune, quantize). A new stage is one new file in this folder.

A file `stages/<name>.py` holds one class called `Stage`, whose fields are exactly what the recipe may say. The module
imports no torch at its top, so that a recipe is checked within a second; `apply` imports what it needs.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from edgekit.settings import GoalSettings, Settings

if TYPE_CHECKING:
    from edgekit.data import Data
    from edgekit.device import Board
    from edgekit.model import Model
    from edgekit.progress import Progress

StepName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]


@dataclass(frozen=True)
class Context:
    """What a stage is given besides the model and the data.

    step_dir: a folder of the step's own, for checkpoints; removed when the step is committed.
    model:    a copy of an earlier step's model by its name; `original` is the model as loaded; a source is opened.
    load:     opens a model source with the recipe's number of classes (a student).
    measure_ms: p50 of a model on the goal's board and runtime, exported plainly, in milliseconds.
    goal, board: what the result must reach, and where.
    """

    step_dir: Path
    seed: int
    progress: Progress
    model: Callable[[str], Model]
    load: Callable[[str], Model]
    measure_ms: Callable[[Model], float]
    goal: GoalSettings
    board: Board


@dataclass(frozen=True)
class Outcome:
    """What a stage gives back: a new model, and facts for the ledger and the report (JSON values).

    notes: sentences a reader of the report should see (a doubt with its remedy, a choice that was made).
    """

    model: Model
    metrics: Mapping[str, Any]
    notes: tuple[str, ...] = ()


class Stage(Settings):
    """Frozen; its fields are the recipe's. `kind` is the file's name, `step` the name other steps refer to it by.

    uses_goal: whether the result depends on the goal's device and runtime (pruning measures there); uses_budget:
    whether it depends on goal.accuracy_drop.
    """

    uses_goal: ClassVar[bool] = False
    uses_budget: ClassVar[bool] = False
    name: StepName | None = None

    @property
    def kind(self) -> str:
        return type(self).__module__.rpartition(".")[2]

    @property
    def step(self) -> str:
        return self.name or self.kind

    def requires(self, model: Model) -> None:
        """Refuses, before time is spent, a model that the stage cannot work on.

        Raises:
            InputError: says what the stage needs, and what the model has instead.
        """

    @abstractmethod
    def apply(self, model: Model, data: Data, context: Context) -> Outcome:
        """A new model; the given one is unchanged.

        Raises:
            GateError: the stage changed nothing, or less than the recipe demands.
        """
