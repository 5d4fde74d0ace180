"""Skip branches: which of the two inputs of an Add is left without a quantizer."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgekit.adds import beside_skips


class Mark(nn.Module):
    """Stands where a quantizer would; a new tensor, as a quantizer gives."""

    def forward(self, x: Tensor) -> Tensor:
        return x + 0


class Identity(nn.Module):
    """x -> skip mark -> convolution -> main mark -> Add with the skip mark's output."""

    def __init__(self, swapped: bool = False) -> None:
        super().__init__()
        self.skip, self.main = Mark(), Mark()
        self.conv = nn.Conv2d(2, 2, 1)
        self.swapped = swapped

    def forward(self, x: Tensor) -> Tensor:
        skip = self.skip(x)
        main = self.main(self.conv(skip))
        result: Tensor = skip + main if self.swapped else main + skip
        return result


class TwoConvolutions(nn.Module):
    """Both inputs of the Add come from a convolution and a mark of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = Mark(), Mark()
        self.conv1, self.conv2 = nn.Conv2d(2, 2, 1), nn.Conv2d(2, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.first(self.conv1(x))
        y += self.second(self.conv2(x))
        return y


IMAGE = torch.zeros(1, 2, 4, 4)


def test_the_path_from_the_convolution_is_found_on_either_side_of_the_add() -> None:
    for net in (Identity(), Identity(swapped=True)):
        assert beside_skips(net, Mark, IMAGE) == [net.main]


def test_of_two_convolutions_the_first_input_is_named() -> None:
    net = TwoConvolutions()
    assert beside_skips(net, Mark, IMAGE) == [net.first]


class InPlace(Identity):
    """The Add and what follows it write into the main path's own tensor, as torchvision's blocks do."""

    def forward(self, x: Tensor) -> Tensor:
        skip = self.skip(x)
        y: Tensor = self.main(self.conv(skip))
        y += skip
        return torch.relu_(y)


def test_what_is_written_in_place_is_no_second_reader() -> None:
    net = InPlace()
    assert beside_skips(net, Mark, IMAGE) == [net.main]


def test_an_add_with_one_marked_input_is_left_alone() -> None:
    net = Identity()
    net.main = nn.Identity()  # type: ignore[assignment]
    assert beside_skips(net, Mark, IMAGE) == []
