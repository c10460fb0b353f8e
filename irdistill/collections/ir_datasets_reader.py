"""Collections of ir_datasets; conversations with the turns before each question."""

from __future__ import annotations

import difflib
import importlib.util
import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from numbers import Integral
from pathlib import Path
from types import ModuleType
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
from irdistill.errors import InputError, IrdistillError, NotFoundError
from irdistill.storage.files import digest, read_json

_EMBEDDED = ("pydocs/train", "pydocs/dev", "pydocs/test", "pydocs/howto")


def load_ir_dataset(id: str, cache: Path, need_queries: bool = True) -> Collection:
    """Load an id of ir_datasets. Documents are their ``default_text()``, compiled once for all
    splits.

    Published judgments of documents that are not in the corpus are part of the benchmark: they are
    kept and reported.
    """
    dataset, module = _dataset(id)
    has_documents, has_queries = dataset.has_docs(), dataset.has_queries()
    if not has_documents or (need_queries and not has_queries):
        splits = [
            name
            for name in sorted(module.registry)
            if name.startswith(f"{id}/") and _is_complete(module.load(name))
        ]
        raise InputError(
            f"the ir_datasets id {id!r} has no {'queries' if has_documents else 'documents'}. Ids"
            f" below it that have both: {', '.join(splits[:12]) or 'none'}"
            f"{' ...' if len(splits) > 12 else ''}."
        )
    corpus = _corpus(id, dataset, module, cache)
    report = LoadReport(documents=len(corpus))
    report.add_stored(corpus.problems)
    if not has_queries:
        return Collection(id, corpus, {}, Qrels({}), report)
    with _explain_downloads(id):
        entries = list(_checked_ids(id, dataset.queries_iter(), "query_id"))
        queries = _queries(id, entries, corpus, report)
        if not dataset.has_qrels():
            report.queries = len(queries)
            return Collection(id, corpus, queries, Qrels({}), report)
        judgments = _judgments(
            id, _checked_ids(id, dataset.qrels_iter(), "query_id", "doc_id"), report
        )
    for query_id, grades in judgments.items():
        for row, (doc_id, grade) in zip(corpus.find(list(grades)), grades.items(), strict=True):
            if row < 0:
                place = f"{id} qrels (query {query_id}, document {doc_id})"
                report.add("judgments without document", place)
                if grade > 0:
                    report.add("positive judgments without document", place)
        if query_id not in queries:
            report.add("judgments without query", f"{id} qrels (query {query_id})")
    return judged_collection(id, corpus, queries, judgments, report, f"{id} queries")


def ir_dataset_corpus(id: str, cache: Path) -> Corpus:
    """The documents of an id of ir_datasets, which may have no queries (``trec-cast/v1``)."""
    dataset, module = _dataset(id)
    if not dataset.has_docs():
        raise InputError(f"the ir_datasets id {id!r} has no documents.")
    return _corpus(id, dataset, module, cache)


def _is_complete(dataset: Any) -> bool:
    return bool(dataset.has_docs() and dataset.has_queries())


def _corpus(id: str, dataset: Any, module: ModuleType, cache: Path) -> Corpus:
    with _explain_downloads(id):
        folder = cache / "corpora" / _cache_key(id, dataset, module)
        return open_or_compile(lambda: _documents(id, dataset), folder, id)


def _dataset(id: str) -> tuple[Any, ModuleType]:
    if importlib.util.find_spec("ir_datasets") is None:
        raise NotFoundError(
            f"{id!r} needs the library ir_datasets, which is not installed: pip install"
            " ir_datasets."
        )
    import ir_datasets

    try:
        return ir_datasets.load(id), ir_datasets
    except KeyError as error:
        close = _close_names(id, [*sorted(ir_datasets.registry), *_EMBEDDED])
        raise NotFoundError(
            f"there is no collection {id!r}, and no file or folder of that name. Ids are"
            " pydocs/train|dev|test|howto, and those of ir_datasets such as beir/scifact/test or"
            " msmarco-passage/dev/small; folders are in BEIR layout (FOLDER or FOLDER#SPLIT) or"
            f" hold documents. Close names: {', '.join(close) or 'none'}."
        ) from error


def _close_names(id: str, known: Sequence[str]) -> list[str]:
    """Names like one that does not exist: files and folders in the same place, then ids."""
    beside = [str(path) for path in Path(id).parent.glob("*")]
    return [
        *difflib.get_close_matches(id, beside, n=3),
        *difflib.get_close_matches(id, known, n=5, cutoff=0.5),
    ]


def _cache_key(id: str, dataset: Any, module: Any) -> str:
    """The cache key of documents: the id if ir_datasets checks their files, otherwise the content.

    The documents of a dataset that a user registered may change, so they are read at every load.
    """
    parent = module.docs_parent_id(id)
    if parent in read_json(Path(module.__file__).parent / "etc" / "metadata.json"):
        return digest([FORMAT, "ir_datasets", parent, module.__version__])
    fingerprint = Fingerprint()
    for document in _documents(id, dataset):
        fingerprint.add(document)
    return digest([FORMAT, "registered", fingerprint.value()])


def _checked_ids(id: str, entries: Iterable[Any], *names: str) -> Iterator[Any]:
    """The entries, after a check that their ids are strings or whole numbers."""
    for number, entry in enumerate(entries, 1):
        for name in names:
            value = getattr(entry, name)
            if isinstance(value, bool) or not isinstance(value, str | Integral) or value == "":
                raise InputError(
                    f"entry {number} of {id} has the {name} {value!r:.60}, which is"
                    f" {type(value).__name__}; a string or a whole number was expected. Register"
                    " the dataset with strings as ids."
                )
            check_encodable(str(value), name, id, number)
        yield entry


def _documents(id: str, dataset: Any) -> Iterator[Document]:
    for number, document in enumerate(_checked_ids(id, dataset.docs_iter(), "doc_id"), 1):
        yield Document(str(document.doc_id), "", _default_text(document), number)


def _default_text(entry: Any) -> str:
    text = entry.default_text() if hasattr(entry, "default_text") else entry.text
    return str(text or "").encode("utf-8", "replace").decode("utf-8")


@contextmanager
def _explain_downloads(id: str) -> Iterator[None]:
    """Turn failed downloads into an error with advice, and hide the log lines of each attempt."""
    import ir_datasets.log

    logger = ir_datasets.log.easy().logger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    except IrdistillError:
        raise
    except (OSError, RuntimeError) as error:
        raise NotFoundError(
            f"the files of {id!r} could not be downloaded ({type(error).__name__}:"
            f" {str(error)[:300]}). ir_datasets downloads them to ~/.ir_datasets (or"
            " $IR_DATASETS_HOME) on first use. Check the network, or put them there by hand as"
            f" https://ir-datasets.com/{id.split('/')[0]}.html describes."
        ) from error
    finally:
        logger.setLevel(level)


def _judgments(id: str, entries: Iterable[Any], report: LoadReport) -> dict[str, dict[str, int]]:
    """Query -> document -> grade. Repeated judgments are counted; contradictions are errors."""
    judgments: dict[str, dict[str, int]] = {}
    topics: dict[tuple[str, str], str] = {}
    for entry in entries:
        query_id, doc_id = str(entry.query_id), str(entry.doc_id)
        place = f"{id} qrels (query {query_id}, document {doc_id})"
        grade = parse_grade(entry.relevance, place)
        documents = judgments.setdefault(query_id, {})
        topic = getattr(entry, "subtopic_id", None)
        if topic is not None:
            topics.setdefault((query_id, doc_id), str(topic))
        if doc_id in documents:
            if documents[doc_id] != grade:
                grades = (documents[doc_id], grade)
                raise _contradiction(id, query_id, doc_id, grades, topics, topic)
            report.add("duplicate judgments", place)
        documents[doc_id] = grade
    return judgments


def _contradiction(
    id: str,
    query_id: str,
    doc_id: str,
    grades: tuple[int, int],
    topics: dict[tuple[str, str], str],
    topic: Any,
) -> InputError:
    """The error about two grades of one document, perhaps for two subtopics."""
    judged = (
        f"the qrels of {id!r} judge document {doc_id!r} for query {query_id!r} twice and"
        " differently: "
    )
    if topic is not None:
        return InputError(
            f"{judged}{grades[0]} for subtopic {topics.get((query_id, doc_id))}, {grades[1]} for"
            f" subtopic {topic}. These judgments are for measures of diversity, and the measures of"
            " irdistill need one grade per document. Use judgments of the whole query, or write one"
            " grade per document into a folder in BEIR layout."
        )
    return InputError(
        f"{judged}{grades[0]} and {grades[1]}. trec_eval refuses such qrels too. Write the"
        " judgments into a folder in BEIR layout with one grade per document."
    )


def _queries(id: str, entries: list[Any], corpus: Corpus, report: LoadReport) -> dict[str, Query]:
    earlier_turns: dict[Any, list[Any]] = {}
    by_id = {str(entry.query_id): entry for entry in entries}
    responses = _canonical_responses(id, entries, corpus, report)
    queries: dict[str, Query] = {}
    for entry in entries:
        earlier = earlier_turns.setdefault(getattr(entry, "topic_number", None), [])
        if getattr(entry, "participant", "User") == "User":
            query_id, text = str(entry.query_id), _default_text(entry)
            if not text.strip():
                raise InputError(f"the query {entry.query_id!r} of {id} is empty.")
            history = _history(entry, earlier, by_id, responses)
            query = Query(query_id, text, history, _rewrite(entry))
            if queries.setdefault(query_id, query).text != text:
                raise InputError(
                    f"{id} has the query id {entry.query_id!r} twice with different texts."
                )
        if hasattr(entry, "raw_utterance"):
            earlier.append(entry)
    return queries


def _canonical_responses(
    id: str, entries: list[Any], corpus: Corpus, report: LoadReport
) -> dict[str, str]:
    """The response to each turn of CAsT 2020: the passage ``manual_canonical_result_id``.

    CAsT 2019 has no canonical responses. Those of 2021 are passages of documents, whose text
    ir_datasets omits.
    """
    doc_ids = {
        str(entry.query_id): str(entry.manual_canonical_result_id)
        for entry in entries
        if getattr(entry, "manual_canonical_result_id", None)
    }
    responses = {}
    rows = corpus.find(list(doc_ids.values()))
    for (query_id, doc_id), row in zip(doc_ids.items(), rows, strict=True):
        if row < 0:
            place = f"{id} queries (query {query_id}, document {doc_id})"
            report.add("responses without document", place)
        else:
            responses[query_id] = corpus.text(int(row))
    return responses


def _history(
    entry: Any, earlier: list[Any], by_id: dict[str, Any], responses: dict[str, str]
) -> tuple[Turn, ...]:
    """The turns before this one: along ``parent_id`` (CAsT 2022), or the earlier ones of its
    topic.
    """
    if not hasattr(entry, "raw_utterance"):
        return ()
    turns: list[Turn] = []
    if not hasattr(entry, "parent_id"):
        for turn in earlier:
            turns.append(Turn("user", str(turn.raw_utterance)))
            if str(turn.query_id) in responses:
                turns.append(Turn("assistant", responses[str(turn.query_id)]))
        return tuple(turns)
    visited = {str(entry.query_id)}
    parent = by_id.get(str(entry.parent_id))
    while parent is not None and str(parent.query_id) not in visited:
        visited.add(str(parent.query_id))
        user = getattr(parent, "participant", "User") == "User"
        text = parent.raw_utterance if user else (parent.response or parent.raw_utterance)
        if user and getattr(parent, "response", None):
            turns.append(Turn("assistant", str(parent.response)))
        if text:
            turns.append(Turn("user" if user else "assistant", str(text)))
        parent = by_id.get(str(parent.parent_id))
    return tuple(reversed(turns))


def _rewrite(entry: Any) -> str | None:
    """The rewrite by a person, or else the automatic one of the organizers."""
    for name in ("manual_rewritten_utterance", "automatic_rewritten_utterance"):
        if getattr(entry, name, None):
            return str(getattr(entry, name))
    return None
