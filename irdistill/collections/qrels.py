"""Relevance judgments (qrels), and the objects of other libraries that they become."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from irdistill.collections.foreign_tables import html_table, import_library
from irdistill.collections.grades import check_grades
from irdistill.console.terminal import counted
from irdistill.errors import InputError
from irdistill.storage.files import digest
from irdistill.storage.ownership import write_file

if TYPE_CHECKING:
    import pandas as pd
    from datasets import Dataset
    from ranx import Qrels as RanxQrels


class Qrels(Mapping[str, Mapping[str, int]]):
    """Relevance judgments: query id -> document id -> grade. It cannot be changed.

    Use `as_qrels` to make one from a file or from an object of another library.

    Raises:
        InputError: a grade is not a whole number, or an id is neither a string nor a whole number.

    Examples:
        >>> qrels = Qrels({"q1": {"d1": 2, "d2": 0}})
        >>> qrels
        Qrels(1 query, 2 judgments, 1 relevant)
        >>> qrels["q1"]["d1"]
        2
    """

    def __init__(self, judgments: Mapping[str, Mapping[str, int]]) -> None:
        self._judgments: dict[str, dict[str, int]] = (
            judgments.to_dict() if isinstance(judgments, Qrels) else check_grades(judgments)
        )

    def __getitem__(self, query_id: str) -> Mapping[str, int]:
        return self._judgments[query_id]

    def __iter__(self) -> Iterator[str]:
        return iter(self._judgments)

    def __len__(self) -> int:
        return len(self._judgments)

    def __repr__(self) -> str:
        counts = f"{counted(len(self), 'query')}, {counted(self.judgments, 'judgment')}"
        return f"Qrels({counts}, {self.relevant} relevant)"

    def _repr_html_(self) -> str:
        grades = ", ".join(f"{grade}: {count}" for grade, count in self.grades.items())
        return html_table(
            "Qrels",
            {
                "queries": len(self),
                "judgments": self.judgments,
                "relevant (grade above 0)": self.relevant,
                "judgments by grade": grades,
            },
        )

    @property
    def judgments(self) -> int:
        """Number of judged (query, document) pairs."""
        return sum(map(len, self._judgments.values()))

    @property
    def relevant(self) -> int:
        """Number of judgments with a grade above 0."""
        return sum(count for grade, count in self.grades.items() if grade > 0)

    @cached_property
    def grades(self) -> dict[int, int]:
        """Grade -> number of judgments with this grade, in order of the grades."""
        counts = Counter(grade for grades in self._judgments.values() for grade in grades.values())
        return dict(sorted(counts.items()))

    @cached_property
    def fingerprint(self) -> str:
        """16 hexadecimal digits. Any changed judgment changes them; the order does not."""
        return digest(self._judgments)

    def rows(self) -> Iterator[tuple[str, str, int]]:
        """(query id, document id, grade) of each judgment."""
        for query_id, grades in self._judgments.items():
            for doc_id, grade in grades.items():
                yield query_id, doc_id, grade

    def to_dict(self) -> dict[str, dict[str, int]]:
        """A copy as dicts of dicts, which pytrec_eval, ir_measures, ranx and BEIR accept."""
        return {query_id: dict(grades) for query_id, grades in self._judgments.items()}

    def to_json(self) -> dict[str, Any]:
        """Counts and fingerprint as plain values."""
        return {
            "queries": len(self),
            "judgments": self.judgments,
            "relevant": self.relevant,
            "grades": {str(grade): count for grade, count in self.grades.items()},
            "fingerprint": self.fingerprint,
        }

    def to_pandas(self) -> pd.DataFrame:
        """A data frame with PyTerrier's columns ``qid``, ``docno`` and ``label``.

        Examples:
            >>> print(Qrels({"q1": {"d1": 2, "d2": 0}}).to_pandas().to_string())
              qid docno  label
            0  q1    d1      2
            1  q1    d2      0
        """
        pandas = import_library("pandas", "Qrels.to_pandas()")
        frame = pandas.DataFrame(list(self.rows()), columns=["qid", "docno", "label"])
        return frame.astype({"qid": str, "docno": str, "label": "int64"})

    def to_ranx(self) -> RanxQrels:
        """A ``ranx.Qrels``."""
        ranx = import_library("ranx", "Qrels.to_ranx()")
        return ranx.Qrels(self.to_dict() if self.judgments else None)

    def to_dataset(self) -> Dataset:
        """A Hugging Face dataset with BEIR's columns ``query-id``, ``corpus-id`` and ``score``."""
        datasets = import_library("datasets", "Qrels.to_dataset()")
        types = {"query-id": "string", "corpus-id": "string", "score": "int64"}
        columns = zip(*self.rows(), strict=True) if self.judgments else [()] * 3
        return datasets.Dataset.from_dict(
            {name: list(column) for name, column in zip(types, columns, strict=True)},
            features=datasets.Features({name: datasets.Value(t) for name, t in types.items()}),
        )

    def to_trec(self, path: str | Path) -> Path:
        """Write a TREC qrels file: ``query 0 document grade`` on each line.

        Raises:
            InputError: an id contains white space, which the format cannot hold.
            OutputExistsError: the file exists, and irdistill did not write it.
        """
        for query_id, doc_id, _ in self.rows():
            for value in (query_id, doc_id):
                if len(value.split()) != 1:
                    raise InputError(
                        f"the id {value!r} is empty or contains white space. TREC files cannot hold"
                        " such an id; use to_beir(), to_pandas() or to_dataset()."
                    )
        write_file(path, "".join(f"{query} 0 {doc} {grade}\n" for query, doc, grade in self.rows()))
        return Path(path)

    def to_beir(self, path: str | Path) -> Path:
        """Write a table as in BEIR: a header, then query, document and grade, separated by tabs.

        Raises:
            InputError: an id contains a tab or a line break, or begins or ends with white space.
            OutputExistsError: the file exists, and irdistill did not write it.
        """
        for query_id, doc_id, _ in self.rows():
            for value in (query_id, doc_id):
                if (
                    value.strip() != value
                    or not value
                    or len(value.splitlines()) > 1
                    or "\t" in value
                ):
                    raise InputError(
                        f"the id {value!r} is empty, or has a tab, a line break or white space at"
                        " an end, which a table cannot hold; use to_pandas() or to_dataset()."
                    )
        rows = ("\t".join((query, doc, str(grade))) for query, doc, grade in self.rows())
        write_file(path, "".join(f"{row}\n" for row in ("query-id\tcorpus-id\tscore", *rows)))
        return Path(path)
