"""An engine with its context and buffers, through the tensor-name API alone: it is in every TensorRT since 8.5."""

from __future__ import annotations

import time
from typing import Any, Dict, List, Mapping, Tuple

import numpy as np

from edgekit.artifact import TensorSpec
from edgekit.errors import DependencyError, DeviceError, InputError


class Execution:
    """engine: deserialized; cuda: edgekit.engine.cuda.Cuda, or what a test gives in its place."""

    def __init__(self, trt: Any, engine: Any, cuda: Any):
        self._cuda = cuda
        self._engine = engine  # a context does not keep its engine alive
        self._context = engine.create_execution_context()
        if self._context is None:
            raise DeviceError("TensorRT made no execution context of the engine: is the device's memory used up?")
        self.inputs, self.outputs = _tensors(trt, engine)
        self._buffers = {spec.name: self._buffer(spec) for spec in self.inputs + self.outputs}

    def infer(self, feeds: Mapping[str, np.ndarray]) -> Dict[str, np.ndarray]:
        """Copies in, runs, copies out, and waits."""
        for spec in self.inputs:
            self._cuda.upload(self._buffers[spec.name], _checked(feeds[spec.name], spec))
        if not self._context.execute_async_v3(self._cuda.stream):
            raise DeviceError("TensorRT did not accept the inference")
        results = {spec.name: np.empty(spec.shape, spec.dtype) for spec in self.outputs}
        for name, array in results.items():
            self._cuda.download(array, self._buffers[name])
        self._cuda.wait()
        return results

    def time_ms(self, feeds: Mapping[str, np.ndarray], count: int) -> List[float]:
        clock, stamps = time.perf_counter_ns, []
        for _ in range(count):
            start = clock()
            self.infer(feeds)
            stamps.append(clock() - start)
        return [stamp / 1e6 for stamp in stamps]

    def layers(self, trt: Any) -> str:
        """The inspector's JSON, as edgekit.trtexec.read_layers reads it."""
        return str(self._engine.create_engine_inspector().get_engine_information(trt.LayerInformationFormat.JSON))

    def close(self) -> None:
        for pointer in self._buffers.values():
            self._cuda.free(pointer)
        self._buffers = {}
        del self._context, self._engine

    def _buffer(self, spec: TensorSpec) -> int:
        pointer = self._cuda.allocate(int(np.prod(spec.shape)) * np.dtype(spec.dtype).itemsize)
        if not self._context.set_tensor_address(spec.name, pointer):
            raise DeviceError(f"TensorRT did not take the buffer of '{spec.name}'")
        return int(pointer)


def deserialize(trt: Any, logger: Any, plan: bytes) -> Any:
    """An engine from the bytes of one that was built here (edgekit.engine.key.unseal).

    Raises:
        DependencyError, DeviceError: TensorRT finds no driver, or does not take the engine.
    """
    try:
        runtime = trt.Runtime(logger)
    except TypeError as error:
        raise DependencyError(
            "TensorRT finds no GPU with a driver that is new enough for it.", why=str(error)
        ) from None
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise DeviceError("TensorRT did not take the engine that was built here", next="delete it and run again")
    return engine


def _tensors(trt: Any, engine: Any) -> Tuple[Tuple[TensorSpec, ...], Tuple[TensorSpec, ...]]:
    """(inputs, outputs)."""
    inputs: List[TensorSpec] = []
    outputs: List[TensorSpec] = []
    for index in range(engine.num_io_tensors):
        name = engine.get_tensor_name(index)
        shape = tuple(int(size) for size in engine.get_tensor_shape(name))
        if any(size < 0 for size in shape):
            raise InputError(
                f"input or output '{name}' has a free size, {shape}", next="export the model with fixed sizes"
            )
        spec = TensorSpec(name, np.dtype(trt.nptype(engine.get_tensor_dtype(name))).name, shape)
        (inputs if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT else outputs).append(spec)
    return tuple(inputs), tuple(outputs)


def _checked(array: np.ndarray, spec: TensorSpec) -> np.ndarray:
    """TensorRT reads as many bytes as its input has, whatever is given."""
    if array.shape != spec.shape or array.dtype != spec.dtype:
        raise InputError(
            f"input '{spec.name}' is {array.dtype} {array.shape}, the engine takes {spec.dtype} {spec.shape}"
        )
    return np.ascontiguousarray(array)
