"""Flags of documents that have a doubtful score."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

FALSE_NEGATIVE = "false negative"
"""Start of the flag of an unjudged, probably relevant document: ``false negative: margin``."""

UNFLAGGED, DOUBTFUL, SUSPECTED = 0, 1, 2
"""Codes in compiled runs: no flag (or no score); scored and flagged; a suspected false negative."""


def flag_code(flag: str | None) -> int:
    """The code of a scored document's flag."""
    return UNFLAGGED if not flag else SUSPECTED if flag.startswith(FALSE_NEGATIVE) else DOUBTFUL


def heaviest(flags: Sequence[str]) -> str | None:
    """The flag of a document that is flagged in several runs: a suspicion, else the first."""
    return max(flags, key=flag_code, default=None)


def column_codes(table: pa.Table) -> np.ndarray:
    """The codes (rows,) uint8 of a part; 0 for a row without a score."""
    column = table.column("flag")
    if column.null_count == len(column):
        return np.zeros(len(column), np.uint8)
    coded = column.combine_chunks().dictionary_encode()
    codes = np.array(
        [*(flag_code(flag) for flag in coded.dictionary.to_pylist()), UNFLAGGED], np.uint8
    )
    row_codes = codes[coded.indices.fill_null(len(coded.dictionary)).to_numpy()]
    row_codes[table.column("score").is_null().to_numpy()] = UNFLAGGED
    return row_codes
