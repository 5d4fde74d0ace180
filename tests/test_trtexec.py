"""Reading what trtexec wrote: every sample file with its own numbers, and garbage refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.errors import EdgekitError, InputError
from edgekit.trtexec import (
    Layer,
    LayerTime,
    Log,
    Summary,
    Tensor,
    Times,
    read_layers,
    read_log,
    read_profile,
    read_times,
)

DATA = Path(__file__).parent / "data"
READERS = (read_log, read_times, read_profile, read_layers)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["count", "name", "timeMs", "computeMs", "Layers", "Name", "Inputs", "Dimensions", "LayerType"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


def sample(name: str) -> str:
    return (DATA / name).read_text()


def log(name: str) -> Log:
    return read_log(sample(name))


def test_a_device_block_gives_version_and_device_and_no_times() -> None:
    found = log("trtexec_device_information_8_6.log")
    assert found.version == "8.6.1"
    assert found.settings["Selected Device"] == "NVIDIA GeForce RTX 3080 Ti"
    assert found.settings["Compute Capability"] == "8.6"
    assert len(found.settings) == 10
    assert (found.throughput_qps, found.latency_ms, found.compute_ms, found.passed) == (None, None, None, None)


def test_a_header_of_10_3_gives_its_options() -> None:
    found = log("trtexec_v10_3_orin_nx_header.log")
    assert found.version == "10.3.0"
    assert found.settings["Data transfers"] == "Enabled"
    assert found.settings["Spin-wait"] == "Disabled"
    assert found.settings["Duration"] == "3s (+ 200ms warm up)"
    assert len(found.settings) == 19


def test_two_lines_of_an_orin_are_read_and_the_missing_ones_are_none() -> None:
    found = log("trtexec_v10_agx_orin32_fp16.log")
    assert found == Log(
        version=None,
        passed=None,
        settings={},
        warnings=(),
        throughput_qps=12.9581,
        latency_ms=Summary(75.9753, 76.4476, 76.3344, 76.3436, 76.4209, 76.446, 76.4476),
        enqueue_ms=Summary(75.5111, 76.2788, 75.8652, 75.8631, 76.0249, 76.0399, 76.2788),
    )


def test_a_host_bound_run_has_every_line() -> None:
    found = log("trtexec_v10_enqueue_bound.log")
    assert (found.throughput_qps, found.walltime_s, found.compute_s) == (130.298, 3.00082, 2.96536)
    assert found.latency_ms == Summary(5.38672, 13.3664, 7.60628, 7.16092, 10.2996, 10.8698, 12.9675)
    assert found.enqueue_ms == Summary(2.72876, 15.0201, 7.63062, 7.86694, 10.1792, 11.7217, 14.1848)
    assert found.h2d_ms == Summary(0.0065918, 0.0698242, 0.0122212, 0.00814819, 0.0253906, 0.0270996, 0.0515137)
    assert found.compute_ms == Summary(5.34595, 13.3388, 7.58404, 7.14139, 10.2881, 10.8175, 12.9485)
    assert found.d2h_ms == Summary(0.00390625, 0.110596, 0.0100141, 0.00439453, 0.0254517, 0.0319824, 0.0994873)


def test_the_old_end_to_end_line_is_a_summary_of_its_own() -> None:
    found = log("trtexec_v7_end_to_end_style.log")
    assert found.latency_ms == Summary(3.66479, 5.41199, 4.00543, 3.99316, None, None, 4.23831)
    assert found.end_to_end_ms == Summary(3.76599, 6.45874, 5.08597, 5.07544, None, None, 5.50839)
    assert found.throughput_qps == 383.298
    assert found.walltime_s is None


def test_a_passed_run_of_8_4_says_so() -> None:
    found = log("trtexec_v8_agx_xavier_mnist16.log")
    assert (found.version, found.passed) == ("8.4.0", True)
    assert found.throughput_qps == 41087.7
    assert found.compute_ms == Summary(0.375977, 0.403564, 0.388221, 0.388443, None, None, 0.393188)
    assert (found.walltime_s, found.compute_s) == (3.00119, 2.99202)


def test_copies_that_were_switched_off_are_zero_and_the_warning_is_kept() -> None:
    found = log("trtexec_v8_notransfers_cudagraph_yolov7.log")
    assert found.h2d_ms == found.d2h_ms == Summary(0, 0, 0, 0, None, None, 0)
    assert found.warnings[0] == "* GPU compute time is unstable, with coefficient of variance = 2.10486%."
    assert len(found.warnings) == 2


@pytest.mark.parametrize(("number", "version"), [("8502", "8.5.2"), ("8601", "8.6.1"), ("101600", "10.16.0")])
def test_the_packed_version_is_unpacked(number: str, version: str) -> None:
    assert read_log(f"&&&& RUNNING TensorRT.trtexec [TensorRT v{number}] # trtexec").version == version


def test_a_failed_run_says_so() -> None:
    assert read_log("&&&& FAILED TensorRT.trtexec [TensorRT v8601] # trtexec").passed is False


@pytest.mark.parametrize(
    ("name", "first", "last"),
    [
        ("a100_resnet18_fp16_bs32", (2.57741, 0.873472), (11.9224, 0.8448)),
        ("a100_resnet18_qat_residual_bs32", (2.39616, 0.576512), (8.46336, 0.544768)),
        ("rtx3090_resnet_qat", (5.28282, 2.29171), (30.0575, 2.2487)),
    ],
)
def test_export_times_gives_twelve_inferences(name: str, first: tuple[float, float], last: tuple[float, float]) -> None:
    times = read_times(sample(f"exporttimes_trt8_{name}.json"))
    assert len(times) == 12
    assert times[0] == Times(first[0], first[1], 0.0, 0.0, first[1])
    assert times[-1] == Times(last[0], last[1], 0.0, 0.0, last[1])


def test_the_warm_up_that_old_versions_export_is_dropped() -> None:
    text = sample("exporttimes_trt8_rtx3090_resnet_qat.json")
    kept = read_times(text, warmup_ms=10.0)
    assert kept == read_times(text)[3:]  # 5.28, 7.58 and 9.83 ms lie before
    assert kept[0].start_ms == 12.075


@pytest.mark.parametrize(
    ("name", "count", "layers", "first"),
    [
        (
            "0_qnx_no_median",
            625,
            5,
            LayerTime(
                "Reformatting CopyNode for Input Tensor 0 to Conv_0 + PWN(Clip_3)", 36.6844, 0.058695, None, 0.0120497
            ),
        ),
        (
            "a100_resnet18_fp16",
            1,
            36,
            LayerTime(
                "Reformatting CopyNode for Input Tensor 0 to Conv_0 + Relu_1", 0.080896, 0.080896, 0.080896, 0.0795569
            ),
        ),
        (
            "a100_resnet18_qat_residual_qgap",
            1,
            24,
            LayerTime("QuantizeLinear_2", 0.095232, 0.095232, 0.095232, 0.141553),
        ),
        (
            "rtx3090_resnet_fp16",
            1,
            86,
            LayerTime("resnet50/conv1_conv/Conv2D__6", 0.08704, 0.08704, 0.08704, 0.020371),
        ),
    ],
)
def test_export_profile_gives_every_layer(name: str, count: int, layers: int, first: LayerTime) -> None:
    profile = read_profile(sample(f"exportprofile_trt8_{name}.json"))
    assert (profile.count, len(profile.layers)) == (count, layers)
    got = profile.layers[0]
    assert (got.name, got.total_ms, got.average_ms, got.median_ms) == (
        first.name,
        first.total_ms,
        first.average_ms,
        first.median_ms,
    )
    assert got.share == pytest.approx(first.share)
    if layers > 5:  # the file of 5 layers is the beginning of a longer one
        assert sum(layer.share for layer in profile.layers) == pytest.approx(1, abs=1e-5)


def test_layer_sums_exceed_the_latency_of_the_same_engine() -> None:
    profile = read_profile(sample("exportprofile_trt8_a100_resnet18_fp16.json"))
    assert sum(layer.total_ms for layer in profile.layers) == pytest.approx(1.016832)  # the engine takes 0.862


def test_layer_information_of_8_names_type_and_tensors() -> None:
    layers = read_layers(sample("exportlayerinfo_trt8_mobilenet_qat_first4.json"))
    assert [layer.type for layer in layers] == [
        "Reformat",
        "CaskConvolution",
        "CudaDepthwiseConvolution",
        "CaskConvolution",
    ]
    assert layers[0].name == "QuantizeLinear_2"
    assert layers[0].inputs == (Tensor("input1", (1, 3, 224, 224), "FP32", "Row major linear FP32"),)
    assert layers[0].outputs[0].dtype == "Int8"
    assert layers[3].outputs[0].shape == (1, 16, 112, 112)
    resnet = read_layers(sample("exportlayerinfo_trt8_resnet18_qat_residual_first4.json"))
    assert [layer.type for layer in resnet] == ["Reformat", "ConvActPool", "CaskConvolution", "CaskConvolution"]
    assert resnet[1].outputs[0].shape == (32, 64, 56, 56)


def test_the_layout_of_11_splits_format_and_type() -> None:
    tensor = {"Name": "x", "Dimensions": [1, 3], "Format": "Row major linear", "DataType": "FP16"}
    text = json.dumps({"Layers": [{"Name": "conv", "LayerType": "conv", "Inputs": [tensor]}], "I/O Tensors": ["x"]})
    assert read_layers(text) == (Layer("conv", "conv", (Tensor("x", (1, 3), "FP16", "Row major linear"),)),)


def test_layers_exported_by_name_only_have_no_type() -> None:
    assert read_layers('{"Layers": ["conv", "pool"]}') == (Layer("conv", None), Layer("pool", None))


@pytest.mark.parametrize(
    ("reader", "text", "why"),
    [
        (read_log, "hello\nworld", "no line begins"),
        (read_log, "[I] Throughput: fast qps", "'fast', not a number"),
        (read_log, "[I] Latency: min = nan ms", "not a number"),
        (read_times, "{}", "not a list"),
        (read_times, "[{}]", "no computeMs"),
        (read_times, '[{"computeMs": "1"}]', "not a number"),
        (read_times, '[{"computeMs": NaN}]', "NaN"),
        (read_profile, "[]", "no count"),
        (read_profile, '[{"count": 1}, {"name": "conv"}]', "lacks"),
        (read_layers, "[]", "no list of Layers"),
        (read_layers, '{"Layers": [{}]}', "no Name"),
        (read_layers, '{"Layers": [{"Name": "a", "Inputs": 3}]}', "no list"),
        (read_layers, "{", "not JSON"),
    ],
)
def test_what_trtexec_did_not_write_is_refused_with_the_reason(reader: Any, text: str, why: str) -> None:
    with pytest.raises(InputError) as caught:
        reader(text)
    assert why in str(caught.value)


@given(st.text() | JSON.map(json.dumps))
def test_garbage_is_read_or_refused_and_nothing_else(text: str) -> None:
    for reader in READERS:
        try:
            reader(text)
        except EdgekitError:
            continue


@given(st.sampled_from(sorted(DATA.glob("export*.json"))), st.data())
def test_a_file_cut_short_is_refused(path: Path, data: st.DataObject) -> None:
    text = path.read_text().rstrip()
    cut = data.draw(st.integers(0, len(text) - 1))
    for reader in READERS[1:]:
        with pytest.raises(InputError):
            reader(text[:cut])
