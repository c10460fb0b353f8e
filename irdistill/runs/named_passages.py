"""The passages that a run names for its documents."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from irdistill.collections import Corpus
from irdistill.collections.collection import Collection
from irdistill.errors import WrongCollectionError
from irdistill.runs.ranked_lists import RankedList
from irdistill.runs.run import Run


def list_texts(corpus: Corpus, ranked: RankedList) -> list[str]:
    """The text that was read of each document of a list: the passage that is named, else all."""
    if not ranked.doc_ids:
        return []
    rows = corpus.rows(ranked.doc_ids)
    texts = corpus.texts(rows)
    if ranked.passages is None or corpus.passages is None:
        return texts
    for place in np.flatnonzero(ranked.passages >= 0).tolist():
        [row] = corpus.passages.rows([rows[place]], [ranked.passages[place]])
        texts[place] = corpus.passages.corpus.text(int(row))
    return texts


def check_passages(runs: Sequence[Run], collection: Collection) -> None:
    """Check that the passages that runs name are those of a collection.

    Raises:
        WrongCollectionError: a run was made with the documents split in another way.
    """
    expected = collection.describe().get("passages")
    for run in runs:
        stored = run.identity.collection.get("passages")
        if stored is not None and stored != expected:
            raise WrongCollectionError(
                f"{run} names passages with the fingerprint {stored}, and the documents of"
                f" {collection.id!r} {f'have {expected}' if expected else 'are not split'}. Make"
                " the run again, or split the documents as they were."
            )
