"""Self-adversarial negatives: documents that the student itself ranks high, searched for anew as it
learns.

Negatives out of an index that follows the training are ANCE (Xiong et al. 2020, arXiv:2007.00808);
that the teacher tells how bad a negative each is, with the weight ``1 - sigmoid(t)``, is the idea
of QCRD's discriminator, in the form that lists allow: ``InfoNCE(weights="teacher")``.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from irdistill.errors import IrdistillError
from irdistill.runs import Manifest, RankedList, Run, RunIdentity, compile_run, open_run, write_run
from irdistill.runs.manifest import MANIFEST
from irdistill.runs.run_files import clear
from irdistill.search import RetrieveOptions, retrieve
from irdistill.storage.files import staging_path
from irdistill.training.data.list_sampler import ListSampler
from irdistill.training.options import TrainOptions

if TYPE_CHECKING:
    from irdistill.collections import Collection
    from irdistill.students.base import Student

logger = logging.getLogger(__name__)


class Miner:
    """Gives the sampler what the student finds, every ``mine_every`` steps, before the lists of
    that step are drawn.

    Each search leaves a run ``mined/STEP`` in the training's folder, whose identity holds the
    student's weights of that step; scores of a named teacher stand in ``mined/STEP-scores``. A
    training that goes on searches again only where it was stopped before or in a search.

    Args:
        work: where vectors of a frozen document tower are kept; the cache folder where None.
        in_turn: a context that processes that train together go through one by one.
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
    ) -> None:
        self.collection, self.student, self.sampler = collection, student, sampler
        self.folder, self.options, self.work, self.in_turn = (
            folder / "mined",
            options,
            work,
            in_turn,
        )
        sampler.mined_take = options.mine_take or options.list_size // 2

    def due(self, step: int) -> bool:
        """Whether the lists of a step wait for a search with the weights that the step before
        leaves.
        """
        return step > 0 and step % self.options.mine_every == 0

    def prepare(self, step: int) -> None:
        """Search where the step is due, else take up the last search before it; nothing before the
        first.

        Raises:
            IrdistillError: that search is gone.
        """
        searched = step // self.options.mine_every * self.options.mine_every
        if not searched:
            return
        place = self.folder / str(searched)
        if searched != step and _finished(place) is None:
            raise IrdistillError(
                f"{place} is gone: the training went on from there, and cannot be taken up without"
                f" it. Remove {self.folder.parent} and train again."
            )
        with self.in_turn():
            found = self._search(place) if searched == step else open_run(place, self.collection)
            scores = self._score(found, place) if self.options.mine_teacher else None
            corpus = self.collection.corpus
            self.sampler.mined = compile_run(found, corpus)
            self.sampler.mined_scores = None if scores is None else compile_run(scores, corpus)

    def _search(self, place: Path) -> Run:
        """The documents that the student, as it is, ranks first for each query."""
        there = _finished(place)
        if _of_others(place, self.student.weights_digest()):
            there = None
            for stale in (place, *place.parent.glob(f"{place.name}-*")):
                if stale.is_dir():
                    clear(stale)
        if there is not None:
            return there
        # vectors of a frozen tower are kept, and used by all searches
        scratch = staging_path(self.folder / "vectors") if self.student.learns("document") else None
        logger.info("searching with the student for %s", place)
        found = retrieve(
            self.collection,
            self.student,
            place,
            self.options.mine_depth,
            RetrieveOptions(precision=self.options.precision),
            work=scratch or self.work,
        )
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)
        return found

    def _score(self, found: Run, place: Path) -> Run:
        """Scores by the named teacher of the documents that the run has none for."""
        from irdistill.teachers import score

        out = place.with_name(f"{place.name}-scores")
        if (there := _finished(out)) is not None:
            return there
        corpus, known = self.collection.corpus, self.sampler.runs[0]

        def new(mined: RankedList) -> RankedList:
            rows, scores = (
                known.list(known.index[mined.query_id])
                if mined.query_id in known.index
                else (np.empty(0), np.empty(0))
            )
            held = set(np.asarray(rows)[~np.isnan(scores)].tolist())
            places = [
                i for i, row in enumerate(corpus.rows(mined.doc_ids).tolist()) if row not in held
            ]
            return RankedList(
                mined.query_id,
                [mined.doc_ids[i] for i in places],
                np.asarray(mined.scores)[places],
                None,
            )

        identity = RunIdentity(
            "student",
            dict(found.identity.producer),
            self.collection.describe(),
            found.fingerprint,
            {"left": "what the training's run has no score for"},
        )
        wanted = write_run(
            place.with_name(f"{place.name}-new"),
            identity,
            map(new, found),
            fingerprints=self.collection.query_fingerprints,
        )
        return score(
            self.collection,
            wanted,
            self.options.mine_teacher,
            out,
        )


def _finished(place: Path) -> Run | None:
    return (
        open_run(place) if (place / MANIFEST).exists() and Manifest.read(place).complete else None
    )


def _of_others(place: Path, weights: str) -> bool:
    """Whether a search was left by other weights: of a training on a GPU that did not come by here
    with the same bits.
    """
    return (place / MANIFEST).exists() and Manifest.read(place).identity.producer.get(
        "weights"
    ) != weights


def check_mining(options: TrainOptions, student: Student, runs: int) -> None:
    """Whether the student can be searched with, and the scores of a named teacher have a place.

    Raises:
        IrdistillError: not so.
    """
    if not options.mine_every:
        return
    if "pair" in student.sides:
        raise IrdistillError(
            f"mine_every={options.mine_every} searches the corpus with the student; a"
            f" {student.kind} one cannot."
        )
    if options.mine_teacher and runs > 1:
        raise IrdistillError(
            f"mine_teacher gives scores of one teacher, and {runs} runs were given; fuse them"
            " first."
        )
