"""What all tests share."""

from __future__ import annotations

from functools import cache

import torch


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
