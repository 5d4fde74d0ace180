"""The gate between a network and its file."""

from __future__ import annotations

import numpy as np
import pytest

from edgekit.errors import GateError
from edgekit.parity import agreement, check

NETWORK = np.array([[3.0, 1.0], [0.0, 4.0]])


def test_agreement_counts_flips_and_relates_the_error_to_the_largest_output() -> None:
    found = agreement(NETWORK, np.array([[1.0, 3.0], [0.0, 4.0]]))
    assert (found.flips, found.n, found.error) == (1, 2, 2.0 / 4.0)


def test_a_float_file_must_give_the_same_outputs() -> None:
    check("teacher", NETWORK, NETWORK + 0.001, quantized=False)  # 0.001 / 4 is below 1e-3
    with pytest.raises(GateError, match="teacher: the exported file is not its network") as error:
        check("teacher", NETWORK, NETWORK + 0.01, quantized=False)
    assert error.value.exit_code == 5


def test_an_int8_file_may_flip_three_of_540_images_and_no_more() -> None:
    network = np.tile([[1.0, 0.0]], (540, 1))
    flipped = network.copy()
    flipped[:3] = [0.0, 1.0]
    check("quantize", network, flipped, quantized=True)
    flipped[3] = [0.0, 1.0]
    with pytest.raises(GateError, match="4 of 540 images are classified differently"):
        check("quantize", network, flipped, quantized=True)


def test_a_file_that_gives_nan_is_refused() -> None:
    for quantized in (False, True):
        with pytest.raises(GateError):
            check("x", NETWORK, np.full_like(NETWORK, np.nan), quantized=quantized)


def test_a_file_with_another_number_of_outputs_is_refused() -> None:
    with pytest.raises(GateError, match="outputs of shape"):
        check("x", NETWORK, np.zeros((2, 3)), quantized=False)
