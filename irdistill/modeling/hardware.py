"""What the machine does well: device and precision, checked and not assumed."""

from __future__ import annotations

import os

import torch

from irdistill.modeling import Precision as Precision


def best_device() -> torch.device:
    """CUDA, then Apple's MPS, then the CPU; of several processes that ``torchrun`` started each has
    its own GPU.
    """
    if torch.cuda.is_available():
        local = os.environ.get("LOCAL_RANK")
        return torch.device("cuda", int(local)) if local else torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 matrix products run on instructions of their own.

    A CPU without avx512_bf16 or AMX emulates half precision about 100 times slower than float32, so
    being able to run it is not enough.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device)[0] >= 8
    if device.type == "cpu" and torch.backends.mkldnn.is_available():
        capabilities = torch.cpu.get_capabilities()
        return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
    return False


def choose_dtype(precision: Precision, device: torch.device) -> torch.dtype:
    """The dtype a precision setting means on a device; ``auto`` is bfloat16 where it is fast, else
    float32.
    """
    if precision == "auto":
        return torch.bfloat16 if has_fast_bfloat16(device) else torch.float32
    return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[
        precision
    ]
