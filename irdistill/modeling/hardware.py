"""The best device, and the precisions that it computes fast."""

from __future__ import annotations

import os

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
    if device.type == "cpu" and torch.backends.mkldnn.is_available():
        capabilities = torch.cpu.get_capabilities()
        return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
    return False


def choose_dtype(precision: Precision, device: torch.device) -> torch.dtype:
    """The dtype of a precision on a device; ``auto`` is bfloat16 where it is fast, else float32."""
    if precision == "auto":
        return torch.bfloat16 if has_fast_bfloat16(device) else torch.float32
    return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[
        precision
    ]
