"""Hard negatives: documents that the student itself ranks high, searched for during training.

Negatives from an index that follows the training are ANCE (Xiong et al. 2020, arXiv:2007.00808).
``InfoNCE(weights="teacher")`` weights each negative by ``1 - sigmoid(t)`` of its teacher score
``t``, the idea of QCRD's discriminator in the form that lists allow.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from irdistill.errors import NotFoundError, OptionError
from irdistill.runs import (
    CompiledRun,
    Manifest,
    RankedList,
    Run,
    RunIdentity,
    compile_run,
    open_run,
    write_run,
)
from irdistill.runs.manifest import MANIFEST
from irdistill.runs.run_ownership import clear
from irdistill.search import RetrieveOptions, retrieve
from irdistill.storage.files import staging_path
from irdistill.training.data.list_sampler import ListSampler
from irdistill.training.data.passage_lists import PassageLists
from irdistill.training.options import TrainOptions

if TYPE_CHECKING:
    from irdistill.collections import Collection
    from irdistill.students.student_base import Student

logger = logging.getLogger(__name__)


class Miner:
    """Searches the corpus with the student every ``mine_every`` steps, for the sampler.

    Each search is a run ``mined/STEP`` in the training's folder, whose identity has the student's
    weights of that step. Scores of a teacher are in ``mined/STEP-scores``. A training that resumes
    uses the last search, and repeats it only if it is not finished.

    Args:
        work: folder of the vectors of a frozen document tower; the cache folder by default.
        in_turn: a context that processes that train together go through one by one.
        passages: what stands for documents that are split.
    """

    def __init__(
        self,
        collection: Collection,
        student: Student,
        sampler: ListSampler,
        folder: Path,
        options: TrainOptions,
        work: str | Path | None = None,
        in_turn: Callable[[], AbstractContextManager[None]] = nullcontext,
        passages: PassageLists | None = None,
    ) -> None:
        self.collection, self.student, self.sampler = collection, student, sampler
        self.folder, self.options, self.work = folder / "mined", options, work
        self.in_turn, self.passages = in_turn, passages
        sampler.mined_take = options.mine_take or options.list_size // 2

    def due(self, step: int) -> bool:
        """Whether a search with the weights after ``step`` steps precedes the lists of a step."""
        return step > 0 and step % self.options.mine_every == 0

    def prepare(self, step: int) -> None:
        """Search if it is due, else open the last search; nothing before the first one.

        Raises:
            NotFoundError: the last search was deleted.
        """
        searched = step // self.options.mine_every * self.options.mine_every
        if not searched:
            return
        place = self.folder / str(searched)
        if searched != step and _finished_run(place) is None:
            raise NotFoundError(
                f"{place} is missing, and the training cannot resume without it. Remove"
                f" {self.folder.parent} and train again."
            )
        with self.in_turn():
            mined = self._search(place) if searched == step else open_run(place, self.collection)
            scores = self._score(mined, place) if self.options.mine_teacher else None
            self.sampler.mined = self._compile(mined)
            self.sampler.mined_scores = None if scores is None else self._compile(scores)

    def _compile(self, run: Run) -> CompiledRun:
        if self.passages is not None:
            return self.passages.compile(run)
        return compile_run(run, self.collection.corpus)

    def _search(self, place: Path) -> Run:
        """The documents that the student currently ranks first for each query."""
        if _has_other_weights(place, self.student.weights_digest()):
            for stale in (place, *place.parent.glob(f"{place.name}-*")):
                if stale.is_dir():
                    clear(stale)
        elif (finished := _finished_run(place)) is not None:
            return finished
        # vectors of a frozen tower are kept for all searches
        scratch = staging_path(self.folder / "vectors") if self.student.learns("document") else None
        logger.info("searching with the student for %s", place)
        mined = retrieve(
            self.collection,
            self.student,
            place,
            self.options.mine_depth,
            RetrieveOptions(precision=self.options.precision),
            work=scratch or self.work,
        )
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)
        return mined

    def _score(self, mined: Run, place: Path) -> Run:
        """The teacher's scores of the mined documents that the training's run did not score."""
        from irdistill.teachers import score

        out = place.with_name(f"{place.name}-scores")
        if (finished := _finished_run(out)) is not None:
            return finished
        identity = RunIdentity(
            "student",
            dict(mined.identity.producer),
            self.collection.describe(),
            mined.fingerprint,
            {"left": "what the training's run has no score for"},
        )
        candidates = write_run(
            place.with_name(f"{place.name}-new"),
            identity,
            map(self._unscored, mined),
            fingerprints=self.collection.query_fingerprints,
        )
        return score(self.collection, candidates, self.options.mine_teacher, out)

    def _unscored(self, mined: RankedList) -> RankedList:
        """The documents of a list that the training's run did not score."""
        run = self.sampler.runs[0]
        scored = np.empty(0, np.int64)
        if mined.query_id in run.index:
            rows, scores = run.list(run.index[mined.query_id])
            scored = np.asarray(rows, np.int64)[~np.isnan(scores)]
            if self.passages is not None:
                scored = self.passages.choice.passages.documents_of(scored)
        places = np.flatnonzero(~np.isin(self.collection.corpus.rows(mined.doc_ids), scored))
        return mined.take(places.tolist())._replace(flags=None)


def _finished_run(place: Path) -> Run | None:
    complete = (place / MANIFEST).exists() and Manifest.read(place).complete
    return open_run(place) if complete else None


def _has_other_weights(place: Path, weights: str) -> bool:
    """Whether a search was made with other weights: a GPU may not give the same bits again."""
    if not (place / MANIFEST).exists():
        return False
    return Manifest.read(place).identity.producer.get("weights") != weights


def check_mining(options: TrainOptions, student: Student, runs: int) -> None:
    """Check that the student can search, and that the scores of a teacher have a place.

    Raises:
        OptionError: not so.
    """
    if not options.mine_every:
        return
    if "pair" in student.sides:
        raise OptionError(
            f"mine_every={options.mine_every} searches the corpus with the student, and a"
            f" {student.kind} student cannot search; leave it out."
        )
    if options.mine_teacher and runs > 1:
        raise OptionError(
            f"mine_teacher gives scores of one teacher, and {runs} runs were given; fuse them"
            " first."
        )


def mining_identity(options: TrainOptions) -> dict[str, Any]:
    """The teacher of mined documents with its card, files and code, if one is given."""
    if not (options.mine_every and options.mine_teacher):
        return {}
    from irdistill.teachers.content_digests import teacher_content

    content = teacher_content(options.mine_teacher)
    return {"mine_teacher": [options.mine_teacher, content] if content else options.mine_teacher}
