"""FAISS indexes on GPUs, with faiss-gpu (Johnson et al. 2017, arXiv:1702.08734)."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from irdistill.errors import one_line

logger = logging.getLogger(__name__)

KINDS = ("ivfflat", "ivfpq")
"""FAISS has no HNSW and no scalar codes on GPUs; ``flat`` is searched with torch."""
MOST_NEIGHBORS = 2048
"""Most neighbors that the kernels of FAISS can select."""
_FLOAT32_TABLES = 48
"""Most bytes per vector whose code tables fit the shared memory of a GPU in float32."""


def gpu_copy(faiss: Any, path: Path, settings: Mapping[str, Any]) -> Any | None:
    """A copy of an index on each GPU, which share the queries; None without a GPU for it.

    Args:
        faiss: the library; faiss-cpu counts no GPUs.
        settings: settings of the index, with its kind.
    """
    if settings["kind"] not in KINDS or not faiss.get_num_gpus():
        return None
    options = faiss.GpuMultipleClonerOptions()
    options.useFloat16 = settings.get("codes", 0) > _FLOAT32_TABLES
    try:
        return faiss.index_cpu_to_all_gpus(faiss.read_index(str(path)), options)
    except RuntimeError as error:  # too little memory, or a code size that the kernels lack
        logger.warning(
            "the index %s is searched on the processor, because FAISS cannot move it to the GPU:"
            " %s",
            path,
            one_line(error),
        )
        return None
