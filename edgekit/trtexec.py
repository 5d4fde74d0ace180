"""What trtexec prints and exports, read into records: its log, --exportTimes, --exportProfile, --exportLayerInfo.

What a version does not say is None, never 0. Read from samples of TensorRT 7 to 10; of 11 only the documented layout of
the layer information is known. Three things the numbers are not:
- `latency_ms` is the sum of CUDA events (copy in, compute, copy out), not the time from submit to result;
- `throughput_qps` counts images where the batch is implicit, else batches;
- layer times do not add up to a latency: their sum is 1.07 (float32) to 1.35 times (int8) the real one on A100.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Never

from edgekit.errors import InputError

_PREFIX = re.compile(r"^(?:\[\d{2}/\d{2}/\d{4}-\d{2}:\d{2}:\d{2}\] )?\[([IWEFV])\] ?")
_VERSION = re.compile(r"\[TensorRT v(\d+)\]")
_STATISTIC = re.compile(r"(min|max|mean|median|percentile\((\d+)%\)) = ([^ ,]+) ms")
_SUMMARIES = {
    "Latency": "latency_ms",
    "End-to-End Host Latency": "end_to_end_ms",
    "Enqueue Time": "enqueue_ms",
    "H2D Latency": "h2d_ms",
    "GPU Compute Time": "compute_ms",
    "D2H Latency": "d2h_ms",
}
_NUMBERS = {
    "Throughput": ("throughput_qps", "qps"),
    "Total Host Walltime": ("walltime_s", "s"),
    "Total GPU Compute Time": ("compute_s", "s"),
}
# Field of a record of --exportTimes -> key in the file.
_TIMES = {"compute_ms": "computeMs", "h2d_ms": "h2dMs", "d2h_ms": "d2hMs", "latency_ms": "latencyMs"}


@dataclass(frozen=True)
class Summary:
    """One line of the performance summary, in ms; a percentile that was not printed is None."""

    min: float | None = None
    max: float | None = None
    mean: float | None = None
    median: float | None = None
    p90: float | None = None
    p95: float | None = None
    p99: float | None = None


@dataclass(frozen=True)
class Log:
    """A run of trtexec. version: `10.3.0`. settings: what it printed of its options and of the device, as text.

    warnings: its lines marked W. passed: what its last line says, None where there is none.
    """

    version: str | None
    passed: bool | None
    settings: Mapping[str, str]
    warnings: tuple[str, ...]
    throughput_qps: float | None = None
    walltime_s: float | None = None
    compute_s: float | None = None
    latency_ms: Summary | None = None
    end_to_end_ms: Summary | None = None
    enqueue_ms: Summary | None = None
    h2d_ms: Summary | None = None
    compute_ms: Summary | None = None
    d2h_ms: Summary | None = None


@dataclass(frozen=True)
class Times:
    """One inference of --exportTimes. start_ms is on the GPU's clock, whose zero is not the host's."""

    start_ms: float | None
    compute_ms: float
    h2d_ms: float | None
    d2h_ms: float | None
    latency_ms: float | None


@dataclass(frozen=True)
class LayerTime:
    """One layer of --exportProfile; a share of 0 to 1."""

    name: str
    total_ms: float
    average_ms: float
    median_ms: float | None
    share: float


@dataclass(frozen=True)
class LayerProfile:
    """count: inferences that were profiled."""

    count: int
    layers: tuple[LayerTime, ...]


@dataclass(frozen=True)
class Tensor:
    """dtype: `FP32`, `FP16`, `Int8`, ... as TensorRT writes it, None where it does not say."""

    name: str
    shape: tuple[int, ...] | None
    dtype: str | None
    format: str | None


@dataclass(frozen=True)
class Layer:
    """One layer of an engine. type: `CaskConvolution`, `Reformat`, ...; None where only names were exported."""

    name: str
    type: str | None
    inputs: tuple[Tensor, ...] = ()
    outputs: tuple[Tensor, ...] = ()


def read_log(text: str) -> Log:
    """The standard output of trtexec, whole or in part.

    Raises:
        InputError: no line of it is trtexec's, or a number is none.
    """
    found: dict[str, Any] = {}
    settings: dict[str, str] = {}
    warnings: list[str] = []
    known = False
    for line in text.splitlines():
        prefix = _PREFIX.match(line)
        known |= prefix is not None or line.startswith("&&&& ")
        if prefix is None:
            continue
        body = line[prefix.end() :]
        if prefix[1] == "W":
            warnings.append(body.strip())
            continue
        key, colon, value = (part.strip() for part in body.partition(":"))
        if key in _SUMMARIES and colon:
            found[_SUMMARIES[key]] = _summary(value)
        elif key in _NUMBERS and colon:
            name, unit = _NUMBERS[key]
            found[name] = _number(value.removesuffix(unit).strip(), key)
        elif colon and not key.startswith("="):
            settings[key] = value
    if not known:
        raise InputError("trtexec: this is no log of trtexec", why="no line begins as its lines do")
    return Log(_version(text, settings), _passed(text), settings, tuple(warnings), **found)


def read_times(text: str, warmup_ms: float = 0.0) -> tuple[Times, ...]:
    """--exportTimes. warmup_ms: drops what started earlier; TensorRT up to 8.4 exports the warm-up too.

    Raises:
        InputError: it is no such file.
    """
    records = []
    for item in _objects(_json(text, "--exportTimes"), "--exportTimes"):
        start = _optional(item, "startComputeMs")
        fields = {name: _optional(item, key) for name, key in _TIMES.items()}
        compute_ms = fields.pop("compute_ms")
        if compute_ms is None:
            _refuse("--exportTimes", "a record has no computeMs")
        if start is None or start >= warmup_ms:
            records.append(Times(start_ms=start, compute_ms=compute_ms, **fields))
    return tuple(records)


def read_profile(text: str) -> LayerProfile:
    """--exportProfile.

    Raises:
        InputError: it is no such file.
    """
    items = _objects(_json(text, "--exportProfile"), "--exportProfile")
    count = items[0].get("count") if items else None
    if not isinstance(count, int) or isinstance(count, bool) or count < 0:
        _refuse("--exportProfile", "its first entry gives no count")
    return LayerProfile(count, tuple(_layer_time(item) for item in items[1:]))


def read_layers(text: str) -> tuple[Layer, ...]:
    """--exportLayerInfo and the engine inspector's JSON, in the layout of 8 to 10 and that of 11.

    Raises:
        InputError: it is no such file.
    """
    data = _json(text, "--exportLayerInfo")
    layers = data.get("Layers") if isinstance(data, dict) else None
    if not isinstance(layers, list):
        _refuse("--exportLayerInfo", "it has no list of Layers")
    return tuple(_layer(one) for one in layers)


def _summary(text: str) -> Summary:
    values = {}
    for name, percent, value in _STATISTIC.findall(text):
        values[f"p{percent}" if percent else name] = _number(value, name)
    return Summary(**{name: values.get(name) for name in Summary.__dataclass_fields__})


def _version(text: str, settings: Mapping[str, str]) -> str | None:
    """v8601 is 8.6.1, v100300 is 10.3.0: two digits each for minor and patch since 10, one and two before."""
    found = _VERSION.search(text)
    if found is None:
        return settings.get("TensorRT version")
    number = int(found[1])
    major, rest = divmod(number, 10000) if number >= 100000 else divmod(number, 1000)
    return f"{major}.{rest // 100}.{rest % 100}"


def _passed(text: str) -> bool | None:
    if re.search(r"^&&&& FAILED", text, re.MULTILINE):
        return False
    return True if re.search(r"^&&&& PASSED", text, re.MULTILINE) else None


def _layer_time(item: Mapping[str, Any]) -> LayerTime:
    values = {key: _optional(item, key) for key in ("timeMs", "averageMs", "medianMs", "percentage")}
    total, average, percentage = values["timeMs"], values["averageMs"], values["percentage"]
    if not isinstance(item.get("name"), str) or total is None or average is None or percentage is None:
        _refuse("--exportProfile", f"an entry lacks name, timeMs, averageMs or percentage: {str(item)[:80]}")
    return LayerTime(item["name"], total, average, values["medianMs"], percentage / 100)


def _layer(item: Any) -> Layer:
    if isinstance(item, str):  # verbosity LAYER_NAMES_ONLY
        return Layer(item, None)
    if not isinstance(item, dict) or not isinstance(item.get("Name"), str):
        _refuse("--exportLayerInfo", f"a layer has no Name: {str(item)[:80]}")
    kind = item.get("LayerType")
    return Layer(
        item["Name"], kind if isinstance(kind, str) else None, _tensors(item, "Inputs"), _tensors(item, "Outputs")
    )


def _tensors(item: Mapping[str, Any], side: str) -> tuple[Tensor, ...]:
    tensors = item.get(side) or []
    if not isinstance(tensors, list):
        _refuse("--exportLayerInfo", f"{side} of {item['Name']} is no list")
    return tuple(_tensor(one) for one in tensors)


def _tensor(item: Any) -> Tensor:
    if not isinstance(item, dict) or not isinstance(item.get("Name"), str):
        _refuse("--exportLayerInfo", f"a tensor has no Name: {str(item)[:80]}")
    sizes = item.get("Dimensions")
    shape = tuple(sizes) if isinstance(sizes, list) and all(isinstance(size, int) for size in sizes) else None
    both = item.get("Format/Datatype")  # 8 to 10: 'Row major linear FP32', 'Row major Int8 format'
    if isinstance(both, str):
        words = re.findall(r"\b(?:FP|BF|Int|UInt|INT)\d+\b|\bBool\b", both)
        return Tensor(item["Name"], shape, words[-1] if words else None, both)
    dtype, layout = (item.get(key) if isinstance(item.get(key), str) else None for key in ("DataType", "Format"))
    return Tensor(item["Name"], shape, dtype, layout)


def _json(text: str, what: str) -> Any:
    try:
        return json.loads(text, parse_constant=lambda word: _refuse(what, f"{word} is no number"))
    except (ValueError, RecursionError) as error:
        return _refuse(what, f"it is not JSON: {error}")


def _objects(data: Any, what: str) -> list[dict[str, Any]]:
    if not isinstance(data, list) or not all(isinstance(item, dict) for item in data):
        _refuse(what, "it is not a list of objects")
    return data


def _optional(item: Mapping[str, Any], key: str) -> float | None:
    value = item.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        _refuse("trtexec", f"{key} is {value!r}, not a number")
    return _number(str(value), key)


def _number(text: str, what: str) -> float:
    try:
        value = float(text)
    except ValueError:
        return _refuse("trtexec", f"{what} is {text!r}, not a number")
    if not math.isfinite(value):
        _refuse("trtexec", f"{what} is {text}, not a number")
    return value


def _refuse(what: str, why: str) -> Never:
    raise InputError(f"{what}: this is not a file that trtexec wrote", why=why)
