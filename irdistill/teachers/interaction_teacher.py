"""Split cross-encoders and kernel models that irdistill trained, as teachers and rerankers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from torch import Tensor

from irdistill.collections import Corpus
from irdistill.errors import ModelError, OptionError
from irdistill.modeling.hardware import Precision, choose_dtype
from irdistill.modeling.model_files import STUDENT_FILE, read_model_json
from irdistill.modeling.truncation import Truncation
from irdistill.search.multi_vector.token_states import TokenStates, corpus_states
from irdistill.search.retrieve_options import Storage
from irdistill.students.build import STUDENTS
from irdistill.students.interaction_layers import InteractionStudent
from irdistill.teachers.part_encoding import PartTeacher, TextKind

#: Largest size of the states of a corpus, in bytes, that ``auto`` stores.
_KEPT = 4 << 30


class InteractionTeacher(PartTeacher[Tensor]):
    """Scores by the learned comparison of the token states of query and document.

    The states of documents are read from a store of the whole corpus, which is built once and kept,
    or computed for each part of the run (64 queries), once per document.

    Args:
        student: the model.
        corpus: the documents.
        states: ``stored``, ``live``, or ``auto``: stored if they take at most 4 GiB.
        storage: number format of the stored states; float16 halves the size and changes scores by
            some thousandths.
        precision: number format of the computations.
    """

    def __init__(
        self,
        student: InteractionStudent,
        corpus: Corpus,
        work: Path | None = None,
        precision: Precision = "auto",
        states: Literal["auto", "stored", "live"] = "auto",
        storage: Storage = "float32",
    ) -> None:
        if states not in ("auto", "stored", "live") or storage not in ("float32", "float16"):
            raise OptionError(
                f"states is {states!r} and storage is {storage!r}; expected auto, stored or live,"
                " and float32 or float16."
            )
        self.student, self.precision = student, precision
        most = (
            len(corpus)
            * student.max_length("document")
            * student.dimension
            * np.dtype(storage).itemsize
        )
        kept = states == "stored" or (states == "auto" and most <= _KEPT)
        self.store: TokenStates | None = (
            corpus_states(corpus, student, work, precision, storage) if kept else None
        )

    @property
    def truncation(self) -> dict[str, Truncation]:
        """What the model did not read so far; for stored documents see their store."""
        return self.student.truncation

    @property
    def identity(self) -> dict[str, Any]:
        """The student's identity, the precision, and whether states are stored, which changes the
        last digits.
        """
        dtype = str(choose_dtype(self.precision, self.student.device)).removeprefix("torch.")
        states = "live" if self.store is None else f"stored in {self.store.identity['storage']}"
        return self.student.identity() | {
            "kind": "interaction",
            "type": self.student.kind,
            "precision": dtype,
            "states": states,
        }

    def encode(self, texts: Sequence[str], kind: TextKind) -> list[Tensor | None]:
        """States (tokens, D) of texts."""
        return [
            states if len(states) else None
            for states in self.student.encode(texts, kind, self.precision)
        ]

    def documents(self, texts: Mapping[int, str]) -> list[Tensor | None]:
        """The states of documents by row, from the store if there is one."""
        if self.store is None:
            return super().documents(texts)
        stored = [self.store.of(row).to(self.student.device) for row in texts]
        return [states if len(states) else None for states in stored]

    def compare(self, query: Tensor, documents: Sequence[Tensor]) -> np.ndarray:
        """Logits (n,) float32."""
        return self.student.compare(query, documents, self.precision)


def load_interaction(
    model: str,
    corpus: Corpus,
    work: Path | None = None,
    *,
    revision: str | None = None,
    precision: Precision = "auto",
    states: Any = "auto",
    storage: Any = "float32",
    trust_remote_code: bool = False,
    device: str | None = None,
) -> InteractionTeacher:
    """Load a saved split-cross-encoder or kernel student as a teacher."""
    kind = str((read_model_json(model, STUDENT_FILE, revision) or {}).get("kind"))
    student_type = STUDENTS.get(kind)
    if student_type is None or not issubclass(student_type, InteractionStudent):
        raise ModelError(
            f"the model {model!r} is not a saved split-cross-encoder or kernel student. Leave out"
            " the kind."
        )
    student = student_type.load(
        model, revision=revision, trust_remote_code=trust_remote_code, device=device
    )
    return InteractionTeacher(student, corpus, work, precision, states, storage)
