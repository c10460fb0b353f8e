"""The parser of TREC run files: ``query Q0 document rank score tag``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from irdistill.collections.byte_strings import ByteStrings
from irdistill.collections.table_layout import TableSample, read_sample, trec_header
from irdistill.collections.text_files import decompress, explain_damage
from irdistill.errors import InputError
from irdistill.runs.line_fields import Lines, WrongWidthError, check_utf8, decimals, split_blocks
from irdistill.runs.score_file import ScoreFile

_QUERY, _DOCUMENT, _RANK, _SCORE, _TAG, _WIDTH = 0, 2, 3, 4, 5, 6


class TrecRows(NamedTuple):
    """n rows as they stand in the file.

    Attributes:
        queries, docs: (n,) ids.
        ranks: (n,) int32.
        scores: (n,) float32.
        lines: (n,) int64 line numbers.
    """

    queries: ByteStrings
    docs: ByteStrings
    ranks: np.ndarray
    scores: np.ndarray
    lines: np.ndarray

    def select(self, rows: slice) -> TrecRows:
        """Some of the rows."""
        return TrecRows(
            self.queries.take(rows), self.docs.take(rows), *(column[rows] for column in self[2:])
        )

    def packed(self) -> TrecRows:
        """A copy that does not refer to the block of the file that it was read from."""
        ids = self.queries.packed(), self.docs.packed()
        return TrecRows(*ids, *(column.copy() for column in self[2:]))


def read_file_sample(path: Path) -> TableSample:
    """The start of a file, which decides what its columns are."""
    with open(path, "rb") as stream, explain_damage(path):
        return read_sample(decompress(stream, path), path)


def read_trec_rows(source: ScoreFile, sample: TableSample) -> Iterator[TrecRows]:
    """The rows of a TREC run file, several thousand at a time.

    Fields are separated by white space, as in trec_eval. A first line of column names is skipped.
    The tag of the first row is put into ``source.notes``.

    Args:
        sample: its start, as `read_file_sample` returns it.
    """
    header = trec_header(sample) is not None
    blocks = split_blocks(source.blocks(), _WIDTH, header=header)
    while True:
        try:
            lines = next(blocks, None)
        except WrongWidthError as error:
            raise InputError(
                f"{source.path}, line {error.number}: {error.fields} columns, and six were expected"
                " (query Q0 document rank score tag):"
                f" {error.line.strip()[:80].decode('utf-8', 'replace')!r}. Other tables and score"
                " files are read by irdistill runs import, with another --format."
            ) from None
        if lines is None:
            return
        check_utf8(lines, source.path)
        if "tag" not in source.notes:
            source.notes["tag"] = lines.field(_TAG).text(0)
        ranks, scores = _numbers(lines, source.path)
        yield TrecRows(lines.field(_QUERY), lines.field(_DOCUMENT), ranks, scores, lines.numbers)


def _numbers(lines: Lines, path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Ranks (n,) int32 and scores (n,) float32."""
    score_fields, rank_fields = lines.field(_SCORE), lines.field(_RANK)
    with np.errstate(over="ignore", invalid="ignore"):
        scores, ranks = decimals(score_fields)[0].astype(np.float32), decimals(rank_fields)[0]
        wrong_score = ~np.isfinite(scores)
        whole = (ranks >= 0) & (ranks == np.floor(ranks)) & (ranks <= np.iinfo(np.int32).max)
    bad = wrong_score | ~whole
    if bad.any():
        row = int(np.argmax(bad))
        problem = (
            f"the score {score_fields.text(row)!r} is not a finite number that float32 can hold."
            if wrong_score[row]
            else f"the rank is {rank_fields.text(row)!r}, and a whole number from 0 or 1 was"
            " expected. Are the columns in another order?"
        )
        raise InputError(f"{path}, line {lines.numbers[row]}: {problem}")
    return ranks.astype(np.int32), scores
