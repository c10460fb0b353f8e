"""What a system returns as a whole: the variety of its lists, and the share of the corpus in them.

A student can reach its teacher's nDCG and still return the same few documents for many queries.
Hubs are documents that are near to many queries (k-occurrence; Radovanović, Nanopoulos and
Ivanović, JMLR 2010). Distillation is known to narrow what image generators return (arXiv
2503.10637); these figures show whether it does so here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from irdistill.collections import Collection
from irdistill.console.progress_bars import progress
from irdistill.errors import InputError, OptionError
from irdistill.evaluation.ranking_policies import RunSource, measured_run
from irdistill.evaluation.reporting.findings import Finding, Table, plain
from irdistill.evaluation.reporting.rendering import Displayed
from irdistill.evaluation.significance import interval
from irdistill.modeling.stemming import StemTokenizer
from irdistill.runs import Run

ROUNDS = 1000
NEAR = 0.9
"""Cosine from which two documents are near-duplicates."""
_CHARACTERS = 2000
"""Of each document, for the cosines."""
_QUERIES = 2000
"""Queries whose lists are compared by their texts, drawn at random."""
_TEXTS = 1000
"""Documents that are read at once."""
_CELLS = 8_000_000
_MEASURES = ("distance", "near_duplicates", "coverage", "gini", "hubness")
_HEADER = ("system", "intra-list distance", "near-duplicates", "coverage", "Gini", "hubness")


@dataclass(frozen=True)
class Estimate:
    """A figure and its 95% bootstrap interval over queries."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.4f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True)
class SystemDiversity:
    """The first k documents of a system's lists, over Q queries.

    Attributes:
        distance: mean over lists of the mean distance (1 - cosine of TF-IDF vectors) of two
            documents of the list; 0 for a list of one document. Of at most 2000 lists.
        near_duplicates: mean over lists of the share of pairs with a cosine of at least 0.9.
        coverage: share of the corpus that is in at least one list.
        gini: Gini coefficient of how often each document of the corpus is in a list: 0 if all are
            equally often, near 1 if few documents fill the lists.
        hubness: skewness of how often each document of the corpus is in a list. Random lists have a
            low one; hubs raise it.
        hubs: the documents that are in most lists, and in how many.
    """

    system: str
    distance: Estimate
    near_duplicates: Estimate
    coverage: Estimate
    gini: Estimate
    hubness: Estimate
    hubs: tuple[tuple[str, int], ...]


@dataclass(frozen=True, repr=False)
class Diversity(Displayed):
    """The figures of all systems, and their differences from the baseline.

    Attributes:
        k: documents per list that are looked at.
        queries: number of queries that all systems have.
        differences: system -> measure -> system minus baseline, with the interval of the
            difference over the same samples of queries.
    """

    dataset: str
    k: int
    queries: int
    systems: tuple[SystemDiversity, ...]
    baseline: str | None
    differences: Mapping[str, Mapping[str, Estimate]]

    def findings(self) -> list[Finding]:
        """The figures, then the differences, then the most frequent documents."""
        text = [
            f"The first {self.k} documents of {self.queries} queries that all systems have, with"
            " 95% bootstrap intervals. Intra-list distance: 1 - cosine of TF-IDF vectors."
            f" Near-duplicates: pairs of a list with a cosine of at least {NEAR}. Coverage: share"
            " of the corpus that some list has. Gini coefficient and hubness (skewness): how"
            " unequally the documents of the corpus are distributed over the lists."
        ]
        rows = [
            [system.system, *(str(getattr(system, name)) for name in _MEASURES)]
            for system in self.systems
        ]
        tables = [Table(_HEADER, rows)]
        if self.differences:
            lines = [
                [f"{system} - {self.baseline}", *(_signed(values[name]) for name in _MEASURES)]
                for system, values in self.differences.items()
            ]
            tables.append(Table(("difference", *_HEADER[1:]), lines))
        hubs = [
            f"{system.system}: most frequent "
            + ", ".join(f"{doc} (in {count} lists)" for doc, count in system.hubs)
            + "."
            for system in self.systems
            if system.hubs
        ]
        values = {system.system: system.hubness.value for system in self.systems}
        return [Finding("diversity", "Diversity", text, tables, hubs, values=values)]

    def to_rows(self) -> list[dict[str, Any]]:
        """One mapping per system."""
        return [plain(system) for system in self.systems]

    def to_json(self) -> dict[str, Any]:
        """Everything at full precision."""
        return plain(self)


def measure_diversity(
    collection: Collection,
    runs: Mapping[str, RunSource],
    baseline: str | None = None,
    k: int = 10,
    seed: int = 42,
    only: Sequence[str] | None = None,
) -> Diversity:
    """Measure the diversity of runs of one collection on the queries that all of them have.

    Coverage, Gini and hubness of a sample with repeated queries are not those of as many different
    queries; their intervals are shifted so that the mean of the samples is the figure itself.

    Args:
        baseline: the system that the others are compared with.

    Raises:
        OptionError: the baseline is none of the systems, or k is below 2.
        InputError: the runs have no query in common.

    Examples:
        >>> from irdistill.collections import Collection
        >>> documents = {"a": "red cat", "b": "blue dog", "c": "green bird", "d": "old fish"}
        >>> queries = {"1": "x", "2": "y"}
        >>> collection = Collection.from_dicts("demo", documents, queries, {})
        >>> hub = {"1": {"a": 2.0, "b": 1.0}, "2": {"a": 2.0, "b": 1.0}}
        >>> wide = {"1": {"a": 2.0, "b": 1.0}, "2": {"c": 2.0, "d": 1.0}}
        >>> result = measure_diversity(collection, {"hub": hub, "wide": wide}, baseline="wide")
        >>> [system.coverage.value for system in result.systems]
        [0.5, 1.0]
    """
    if baseline is not None and baseline not in runs:
        raise OptionError(f"the baseline {baseline!r} is none of the systems: {', '.join(runs)}.")
    if k < 2:
        raise OptionError(f"k is {k}; the distance within a list needs at least 2 documents.")
    opened = {name: measured_run(run, collection) for name, run in runs.items()}
    candidates = collection.queries if only is None else only
    queries = shared_queries(candidates, opened)
    if not queries:
        raise InputError(f"the runs {', '.join(runs)} have no query of {collection.id} in common.")
    lists = {name: _first_documents(run, queries, k) for name, run in opened.items()}
    measured = {name: _Measured(len(collection.corpus), docs) for name, docs in lists.items()}
    compared = range(len(queries))
    if len(queries) > _QUERIES:
        compared = np.sort(
            np.random.default_rng(seed).choice(len(queries), _QUERIES, False)
        ).tolist()
    drawn = {name: [docs[place] for place in compared] for name, docs in lists.items()}
    every = dict.fromkeys(doc for some in drawn.values() for docs in some for doc in docs)
    cosines = _Cosines(collection, list(every))
    with progress(len(measured), "systems", "diversity") as bar:
        for name, system in measured.items():
            system.compare_texts(drawn[name], cosines)
            bar.update(1)
    samples = {name: system.resampled(seed) for name, system in measured.items()}
    differences = {}
    if baseline is not None:
        differences = {
            name: _differences(
                measured[name], measured[baseline], samples[name], samples[baseline], seed
            )
            for name in measured
            if name != baseline
        }
    return Diversity(
        collection.id,
        k,
        len(queries),
        tuple(
            SystemDiversity(name, **system.estimates(samples[name], seed), hubs=system.hubs())
            for name, system in measured.items()
        ),
        baseline,
        differences,
    )


def shared_queries(queries: Iterable[str], runs: Mapping[str, Run]) -> list[str]:
    """The queries that all runs have."""
    return [query for query in queries if all(query in run for run in runs.values())]


class _Measured:
    """A system's lists as a matrix (Q, R) over the R documents that it returns.

    Attributes:
        distances, near: mean distance and share of near-duplicates within each compared list.
    """

    def __init__(self, documents: int, lists: Sequence[Sequence[str]]) -> None:
        from scipy.sparse import csr_matrix

        places: dict[str, int] = {}
        columns = [places.setdefault(doc, len(places)) for docs in lists for doc in docs]
        starts = np.cumsum([0, *map(len, lists)])
        self.documents, self.doc_ids = documents, list(places)
        shape = len(lists), max(1, len(places))
        self.lists = csr_matrix((np.ones(len(columns)), columns, starts), shape)
        self.distances = self.near = np.zeros(0)

    def compare_texts(self, lists: Sequence[Sequence[str]], cosines: _Cosines) -> None:
        """Compare the documents of each list with each other."""
        values = [cosines(docs) if len(docs) > 1 else np.ones(1) for docs in lists]
        self.distances = np.array([1 - value.mean() for value in values])
        self.near = np.array([(value >= NEAR).mean() for value in values])

    def resampled(self, seed: int) -> np.ndarray:
        """(ROUNDS, 3) coverage, Gini, hubness of samples of queries, the same for each system."""
        generator = np.random.default_rng(seed)
        count, width = self.lists.shape
        size = max(1, min(ROUNDS, _CELLS // max(count, width, 1)))
        figures = []
        for start in range(0, ROUNDS, size):
            rounds = min(size, ROUNDS - start)
            drawn = generator.multinomial(count, np.full(count, 1 / count), rounds)
            figures.append(self.spread(np.asarray(drawn @ self.lists)))
        return np.concatenate(figures)

    def spread(self, counts: np.ndarray) -> np.ndarray:
        """Coverage, Gini and hubness (B, 3) of numbers of lists (B, R) per returned document."""
        ordered = np.sort(counts, axis=1)
        width, corpus = ordered.shape[1], self.documents
        total = ordered.sum(axis=1)
        places = np.arange(corpus - width + 1, corpus + 1)  # the other documents have 0
        shares = (ordered @ places) / (corpus * np.maximum(total, 1))
        gini = np.where(total > 0, 2 * shares - (corpus + 1) / corpus, 0.0)
        mean = total / corpus
        second = (ordered**2).sum(axis=1) / corpus - mean**2
        third = (ordered**3).sum(axis=1) / corpus - 3 * mean * second - mean**3
        with np.errstate(invalid="ignore", divide="ignore"):
            skewness = np.where(second > 1e-12, third / second**1.5, 0.0)
        return np.stack([(ordered > 0).sum(axis=1) / corpus, gini, skewness], axis=1)

    def figures(self) -> np.ndarray:
        """Coverage, Gini and hubness (3,) of all queries."""
        return self.spread(np.asarray(self.lists.sum(axis=0)).reshape(1, -1))[0]

    def estimates(self, samples: np.ndarray, seed: int) -> dict[str, Estimate]:
        """The five figures with their intervals."""
        return _named(
            [_mean(self.distances, seed), _mean(self.near, seed)], self.figures(), samples
        )

    def hubs(self, most: int = 3) -> tuple[tuple[str, int], ...]:
        """The documents in most lists, by number of lists, then id."""
        counts = np.asarray(self.lists.sum(axis=0)).ravel().astype(int).tolist()
        pairs = zip(self.doc_ids, counts[: len(self.doc_ids)], strict=True)
        ordered = sorted(pairs, key=lambda pair: (-pair[1], pair[0]))
        return tuple(ordered[:most])


def _first_documents(run: Run, queries: Sequence[str], k: int) -> list[list[str]]:
    """The first k documents with a score of each query; each part of the run is read once."""
    chosen, documents = set(queries), {}
    for query in run.query_ids:
        if query in chosen:
            ranked = run[query]
            places = np.flatnonzero(~np.isnan(ranked.scores))[:k]
            documents[query] = [ranked.doc_ids[place] for place in places.tolist()]
    return [documents[query] for query in queries]


def _differences(
    system: _Measured, other: _Measured, samples: np.ndarray, others: np.ndarray, seed: int
) -> dict[str, Estimate]:
    means = [
        _mean(system.distances - other.distances, seed),
        _mean(system.near - other.near, seed),
    ]
    return _named(means, system.figures() - other.figures(), samples - others)


def _named(means: list[Estimate], figures: np.ndarray, samples: np.ndarray) -> dict[str, Estimate]:
    shifted = figures + samples - samples.mean(axis=0)
    low, high = np.quantile(shifted, [0.025, 0.975], axis=0)
    spread = map(Estimate, figures.tolist(), low.tolist(), high.tolist())
    return dict(zip(_MEASURES, [*means, *spread], strict=True))


def _mean(values: np.ndarray, seed: int) -> Estimate:
    return Estimate(float(values.mean()), *interval(values, seed, ROUNDS))


def _signed(estimate: Estimate) -> str:
    return f"{estimate.value:+.4f} [{estimate.low:+.3f}, {estimate.high:+.3f}]"


class _Cosines:
    """Cosines between documents by the words of their beginnings, weighted by TF-IDF.

    Args:
        doc_ids: all documents that will be compared; rare words are rare among these.
    """

    def __init__(self, collection: Collection, doc_ids: Sequence[str]) -> None:
        from scipy.sparse import csr_matrix, diags

        self._places = {doc: place for place, doc in enumerate(doc_ids)}
        stem, numbers = StemTokenizer(), dict[str, int]()
        columns: list[int] = []
        starts = [0]
        for start in range(0, len(doc_ids), _TEXTS):
            chunk = doc_ids[start : start + _TEXTS]
            for text in collection.corpus.texts(collection.corpus.rows(chunk)):
                words = stem(text[:_CHARACTERS])
                columns += [numbers.setdefault(word, len(numbers)) for word in words]
                starts.append(len(columns))
        shape = len(doc_ids), max(1, len(numbers))
        counts = csr_matrix((np.ones(len(columns)), columns, starts), shape)
        counts.sum_duplicates()
        frequencies = np.bincount(counts.indices, minlength=shape[1])
        weights = np.log((1 + len(doc_ids)) / (1 + frequencies)) + 1
        weighted = counts.multiply(weights).tocsr()
        norms = np.sqrt(np.asarray(weighted.multiply(weighted).sum(axis=1)).ravel())
        self._vectors = diags(1 / np.where(norms > 0, norms, 1)) @ weighted

    def __call__(self, doc_ids: Sequence[str]) -> np.ndarray:
        """(n (n - 1) / 2,) cosines of each two documents."""
        vectors = self._vectors[[self._places[doc] for doc in doc_ids]]
        return np.asarray((vectors @ vectors.T).todense())[np.triu_indices(len(doc_ids), 1)]
