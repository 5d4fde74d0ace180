"""TensorRT's Python package as four versions of it are on record: a name that a version lacks raises AttributeError.

The record is tests/data/tensorrt_python_api_surface.json. What the fake does is arithmetic: every engine doubles its
input, float32 [1, 2].
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

RECORD = json.loads((Path(__file__).parent / "data" / "tensorrt_python_api_surface.json").read_text())
VERSIONS = tuple(sorted(RECORD, key=lambda text: [int(part) for part in text.split(".")]))
SHAPE = (1, 2)


class FakeCuda:
    """Device memory as a dictionary of arrays, everything done at once."""

    stream = 7

    def __init__(self, free: int = 4 * 2**30, capability: str = "8.7"):
        self.held: dict[int, np.ndarray] = {}
        self._free, self._capability = free, capability

    def capability(self) -> str:
        return self._capability

    def memory(self) -> tuple[int, int]:
        return self._free, 2 * self._free

    def allocate(self, count: int) -> int:
        pointer = 1000 + len(self.held)
        self.held[pointer] = np.zeros(count // 4, np.float32)
        return pointer

    def free(self, pointer: int) -> None:
        del self.held[pointer]

    def upload(self, pointer: int, array: np.ndarray) -> None:
        self.held[pointer][:] = array.ravel()

    def download(self, array: np.ndarray, pointer: int) -> None:
        array[:] = self.held[pointer].reshape(array.shape)

    def wait(self) -> None:
        pass


class FakeTensorRT:
    """The module. calls: what was asked of it, in order.

    failing: how many builds give nothing. driver: whether it finds one. refuses: what its parser says of every file.
    """

    def __init__(self, version: str, cuda: FakeCuda, failing: int = 0, driver: bool = True, refuses: str = ""):
        self._record, self._cuda = RECORD[version], cuda
        self.failing, self.driver, self.refuses = failing, driver, refuses
        self.__version__ = version
        self.calls: list[tuple[Any, ...]] = []
        self._classes = {name: self._make(name) for name in self._record if name != "_all_names"}

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name not in self._record["_all_names"]:
            raise AttributeError(f"module 'tensorrt' has no attribute '{name}' in {self.__version__}")
        others = {"ILogger": ILogger, "nptype": lambda dtype: np.float32}
        return others[name] if name in others else self._classes[name]

    def _make(self, name: str) -> Any:
        """A class with the recorded names and no others; what has no behaviour below is a plain value."""
        names = self._record[name]
        if names is None:
            return None
        behaviour = vars(BEHAVIOUR[name]) if name in BEHAVIOUR else {}
        space: dict[str, Any] = {key: behaviour.get(key, index) for index, key in enumerate(names)}
        space |= {key: value for key, value in behaviour.items() if key == "__init__"}
        space |= {"__setattr__": _strict_set, "_names": frozenset(names), "_trt": self}
        return type(name, (), space)


def _strict_set(self: Any, name: str, value: Any) -> None:
    if not name.startswith("_") and name not in self._names:
        raise AttributeError(f"{type(self).__name__} has no attribute '{name}'")
    object.__setattr__(self, name, value)


class ILogger:
    INTERNAL_ERROR, ERROR, WARNING, INFO = range(4)


class _Builder:
    _trt: FakeTensorRT

    def __init__(self, logger: Any) -> None:
        if not self._trt.driver:
            raise TypeError("pybind11::init(): factory function returned nullptr")
        self._logger = logger

    def create_network(self, flags: int) -> Any:
        self._trt.calls.append(("network", flags))
        return self._trt.INetworkDefinition()

    def create_builder_config(self) -> Any:
        return self._trt.IBuilderConfig()

    def build_serialized_network(self, network: Any, config: Any) -> bytes | None:
        self._trt.calls.append(("build", config._workspace, config._cache._known))
        if self._trt.failing:
            self._trt.failing -= 1
            self._logger.log(ILogger.ERROR, "out of memory")
            return None
        return b"plan"


class _Parser:
    _trt: FakeTensorRT

    def __init__(self, network: Any, logger: Any) -> None:
        pass

    def parse(self, content: bytes) -> bool:
        return not self._trt.refuses

    @property
    def num_errors(self) -> int:
        return int(bool(self._trt.refuses))

    def get_error(self, index: int) -> Any:
        error = self._trt.ParserError()
        type(error).desc = lambda _: self._trt.refuses
        return error


class _Config:
    _trt: FakeTensorRT
    _cache: Any = None

    def set_memory_pool_limit(self, pool: int, count: int) -> None:
        assert pool == self._trt.MemoryPoolType.WORKSPACE
        self._workspace = count

    def set_flag(self, flag: int) -> None:
        names = [name for name in self._trt._record["BuilderFlag"] if getattr(self._trt.BuilderFlag, name) == flag]
        self._trt.calls.append(("flag", *names))

    def create_timing_cache(self, known: bytes) -> Any:
        cache = self._trt.ITimingCache()
        cache._known = known
        return cache

    def set_timing_cache(self, cache: Any, ignore_mismatch: bool) -> None:
        self._cache = cache

    def get_timing_cache(self) -> Any:
        return self._cache


class _TimingCache:
    _known: bytes

    def serialize(self) -> bytes:
        return self._known + b"+"


class _Runtime:
    _trt: FakeTensorRT

    def __init__(self, logger: Any) -> None:
        self._trt.calls.append(("runtime",))

    def deserialize_cuda_engine(self, plan: bytes) -> Any:
        return self._trt.ICudaEngine() if plan == b"plan" else None


class _Engine:
    _trt: FakeTensorRT
    num_io_tensors = 2

    def get_tensor_name(self, index: int) -> str:
        return ("x", "y")[index]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return SHAPE

    def get_tensor_dtype(self, name: str) -> int:
        return int(self._trt.DataType.FLOAT)

    def get_tensor_mode(self, name: str) -> int:
        return int(self._trt.TensorIOMode.INPUT if name == "x" else self._trt.TensorIOMode.OUTPUT)

    def create_execution_context(self) -> Any:
        context = self._trt.IExecutionContext()
        context._addresses = {}
        return context

    def create_engine_inspector(self) -> Any:
        return self._trt.EngineInspector()


class _Context:
    _trt: FakeTensorRT
    _addresses: dict[str, int]

    def set_tensor_address(self, name: str, pointer: int) -> bool:
        self._addresses[name] = pointer
        return True

    def execute_async_v3(self, stream: int) -> bool:
        held = self._trt._cuda.held
        held[self._addresses["y"]][:] = 2 * held[self._addresses["x"]]
        return stream == FakeCuda.stream


class _Inspector:
    def get_engine_information(self, layout: int) -> str:
        return '{"Layers": ["double"]}'


BEHAVIOUR = {
    "Builder": _Builder,
    "OnnxParser": _Parser,
    "IBuilderConfig": _Config,
    "ITimingCache": _TimingCache,
    "Runtime": _Runtime,
    "ICudaEngine": _Engine,
    "IExecutionContext": _Context,
    "EngineInspector": _Inspector,
}
