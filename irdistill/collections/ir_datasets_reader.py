"""Any collection of ir_datasets, by its id; conversations with the turns before each question."""

from __future__ import annotations

import difflib
import importlib.util
import logging
from collections.abc import Iterable, Iterator
from numbers import Integral
from pathlib import Path
from typing import Any

from irdistill.collections.collection import Collection, Query, Turn
from irdistill.collections.compiling import open_or_compile
from irdistill.collections.corpus import FORMAT, Corpus, Fingerprint
from irdistill.collections.document_table import Document
from irdistill.collections.grades import parse_grade
from irdistill.collections.judgment_checks import judged_collection
from irdistill.collections.load_report import LoadReport
from irdistill.collections.qrels import Qrels
from irdistill.collections.text_lines import check_encodable
from irdistill.errors import IrdistillError
from irdistill.storage.files import digest, read_json

_OURS = ("pydocs/train", "pydocs/dev", "pydocs/test", "pydocs/howto")


def load_ir_dataset(id: str, cache: Path, need: bool = True) -> Collection:
    """Load an ir_datasets id; its documents are ``default_text()``, compiled once for all of its
    splits.

    Published judgments that name documents outside of the corpus are part of the benchmark as it is
    defined: they are kept, counted and reported, not refused.

    Raises:
        IrdistillError: the id is unknown, has no documents or no queries, its files cannot be had,
            a query is empty, a document id has two texts, a grade is not a whole number, or a
            document is judged twice and differently for a query.
    """
    dataset, module = _dataset(id)
    if dataset.has_docs() and not dataset.has_queries() and not need:
        corpus = _corpus(id, dataset, module, cache)
        report = LoadReport(documents=len(corpus))
        report.add_stored(corpus.problems)
        return Collection(id, corpus, {}, Qrels({}), report)
    if not dataset.has_docs() or not dataset.has_queries():
        splits = [
            name for name in _known(module) if name.startswith(f"{id}/") and _asks(name, module)
        ]
        raise IrdistillError(
            f"the ir_datasets id {id!r} has no {'queries' if dataset.has_docs() else 'documents'}"
            " of its own. Ids beneath it that have:"
            f" {', '.join(splits[:12]) or 'none'}{' ...' if len(splits) > 12 else ''}."
        )
    corpus = _corpus(id, dataset, module, cache)
    report = LoadReport(documents=len(corpus))
    report.add_stored(corpus.problems)
    with _obtaining(id):
        queries = _queries(
            id, list(_checked_ids(id, dataset.queries_iter(), "query_id")), corpus, report
        )
        if not dataset.has_qrels():
            report.queries = len(queries)
            return Collection(id, corpus, queries, Qrels({}), report)
        judgments = _judgments(
            id, _checked_ids(id, dataset.qrels_iter(), "query_id", "doc_id"), report
        )
    for query_id, documents in judgments.items():
        for row, (doc_id, grade) in zip(
            corpus.find(list(documents)), documents.items(), strict=True
        ):
            if row < 0:
                place = f"{id} qrels (query {query_id}, document {doc_id})"
                report.add("judgments without document", place)
                if grade > 0:
                    report.add("positive judgments without document", place)
        if query_id not in queries:
            report.add("judgments without query", f"{id} qrels (query {query_id})")
    return judged_collection(id, corpus, queries, judgments, report, f"{id} queries")


def ir_dataset_corpus(id: str, cache: Path) -> Corpus:
    """The documents alone of an ir_datasets id, which may have no queries (``trec-cast/v1``).

    Raises:
        IrdistillError: the id is unknown, has no documents, or its files cannot be had.
    """
    dataset, module = _dataset(id)
    if not dataset.has_docs():
        raise IrdistillError(f"the ir_datasets id {id!r} has no documents of its own.")
    return _corpus(id, dataset, module, cache)


def _corpus(id: str, dataset: Any, module: Any, cache: Path) -> Corpus:
    with _obtaining(id):
        return open_or_compile(
            lambda: _documents(id, dataset), cache / "corpora" / _key(id, dataset, module), id
        )


def _dataset(id: str) -> tuple[Any, Any]:
    if importlib.util.find_spec("ir_datasets") is None:
        raise IrdistillError(
            f"{id!r} needs ir_datasets, which is not installed: pip install ir_datasets."
        )
    import ir_datasets

    try:
        return ir_datasets.load(id), ir_datasets
    except KeyError as error:
        near = difflib.get_close_matches(id, [*_known(ir_datasets), *_OURS], n=5, cutoff=0.5)
        raise IrdistillError(
            f"there is no collection {id!r}. Ids are pydocs/train|dev|test|howto, those of"
            " ir_datasets such as beir/scifact/test or msmarco-passage/dev/small, and folders in"
            " BEIR layout (FOLDER or FOLDER#SPLIT). Near to what was asked:"
            f" {', '.join(near) or 'nothing'}."
        ) from error


def _known(module: Any) -> list[str]:
    return sorted(module.registry)


def _asks(name: str, module: Any) -> bool:
    dataset = module.load(name)
    return bool(dataset.has_docs() and dataset.has_queries())


def _key(id: str, dataset: Any, module: Any) -> str:
    """The cache key of documents: the parent's id where ir_datasets guards files by checksum, else
    contents.

    One that somebody registered may change beneath its name, so it is read once more at every load.
    """
    parent = module.docs_parent_id(id)
    if parent in read_json(Path(module.__file__).parent / "etc" / "metadata.json"):
        return digest([FORMAT, "ir_datasets", parent, module.__version__])
    fingerprint = Fingerprint()
    for document in _documents(id, dataset):
        fingerprint.add(document)
    return digest([FORMAT, "registered", fingerprint.value()])


def _checked_ids(id: str, entries: Iterable[Any], *names: str) -> Iterator[Any]:
    """The entries, whose ids are text or whole numbers.

    Raises:
        IrdistillError: one is something else, is empty, or is text that UTF-8 cannot hold.
    """
    for number, entry in enumerate(entries, 1):
        for name in names:
            value = getattr(entry, name)
            if isinstance(value, bool) or not isinstance(value, str | Integral) or value == "":
                raise IrdistillError(
                    f"entry {number} of {id} has the {name} {value!r:.60}, which is"
                    f" {type(value).__name__}; text or a whole number was expected. Register the"
                    " dataset with ids that are text."
                )
            check_encodable(str(value), name, id, number)
        yield entry


def _documents(id: str, dataset: Any) -> Iterator[Document]:
    for number, document in enumerate(_checked_ids(id, dataset.docs_iter(), "doc_id"), 1):
        yield Document(str(document.doc_id), "", _default_text(document), number)


def _default_text(entry: Any) -> str:
    text = entry.default_text() if hasattr(entry, "default_text") else entry.text
    return str(text or "").encode("utf-8", "replace").decode("utf-8")


class _obtaining:
    """Turns failed downloads into an error that says what to do, without the lines that ir_datasets
    prints of each try.
    """

    def __init__(self, id: str) -> None:
        self.id = id
        self._level = logging.INFO

    def __enter__(self) -> None:
        import ir_datasets.log

        logger = ir_datasets.log.easy().logger()
        self._level = logger.level
        logger.setLevel(logging.ERROR)

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        import ir_datasets.log

        ir_datasets.log.easy().logger().setLevel(self._level)
        if isinstance(error, (OSError, RuntimeError)) and not isinstance(error, IrdistillError):
            raise IrdistillError(
                f"the files of {self.id!r} could not be had ({type(error).__name__}:"
                f" {str(error)[:300]}). ir_datasets downloads them into ~/.ir_datasets (or"
                " $IR_DATASETS_HOME) on first use; check the network, or put them there by hand as"
                f" https://ir-datasets.com/{self.id.split('/')[0]}.html describes."
            ) from error


def _judgments(id: str, entries: Iterable[Any], report: LoadReport) -> dict[str, dict[str, int]]:
    """Query -> document -> grade. A judgment that is repeated is counted; one that contradicts
    another is an error.

    Raises:
        IrdistillError: a grade is not a whole number, or a document is judged twice and differently
            for a query.
    """
    judgments: dict[str, dict[str, int]] = {}
    first: dict[tuple[str, str], str] = {}
    for entry in entries:
        query_id, doc_id = str(entry.query_id), str(entry.doc_id)
        place = f"{id} qrels (query {query_id}, document {doc_id})"
        grade = parse_grade(entry.relevance, place)
        documents = judgments.setdefault(query_id, {})
        topic = getattr(entry, "subtopic_id", None)
        if topic is not None:
            first.setdefault((query_id, doc_id), str(topic))
        if doc_id in documents:
            if documents[doc_id] != grade:
                raise _contradiction(
                    id,
                    query_id,
                    doc_id,
                    (documents[doc_id], grade),
                    first.get((query_id, doc_id)),
                    topic,
                )
            report.add("duplicate judgments", place)
        documents[doc_id] = grade
    return judgments


def _contradiction(
    id: str, query_id: str, doc_id: str, grades: tuple[int, int], first: str | None, topic: Any
) -> IrdistillError:
    """The error about two grades of one document; ``first`` and ``topic`` are the subtopics of
    both, where there are any.
    """
    judged = (
        f"the qrels of {id!r} judge document {doc_id!r} for query {query_id!r} twice and"
        " differently: "
    )
    if topic is not None:
        return IrdistillError(
            f"{judged}{grades[0]} for subtopic {first}, {grades[1]} for subtopic {topic}. They are"
            " judgments by subtopic, for measures of diversity, and the measures here take one"
            " grade of a document. Use the set's judgments of the whole query, if it has them, or"
            " write one grade for each document into a folder in BEIR layout."
        )
    return IrdistillError(
        f"{judged}{grades[0]} and {grades[1]}. trec_eval refuses such qrels too, since either could"
        " be meant. Write the judgments into a folder in BEIR layout with one grade for each"
        " document."
    )


def _queries(id: str, entries: list[Any], corpus: Corpus, report: LoadReport) -> dict[str, Query]:
    by_topic: dict[Any, list[Any]] = {}
    by_id = {str(entry.query_id): entry for entry in entries}
    responses = _canonical(id, entries, corpus, report)
    queries: dict[str, Query] = {}
    for entry in entries:
        earlier = by_topic.setdefault(getattr(entry, "topic_number", None), [])
        if getattr(entry, "participant", "User") == "User":
            text = _default_text(entry)
            if not text.strip():
                raise IrdistillError(
                    f"the query {entry.query_id!r} of {id} is empty, and nothing can be "
                    "found for it."
                )
            query_id = str(entry.query_id)
            query = Query(
                query_id, text, _history(entry, earlier, by_id, responses), _rewrite(entry)
            )
            known = queries.setdefault(query_id, query)
            if known.text != text:
                raise IrdistillError(
                    f"{id} has the query id {entry.query_id!r} twice with different texts."
                )
        if hasattr(entry, "raw_utterance"):
            earlier.append(entry)
    return queries


def _canonical(id: str, entries: list[Any], corpus: Corpus, report: LoadReport) -> dict[str, str]:
    """What the system answered to each turn of CAsT 2020: the passage that
    ``manual_canonical_result_id`` names.

    2019 has no canonical answers. That of 2021 is a passage out of a document, whose text
    ir_datasets leaves out.
    """
    named = {
        str(entry.query_id): str(entry.manual_canonical_result_id)
        for entry in entries
        if getattr(entry, "manual_canonical_result_id", None)
    }
    rows = corpus.find(list(named.values()))
    for (query_id, doc_id), row in zip(named.items(), rows, strict=True):
        if row < 0:
            report.add(
                "responses without document", f"{id} queries (query {query_id}, document {doc_id})"
            )
    return {
        query_id: corpus.text(int(row))
        for query_id, row in zip(named, rows, strict=True)
        if row >= 0
    }


def _history(
    entry: Any, earlier: list[Any], by_id: dict[str, Any], responses: dict[str, str]
) -> tuple[Turn, ...]:
    """The turns before this one: along ``parent_id`` where there is one (CAsT 2022), else in its
    topic.
    """
    if not hasattr(entry, "raw_utterance"):
        return ()
    turns: list[Turn] = []
    if not hasattr(entry, "parent_id"):
        for before in earlier:
            turns.append(Turn("user", str(before.raw_utterance)))
            if str(before.query_id) in responses:
                turns.append(Turn("assistant", responses[str(before.query_id)]))
        return tuple(turns)
    seen = {str(entry.query_id)}
    above = by_id.get(str(entry.parent_id))
    while above is not None and str(above.query_id) not in seen:
        seen.add(str(above.query_id))
        user = getattr(above, "participant", "User") == "User"
        said = above.raw_utterance if user else (above.response or above.raw_utterance)
        if user and getattr(above, "response", None):
            turns.append(Turn("assistant", str(above.response)))
        if said:
            turns.append(Turn("user" if user else "assistant", str(said)))
        above = by_id.get(str(above.parent_id))
    return tuple(reversed(turns))


def _rewrite(entry: Any) -> str | None:
    """A person's rewrite where there is one, else the organisers' automatic one."""
    for name in ("manual_rewritten_utterance", "automatic_rewritten_utterance"):
        if getattr(entry, name, None):
            return str(getattr(entry, name))
    return None
