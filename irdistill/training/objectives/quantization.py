"""Document vectors rounded to bits or bytes in training, with straight-through gradients."""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from irdistill.students.student_base import Student

Codes = Literal["int8", "binary"]
STEPS = 255
"""Steps between the least and the largest number of a dimension, as in FAISS."""


def straight_through(vectors: Tensor, codes: Codes) -> Tensor:
    """The vectors (n, D) that a search decodes from short codes; the gradient is the identity.

    Bengio et al. 2013, arXiv:1308.3432. ``binary``: the signs, scaled to length 1. ``int8``: the
    middle of one of 255 steps between the least and the largest number of each dimension in the
    batch; a search takes them of the corpus. Vectors of zeros stay zeros.

    Examples:
        >>> vectors = torch.tensor([[0.3, -0.1, 0.0, 0.2]], requires_grad=True)
        >>> codes = straight_through(vectors, "binary")
        >>> codes.tolist()
        [[0.5, -0.5, -0.5, 0.5]]
        >>> codes.sum().backward()
        >>> vectors.grad.tolist()
        [[1.0, 1.0, 1.0, 1.0]]
    """
    with torch.no_grad():
        present = vectors.any(dim=1, keepdim=True)
        if codes == "binary":
            decoded = torch.where(vectors > 0, 1.0, -1.0) / vectors.shape[1] ** 0.5
        else:
            decoded = _decoded_bytes(vectors, present)
        difference = (decoded.to(vectors.dtype) - vectors) * present
    return vectors + difference


def _decoded_bytes(vectors: Tensor, present: Tensor) -> Tensor:
    least = vectors.masked_fill(~present, torch.inf).amin(dim=0)
    width = (vectors.masked_fill(~present, -torch.inf).amax(dim=0) - least).clamp_min(1e-12)
    steps = (STEPS * ((vectors - least) / width).clamp(0, 1)).floor()
    return least + (steps + 0.5) / STEPS * width


def quantized_documents(documents: Any, student: Student, codes: Codes | None) -> Any:
    """Document vectors (U, D) as a search with short codes compares them.

    Args:
        documents: of a dense student; unchanged if ``codes`` is None.
    """
    if codes is None:
        return documents
    if student.similarity == "cosine":
        documents = F.normalize(documents, dim=-1)
    return straight_through(documents, codes)
