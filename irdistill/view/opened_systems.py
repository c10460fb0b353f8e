"""Systems that are asked: opened in the background, and kept open."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock, Thread
from typing import Any

from irdistill.bundles.bundle_corpus import bundle_collection
from irdistill.bundles.bundle_searcher import Searcher, SearchHit
from irdistill.bundles.collection_search import CollectionSearch
from irdistill.collections import Collection
from irdistill.errors import IrdistillError, OptionError, one_line
from irdistill.evaluation.explaining import DocumentExplainer, Explanation
from irdistill.runs import Run, open_run
from irdistill.runs.opening import check_collection
from irdistill.search.retrieve_options import RetrieveOptions
from irdistill.view.run_collections import RunCollections
from irdistill.view.search_systems import BM25, System, known_collections
from irdistill.view.workspace import BUNDLE, RUN, Workspace

_MOST = 6
"""Systems that stay open; the one that was used longest ago is closed."""


@dataclass(frozen=True)
class TimedHits:
    """The documents of a query.

    Attributes:
        milliseconds: from the text of the query to its documents, in this process.
    """

    hits: list[SearchHit]
    milliseconds: float


class OpenSystem:
    """A system that can be searched and explained.

    Attributes:
        collection: the documents, with queries and judgments if there are any; None for a bundle
            without texts.
    """

    def __init__(self, search: Searcher | CollectionSearch, collection: Collection | None) -> None:
        self.collection = collection
        self._search, self._lock = search, Lock()
        self._explainer = None
        if collection is not None:
            model: Any = search
            if isinstance(search, CollectionSearch):
                model = search.student or BM25
            self._explainer = DocumentExplainer(collection, model)

    def answer(self, query: str, k: int) -> TimedHits:
        """Search, and measure the time."""
        with self._lock:
            start = time.perf_counter()
            hits = self._search.search(query, k)
            return TimedHits(hits, 1000 * (time.perf_counter() - start))

    def explain(self, query: str, doc_id: str, runs: Mapping[str, Run]) -> Explanation:
        """Why a document is in the ranking of this system, and what runs have for it."""
        if self._explainer is None:
            raise OptionError(
                "the bundle holds no texts, so nothing can be explained; make it again with texts."
            )
        with self._lock:
            self._explainer.runs = dict(runs)
            return self._explainer.explain(query, doc_id)

    def query_id(self, query: str) -> str | None:
        """The id of a query of the collection that is given by its id or text."""
        return None if self._explainer is None else self._explainer.known_query(query)[0]


@dataclass
class _Entry:
    """A system that is open, or is being opened, or could not be."""

    started: float = field(default_factory=time.monotonic)
    opened: OpenSystem | None = None
    error: IrdistillError | None = None


class OpenedSystems:
    """Opens systems in threads of their own, so that no page waits for a model.

    Args:
        collections: opens collections by name.
        chosen: ids of the option ``--collection``.
    """

    def __init__(
        self, workspace: Workspace, collections: RunCollections, chosen: tuple[str, ...]
    ) -> None:
        self._workspace, self._collections, self._chosen = workspace, collections, chosen
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._runs: dict[tuple[str, float, int], Run | None] = {}
        self._lock = Lock()

    def get(self, system: System) -> OpenSystem | None:
        """The open system; None while it is being opened, which the first call begins.

        Raises:
            IrdistillError: it could not be opened. The next call tries again.
        """
        with self._lock:
            entry = self._entries.get(system.key)
            if entry is None:
                entry = self._entries[system.key] = _Entry()
                Thread(target=self._open, args=(system, entry), daemon=True).start()
            self._entries.move_to_end(system.key)
            if entry.error is not None:
                del self._entries[system.key]
                raise entry.error
            if entry.opened is not None:
                ready = [key for key, other in self._entries.items() if other.opened is not None]
                for key in ready[:-_MOST]:
                    del self._entries[key]
            return entry.opened

    def seconds(self, system: System) -> float:
        """Seconds since the opening of a system began."""
        with self._lock:
            entry = self._entries.get(system.key)
        return 0.0 if entry is None else time.monotonic() - entry.started

    def runs_of(self, collection: Collection) -> dict[str, Run]:
        """The runs below the viewed folders that belong to a collection, by key."""
        runs = {}
        for artifact in self._workspace.artifacts(RUN):
            place = (artifact.key, artifact.modified, id(collection))
            if place not in self._runs:
                self._runs[place] = _run_of(artifact.path, collection)
            run = self._runs[place]
            if run is not None:
                runs[artifact.key] = run
        return runs

    def collection_of_bundle(self, searcher: Searcher) -> Collection | None:
        """The collection that a bundle was made of, if it is known, else its own documents."""
        bundle = searcher.bundle
        for name in known_collections(self._workspace, self._chosen):
            try:
                collection = self._collections.find(name)
            except IrdistillError:
                continue
            split = collection.corpus.passages
            passages = None if split is None else split.fingerprint
            identity = bundle.manifest["identity"]
            if (collection.corpus.fingerprint, passages) == (
                identity["corpus"],
                identity["passages"],
            ):
                return collection
        return bundle_collection(searcher) if bundle.contents["texts"] else None

    def _open(self, system: System, entry: _Entry) -> None:
        try:
            opened = self._opened(system)
            opened.answer("warm up", 1)  # loads what the first query needs
            opened.query_id("warm up")
            if opened.collection is not None:
                self.runs_of(opened.collection)
            entry.opened = opened
        except IrdistillError as error:
            entry.error = error
        except Exception as error:  # shown on the page, not only in the terminal
            entry.error = IrdistillError(f"{type(error).__name__}: {one_line(error)}")

    def _opened(self, system: System) -> OpenSystem:
        from irdistill.verbs.opening_inputs import with_encoder

        options = RetrieveOptions()
        if not system.collection:
            assert system.artifact is not None
            searcher = Searcher(system.artifact.path)
            collection = self.collection_of_bundle(searcher)
            if system.kind == BUNDLE:
                return OpenSystem(searcher, collection)
            if collection is None:
                raise OptionError("the bundle holds no texts, so BM25 cannot search them.")
            return OpenSystem(CollectionSearch(collection, BM25, options), collection)
        collection = self._collections.find(system.collection)
        model = BM25 if system.artifact is None else with_encoder(system.artifact.path)
        return OpenSystem(CollectionSearch(collection, model, options), collection)


def _run_of(path: Path, collection: Collection) -> Run | None:
    """The run in a folder; None if it is unfinished, damaged, or of another collection."""
    try:
        run = open_run(path)
        check_collection(run, collection)
    except IrdistillError:
        return None
    return run
