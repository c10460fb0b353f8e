"""Writing TREC run files: ``query Q0 document rank score tag``."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from irdistill.errors import InputError, OptionError
from irdistill.runs.ranked_lists import RankedList
from irdistill.runs.score_file import open_output


def write_trec_lines(lists: Iterable[RankedList], path: Path, tag: str = "irdistill") -> int:
    """Write one line per scored document; returns the number of lines."""
    if len(tag.split()) != 1:
        raise OptionError(f"the tag {tag!r} is empty or contains white space; give one word.")

    def lines(ranked: RankedList) -> tuple[list[str], int]:
        rows = [
            f"{ranked.query_id} Q0 {doc} {rank} {score} {tag}\n"
            for rank, (doc, score) in enumerate(score_texts(ranked), 1)
        ]
        return rows, len(rows)

    return write_text_lines(
        lists, path, lines, "TREC run files", lambda name: len(name.split()) == 1
    )


def score_texts(ranked: RankedList) -> list[tuple[str, str]]:
    """The scored documents; each score has the fewest digits that give the same float32 back."""
    return [
        (doc, str(score))
        for doc, score in zip(ranked.doc_ids, ranked.scores, strict=True)
        if score == score
    ]


def write_text_lines(
    lists: Iterable[RankedList],
    path: Path,
    lines: Callable[[RankedList], tuple[list[str], int]],
    kind: str,
    fits: Callable[[str], bool],
    header: str = "",
) -> int:
    """Write the lines of each list; returns the number of rows that the file expresses.

    Args:
        lines: returns a list's lines, and how many of its rows they express.
        fits: whether such files can hold an id.
    """
    count = 0
    with open_output(path) as stream:
        stream.write(header.encode())
        for ranked in lists:
            for name in (ranked.query_id, *ranked.doc_ids):
                if not fits(name):
                    raise InputError(
                        f"the id {name!r} is empty or contains white space, which {kind} cannot"
                        " hold."
                    )
            texts, rows = lines(ranked)
            stream.write("".join(texts).encode())
            count += rows
    return count
