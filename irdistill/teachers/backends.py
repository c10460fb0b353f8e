"""What runs a network's forward pass: torch on any device, OpenVINO on CPUs."""

from __future__ import annotations

import logging
from contextlib import nullcontext
from importlib.util import find_spec
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from irdistill.errors import MissingExtraError
from irdistill.modeling.library_output import quiet_libraries

logger = logging.getLogger(__name__)


class Backend(Protocol):
    """Maps padded tensors to the network's output, (n, H) float32."""

    name: str

    def __call__(self, features: dict[str, Tensor]) -> np.ndarray:
        """Run the network on one batch."""
        ...


def has_openvino() -> bool:
    """Whether the extra ``openvino`` is installed."""
    return find_spec("openvino") is not None


class TorchBackend:
    """Plain torch; autocast if the precision is half, which keeps norms and softmax in float32."""

    name = "torch"

    def __init__(self, network: nn.Module, dtype: torch.dtype, device: torch.device) -> None:
        self.network, self.dtype, self.device = network.to(device).eval(), dtype, device

    @torch.inference_mode()
    def __call__(self, features: dict[str, Tensor]) -> np.ndarray:
        """Run the network on one batch."""
        values = {key: value.to(self.device) for key, value in features.items()}
        half = self.dtype != torch.float32
        with torch.autocast(self.device.type, dtype=self.dtype) if half else nullcontext():
            output = self.network(**values).logits
        return output.float().cpu().numpy()


class OpenVinoBackend:
    """The network compiled for the CPU by OpenVINO; in bfloat16 about twice as fast as torch."""

    name = "openvino"

    def __init__(self, network: nn.Module, dtype: torch.dtype, example: dict[str, Tensor]) -> None:
        try:
            import openvino
        except ImportError as error:
            raise MissingExtraError("openvino", "openvino", "the openvino back end") from error
        logging.getLogger("openvino").setLevel(logging.ERROR)
        self.inputs = list(example)
        wrapped = _LogitsOnly(network.eval(), self.inputs)
        with torch.no_grad(), quiet_libraries():
            model = openvino.convert_model(
                wrapped, example_input=tuple(example[key] for key in self.inputs)
            )
        kinds = {torch.float32: "f32", torch.bfloat16: "bf16", torch.float16: "f16"}
        settings: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": kinds[dtype],
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        }
        self.compiled = openvino.Core().compile_model(model, "CPU", settings)

    def __call__(self, features: dict[str, Tensor]) -> np.ndarray:
        """Run the network on one batch."""
        outputs = self.compiled([features[key].numpy() for key in self.inputs])
        return np.array(outputs[0], dtype=np.float32)


class _LogitsOnly(nn.Module):
    """A network with positional inputs and one output, as tracing requires."""

    def __init__(self, network: nn.Module, inputs: list[str]) -> None:
        super().__init__()
        self.network, self.inputs = network, inputs

    def forward(self, *values: Tensor) -> Tensor:
        output: Tensor = self.network(**dict(zip(self.inputs, values, strict=True))).logits
        return output
