"""Known architectures, cut for real: what is cut still runs, is as wide as planned, and what is not says why."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgekit.channels import Group, choose, cut, find_groups, importance

pytestmark = pytest.mark.slow
EXAMPLE = torch.zeros(1, 3, 64, 64)
LIMIT_S = 120  # a hang names itself; the slowest, swin_t, takes 40 s on one core
OUTPUT = "its channels are outputs of the network"


class OptionA(nn.Module):
    """A CIFAR ResNet's downsampling without weights: the shortcut is a strided slice, channels padded with zeros."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.conv1 = nn.Conv2d(16, 32, 3, padding=1, stride=2)
        self.norm1 = nn.BatchNorm2d(32)
        self.conv2 = nn.Conv2d(32, 32, 3, padding=1)
        self.head = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        short = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 8, 8))
        x = torch.relu(short + self.conv2(torch.relu(self.norm1(self.conv1(x)))))
        y: Tensor = self.head(x.mean(dim=(2, 3)))
        return y


# name -> groups that can be cut, and every other reason than being an output
ARCHITECTURES = {
    "resnet18": (12, ()),
    "resnet50": (37, ()),
    "mobilenet_v2": (25, ()),
    "mobilenet_v3_small": (27, ()),
    "efficientnet_b0": (40, ()),
    "regnet_y_400mf": (21, ("is a convolution in",)),
    "shufflenet_v2_x1_0": (18, ("cannot follow this network here", "does not run without half of its channels")),
    "densenet121": (120, ()),
    "squeezenet1_0": (25, ()),
    "googlenet": (57, ()),
    "convnext_tiny": (22, ()),
    "vit_b_16": (12, ("does not run without half of its channels",)),
    "swin_t": (12, ("does not run without half of its channels",)),
    "timm:mobilenetv4_conv_small": (21, ()),
    "timm:ghostnet_100": (30, ("its channels are tied to one another",)),
    "timm:repvgg_a0": (5, ()),
}
OPTIONS: dict[str, dict[str, Any]] = {
    "vit_b_16": {"image_size": 64},
    "googlenet": {"init_weights": False, "aux_logits": False},
}
SLOWEST = {"swin_t", "vit_b_16", "densenet121"}  # 10 to 40 s each: cut to half only


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_an_architecture_loses_half_of_its_channels_and_still_runs(name: str) -> None:
    count, reasons = ARCHITECTURES[name]
    net = _net(name)
    began_s = time.monotonic()
    groups, frozen = find_groups(net, EXAMPLE)
    assert time.monotonic() - began_s < LIMIT_S
    assert len(groups) == count
    assert all(any(known in one.reason for known in (OUTPUT, *reasons)) for one in frozen)
    _is_as_planned(net, groups, 0.5)


@pytest.mark.parametrize("share", [0.2, 0.8])
@pytest.mark.parametrize("name", [name for name in ARCHITECTURES if name not in SLOWEST])
def test_an_architecture_loses_a_little_or_nearly_all(name: str, share: float) -> None:
    net = _net(name)
    groups, _ = find_groups(net, EXAMPLE)
    _is_as_planned(net, groups, share)


def test_what_an_option_a_shortcut_pads_is_frozen_and_the_inside_of_the_block_is_cut() -> None:
    net = OptionA().eval()
    groups, frozen = find_groups(net, EXAMPLE)
    assert [(one.layer, one.width) for one in groups] == [("conv1", 32)]
    assert {one.layer for one in frozen} == {"stem", "head"}
    _is_as_planned(net, groups, 0.5)


def _net(name: str) -> nn.Module:
    """With weights by a seed; a library that is missing skips the test."""
    torch.manual_seed(0)
    if name.startswith("timm:"):
        create: Callable[..., nn.Module] = pytest.importorskip("timm").create_model
        return create(name.removeprefix("timm:"), pretrained=False).eval()
    build: Callable[..., nn.Module] = pytest.importorskip("torchvision.models").get_model
    return build(name, weights=None, **OPTIONS.get(name, {})).eval()


def _is_as_planned(net: nn.Module, groups: Sequence[Group], share: float) -> None:
    cuts = choose(importance(net, EXAMPLE, groups, "l2"), share, align=4, uniform=True)
    pruned = cut(net, EXAMPLE, cuts)
    with torch.no_grad():
        assert pruned(EXAMPLE).shape == net(EXAMPLE).shape
    assert {one.layer: _width(pruned, one.layer) for one in cuts} == {one.layer: one.kept for one in cuts}
    assert len(cuts) >= len(groups) * 0.7 or share < 0.5  # the others are too narrow for a multiple of 4


def _width(net: nn.Module, layer: str) -> int:
    module = net.get_submodule(layer)
    width = module.out_channels if isinstance(module, nn.Conv2d) else module.out_features
    assert isinstance(width, int)
    return width
