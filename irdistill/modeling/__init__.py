"""Models on disk and on the device: names, weights, adapters, precision, batches, truncation."""

from typing import Literal

Precision = Literal["auto", "float32", "bfloat16", "float16"]
