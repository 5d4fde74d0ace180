"""What a bench may answer: each request's schema, and what no honest clock can say.

A board sends raw samples, and everything derived from them is believed; so whatever is not an answer is refused here,
before a number is made of it. Fields beyond these are a matter between the bench and whoever asked.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
SLACK_S = 5.0  # the board's clock against ours, over one request


class Answer(BaseModel):
    """Strict: a number is a number, finite, and no text that looks like one."""

    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)


class Hello(Answer):
    device: dict[str, Any]
    scratch: Annotated[str, Field(pattern="^/")]


class Opened(Answer):
    engine: dict[str, Any]


class WarmedUp(Answer):
    steady: bool
    warmup_s: NotNegative
    medians_ms: Annotated[list[Positive], Field(min_length=1)]


class Window(Answer):
    window_s: Positive
    other_cores: NotNegative | None
    waited: NotNegative | None
    mhz: Positive | None
    throttles: NotNegative | None
    temperature_c: Annotated[list[float | None], Field(min_length=2, max_length=2)]
    energy_j: NotNegative | None


class Idle(Answer):
    window: Window


class Measured(Answer):
    samples_ms: Annotated[list[Positive], Field(min_length=1)]
    batch: Annotated[int, Field(ge=1)]
    streams: Annotated[int, Field(ge=1)] = 1
    window: Window


class Layers(Answer):
    layers: list[dict[str, Any]]


SCHEMAS: Mapping[str, type[Answer]] = {
    "hello": Hello,
    "open": Opened,
    "warmup": WarmedUp,
    "idle": Idle,
    "measure": Measured,
    "infer": Answer,
    "layers": Layers,
}


def doubt(request: str, answer: Mapping[str, Any], took_s: float) -> str | None:
    """Why this is no answer to the request; None where it is one. took_s: from request to answer, by our own clock."""
    try:
        read = SCHEMAS.get(request, Answer).model_validate(answer)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        return f"{place}: {first['msg']}, got {str(first['input'])[:60]!r}"
    if isinstance(read, Measured) and sum(read.samples_ms) / 1e3 / read.streams > took_s + SLACK_S:
        return f"its samples add up to {sum(read.samples_ms) / 1e3:.0f} s, and it was asked {took_s:.0f} s ago"
    return None
