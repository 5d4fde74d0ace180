"""What a recipe may say below the level of a stage: strict, frozen records. Imports no torch."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]


class Settings(BaseModel):
    """Base of everything a recipe may say: unknown keys, wrong types, NaN and infinity are refused."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


class GoalSettings(Settings):
    """What the shipped candidate must reach, on one board in one runtime.

    latency_p99_ms, latency_p50_ms: single-stream, submit to result on the host.
    accuracy_drop: points (0 to 100) below the baseline, at most.
    size_kb: bytes / 1000 of the model file, at most.
    """

    device: str
    runtime: str
    latency_p50_ms: Positive | None = None
    latency_p99_ms: Positive | None = None
    accuracy_drop: Annotated[float, Field(ge=0, le=100)] | None = None
    accuracy: Share | None = None
    size_kb: Positive | None = None


class ModelSettings(Settings):
    """source: `python:file.py:function`, `torchvision:resnet18`, ...; classes: width of the classification head.

    weights: a safetensors or .pt file, read with weights_only=True.
    """

    source: str
    classes: Count | None = None
    weights: str | None = None
    pretrained: str | None = None


class SplitSettings(Settings):
    """validation, test: shares taken from the training images. by: pattern on the relative path whose group named
    `group` (or whole match) keeps together what must not be split (the frames of one track).
    """

    validation: Annotated[float, Field(gt=0, lt=1)] = 0.1
    test: Annotated[float, Field(gt=0, lt=1)] | None = None
    by: str | None = None


class PreprocessSettings(Settings):
    """size: [height, width] of the network's input. mean, std: per channel, of values scaled to 0..1.

    resize: 'stretch' takes the image to `size`; 'shorter' takes the shorter side to `resize_to`, then crops the centre.
    """

    size: Annotated[list[Count], Field(min_length=2, max_length=2)]
    mean: Annotated[list[float], Field(min_length=1, max_length=4)]
    std: Annotated[list[Positive], Field(min_length=1, max_length=4)]
    resize: Literal["stretch", "shorter"] = "stretch"
    resize_to: Count | None = None
    filter: Literal["bilinear", "bicubic", "box", "lanczos"] = "bilinear"
    colour: Literal["rgb", "bgr", "gray"] = "rgb"


class DataSettings(Settings):
    """source: `image_folder`, `webdataset`, `npz`, `torchvision:CIFAR10`, `digits`, `python:file.py:function`.

    train, test: folders or files; for `webdataset` the shards, `train-{0000..0099}.tar` or `train-*.tar`; for
    `torchvision` the folder that holds the data set, as `train`.
    """

    source: str
    train: str | None = None
    test: str | None = None
    split: SplitSettings = SplitSettings()
    preprocess: PreprocessSettings | None = None
    max_corrupt: Annotated[int, Field(ge=0)] = 0


class AugmentSettings(Settings):
    """Augmentation of training images, on batches. Angles in degrees; shift and scale as a share of the side.

    trivial: TrivialAugment. mixup, cutmix: alpha of their Beta distribution; of both, each batch gets one.
    """

    flip: bool = False
    shift: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    rotate: Annotated[float, Field(ge=0, le=180)] = 0.0
    scale: Annotated[float, Field(ge=0, lt=1)] = 0.0
    brightness: Share = 0.0
    contrast: Share = 0.0
    erase: Share = 0.0
    trivial: bool = False
    mixup: Annotated[float, Field(ge=0)] = 0.0
    cutmix: Annotated[float, Field(ge=0)] = 0.0


class TrainSettings(Settings):
    """How a stage trains.

    lr: peak learning rate. warmup: share of all steps. smoothing: label smoothing.
    focal: gamma of the focal loss, 0 for none. balance: how rare classes get their weight.
    accumulate: parts in which a batch is computed, one after the other. precision: 'auto' measures float32 against
    bfloat16, and the memory order, for a few steps and takes the faster.
    ema: decay of the exponential average of the weights. swa: share of the epochs, at the end, whose weights are
    averaged. patience: epochs without a better validation accuracy after which training stops, and the best is taken.
    rates: factor on the learning rate by layer (`{stem: 0, blocks: 0.1}`); a part of a name counts for all below it,
    0 freezes. batchnorm: 'frozen' keeps the statistics of a pretrained network.
    """

    epochs: Count
    batch: Count = 128
    optimizer: Literal["sgd", "adamw"] = "sgd"
    lr: Positive = 0.1
    momentum: Share = 0.9
    weight_decay: Annotated[float, Field(ge=0)] = 5e-4
    schedule: Literal["cosine", "one-cycle", "step", "constant"] = "cosine"
    warmup: Share = 0.05
    smoothing: Share = 0.0
    focal: Annotated[float, Field(ge=0)] = 0.0
    balance: Literal["class-balanced", "balanced-softmax"] | None = None
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.0
    swa: Share = 0.0
    patience: Count | None = None
    clip: Positive | None = None
    accumulate: Count = 1
    rates: dict[str, Annotated[float, Field(ge=0)]] = Field(default={})
    batchnorm: Literal["train", "frozen"] = "train"
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    augment: AugmentSettings = AugmentSettings()

    @model_validator(mode="after")
    def _one_ending(self) -> Self:
        given = [key for key in ("ema", "swa", "patience") if getattr(self, key)]
        if len(given) > 1 and given != ["ema", "patience"]:
            raise ValueError(f"{' and '.join(given)} contradict each other: each says which weights are taken")
        if self.accumulate > self.batch:
            raise ValueError(f"accumulate: {self.accumulate} parts of a batch of {self.batch}")
        return self


class ProfileSettings(Settings):
    """devices: boards to measure on. scenarios: `single-stream`, `camera@30`, `offline`. seconds: per candidate."""

    devices: Annotated[list[str], Field(min_length=1)] | None = None
    scenarios: Annotated[list[str], Field(min_length=1)] = ["single-stream"]
    seconds: Positive = 30.0
