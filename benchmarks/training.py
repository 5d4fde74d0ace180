"""Does edgekit's training loop cost anything? Images per second beside a bare PyTorch loop on the same work.

ResNet-20 (He et al., arXiv 1512.03385) on 32x32 colour images in batches of 128, SGD with momentum, cosine schedule,
float32. All loops are interleaved in one run, each round in the opposite order of the round before; a round times
whole trainings, with all that edgekit does around its steps. The ratio's 95 % interval must reach 0.95, or the script
exits 5.

    python -m benchmarks.training     about 5 minutes on 2 cores, quiet machine
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn

from edgekit import user_code
from edgekit.data import Data, Split
from edgekit.device import detect
from edgekit.errors import GateError
from edgekit.preprocess import Preprocess
from edgekit.progress import silent
from edgekit.settings import AugmentSettings, TrainSettings
from edgekit.statistics import Interval, ratio
from edgekit.training import train

LEAST = 0.95
BATCH = 128
RECIPES = Path(__file__).parent.parent / "recipes"
BLOCKS = [(16, 1)] * 3 + [(32, 2)] + [(32, 1)] * 2 + [(64, 2)] + [(64, 1)] * 2
SETTINGS = TrainSettings(epochs=1, batch=BATCH, precision="float32", warmup=0.0)
AUGMENT = {
    "crop and flip": AugmentSettings(flip=True, shift=0.125),
    "affine, colour, erase": AugmentSettings(
        flip=True, shift=0.1, rotate=10, scale=0.1, brightness=0.2, contrast=0.2, erase=0.5
    ),
    "TrivialAugment": AugmentSettings(flip=True, trivial=True),
    "CutMix": AugmentSettings(flip=True, shift=0.125, cutmix=1.0),
}


def main() -> None:
    arguments = _arguments()
    data = random_data(arguments.steps * BATCH)
    ways: dict[str, Callable[[], None]] = {"bare PyTorch loop": partial(bare, data), "edgekit": partial(edgekit, data)}
    ways |= {f"edgekit, {name}": partial(edgekit, data, augment) for name, augment in AUGMENT.items()}
    speeds = compare(ways, arguments.steps * BATCH, arguments.rounds)
    print(table(speeds, arguments.rounds, arguments.steps))
    if _ratio(speeds["edgekit"], speeds["bare PyTorch loop"]).high < LEAST:
        sys.exit(GateError.exit_code)


def compare(ways: dict[str, Callable[[], None]], images: int, rounds: int) -> dict[str, list[float]]:
    """Images per second of every way, one number a round; a round before the first warms up and does not count."""
    speeds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(-1, rounds):
        for name in list(ways)[:: -1 if number % 2 else 1]:
            started = time.perf_counter()
            ways[name]()
            if number >= 0:
                speeds[name].append(images / (time.perf_counter() - started))
                print(f"round {number + 1} of {rounds}: {name} {speeds[name][-1]:.0f} images/s", file=sys.stderr)
    return speeds


def edgekit(data: Data, augment: AugmentSettings | None = None) -> None:
    settings = SETTINGS.model_copy(update={"augment": augment or AugmentSettings()})
    train(resnet20(), data, settings, seed=0, progress=silent())


def bare(data: Data) -> None:
    """The shortest loop that does the same: shuffle, normalize, step, schedule."""
    net = resnet20().train()
    optimizer = torch.optim.SGD(
        net.parameters(), lr=SETTINGS.lr, momentum=SETTINGS.momentum, weight_decay=SETTINGS.weight_decay, nesterov=True
    )
    steps = len(data.train) // BATCH
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    images = torch.from_numpy(data.train.images(np.arange(len(data.train)))).permute(0, 3, 1, 2)
    labels = torch.from_numpy(data.train.labels)
    mean = torch.tensor(data.preprocess.mean).view(3, 1, 1) * 255
    scale = 1 / (torch.tensor(data.preprocess.std).view(3, 1, 1) * 255)
    order = torch.randperm(len(images))
    for step in range(steps):
        rows = order[step * BATCH : (step + 1) * BATCH]
        loss = nn.functional.cross_entropy(net((images[rows].float() - mean) * scale), labels[rows])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        loss.item()  # a loop that looks at its loss


def resnet20() -> nn.Module:
    torch.manual_seed(0)
    offered = {"channels": 3, "classes": 10, "stem": 16, "blocks": BLOCKS}
    net: nn.Module = user_code.call("python:networks.py:ResNet", RECIPES, field="benchmark", **offered)
    return net


def random_data(count: int) -> Data:
    """Random pixels and labels; one validation image, since the bare loop validates nothing."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
    whole = Split(rng.integers(0, 10, count), 10, lambda rows: images[rows])
    one = whole.take(np.arange(1))
    preprocess = Preprocess((32, 32), mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    return Data(whole, one, one, tuple("0123456789"), preprocess, "random", "not split")


def table(speeds: dict[str, list[float]], rounds: int, steps: int) -> str:
    """The result as Markdown, with the command and the machine."""
    machine = detect()
    lines = [
        f"`python -m benchmarks.training --rounds {rounds} --steps {steps}` on {machine['cpu']}, {machine['cores']} "
        f"cores, torch {torch.__version__}, {torch.get_num_threads()} threads; ResNet-20, 32x32, batch {BATCH}, "
        f"{rounds} interleaved rounds of {steps} steps",
        "",
        "| loop | images/s | over the bare loop [95 %] |",
        "|---|---|---|",
    ]
    for name, values in speeds.items():
        found = _ratio(values, speeds["bare PyTorch loop"])
        lines.append(f"| {name} | {np.median(values):.0f} | {found.value:.3f} [{found.low:.3f}, {found.high:.3f}] |")
    return "\n".join(lines)


def _ratio(mine: list[float], other: list[float]) -> Interval:
    return ratio([np.array([speed]) for speed in mine], [np.array([speed]) for speed in other])


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=8, help="interleaved rounds, 2 or more (8)")
    parser.add_argument("--steps", type=int, default=30, help="of each training (30)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
