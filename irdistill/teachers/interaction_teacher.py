"""Split cross-encoders and kernel models that irdistill trained, as teachers and as rerankers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from torch import Tensor

from irdistill.collections import Corpus
from irdistill.errors import IrdistillError
from irdistill.modeling.hardware import Precision, choose_dtype
from irdistill.modeling.model_files import STUDENT_FILE, read_model_json
from irdistill.modeling.truncation import Truncation
from irdistill.search.multi_vector.token_states import TokenStates, corpus_states
from irdistill.search.retrieve_options import Storage
from irdistill.students.build import STUDENTS
from irdistill.students.interaction_layers import InteractionStudent
from irdistill.teachers.part_encoding import PartTeacher, TextKind

#: The states of a corpus are kept, unless said otherwise, where they take at most so many bytes.
_KEPT = 4 << 30


class InteractionTeacher(PartTeacher[Tensor]):
    """Scores by the learnt comparison of the tokens' states of query and document.

    Documents' states are looked up in a store of the whole corpus, which is made once and kept, or
    made anew for each part of the run (64 queries), each document once.

    Args:
        work: where states are kept; the cache folder where None.
        states: ``stored``, ``live``, or ``auto``: stored where they take at most 4 GiB.
        storage: of the stored states; float16 takes half the room and changes scores by some
            thousandths.
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
            raise IrdistillError(
                f"states={states!r} and storage={storage!r} were asked for; give auto, stored or"
                " live, and float32 or float16."
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
        """What the model did not read so far; of stored documents see their store."""
        return self.student.truncation

    @property
    def identity(self) -> dict[str, Any]:
        """The student's, the precision, and whether states are looked up, which changes the last
        digits.
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
        """The states of documents by their rows, looked up where they are stored."""
        if self.store is None:
            return super().documents(texts)
        found = [self.store.of(row).to(self.student.device) for row in texts]
        return [states if len(states) else None for states in found]

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
    """A saved split-cross-encoder or kernel student as a teacher.

    Raises:
        IrdistillError: it cannot be loaded, or a setting is unknown.
    """
    kind = str((read_model_json(model, STUDENT_FILE, revision) or {}).get("kind"))
    student_type = STUDENTS.get(kind)
    if student_type is None or not issubclass(student_type, InteractionStudent):
        raise IrdistillError(
            f"the model {model!r} is no saved split-cross-encoder or kernel student; leave out the"
            " kind."
        )
    student = student_type.load(
        model, revision=revision, trust_remote_code=trust_remote_code, device=device
    )
    return InteractionTeacher(student, corpus, work, precision, states, storage)
