"""Counting what TensorRT built, from its own layer information."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgekit.errors import InputError
from edgekit.lint.layers import LayerReport, count, lint_layers
from edgekit.trtexec import Layer, Tensor

DATA = Path(__file__).parent.parent / "data"


def tensor(dtype: str | None) -> tuple[Tensor, ...]:
    return (Tensor("t", (1,), dtype, None),)


def test_the_samples_hold_one_reformat_named_after_a_quantizer_and_three_int8_convolutions() -> None:
    for name in ("mobilenet_qat", "resnet18_qat_residual"):
        report = lint_layers(DATA / f"exportlayerinfo_trt8_{name}_first4.json")
        assert report == LayerReport(
            layers=4,
            unknown=0,
            int8=3,
            reformats=("QuantizeLinear_2",),
            dtype_changes=("QuantizeLinear_2",),  # FP32 in, Int8 out
            half_int8=(),
            float_layers={},
        )


def test_float_layers_of_an_int8_engine_are_counted_by_type() -> None:
    report = count(
        (
            Layer("conv1", "CaskConvolution", tensor("Int8"), tensor("FP16")),
            Layer("conv2", "CaskConvolution", tensor("FP16"), tensor("FP16")),
            Layer("conv3", "CaskConvolution", tensor("FP16"), tensor("FP16")),
            Layer("softmax", "SoftMax", tensor("FP32"), tensor("FP32")),
            Layer("copy", "Reformat", tensor("FP16"), tensor("FP16")),
        )
    )
    assert report.float_layers == {"CaskConvolution": 2, "SoftMax": 1}
    assert report.half_int8 == ("conv1",)
    assert (report.reformats, report.dtype_changes) == (("copy",), ())


def test_a_float_engine_has_no_fallbacks() -> None:
    assert count((Layer("conv", "CaskConvolution", tensor("FP16"), tensor("FP16")),)).float_layers == {}


def test_layers_without_a_type_are_unknown_and_counted_as_nothing_else() -> None:
    report = count((Layer("Reformatting CopyNode", None), Layer("conv", None)))
    assert (report.layers, report.unknown, report.reformats, report.int8) == (2, 2, (), 0)


def test_a_file_that_is_no_layer_information_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        lint_layers(tmp_path / "absent.json")
    (tmp_path / "other.json").write_text("[1]")
    with pytest.raises(InputError, match="no list of Layers"):
        lint_layers(tmp_path / "other.json")
