"""Retrievers whose documents are too large to store for a whole corpus: they are encoded part by
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

from irdistill.console.progress_bars import progress
from irdistill.errors import IrdistillError, ModelError, one_line
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

#: Number of documents that are encoded together: enough for batches of equal lengths.
_AHEAD = 1024


class PartTeacher(ABC, Generic[Form]):
    """A pointwise teacher that encodes queries and documents separately.

    The form of a text (``Form``) is what the model computes from it: a sparse vector, or one vector
    per token. Within one call of ``score`` each query and document is encoded once, and the form of
    a document is dropped after the last query that needs it. So memory is bounded by the candidates
    of a few queries.
    """

    @abstractmethod
    def encode(self, texts: Sequence[str], kind: TextKind) -> list[Form | None]:
        """The forms of texts, in their order; None for a text without tokens."""

    @abstractmethod
    def compare(self, query: Form, documents: Sequence[Form]) -> np.ndarray:
        """Scores (n,) float32 of documents for one query."""

    def documents(self, texts: Mapping[int, str]) -> list[Form | None]:
        """The forms of documents, given as texts by row."""
        return self.encode(list(texts.values()), "document")

    def score(self, pairs: Sequence[TextPair]) -> TeacherScores:
        """The similarity of each pair; not scored, with a flag, if a text has no tokens."""
        places: dict[str, list[int]] = {}
        for place, pair in enumerate(pairs):
            places.setdefault(pair.query.text, []).append(place)
        lists = [
            [(place, pairs[place].row) for place in pairs_of_query]
            for pairs_of_query in places.values()
        ]
        last = {
            row: number for number, pairs_of_query in enumerate(lists) for _, row in pairs_of_query
        }
        queries = self.encode(list(places), "query")
        values = np.full(len(pairs), np.nan, dtype=np.float32)
        forms: dict[int, Form | None] = {}
        for number, pairs_of_query in enumerate(lists):
            if any(row not in forms for _, row in pairs_of_query):
                texts = _wanted(pairs, lists[number:], forms)
                forms.update(zip(texts, self.documents(texts), strict=True))
            query, known = (
                queries[number],
                [
                    (place, form)
                    for place, row in pairs_of_query
                    if (form := forms[row]) is not None
                ],
            )
            if query is not None and known:
                values[[place for place, _ in known]] = self.compare(
                    query, [form for _, form in known]
                )
            for row in {row for _, row in pairs_of_query if last[row] == number}:
                del forms[row]
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
            precision: ``auto`` is bfloat16 if the device has instructions for it, else float32;
                scores are always summed in float32.
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
            raise ModelError(
                f"the model {model!r} cannot be loaded as a {self.type} retriever:"
                f" {one_line(error, 400)}."
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
        """The forms of one batch."""

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
        """The forms of texts, in their order, computed in batches of a token budget that is halved
        when memory runs out.
        """
        forms: list[Any] = [None] * len(texts)
        stated_length: Any = getattr(self.model[0], f"{kind}_length", None)
        limit = int(stated_length or self.model.max_seq_length or 512)
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
                forms[row] = form
            bar.update(len(rows))

        with progress(len(texts), "texts", f"encode {PLURAL[kind]}") as bar:
            run_batches(lengths[readable], self.budget, forward)
        return forms


def _wanted(
    pairs: Sequence[TextPair], lists: Sequence[Sequence[tuple[int, int]]], known: Mapping[int, Any]
) -> dict[int, str]:
    """The texts of the first query's documents that are not encoded yet, and of the next queries'
    until there are enough.
    """
    texts: dict[int, str] = {}
    for pairs_of_query in lists:
        texts |= {row: pairs[place].text for place, row in pairs_of_query if row not in known}
        if len(texts) >= _AHEAD:
            break
    return texts
