"""Flags of documents that have a score and are doubtful all the same."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

FALSE_NEGATIVE = "false negative"
"""How the flag of an unjudged document begins that is probably relevant: ``false negative:
margin``.
"""

UNFLAGGED, DOUBTFUL, SUSPECTED = 0, 1, 2
"""Codes of compiled runs: no flag or no score, scored and flagged, scored and flagged as a false
negative.
"""


def flag_code(flag: str | None) -> int:
    """The code of a scored document's flag."""
    return UNFLAGGED if not flag else SUSPECTED if flag.startswith(FALSE_NEGATIVE) else DOUBTFUL


def heaviest(flags: Sequence[str]) -> str | None:
    """Of a document's flags in several runs the one that is carried on: a suspicion before a doubt,
    then the first.
    """
    return max(flags, key=flag_code, default=None)


def column_codes(table: pa.Table) -> np.ndarray:
    """The codes (rows,) uint8 of a part; what has no score has none."""
    column = table.column("flag")
    if column.null_count == len(column):
        return np.zeros(len(column), np.uint8)
    coded = column.combine_chunks().dictionary_encode()
    codes = np.array(
        [*(flag_code(flag) for flag in coded.dictionary.to_pylist()), UNFLAGGED], np.uint8
    )
    found = codes[coded.indices.fill_null(len(coded.dictionary)).to_numpy()]
    found[table.column("score").is_null().to_numpy()] = UNFLAGGED
    return found
