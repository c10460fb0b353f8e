"""Qrels of what people judged, and beside them a file with who judged and when."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal, NamedTuple

from irdistill.collections.collection import Collection, collection_mismatch
from irdistill.collections.judging.judge_policies import CombinedJudgments
from irdistill.collections.qrels import Qrels
from irdistill.errors import OutputExistsError, WrongCollectionError
from irdistill.storage.files import make_folder, write_text

WHO_AND_WHEN = ".judges"
"""Ending of the file beside the qrels. It is no ending of judgments, so no split is made of it."""
QrelsFormat = Literal["trec", "beir"]


class ExportedQrels(NamedTuple):
    """What was exported, and from whom.

    Attributes:
        policy, judges: as in `CombinedJudgments`.
        differing: number of pairs on which judges differ.
        undecided: number of these that were left out, without a majority.
        judgments: number of judgments in the file.
        relevant: number of these with a grade above 0.
        added: number of pairs that the collection does not judge.
        changed: number of pairs to which the collection gives another grade.
    """

    policy: str
    judges: list[str]
    differing: int
    undecided: int
    judgments: int
    relevant: int
    added: int
    changed: int


def export_qrels(
    combined: CombinedJudgments,
    out: str | Path,
    format: QrelsFormat | None = None,
    collection: Collection | None = None,
) -> ExportedQrels:
    """Write judgments as a new file of qrels.

    ``OUT.judges`` beside it holds the policy and, per pair, who judged what and when.

    Args:
        out: a file that does not exist.
        format: ``trec``: ``query 0 document grade``; ``beir``: a table with a header (default:
            ``beir`` for a name that ends in .tsv).
        collection: write its judgments too; a grade of the judges replaces the collection's.

    Raises:
        OutputExistsError: the file, or the one beside it, exists.
        WrongCollectionError: the judgments are for another collection.
        InputError: an id cannot be written in this format.
    """
    path = Path(out)
    beside = path.with_name(path.name + WHO_AND_WHEN)
    for place in (path, beside):
        if place.exists():
            raise OutputExistsError(
                f"{place} exists, and judgments are never overwritten; choose another --out."
            )
    known: dict[str, dict[str, int]] = {}
    if collection is not None:
        part = collection_mismatch(combined.collection, collection.describe())
        if part is not None:
            raise WrongCollectionError(
                f"the judgments are for {combined.collection.get('id')!r}, whose {part} are not"
                f" those of {collection.id!r}; give the collection that was judged."
            )
        known = collection.qrels.to_dict()
    added = changed = 0
    merged = {query: dict(grades) for query, grades in known.items()}
    for query, doc, grade in combined.qrels.rows():
        before = known.get(query, {}).get(doc)
        added, changed = added + (before is None), changed + (before not in (None, grade))
        merged.setdefault(query, {})[doc] = grade
    qrels = Qrels(merged)
    make_folder(path.parent)
    if (format or ("beir" if path.suffix == ".tsv" else "trec")) == "beir":
        qrels.to_beir(path)
    else:
        qrels.to_trec(path)
    write_text(beside, _who_and_when(combined))
    return ExportedQrels(
        combined.policy,
        list(combined.judges),
        combined.differing,
        combined.undecided,
        qrels.judgments,
        qrels.relevant,
        added,
        changed,
    )


def _who_and_when(combined: CombinedJudgments) -> str:
    head: dict[str, Any] = {
        "policy": combined.policy,
        "judges": list(combined.judges),
        "undecided": combined.undecided,
        "collection": dict(combined.collection),
    }
    rows = [
        {
            "query_id": query,
            "doc_id": doc,
            "grade": grade,
            "judged": [
                {"judge": source.judge, "grade": source.grade, "time": source.time}
                for source in combined.sources[query, doc]
            ],
        }
        for query, doc, grade in combined.qrels.rows()
    ]
    return "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in (head, *rows))
