"""The judgments of several people, from their files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from irdistill.collections.collection import collection_mismatch
from irdistill.collections.judging.judge_log import ENDING, Judgment, Pair, read_judge_file
from irdistill.errors import InputError, NotFoundError, WrongCollectionError


@dataclass(frozen=True)
class JudgeRecords:
    """What each judge judged.

    Attributes:
        collection: id and fingerprints of the collection.
        judges: judge -> pair -> the newest judgment, skipped pairs included; by name.
    """

    collection: Mapping[str, Any]
    judges: Mapping[str, Mapping[Pair, Judgment]]

    def grades(self, judge: str) -> dict[Pair, int]:
        """The grades of a judge by pair, without skipped pairs."""
        return {
            pair: judgment.grade
            for pair, judgment in self.judges[judge].items()
            if judgment.grade is not None
        }


def read_judges(sources: str | Path | Iterable[str | Path]) -> JudgeRecords:
    """Read files of judgments.

    Args:
        sources: folders with a file for each judge, or single files.

    Raises:
        NotFoundError: a source does not exist, or a folder has no file of judgments.
        InputError: a judge is in two files, or nothing was judged.
        WrongCollectionError: the judgments are for different collections.
    """
    several = [sources] if isinstance(sources, str | Path) else list(sources)
    collection: Mapping[str, Any] | None = None
    judges: dict[str, dict[Pair, Judgment]] = {}
    places: dict[str, Path] = {}
    for path in [path for source in several for path in _files(Path(source))]:
        for judgment in read_judge_file(path)[0]:
            collection = judgment.collection if collection is None else collection
            if collection_mismatch(collection, judgment.collection) is not None:
                raise WrongCollectionError(
                    f"{path} holds judgments for {judgment.collection.get('id')!r}, and others for"
                    f" {collection.get('id')!r}; read those of one collection."
                )
            if places.setdefault(judgment.judge, path) != path:
                raise InputError(
                    f"{judgment.judge!r} has judgments in {places[judgment.judge]} and in {path};"
                    " give one of them."
                )
            pairs = judges.setdefault(judgment.judge, {})
            pairs.pop(judgment.pair, None)
            if judgment.action != "withdrawn":
                pairs[judgment.pair] = judgment
    if collection is None:
        raise InputError(
            f"{', '.join(map(str, several))}: no judgment yet; judge documents first, on the page"
            " Judge of irdistill view."
        )
    return JudgeRecords(collection, dict(sorted(judges.items())))


def _files(source: Path) -> list[Path]:
    if source.is_file():
        return [source]
    files = sorted(source.glob(f"*{ENDING}"))
    if not files:
        what = "holds no file of judgments (JUDGE.jsonl)" if source.is_dir() else "does not exist"
        raise NotFoundError(f"{source} {what}; give the folder of irdistill view --judgments.")
    return files
