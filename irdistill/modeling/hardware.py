"""The best device, the precisions that it computes fast, and deterministic kernels."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from irdistill.modeling import Precision as Precision


def best_device() -> torch.device:
    """CUDA, else Apple's MPS, else the CPU. Each process of ``torchrun`` gets its GPU."""
    if torch.cuda.is_available():
        local = os.environ.get("LOCAL_RANK")
        return torch.device("cuda", int(local)) if local else torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether the device has instructions for bfloat16 matrix products.

    A CPU without avx512_bf16 or AMX emulates them about 100 times slower than float32.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device)[0] >= 8
    # older versions of torch do not tell what the processor has
    if device.type == "cpu" and hasattr(torch.cpu, "get_capabilities"):
        capabilities = torch.cpu.get_capabilities()
        fast = capabilities.get("avx512_bf16") or capabilities.get("amx_bf16")
        return bool(fast and torch.backends.mkldnn.is_available())
    return False


def choose_dtype(precision: Precision, device: torch.device) -> torch.dtype:
    """The dtype of a precision on a device; ``auto`` is bfloat16 where it is fast, else float32."""
    if precision == "auto":
        return torch.bfloat16 if has_fast_bfloat16(device) else torch.float32
    return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[
        precision
    ]


@contextmanager
def deterministic_kernels(deterministic: bool) -> Iterator[None]:
    """Use deterministic kernels if asked."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(deterministic or before, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=True)
