"""Channel groups: what must leave together, what may not leave, and what is left after the cut."""

from __future__ import annotations

import json

import pytest
import torch
from torch import Tensor, nn

from edgekit import channels
from edgekit.channels import Cut, Frozen, as_edit, choose, cut, find_groups, graph, importance, replay
from edgekit.errors import InputError
from tests.networks import Grouped, Residual, realistic

EXAMPLE = torch.zeros(1, 1, 8, 8)


def test_channels_joined_by_an_addition_are_one_group() -> None:
    groups, _ = find_groups(Residual(), EXAMPLE)
    assert {group.layer: group.width for group in groups} == {"stem.0": 8, "conv1": 16}


def test_the_outputs_of_the_network_keep_their_channels() -> None:
    _, frozen = find_groups(Residual(), EXAMPLE)
    assert [(one.layer, one.reason) for one in frozen] == [("classifier", "its channels are outputs of the network")]


def test_a_depthwise_convolution_shrinks_with_what_feeds_it_and_a_grouped_one_is_frozen_with_its_name() -> None:
    groups, frozen = find_groups(Grouped(), EXAMPLE)
    assert [(group.layer, group.width) for group in groups] == [("first", 8)]
    reasons = {one.layer: one.reason for one in frozen}
    assert "'grouped' is a convolution in 2 groups" in reasons["second"]


class Shuffled(nn.Module):
    """Channels leave `first` in another order than the dependency graph believes: a transpose between reshapes."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 8, 1)
        self.classifier = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        x = x.view(len(x), 2, -1, 8, 8).transpose(1, 2).reshape(x.shape)
        y: Tensor = self.classifier(torch.relu(self.second(x)).mean(dim=(2, 3)))
        return y


class Gated(nn.Module):
    """The first half of the channels is multiplied by the second: none leaves alone."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 8, 3, padding=1)
        self.classifier = nn.Linear(4, 10)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.first(x).chunk(2, dim=1)
        y: Tensor = self.classifier((value * torch.sigmoid(gate)).mean(dim=(2, 3)))
        return y


class Normed(nn.Module):
    """LayerNorm over channels: its mean and variance are taken over those that stay."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(64, 16)
        self.norm = nn.LayerNorm(16)
        self.classifier = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.classifier(torch.relu(self.norm(self.first(x.flatten(1)))))
        return y


class Averaged(nn.Module):
    """Each channel less their mean, which is another one without a channel that is zero."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 8, 3, padding=1)
        self.classifier = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.first(x))
        y: Tensor = self.classifier((x - x.mean(dim=1, keepdim=True)).mean(dim=(2, 3)))
        return y


def test_channels_that_the_graph_puts_in_the_wrong_order_are_frozen() -> None:
    groups, frozen = find_groups(Shuffled(), EXAMPLE)
    assert [one.layer for one in groups] == ["second"]
    assert "removing its channels is not the same as zeroing them" in {one.layer: one.reason for one in frozen}["first"]


def test_a_mean_over_channels_freezes_them() -> None:
    groups, frozen = find_groups(Averaged(), EXAMPLE)
    assert groups == ()
    assert "removing its channels is not the same as zeroing them" in {one.layer: one.reason for one in frozen}["first"]


def test_halves_that_are_multiplied_by_one_another_are_frozen() -> None:
    groups, frozen = find_groups(Gated(), EXAMPLE)
    assert groups == ()
    assert frozen[0] == Frozen("first", "its channels are tied to one another: 2 leave where 1 should")


def test_channels_under_a_layer_norm_can_leave() -> None:
    groups, _ = find_groups(Normed(), EXAMPLE)
    assert [(one.layer, one.width) for one in groups] == [("first", 16)]


def test_weights_that_start_at_zero_hide_no_mistake() -> None:
    net = Shuffled()
    nn.init.zeros_(net.second.weight)  # the network's own weights say: `first` does not matter
    _, frozen = find_groups(net, EXAMPLE)
    assert "first" in {one.layer for one in frozen}


def test_a_walk_that_does_not_end_is_frozen_with_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph, "WALK_S", -1.0)
    groups, frozen = find_groups(Residual(), EXAMPLE)
    assert groups == ()
    assert all("was not followed to the end within" in one.reason for one in frozen)


def test_a_network_without_a_graph_is_frozen_as_a_whole_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(net: nn.Module, example: Tensor) -> None:
        raise ZeroDivisionError("integer division")

    monkeypatch.setattr(channels, "copied", fails)
    groups, frozen = find_groups(Residual(), EXAMPLE)
    assert groups == ()
    assert frozen == (Frozen("", "torch-pruning cannot follow this network (ZeroDivisionError: integer division)"),)


def test_finding_groups_leaves_the_network_as_it_was() -> None:
    net = realistic(Residual())
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    asked = [parameter.requires_grad for parameter in net.parameters()]
    find_groups(net, EXAMPLE)
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())
    assert [parameter.requires_grad for parameter in net.parameters()] == asked


@pytest.mark.parametrize("score", ["l1", "l2", "bn_scale", "geometric_median", "random"])
def test_a_score_says_something_about_every_channel(score: str) -> None:
    net = realistic(Residual())
    groups, _ = find_groups(net, EXAMPLE)
    scores = importance(net, EXAMPLE, groups, score)
    assert {layer: list(values.shape) for layer, values in scores.items()} == {"stem.0": [8], "conv1": [16]}
    assert all(values.mean().item() == pytest.approx(1, abs=1e-4) for values in scores.values())


def test_a_channel_whose_weights_are_zero_is_the_least_important() -> None:
    net = realistic(Residual())
    _silence(net, conv1=5)
    groups, _ = find_groups(net, EXAMPLE)
    for score in ("l1", "l2"):
        assert importance(net, EXAMPLE, groups, score)["conv1"].argmin() == 5


def test_removing_a_channel_equals_zeroing_it() -> None:
    net = realistic(Residual())
    images = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    removed = cut(net, EXAMPLE, [Cut("conv1", 16, (3, 5))])
    _silence(net, conv1=3)
    _silence(net, conv1=5)
    torch.testing.assert_close(removed(images), net(images))


def test_the_cut_takes_the_channels_out_of_every_layer_of_the_group() -> None:
    pruned = cut(realistic(Residual()), EXAMPLE, [Cut("stem.0", 8, (0, 1, 2, 3))])
    shapes = {name: list(tensor.shape) for name, tensor in pruned.named_parameters()}
    assert shapes["stem.0.weight"] == [4, 1, 3, 3]
    assert shapes["conv1.weight"] == [16, 4, 3, 3]
    assert shapes["conv2.weight"] == [4, 16, 3, 3]
    assert shapes["norm2.weight"] == [4]
    assert shapes["classifier.weight"] == [10, 4]


def test_choose_takes_the_least_important_and_keeps_a_multiple() -> None:
    scores = {"a": torch.arange(16.0), "b": torch.arange(100.0, 116.0)}
    cuts = choose(scores, 0.3, align=4)  # 0.3 of 32 channels lie at or below the threshold: 10 of `a`
    assert cuts == [Cut("a", 16, (0, 1, 2, 3, 4, 5, 6, 7))]  # 6 would stay, rounded up to 8


def test_uniform_choice_takes_the_same_share_of_every_group() -> None:
    scores = {"a": torch.arange(16.0), "b": torch.arange(100.0, 116.0)}
    assert [one.kept for one in choose(scores, 0.5, align=4, uniform=True)] == [8, 8]


def test_no_group_loses_more_than_nine_tenths() -> None:
    assert [one.kept for one in choose({"a": torch.arange(40.0)}, 1.0, align=1)] == [4]


def test_a_group_narrower_than_the_multiple_is_left_alone() -> None:
    assert choose({"a": torch.arange(6.0)}, 1.0, align=8) == []


def test_a_plan_replayed_from_json_gives_the_same_network() -> None:
    net = realistic(Residual())
    cuts = [Cut("stem.0", 8, (1, 6)), Cut("conv1", 16, (0, 2, 4, 15))]
    again = replay(realistic(Residual()), EXAMPLE, json.loads(json.dumps(as_edit(cuts))))
    pairs = zip(cut(net, EXAMPLE, cuts).state_dict().values(), again.state_dict().values(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)


def test_a_plan_for_another_network_is_refused() -> None:
    with pytest.raises(InputError, match="'conv1' has 16 channels, the plan was made for 32"):
        cut(Residual(), EXAMPLE, [Cut("conv1", 32, (0,))])


def _silence(net: torch.nn.Module, **channels: int) -> None:
    """Zeroes a channel of `conv1` after its BatchNorm, and the kernels that would read it."""
    with torch.no_grad():
        for channel in channels.values():
            weights: dict[str, Tensor] = dict(net.named_parameters())
            weights["conv1.weight"][channel] = 0
            weights["norm1.weight"][channel] = 0
            weights["norm1.bias"][channel] = 0
            weights["conv2.weight"][:, channel] = 0
