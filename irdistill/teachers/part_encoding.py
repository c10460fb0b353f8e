"""Retrievers whose documents take too much room to be kept for a whole corpus: encoded part by
part, each document once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, ClassVar, Generic, Literal, TypeVar

import numpy as np
import torch

from irdistill.console.progress import progress
from irdistill.errors import IrdistillError
from irdistill.modeling.batching import TokenBudget, run_batches
from irdistill.modeling.hardware import Precision, best_device, choose_dtype
from irdistill.modeling.model_files import resolve_model
from irdistill.modeling.model_revisions import model_identity
from irdistill.modeling.truncation import PLURAL, Truncation
from irdistill.modeling.weights import check_new_modules, complete_weights
from irdistill.students.inputs import prepare_inputs
from irdistill.students.model_kinds import describe_model
from irdistill.teachers.protocol import NO_TOKENS, TeacherScores, TextPair

TextKind = Literal["query", "document"]
Form = TypeVar("Form")

#: So many documents that are not yet encoded are encoded together: enough for batches of one
#: length.
_AHEAD = 1024


class PartTeacher(ABC, Generic[Form]):
    """A pointwise teacher that encodes queries and documents apart.

    A text's form (``Form``) is what the model makes of it: a sparse vector, or a vector a token.
    Within one call of ``score`` every query and document is encoded once, and a document's form is
    dropped after the last query that needs it, so memory is bounded by a few queries' candidates.
    """

    @abstractmethod
    def encode(self, texts: Sequence[str], kind: TextKind) -> list[Form | None]:
        """The forms of texts, in their order; None for a text without tokens."""

    @abstractmethod
    def compare(self, query: Form, documents: Sequence[Form]) -> np.ndarray:
        """Scores (n,) float32 of some documents for one query."""

    def documents(self, texts: Mapping[int, str]) -> list[Form | None]:
        """The forms of documents, of which the rows in the corpus and the texts are given."""
        return self.encode(list(texts.values()), "document")

    def score(self, pairs: Sequence[TextPair]) -> TeacherScores:
        """The similarity of each pair; none, with a flag, where a text has no tokens."""
        places: dict[str, list[int]] = {}
        for place, pair in enumerate(pairs):
            places.setdefault(pair.query.text, []).append(place)
        lists = [[(place, pairs[place].row) for place in own] for own in places.values()]
        last = {row: number for number, own in enumerate(lists) for _, row in own}
        queries = self.encode(list(places), "query")
        values = np.full(len(pairs), np.nan, dtype=np.float32)
        held: dict[int, Form | None] = {}
        for number, own in enumerate(lists):
            if any(row not in held for _, row in own):
                texts = _wanted(pairs, lists[number:], held)
                held.update(zip(texts, self.documents(texts), strict=True))
            query, known = (
                queries[number],
                [(place, form) for place, row in own if (form := held[row]) is not None],
            )
            if query is not None and known:
                values[[place for place, _ in known]] = self.compare(
                    query, [form for _, form in known]
                )
            for row in {row for _, row in own if last[row] == number}:
                del held[row]
        empty = np.isnan(values)
        return TeacherScores(
            values,
            [NO_TOKENS if none else None for none in empty.tolist()] if empty.any() else None,
        )


class PartEncodingTeacher(PartTeacher[Form]):
    """A retriever of sentence-transformers as a pointwise teacher."""

    type: ClassVar[str]
    tokens_cpu: ClassVar[int]
    tokens_gpu: ClassVar[int]

    def __init__(
        self,
        model: str,
        *,
        revision: str | None = None,
        precision: Precision = "auto",
        similarity: str | None = None,
        trust_remote_code: bool = False,
        device: str | None = None,
    ) -> None:
        """Load a model.

        Args:
            model: folder, ``package:`` path or hub id.
            precision: ``auto`` is bfloat16 where the device has instructions for it, else float32;
                scores are summed in float32 always.
            similarity: in place of the one the model states.

        Raises:
            IrdistillError: the model cannot be loaded, or does not know the similarity.
        """
        resolved = resolve_model(model, revision)
        self.model_name = model
        self.truncation: dict[str, Truncation] = {}
        self.device = torch.device(device) if device else best_device()
        self.dtype = choose_dtype(precision, self.device)
        try:
            with complete_weights(model):
                self.model = self.library_class()(
                    resolved,
                    revision=revision,
                    trust_remote_code=trust_remote_code,
                    device=str(self.device),
                    local_files_only=Path(resolved).is_dir(),
                    model_kwargs={"dtype": "float32"},
                ).eval()
            description = describe_model(model, revision)
            check_new_modules(self.model, description.modules, description.architectures, model)
            if similarity is not None:
                self.model.similarity_fn_name = similarity
        except IrdistillError:
            raise
        except Exception as error:
            raise IrdistillError(
                f"the model {model!r} cannot be loaded as a {self.type} retriever:"
                f" {' '.join(str(error).split())[:400]}"
            ) from error
        self.pinned = model_identity(model, revision)
        prepare_inputs(self.model, model)
        self.budget = TokenBudget(self.tokens_cpu if self.device.type == "cpu" else self.tokens_gpu)

    @classmethod
    @abstractmethod
    def library_class(cls) -> Any:
        """The class of sentence-transformers that loads such a model."""

    @abstractmethod
    def forms(self, texts: list[str], kind: TextKind) -> list[Form]:
        """Encode one batch."""

    @property
    def identity(self) -> dict[str, Any]:
        """Weights, lengths, prompts, similarity and precision."""
        first = self.model[0]
        lengths = {
            kind: getattr(first, f"{kind}_length", None) or self.model.max_seq_length
            for kind in ("query", "document")
        }
        return {
            "kind": "retriever",
            "type": self.type,
            **self.pinned,
            "similarity": str(self.model.similarity_fn_name),
            "max_length": lengths["document"],
            "max_query_length": lengths["query"],
            "prompts": dict(self.model.prompts),
            "default_prompt": self.model.default_prompt_name,
            "precision": str(self.dtype).removeprefix("torch."),
        }

    def encode(self, texts: Sequence[str], kind: TextKind) -> list[Form | None]:
        """The forms of texts, in their order; batches are cut by length within a token budget,
        halved when memory runs out.
        """
        found: list[Any] = [None] * len(texts)
        own: Any = getattr(self.model[0], f"{kind}_length", None)
        limit = int(own or self.model.max_seq_length or 512)
        tokenized = self.model.tokenizer(list(texts), truncation=True, max_length=limit)
        self.truncation.setdefault(kind, Truncation()).count(
            tokenized, limit, self.model.tokenizer.num_special_tokens_to_add()
        )
        coded = tokenized["input_ids"]
        lengths = np.array([len(ids) for ids in coded], dtype=np.int64)
        readable = np.flatnonzero(lengths > 0)

        def forward(places: np.ndarray) -> None:
            rows = readable[places]
            half = self.dtype != torch.float32
            with torch.autocast(self.device.type, dtype=self.dtype) if half else nullcontext():
                batch = self.forms([texts[row] for row in rows.tolist()], kind)
            for row, form in zip(rows.tolist(), batch, strict=True):
                found[row] = form
            bar.update(len(rows))

        with progress(len(texts), "texts", f"encode {PLURAL[kind]}") as bar:
            run_batches(lengths[readable], self.budget, forward)
        return found


def _wanted(
    pairs: Sequence[TextPair], lists: Sequence[Sequence[tuple[int, int]]], held: Mapping[int, Any]
) -> dict[int, str]:
    """The texts of the first list's documents that are not held, and of the next lists' until there
    are enough.
    """
    texts: dict[int, str] = {}
    for own in lists:
        texts |= {row: pairs[place].text for place, row in own if row not in held}
        if len(texts) >= _AHEAD:
            break
    return texts
