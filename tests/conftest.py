"""What all tests share."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from functools import cache

import pytest
import torch


class SignalStack(ctypes.Structure):
    """stack_t of sigaltstack(2)."""

    _fields_ = (("sp", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


@pytest.fixture(autouse=True)
def signals_can_be_survived() -> Iterator[None]:
    """Puts the main thread's alternative signal stack back: OpenVINO's profiling of layers leaves one that is unmapped.

    Python handles signals on that stack, so the next one would end the process with a segmentation fault.
    """
    libc, before = ctypes.CDLL(None), SignalStack()
    libc.sigaltstack(None, ctypes.byref(before))
    yield
    libc.sigaltstack(ctypes.byref(before), None)


@cache
def torchvision_beside_cpu_torch() -> torch.library.Library:
    """Two operators that torchvision looks for when it is imported, and that its CUDA build lacks beside a CPU torch.

    Only the networks of torchvision are used here, and none of them needs these operators.
    """
    library = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")  # type: ignore[no-untyped-call]
    return library


if not torch.cuda.is_available():
    torchvision_beside_cpu_torch()
