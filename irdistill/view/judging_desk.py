"""What the page Judge keeps open: the queues of pairs, and the file of the judge."""

from __future__ import annotations

import getpass
import time
from collections.abc import Container
from concurrent.futures import TimeoutError as NotReadyError
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from threading import Condition, Lock, Thread

from irdistill.collections import Collection
from irdistill.collections.collection import collection_mismatch
from irdistill.collections.judging import JudgmentLog
from irdistill.collections.judging.judge_log import Pair, check_judge
from irdistill.errors import OptionError
from irdistill.evaluation.judging import JudgingQueue, QueuedPair, QueueOptions
from irdistill.runs import StoredRun, open_run
from irdistill.runs.named_passages import check_passages
from irdistill.view.background_results import BackgroundResults
from irdistill.view.run_collections import RunCollections
from irdistill.view.view_options import ViewOptions
from irdistill.view.workspace import RUN, Workspace

_AHEAD = 200
"""Pairs that are read ahead of the judge."""
_QUERIES = 4096
"""Queries that are always looked at, so that most runs are counted whole."""
PATIENCE = 0.5
"""Seconds that an answer waits for the next pairs."""
_OPEN = 4


@dataclass(frozen=True)
class QueueChoice:
    """Which queue: keys of a run, and of a second one for disagreements, and options."""

    at: str
    other: str
    options: QueueOptions


class OpenQueue:
    """A queue that a thread reads ahead of the judge."""

    def __init__(self, queue: JudgingQueue) -> None:
        self.queue = queue
        self.collection, self.fingerprint = queue.collection, queue.run.fingerprint
        self._changed = Condition()
        self._target = 0
        self._reader: Thread | None = None
        self._error: Exception | None = None

    def pending(self, judged: Container[Pair], count: int) -> list[QueuedPair]:
        """The first pairs that are not judged yet; none if they take too long to read."""
        until = time.monotonic() + PATIENCE
        while True:
            pairs = list(
                islice((pair for pair in self.queue.pairs if pair.pair not in judged), count)
            )
            first = self.queue.places[pairs[0].pair] if pairs else len(self.queue.pairs)
            self._read_up_to(first + _AHEAD)
            left = until - time.monotonic()
            if len(pairs) == count or self.queue.complete or left <= 0:
                return pairs
            with self._changed:
                if self._error is not None:
                    raise self._error
                self._changed.wait(left)

    def find(self, pair: Pair) -> QueuedPair | None:
        """A pair of the queue, read up to there; None if it is not in the queue."""
        while pair not in self.queue.places and not self.queue.complete:
            self.queue.read_block()
        place = self.queue.places.get(pair)
        return None if place is None else self.queue.pairs[place]

    def _read_up_to(self, target: int) -> None:
        """Have the thread read until there are enough pairs."""
        with self._changed:
            self._target = max(self._target, target)
            if self._reader is None and self._wanting:
                # a daemon, so that Ctrl-C does not wait for it
                self._reader = Thread(target=self._read, daemon=True)
                self._reader.start()

    @property
    def _wanting(self) -> bool:
        queue = self.queue
        short = len(queue.pairs) < self._target or queue.queries_read < _QUERIES
        return short and not queue.complete and self._error is None

    def _read(self) -> None:
        while True:
            with self._changed:
                self._changed.notify_all()
                if not self._wanting:
                    self._reader = None
                    return
            try:
                self.queue.read_block()
            except Exception as error:  # shown by the next request
                self._error = error


class JudgingDesk:
    """The queues and the file of the judge of one server."""

    def __init__(
        self, workspace: Workspace, collections: RunCollections, options: ViewOptions
    ) -> None:
        self._workspace, self._collections = workspace, collections
        self.folder = Path(options.judgments)
        self._judge = options.judge
        self._lock = Lock()
        self._queues = BackgroundResults(_OPEN)
        self._log: JudgmentLog | None = None

    @property
    def judge(self) -> str:
        """The name of the person."""
        if self._judge is not None:
            return check_judge(self._judge)
        try:
            return check_judge(getpass.getuser().replace(" ", "-"))
        except OSError:  # a container without names of users
            return "judge"

    def queue(self, choice: QueueChoice, patience: float | None = None) -> OpenQueue | None:
        """Open a queue, or return the one that is open.

        Args:
            patience: seconds to wait; None waits until the collection is loaded.

        Returns:
            None if it takes longer.
        """
        opening = self._queues.get(choice, lambda: OpenQueue(self._new_queue(choice)))
        try:
            return opening.result(patience)
        except NotReadyError:
            return None

    def _new_queue(self, choice: QueueChoice) -> JudgingQueue:
        # opened for this queue alone: its thread reads them
        run = StoredRun.open(self._workspace.artifact(choice.at, RUN).path)
        collection = self._collections.collection_of(run)
        other = None
        if choice.options.source == "disagreements":
            if choice.other in ("", choice.at):
                raise OptionError("choose two different runs for disagreements.")
            other = open_run(self._workspace.artifact(choice.other, RUN).path, collection)
        check_passages([run], collection)
        return JudgingQueue(collection, run, choice.options, other)

    def log(self, collection: Collection) -> JudgmentLog:
        """The file of the judge, for a collection."""
        with self._lock:
            described = collection.describe()
            if self._log is not None:
                if collection_mismatch(self._log.collection, described) is None:
                    return self._log
                self._log.close()
                self._log = None
            self._refuse_artifacts()
            log = JudgmentLog(self.folder, self.judge, described)
            log.__enter__()
            self._log = log
            return log

    def _refuse_artifacts(self) -> None:
        folder = self.folder.resolve()
        for artifact in self._workspace.artifacts():
            if artifact.path.resolve() in (folder, *folder.parents):
                raise OptionError(
                    f"{self.folder} is inside of the {artifact.kind} {artifact.key}; start"
                    " irdistill view with another folder for --judgments."
                )
