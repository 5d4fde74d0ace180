"""The training loop on the digits and a tiny network: determinism, divergence, memory, averages, going on."""

from __future__ import annotations

import copy
import json
import math
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import edgekit.training.loop
from edgekit.data import Data, open_data
from edgekit.errors import InputError, NumericsError, ResourceError
from edgekit.progress import Progress, silent
from edgekit.settings import DataSettings, TrainSettings
from edgekit.training import Trained, reestimate_batchnorm, train
from edgekit.training.arithmetic import Arithmetic, out_of_memory
from edgekit.training.average import follow, mean_of
from edgekit.training.optimizer import optimizer_of, rate_at, set_rate

PREPROCESS = {"size": [8, 8], "mean": [0.305], "std": [0.376], "colour": "gray"}


@pytest.fixture(scope="module")
def digits() -> Data:
    settings = DataSettings.model_validate({"source": "digits", "preprocess": PREPROCESS})
    data = open_data(settings, folder=Path(), seed=0)
    few = np.arange(256)
    return Data(
        train=data.train.take(few),
        validation=data.validation.take(np.arange(64)),
        test=data.test,
        class_names=data.class_names,
        preprocess=data.preprocess,
        fingerprint=data.fingerprint,
        split_by=data.split_by,
    )


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.1), nn.Flatten(),
        nn.Linear(128, 10),
    )  # fmt: skip


def settings(**fields: object) -> TrainSettings:
    return TrainSettings.model_validate({"epochs": 2, "batch": 64, "precision": "float32", **fields})


def run(data: Data, net: nn.Module | None = None, folder: Path | None = None, **fields: object) -> nn.Module:
    net = net or network()
    train(net, data, settings(**fields), seed=0, progress=silent(), folder=folder)
    return net


def result(data: Data, net: nn.Module | None = None, **fields: object) -> Trained:
    return train(net or network(), data, settings(**fields), seed=0, progress=silent())


def equal(one: nn.Module, other: nn.Module) -> bool:
    a, b = one.state_dict(), other.state_dict()
    return list(a) == list(b) and all(torch.equal(a[name], b[name]) for name in a)


def labels_loss(images: Tensor, outputs: Tensor, labels: Tensor) -> Tensor:
    return nn.functional.cross_entropy(outputs, labels)


# ---- determinism


@pytest.mark.parametrize(
    "fields",
    [{}, {"optimizer": "adamw", "lr": 0.01, "ema": 0.9}, {"augment": {"shift": 0.1, "mixup": 0.2}, "clip": 1.0}],
    ids=["sgd", "adamw with ema", "augmented"],
)
def test_two_trainings_with_one_seed_end_in_the_same_bits(digits: Data, fields: dict[str, Any]) -> None:
    first = run(digits, **fields)
    torch.rand(5)  # what happened before does not matter
    assert equal(first, run(digits, **fields))


def test_another_seed_gives_another_network(digits: Data) -> None:
    other = network()
    train(other, digits, settings(), seed=1, progress=silent())
    assert not equal(other, run(digits))


def test_training_learns_the_digits(digits: Data) -> None:
    trained = result(digits, epochs=8)
    assert trained.accuracy > 0.8
    assert (trained.epochs, trained.retries, trained.accumulate, trained.notes) == (8, 0, 1, ())


def test_a_precision_that_is_given_is_used_and_auto_says_which_it_took(digits: Data) -> None:
    assert result(digits, epochs=1, precision="bfloat16").arithmetic == "bfloat16"
    assert result(digits, epochs=1, precision="auto").arithmetic.split()[0] in ("float32", "bfloat16")


# ---- divergence


class Poison:
    """Loss that is NaN at some of its calls, counted from 1."""

    def __init__(self, *at: int, value: float = math.nan) -> None:
        self.at, self.value, self.calls = at, value, 0

    def __call__(self, images: Tensor, outputs: Tensor, labels: Tensor) -> Tensor:
        self.calls += 1
        plain = labels_loss(images, outputs, labels)
        return plain * self.value if self.calls in self.at else plain


def test_one_bad_step_takes_the_network_back_and_halves_the_rate(digits: Data) -> None:
    # 256 images in batches of 64: step 6 is the second of epoch 2
    trained = train(network(), digits, settings(epochs=3), seed=0, progress=silent(), loss=Poison(6))
    assert trained.retries == 1
    assert trained.notes == ("the loss diverged in epoch 2: back to its beginning, rate x0.5",)
    assert math.isfinite(trained.loss)


def test_after_a_rollback_training_equals_one_that_went_on_at_half_the_rate(digits: Data) -> None:
    seen: list[float] = []

    class Watch(Poison):
        def __call__(self, images: Tensor, outputs: Tensor, labels: Tensor) -> Tensor:
            loss = super().__call__(images, outputs, labels)
            seen.append(float(loss.detach()))
            return loss

    net = network()
    net[3] = nn.Identity()  # dropout would draw other numbers after the rollback
    train(net, digits, settings(epochs=2), seed=0, progress=silent(), loss=Watch(6))
    assert seen[4] == seen[6]  # the first step of epoch 2, before and after the rollback


def test_a_batch_that_is_always_poisoned_ends_with_exit_code_8_and_keeps_the_last_good_epoch(
    digits: Data, tmp_path: Path
) -> None:
    poison = Poison(*range(6, 100))
    with pytest.raises(NumericsError, match="diverged in epoch 2") as refusal:
        train(network(), digits, settings(epochs=3), seed=0, progress=silent(), loss=poison, folder=tmp_path)
    assert refusal.value.exit_code == 8
    assert refusal.value.kept == f"the network after epoch 1, in {tmp_path / 'checkpoints'}"
    assert poison.calls == 4 + 2 + 1 + 1  # epoch 1; a good and a bad step; both retries fail on their first


def test_a_rate_of_a_million_ends_with_exit_code_8(digits: Data) -> None:
    with pytest.raises(NumericsError) as refusal:
        run(digits, lr=1e6, warmup=0.0)
    assert refusal.value.exit_code == 8
    assert refusal.value.next is not None
    assert "lower lr" in refusal.value.next


def test_a_loss_ten_times_that_of_guessing_counts_as_divergence(digits: Data) -> None:
    spike = Poison(6, value=100.0)
    assert train(network(), digits, settings(), seed=0, progress=silent(), loss=spike).retries == 1
    bump = Poison(6, value=2.0)
    assert train(network(), digits, settings(), seed=0, progress=silent(), loss=bump).retries == 0


# ---- rate, groups, fine-tuning


@pytest.mark.parametrize(
    ("schedule", "values"),
    [
        ("constant", {0.1: 0.5, 0.2: 1.0, 0.6: 1.0, 1.0: 1.0}),
        ("step", {0.1: 0.5, 0.59: 1.0, 0.61: 0.1, 0.81: 0.01}),
        ("one-cycle", {0.1: 0.5, 0.2: 1.0, 0.6: 0.5, 1.0: 0.0}),
        ("cosine", {0.1: 0.5, 0.2: 1.0, 0.6: 0.001 + 0.999 * 0.5, 1.0: 0.001}),
    ],
)
def test_the_rate_rises_in_the_warm_up_and_falls_as_its_schedule_says(
    schedule: str, values: dict[float, float]
) -> None:
    one = settings(schedule=schedule, warmup=0.2)
    assert {done: rate_at(done, one) for done in values} == pytest.approx(values)


def test_weight_decay_pulls_on_matrices_and_kernels_alone() -> None:
    net = network()
    groups = optimizer_of(net, settings(weight_decay=0.25)).param_groups
    assert [(g["weight_decay"], [tuple(p.shape) for p in g["params"]]) for g in groups] == [
        (0.25, [(8, 1, 3, 3), (10, 128)]),
        (0.0, [(8,), (8,), (10,)]),
    ]


def test_a_layer_of_rate_zero_stays_and_so_do_its_statistics(digits: Data) -> None:
    before = network()
    after = run(digits, rates={"0": 0.0, "1": 0.0})
    moved = {name for name, tensor in after.state_dict().items() if not torch.equal(tensor, before.state_dict()[name])}
    assert moved == {"5.weight", "5.bias"}
    assert all(parameter.requires_grad for parameter in after.parameters())


def test_rates_multiply_and_the_longest_name_counts() -> None:
    net = nn.Sequential(nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False)), nn.Linear(2, 2))
    optimizer = optimizer_of(net, settings(rates={"0": 0.5, "0.1": 0.1}))
    set_rate(optimizer, 0.2)
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    found = [rates[id(p)] for p in net.parameters()]
    assert found == pytest.approx([0.2 * 0.5, 0.2 * 0.1, 0.2, 0.2])


def test_a_rate_for_a_layer_that_is_not_there_is_refused(digits: Data) -> None:
    with pytest.raises(InputError, match="the network has no layer '7'. Choose one of: 0, 1, 5"):  # noqa: RUF043
        run(digits, rates={"7": 0.1})
    with pytest.raises(InputError, match="nothing would be trained"):
        run(digits, rates={"0": 0.0, "1": 0.0, "5": 0.0})


def test_frozen_batchnorm_keeps_its_statistics_and_learns_its_weights(digits: Data) -> None:
    state = run(digits, batchnorm="frozen").state_dict()
    assert state["1.running_mean"].tolist() == [0.0] * 8
    assert state["1.weight"].tolist() != [1.0] * 8


# ---- averages, early stop


def scalar(value: float) -> nn.Linear:
    net = nn.Linear(1, 1, bias=False)
    nn.init.constant_(net.weight, value)
    return net


def test_the_exponential_average_moves_slower_as_training_goes_on() -> None:
    average = scalar(0.0)
    follow(average, scalar(10.0), 0.9, step=0)  # decay min(0.9, 1 / 10)
    assert average.weight.item() == pytest.approx(9.0)
    follow(average, scalar(0.0), 0.9, step=1000)  # decay 0.9
    assert average.weight.item() == pytest.approx(8.1)


def test_the_plain_average_counts_every_network_once() -> None:
    average = scalar(99.0)
    for count, value in enumerate((1.0, 2.0, 6.0)):
        mean_of(average, scalar(value), count)
    assert average.weight.item() == pytest.approx(3.0)


def test_swa_of_all_epochs_is_the_mean_of_the_networks_after_each(digits: Data) -> None:
    class Watch(Progress):
        def epoch(self, i: int, n: int, **facts: object) -> None:
            seen.append(net.get_parameter("5.weight").detach().clone())

    seen: list[Tensor] = []
    net = network()
    train(net, digits, settings(epochs=3, swa=1.0), seed=0, progress=Watch(quiet=True))
    torch.testing.assert_close(net.get_parameter("5.weight"), torch.stack(seen).mean(0))


def test_training_stops_on_a_plateau_and_takes_the_best_epoch(digits: Data) -> None:
    trained = train(
        net := network(), digits, settings(epochs=50, patience=2, lr=1e-6), seed=0, progress=silent()
    )  # so small a rate changes no prediction: the first epoch stays the best
    assert trained.epochs == 3
    assert trained.notes == ("no better accuracy in 2 epochs: stopped after epoch 3",)
    assert not net.training


@pytest.mark.parametrize("fields", [{"ema": 0.9, "swa": 0.5}, {"swa": 0.5, "patience": 1}, {"accumulate": 65}])
def test_settings_that_contradict_each_other_are_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"contradict each other|parts of a batch"):
        settings(**fields)


def test_batchnorm_is_measured_as_a_plain_average_over_batches(digits: Data) -> None:
    net = nn.Sequential(nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(64, 10))
    reestimate_batchnorm(net, digits, batch=64)
    pixels = torch.from_numpy(digits.train.images(np.arange(256)))
    mean = digits.preprocess.normalize_torch(pixels).mean().item()
    assert net.state_dict()["0.running_mean"].item() == pytest.approx(mean, rel=1e-4)
    assert net[0].momentum == 0.1


# ---- memory


class Small(nn.Module):
    """A network on a machine whose memory takes `most` images at a time."""

    def __init__(self, most: int, error: Exception) -> None:
        super().__init__()
        self.body, self.most, self.error = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), most, error
        self.sizes: list[int] = []

    def forward(self, images: Tensor) -> Tensor:
        if self.training:
            self.sizes.append(len(images))
            if len(images) > self.most:
                raise self.error
        outputs: Tensor = self.body(images)
        return outputs


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
def test_when_memory_runs_out_batches_are_computed_in_parts(digits: Data, error: Exception) -> None:
    trained = result(digits, net := Small(16, error), epochs=1)
    assert net.sizes == [64, 32] + [16] * (256 // 16)
    assert trained.accumulate == 4
    assert trained.notes[-1].startswith("memory ran out: a batch is computed in 4 parts of 16 images")


def test_parts_give_the_gradient_of_the_whole_batch(digits: Data) -> None:
    torch.manual_seed(0)
    whole, split = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    split.load_state_dict(whole.state_dict())
    result(digits, whole, epochs=1)
    assert result(digits, split, epochs=1, accumulate=5).accumulate == 5  # 64 images: 13, 13, 13, 13, 12
    torch.testing.assert_close(whole[1].weight, split[1].weight)


def test_memory_that_does_not_take_one_image_ends_with_exit_code_7(digits: Data) -> None:
    with pytest.raises(ResourceError, match="one image at a time") as refusal:
        result(digits, Small(0, torch.OutOfMemoryError("no")), epochs=1)
    assert refusal.value.exit_code == 7


def test_other_errors_are_not_taken_for_a_lack_of_memory(digits: Data) -> None:
    with pytest.raises(RuntimeError, match="broken layer"):
        result(digits, Small(16, RuntimeError("broken layer")), epochs=1)
    assert out_of_memory(MemoryError())


# ---- going on after an interruption


class Stop(BaseException):
    pass


@pytest.fixture
def obeyed() -> Iterator[None]:
    """SIGTERM raises Stop, as the command line's handler does."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise Stop

    before = signal.signal(signal.SIGTERM, stop)
    yield
    signal.signal(signal.SIGTERM, before)


class Interrupting(Poison):
    """A loss during whose calls a signal comes."""

    def __call__(self, images: Tensor, outputs: Tensor, labels: Tensor) -> Tensor:
        self.calls += 1
        if self.calls in self.at:
            os.kill(os.getpid(), signal.SIGTERM)
        return labels_loss(images, outputs, labels)


def interrupted(data: Data, folder: Path, how: TrainSettings, at: int, progress: Progress | None = None) -> nn.Module:
    """A training that is stopped at step `at`, and then run again from the same beginning."""
    with pytest.raises(Stop):
        train(network(), data, how, seed=0, progress=silent(), loss=Interrupting(at), folder=folder)
    net = network()
    train(net, data, how, seed=0, progress=progress or silent(), loss=labels_loss, folder=folder)
    return net


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"optimizer": "adamw", "lr": 0.01, "ema": 0.9},
        {"augment": {"shift": 0.1, "rotate": 10}, "swa": 0.7},
        {"patience": 3, "accumulate": 3},
    ],
    ids=["sgd", "adamw with ema", "augmented with swa", "early stop in parts"],
)
@pytest.mark.parametrize("at", [4, 7])  # the last step of an epoch of 4, and one amid the next
@pytest.mark.usefixtures("obeyed")
def test_a_training_that_was_stopped_ends_in_the_same_bits(
    digits: Data, tmp_path: Path, fields: dict[str, object], at: int
) -> None:
    how = settings(epochs=3, **fields)
    whole = network()
    train(whole, digits, how, seed=0, progress=silent(), loss=labels_loss)
    assert equal(interrupted(digits, tmp_path, how, at), whole)


@pytest.mark.usefixtures("obeyed")
def test_channels_last_goes_on_in_the_same_bits_too(
    digits: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgekit.training import arithmetic

    monkeypatch.setattr(arithmetic, "choose", lambda *_: Arithmetic("float32", channels_last=True))
    whole = network()
    train(whole, digits, settings(), seed=0, progress=silent(), loss=labels_loss)
    assert equal(interrupted(digits, tmp_path, settings(), 6), whole)


@pytest.mark.usefixtures("obeyed")
def test_a_checkpoint_keeps_the_arithmetic_that_was_chosen(
    digits: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgekit.training import arithmetic

    chosen = iter([Arithmetic("bfloat16", channels_last=True)])  # a second choice would raise StopIteration
    monkeypatch.setattr(arithmetic, "choose", lambda *_: next(chosen))
    interrupted(digits, tmp_path, settings(), 6)


class Notes(Progress):
    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def damaged(path: Path, change: Callable[[bytes], bytes]) -> None:
    path.write_bytes(change(path.read_bytes()))


@pytest.mark.usefixtures("obeyed")
def test_a_broken_checkpoint_is_passed_over_for_the_one_before(
    digits: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edgekit.training.loop, "CHECKPOINT_S", 0.0)  # one after every step
    with pytest.raises(Stop):
        train(network(), digits, settings(), seed=0, progress=silent(), loss=Interrupting(6), folder=tmp_path)
    kept = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert kept == ["000005.json", "000005.safetensors", "000006.json", "000006.safetensors"]
    damaged(tmp_path / "checkpoints/000006.safetensors", lambda old: old[:-1] + bytes([old[-1] ^ 1]))
    progress = Notes()
    net = network()
    train(net, digits, settings(), seed=0, progress=progress, loss=labels_loss, folder=tmp_path)
    assert progress.notes == [
        "checkpoint 000006.json is not whole and is passed over",
        "going on after epoch 1, step 1",
    ]
    whole = network()
    train(whole, digits, settings(), seed=0, progress=silent(), loss=labels_loss)
    assert equal(net, whole)


def test_broken_checkpoints_alone_mean_a_fresh_start(digits: Data, tmp_path: Path) -> None:
    whole = run(digits, folder=tmp_path)
    for path in (tmp_path / "checkpoints").glob("*.json"):
        path.write_text("{")
    assert equal(run(digits, folder=tmp_path), whole)


def test_a_checkpoint_of_another_training_is_passed_over(digits: Data, tmp_path: Path) -> None:
    run(digits, folder=tmp_path)
    progress = Notes()
    train(network(), digits, settings(lr=0.05), seed=0, progress=progress, folder=tmp_path)
    assert "is of another training" in progress.notes[0]


def test_a_finished_training_is_not_done_again(digits: Data, tmp_path: Path) -> None:
    first = run(digits, folder=tmp_path, ema=0.9)
    again = train(net := network(), digits, settings(ema=0.9), seed=0, progress=silent(), folder=tmp_path)
    assert equal(first, net)
    assert again.images_per_s is None


def test_the_log_is_one_json_line_an_epoch(digits: Data, tmp_path: Path) -> None:
    run(digits, folder=tmp_path, epochs=3)
    lines: list[dict[str, Any]] = [json.loads(line) for line in (tmp_path / "training.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2, 3]
    assert lines[2]["loss"] < lines[0]["loss"]


@pytest.mark.usefixtures("obeyed")
def test_a_second_signal_is_obeyed_at_once(digits: Data) -> None:
    class Twice(Interrupting):
        def __call__(self, images: Tensor, outputs: Tensor, labels: Tensor) -> Tensor:
            os.kill(os.getpid(), signal.SIGTERM)
            held.append(True)
            os.kill(os.getpid(), signal.SIGTERM)
            raise AssertionError("the second signal was held too")

    held: list[bool] = []
    with pytest.raises(Stop):
        train(network(), digits, settings(), seed=0, progress=silent(), loss=Twice())
    assert held == [True]


def test_training_in_a_thread_needs_no_signals(digits: Data) -> None:
    nets: list[nn.Module] = []
    thread = threading.Thread(target=lambda: nets.append(run(digits)))
    thread.start()
    thread.join()
    assert equal(nets[0], run(digits))


def test_the_network_given_is_trained_and_nothing_else(digits: Data) -> None:
    original = network()
    trained = copy.deepcopy(original)
    run(digits, trained)
    assert equal(original, network())
    assert not equal(original, trained)
