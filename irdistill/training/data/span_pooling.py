"""The teacher's token vectors, pooled over the spans of text that both tokenizers share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from irdistill.losses.embedding import TowerSide
from irdistill.losses.representations import SpanVectors
from irdistill.modeling.token_spans import NO_SPAN, shared_spans
from irdistill.training.data.collate import CachedTokenizer

if TYPE_CHECKING:
    from irdistill.collections import Collection
    from irdistill.students.student_base import Student


class OffsetTokenizer(CachedTokenizer):
    """Finds where the tokens of the student's vectors are in texts, with a cache.

    Its student is a `LateInteractionStudent`.
    """

    student: Any

    def _tokenize(self, numbers: Sequence[Any]) -> list[dict[str, np.ndarray]]:
        offsets = self.student.token_offsets(self.texts(numbers), self.kind)
        return [{"offsets": places} for places in offsets]


class SpanPooling:
    """Pools the token vectors of a teacher over spans, for a student with another tokenizer.

    Args:
        collection: of the texts.
        query_ids: of the sampler, by the numbers in its lists.
        student: a `LateInteractionStudent`.
    """

    def __init__(self, collection: Collection, query_ids: Sequence[str], student: Student) -> None:
        def queries(numbers: Sequence[int]) -> list[str]:
            return [collection.queries[query_ids[number]].text for number in numbers]

        def documents(rows: Sequence[int]) -> list[str]:
            return list(collection.corpus.texts(np.asarray(rows, dtype=np.int64)))

        self._tokenizers = {
            "query": OffsetTokenizer(student, "query", queries),
            "document": OffsetTokenizer(student, "document", documents),
        }

    def __call__(
        self,
        side: TowerSide,
        numbers: Sequence[int],
        vectors: Sequence[Tensor],
        offsets: Sequence[np.ndarray],
    ) -> SpanVectors:
        """The spans of n queries or documents.

        Args:
            numbers: of the queries in the lists, or rows of documents.
            vectors, offsets: the teacher's token vectors (T, E) of each text, and their start and
                end (T, 2) in characters.
        """
        ours = [row["offsets"] for row in self._tokenizers[side](numbers).rows]
        spans = [shared_spans(*pair) for pair in zip(ours, offsets, strict=True)]
        width = max((count for *_, count in spans), default=0)
        flat, size = torch.cat([*vectors]), len(spans) * width
        numbered = np.concatenate(
            [
                np.where(theirs == NO_SPAN, NO_SPAN, theirs + place * width)
                for place, (_, theirs, _) in enumerate(spans)
            ]
        )
        known = torch.from_numpy(numbered >= 0)
        rows = torch.from_numpy(numbered)[known]
        sums = flat.new_zeros(size, flat.shape[1]).index_add(0, rows, flat[known])
        sizes = torch.bincount(rows, minlength=size)
        return SpanVectors(
            (sums / sizes.clamp_min(1)[:, None]).view(len(spans), width, flat.shape[1]),
            (sizes > 0).view(len(spans), width),
            torch.nn.utils.rnn.pad_sequence(
                [torch.from_numpy(places) for places, *_ in spans],
                batch_first=True,
                padding_value=NO_SPAN,
            ),
            torch.tensor([len(places) for places in ours]),
        )
