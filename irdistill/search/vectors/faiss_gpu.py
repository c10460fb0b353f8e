"""FAISS's inverted lists on GPUs, where faiss-gpu is installed (Johnson et al. 2017,
arXiv:1702.08734).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

KINDS = ("ivfflat", "ivfpq")
"""FAISS has neither graphs of its HNSW nor plain scalar codes on GPUs; ``flat`` is searched by
torch, on a GPU if there is one.
"""
MOST_NEIGHBOURS = 2048
"""What FAISS's kernels can select."""
_FLOAT32_TABLES = 48
"""Bytes a vector up to which the tables of product codes fit a GPU's shared memory in float32."""


def gpu_copy(faiss: Any, path: Path, settings: Mapping[str, Any]) -> Any | None:
    """A copy of an index in the memory of each GPU, which share the queries; None where it stays on
    the processor.

    Args:
        faiss: the library; its builds for processors alone count no GPUs.
        path: of the index.
        settings: of the index, with its kind.
    """
    if settings["kind"] not in KINDS or not faiss.get_num_gpus():
        return None
    options = faiss.GpuMultipleClonerOptions()
    options.useFloat16 = settings.get("codes", 0) > _FLOAT32_TABLES
    try:
        return faiss.index_cpu_to_all_gpus(faiss.read_index(str(path)), options)
    except (
        RuntimeError
    ) as error:  # FAISS's own: too little memory, or codes of a length that its kernels lack
        logger.warning(
            "the index %s is searched on the processor, for FAISS cannot move it to the GPU: %s",
            path,
            " ".join(str(error).split())[:300],
        )
        return None
