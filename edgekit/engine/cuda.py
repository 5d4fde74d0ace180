"""The few CUDA calls that an engine needs, through ctypes: no package has to be installed on a Jetson.

Names and constants are of the CUDA runtime API: https://docs.nvidia.com/cuda/cuda-runtime-api/
"""

from __future__ import annotations

import ctypes
import ctypes.util
from typing import Any, Optional, Tuple

from edgekit.errors import DependencyError, DeviceError, ResourceError

LIBRARIES = ("libcudart.so.13", "libcudart.so.12", "libcudart.so.11.0", "libcudart.so")
HOST_TO_DEVICE, DEVICE_TO_HOST = 1, 2
MAJOR, MINOR = 75, 76  # cudaDevAttrComputeCapabilityMajor, ...Minor
OUT_OF_MEMORY = 2  # cudaErrorMemoryAllocation


def missing() -> Optional[str]:
    """Why there is no CUDA here, None where there is. Asked before TensorRT, which can crash without a driver."""
    library = _library()
    if library is None:
        return "the CUDA runtime (libcudart) is not installed"
    count = ctypes.c_int(0)
    status = library.cudaGetDeviceCount(ctypes.byref(count))
    if status:
        return f"CUDA finds no device: {_text(library, status)}"
    return None if count.value else "there is no CUDA device"


class Cuda:
    """One device, one stream."""

    def __init__(self) -> None:
        library = _library()
        if library is None:
            raise DependencyError("the CUDA runtime (libcudart) is not installed")
        self._library = library
        stream = ctypes.c_void_p()
        self._call("cudaStreamCreate", ctypes.byref(stream))
        self.stream = int(stream.value or 0)

    def capability(self) -> str:
        """Compute capability: `8.7`."""
        values = []
        for attribute in (MAJOR, MINOR):
            value = ctypes.c_int()
            self._call("cudaDeviceGetAttribute", ctypes.byref(value), attribute, 0)
            values.append(value.value)
        return f"{values[0]}.{values[1]}"

    def memory(self) -> Tuple[int, int]:
        """(free, total) bytes."""
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        self._call("cudaMemGetInfo", ctypes.byref(free), ctypes.byref(total))
        return free.value, total.value

    def allocate(self, count: int) -> int:
        """Address of `count` new bytes on the device."""
        pointer = ctypes.c_void_p()
        self._call("cudaMalloc", ctypes.byref(pointer), ctypes.c_size_t(count))
        return int(pointer.value or 0)

    def free(self, pointer: int) -> None:
        self._call("cudaFree", ctypes.c_void_p(pointer))

    def upload(self, pointer: int, array: Any) -> None:
        """Copies a contiguous array to the device, in the order of the stream."""
        self._copy(pointer, array.ctypes.data, array.nbytes, HOST_TO_DEVICE)

    def download(self, array: Any, pointer: int) -> None:
        """Copies from the device into a contiguous array; it is there after `wait`."""
        self._copy(array.ctypes.data, pointer, array.nbytes, DEVICE_TO_HOST)

    def wait(self) -> None:
        """Until everything in the stream is done."""
        self._call("cudaStreamSynchronize", ctypes.c_void_p(self.stream))

    def _copy(self, target: int, source: int, count: int, kind: int) -> None:
        pointers = ctypes.c_void_p(target), ctypes.c_void_p(source)
        self._call("cudaMemcpyAsync", *pointers, ctypes.c_size_t(count), kind, ctypes.c_void_p(self.stream))

    def _call(self, name: str, *arguments: Any) -> None:
        status = getattr(self._library, name)(*arguments)
        if status == OUT_OF_MEMORY:
            raise ResourceError(f"{name}: the device's memory ran out")
        if status:
            raise DeviceError(f"{name}: {_text(self._library, status)}")


def _library() -> Optional[Any]:
    for name in (*LIBRARIES, ctypes.util.find_library("cudart")):
        if name is None:
            continue
        try:
            library = ctypes.CDLL(name)
        except OSError:
            continue
        library.cudaGetErrorString.restype = ctypes.c_char_p
        return library
    return None


def _text(library: Any, status: int) -> str:
    return bytes(library.cudaGetErrorString(status)).decode()
