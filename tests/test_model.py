"""Models: sources, weights that fit and weights that do not, saving and restoring with every kind of edit."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from edgekit import channels, quantizers
from edgekit.errors import DependencyError, InputError, IntegrityError
from edgekit.model import Model, load_model, restore, source_hash
from edgekit.settings import ModelSettings

NETWORK = """
import torch
from torch import nn

def tiny(classes=10):
    return nn.Sequential(nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
                         nn.Conv2d(8, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
                         nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, classes))

def ten():
    return tiny(10)

def text():
    return "no network"

def fails():
    raise KeyError("width")
"""
PARAMETERS = 8 * 9 + 2 * 8 + 16 * 8 * 9 + 2 * 16 + 16 * 10 + 10


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "nets.py").write_text(NETWORK)
    return tmp_path


def load(folder: Path, source: str = "python:nets.py:tiny", **fields: object) -> Model:
    settings = ModelSettings.model_validate({"source": source, **fields})
    return load_model(settings, folder=folder, shape=(1, 8, 8), seed=0)


def images(count: int = 4) -> torch.Tensor:
    return torch.rand(count, 1, 8, 8, generator=torch.Generator().manual_seed(3))


def equal(one: nn.Module, other: nn.Module) -> bool:
    a, b = one.state_dict(), other.state_dict()
    return list(a) == list(b) and all(torch.equal(a[name], b[name]) for name in a)


def test_a_fresh_network_is_the_same_for_the_same_seed_and_leaves_the_callers_random_numbers_alone(
    folder: Path,
) -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    first = load(folder)
    assert torch.equal(torch.rand(3), expected)
    assert equal(first.net, load(folder).net)
    other = load_model(first.settings, folder=folder, shape=(1, 8, 8), seed=1)
    assert not equal(first.net, other.net)


def test_parameters_and_macs_are_those_of_arithmetic(folder: Path) -> None:
    model = load(folder)
    assert model.parameters == PARAMETERS
    assert model.macs == 64 * (8 * 9 + 16 * 8 * 9) + 16 * 10


def test_training_a_copy_leaves_the_model_as_it_was(folder: Path) -> None:
    model = load(folder)
    with torch.no_grad():
        next(model.copy().net.parameters()).zero_()
    assert equal(model.net, load(folder).net)


def pruned(model: Model) -> Model:
    cuts = [channels.Cut("0", 8, (1, 5)), channels.Cut("3", 16, (0, 2, 15))]
    return model.edited(channels.cut(model.net, model.example, cuts), channels.as_edit(cuts))


def test_a_plain_sequential_can_be_quantized_and_exported_too(folder: Path) -> None:
    from edgekit.exporters import onnx

    model = quantized(load(folder))
    assert onnx.export(model, folder / "q.onnx").precision == "int8"


def quantized(model: Model) -> Model:
    folded, fold = quantizers.fold_batchnorm(model.net, model.example)
    net, edit = quantizers.quantize(folded, [images()], quantizers.SCHEMES["onnxruntime"])
    return model.edited(net, fold, edit)


@pytest.mark.parametrize(
    "edit",
    [lambda model: model, pruned, quantized, lambda model: quantized(pruned(model))],
    ids=["as loaded", "pruned", "quantized", "pruned and quantized"],
)
def test_a_saved_model_comes_back_bit_for_bit(folder: Path, edit: Callable[[Model], Model]) -> None:
    model = edit(load(folder, classes=10))
    (folder / "saved").mkdir()
    model.save(folder / "saved")
    again = restore(folder / "saved", source_folder=folder)
    assert equal(model.net, again.net)
    assert (again.edits, again.parameters) == (model.edits, model.parameters)
    with torch.no_grad():
        assert torch.equal(model.net(images()), again.net(images()))


def test_a_saved_model_whose_weights_were_cut_short_is_refused(folder: Path) -> None:
    load(folder).save(folder)
    whole = (folder / "weights.safetensors").read_bytes()
    (folder / "weights.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(IntegrityError, match="do not fit the network"):
        restore(folder, source_folder=folder)


def test_a_saved_model_whose_source_has_changed_its_shape_is_refused(folder: Path) -> None:
    load(folder).save(folder)
    (folder / "nets.py").write_text(NETWORK.replace("16", "24"))
    with pytest.raises(IntegrityError, match="do not fit the network"):
        restore(folder, source_folder=folder)


@pytest.mark.parametrize("form", ["safetensors", "plain", "state_dict", "module.", "model"])
def test_weights_of_other_tools_are_understood(folder: Path, form: str) -> None:
    trained = load(folder).net
    nn.init.ones_(trained[8].weight)  # type: ignore[index]
    state = {name: tensor.clone() for name, tensor in trained.state_dict().items()}
    path = folder / ("w.safetensors" if form == "safetensors" else "w.pt")
    if form == "safetensors":
        save_file(state, path)
    elif form == "module.":
        torch.save({"state_dict": {f"module.{name}": tensor for name, tensor in state.items()}, "epoch": 3}, path)
    else:
        torch.save(state if form == "plain" else {form: state, "epoch": 3}, path)
    assert equal(load(folder, weights=path.name).net, trained)


class Canary:
    """A pickle that creates a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.path),)


def test_a_checkpoint_that_holds_code_is_refused_and_the_code_never_runs(folder: Path) -> None:
    torch.save({"state_dict": load(folder).net.state_dict(), "x": Canary(folder / "ran")}, folder / "w.pt")
    with pytest.raises(InputError, match=r"w\.pt: cannot be read as weights") as refusal:
        load(folder, weights="w.pt")
    assert not (folder / "ran").exists()
    assert refusal.value.exit_code == 3
    assert refusal.value.why == "it holds code or objects (posix.mkdir), not only tensors"


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_a_checkpoint_that_was_cut_short_is_refused_in_one_line(folder: Path, suffix: str) -> None:
    path = folder / f"w.{suffix}"
    state = load(folder).net.state_dict()
    save_file(state, path) if suffix == "safetensors" else torch.save(state, path)
    whole = path.read_bytes()
    for length in (0, 10, len(whole) // 2, len(whole) - 8):
        path.write_bytes(whole[:length])
        with pytest.raises(InputError, match=r"cannot be read as weights") as refusal:
            load(folder, weights=path.name)
        assert refusal.value.why is not None
        assert "\n" not in refusal.value.why


def test_weights_that_do_not_fit_are_counted_and_the_first_few_named(folder: Path) -> None:
    state = load(folder).net.state_dict()
    for name in ("0.weight", "1.weight", "1.bias", "3.weight"):
        del state[name]
    state |= {"8.weight": torch.zeros(10, 99), "extra": torch.zeros(1)}
    save_file(state, folder / "w.safetensors")
    with pytest.raises(InputError, match="the weights do not fit the network") as refusal:
        load(folder, weights="w.safetensors")
    assert refusal.value.why == (
        "4 missing: 0.weight, 1.weight, 1.bias ...; 1 not in the network: extra; "
        "1 of another shape: 8.weight is [10, 99], the network has [10, 16]"
    )


@pytest.mark.parametrize("saved", [["a list"], {"epoch": 3}, {}, 5])
def test_a_file_that_holds_something_else_is_refused(folder: Path, saved: object) -> None:
    torch.save(saved, folder / "w.pt")
    with pytest.raises(InputError, match="holds no dict of tensors"):
        load(folder, weights="w.pt")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"source": "python:nets.py:tin"}, "has no function 'tin'"),
        ({"source": "python:net.py:tiny"}, "net.py: not found"),
        ({"source": "python:nets.py:text"}, "returned str, not a torch.nn.Module"),
        ({"source": "python:nets.py:fails"}, "python:nets.py:fails failed"),
        ({"source": "pyton:nets.py:tiny"}, "Did you mean 'python'"),
        ({"source": "python:nets.py:ten", "classes": 4}, "has 10 outputs, the recipe says classes: 4"),
        ({"weights": "nowhere.pt"}, "nowhere.pt: no such weights file"),
        ({"pretrained": "IMAGENET"}, "publishes no weights"),
        ({"weights": "w.pt", "pretrained": "IMAGENET"}, "contradict each other"),
    ],
)
def test_a_model_that_cannot_be_loaded_says_why(folder: Path, fields: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message) as refusal:
        load(folder, **{"source": "python:nets.py:tiny", **fields})  # type: ignore[arg-type]
    assert refusal.value.exit_code == 3


def test_a_network_that_cannot_take_the_images_is_refused_before_time_is_spent(folder: Path) -> None:
    settings = ModelSettings(source="python:nets.py:tiny")
    with pytest.raises(InputError, match=r"does not run on \[1, 3, 8, 8\]"):
        load_model(settings, folder=folder, shape=(3, 8, 8), seed=0)


def test_a_source_stands_for_its_files_bytes(folder: Path) -> None:
    before = source_hash("python:nets.py:tiny", folder)
    assert source_hash("python:nets.py:ten", folder) != before
    (folder / "nets.py").write_text(NETWORK + "\n")
    assert source_hash("python:nets.py:tiny", folder) != before


def library(name: str, folder: Path = Path(), **fields: object) -> Model:
    pytest.importorskip(name.partition(":")[0])
    settings = ModelSettings.model_validate({"source": name, **fields})
    return load_model(settings, folder=folder, shape=(3, 64, 64), seed=0)


def test_a_torchvision_network_gets_a_head_of_the_recipes_width(tmp_path: Path) -> None:
    model = library("torchvision:resnet18", classes=43)
    assert model.net(torch.zeros(2, 3, 64, 64)).shape == (2, 43)
    assert model.parameters == 11_689_512 - 513 * 1000 + 513 * 43  # resnet18's own count, another head
    assert model.notes == ()
    model.save(tmp_path)
    assert equal(restore(tmp_path, source_folder=tmp_path).net, model.net)


def test_a_timm_network_gets_a_head_of_the_recipes_width() -> None:
    model = library("timm:mobilenetv3_small_050", classes=7)
    assert model.net(torch.zeros(1, 3, 64, 64)).shape == (1, 7)


def test_a_library_checkpoint_with_another_head_is_taken_without_it_and_that_is_said(tmp_path: Path) -> None:
    donor = library("torchvision:squeezenet1_1")
    save_file(donor.net.state_dict(), tmp_path / "w.safetensors")
    model = library("torchvision:squeezenet1_1", tmp_path, classes=5, weights="w.safetensors")
    assert model.notes == (
        f"the head (classifier.1) has 1000 classes in {tmp_path}/w.safetensors; it begins untrained with 5",
    )
    a, b = donor.net.state_dict(), model.net.state_dict()
    assert {name for name in a if not torch.equal(a[name], b[name])} == {"classifier.1.weight", "classifier.1.bias"}


def test_an_unknown_network_of_a_library_suggests_a_near_one() -> None:
    with pytest.raises(InputError, match=r"torchvision has no such classifier\. Did you mean 'resnet18'"):
        library("torchvision:resnet_18")
    with pytest.raises(InputError, match=r"has no weights 'IMAGENET1K_V9'\. Did you mean 'IMAGENET1K_V1'"):
        library("torchvision:resnet18", pretrained="IMAGENET1K_V9")
    with pytest.raises(InputError, match="timm:mobilenetv3_small_050 has no weights 'x'"):
        library("timm:mobilenetv3_small_050", pretrained="x")


def test_published_weights_without_a_network_say_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def offline(*args: object, **kwargs: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr("torch.hub.download_url_to_file", offline)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(DependencyError, match="could not be downloaded") as refusal:
        library("torchvision:squeezenet1_1", pretrained="IMAGENET1K_V1")
    assert refusal.value.why == "OSError: no route to host"


def test_published_weights_found_on_this_machine_are_loaded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    donor = library("torchvision:squeezenet1_1").net
    from torchvision.models import SqueezeNet1_1_Weights

    name = SqueezeNet1_1_Weights.IMAGENET1K_V1.url.rpartition("/")[2]
    (tmp_path / "hub/checkpoints").mkdir(parents=True)
    torch.save(donor.state_dict(), tmp_path / "hub/checkpoints" / name)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    model = library("torchvision:squeezenet1_1", pretrained="IMAGENET1K_V1", classes=5)
    assert torch.equal(model.net.state_dict()["features.0.weight"], donor.state_dict()["features.0.weight"])
    assert model.notes[0].startswith("the head (classifier.1) has 1000 classes in model.pretrained 'IMAGENET1K_V1'")


@pytest.mark.parametrize("name", ["torchvision", "timm"])
def test_a_library_that_is_not_installed_names_its_extra(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(DependencyError) as refusal:
        load_model(ModelSettings(source=f"{name}:x"), folder=Path(), shape=(3, 64, 64), seed=0)
    assert refusal.value.next == f"pip install 'edgekit[{name}]'"
