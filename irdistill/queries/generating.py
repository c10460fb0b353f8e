"""The verb *generate*: synthetic queries with their source passages, without labels."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection as Container
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from irdistill.collections import Collection, Query, load_collection
from irdistill.collections.derived import check_stored_passages, write_derived
from irdistill.collections.passage_corpus import reading_corpus
from irdistill.errors import InputError, OptionError
from irdistill.option_checks import check_fields
from irdistill.queries.llm_writing import (
    load_writer,
    log_path,
    no_usable_answer,
    report_unusable,
    response_log_path,
    write_queries,
)
from irdistill.queries.passage_keywords import KeywordSampler
from irdistill.queries.query_kinds import (
    DEFAULT_KINDS,
    EXTRACTED_KINDS,
    FROM_PARTS,
    KINDS,
    WRITTEN_KINDS,
    DraftQuery,
    drop_duplicates,
    extract_queries,
)
from irdistill.queries.rewriting import read_prompt
from irdistill.runs import RankedList
from irdistill.runs.named_passages import list_texts
from irdistill.search.passage_choice import PassageChoice
from irdistill.storage.files import digest
from irdistill.teachers.llm.language_model import LanguageModel, Request
from irdistill.teachers.llm.prompt_templates import Template, cut_passage
from irdistill.teachers.llm.queue import check_retry
from irdistill.teachers.llm.reading import Reply

logger = logging.getLogger(__name__)
TRAIN, DEV = "train", "dev"
_FEW_SHOT_EXAMPLES = 3


@dataclass(frozen=True)
class Generation:
    """Options of `generate`.

    Examples:
        >>> Generation(kinds=("title",), passages=100).held_out
        0.1
    """

    kinds: Annotated[
        tuple[str, ...],
        Field(
            description="Kinds of queries. Extracted from passages: title, sentence,"
            " title-question, keyword. Written by llm: questions, claims, titles, keywords, web,"
            " few-shot; paraphrases (of a sentence), title-questions, keyword-questions."
        ),
    ] = DEFAULT_KINDS
    passages: Annotated[
        int | None,
        Field(ge=1, description="Use at most this many random passages as sources (default: all)."),
    ] = None
    sentences: Annotated[
        int, Field(ge=1, description="Queries of the kind sentence per passage.")
    ] = 2
    avoid: Annotated[
        Literal["always", "where-possible", "never"],
        Field(
            description="Do not use passages that are relevant to queries of the collection."
            " where-possible: use them when they are more than four fifths of the passages."
        ),
    ] = "always"
    held_out: Annotated[
        float,
        Field(ge=0, lt=1, description="Share of passages whose queries form the split dev."),
    ] = 0.1
    characters: Annotated[
        int, Field(ge=1, description="Truncate passages in a prompt to this many characters.")
    ] = 2048
    max_tokens: Annotated[int, Field(ge=1, description="Maximum tokens of a written query.")] = 50
    seed: Annotated[int, Field(ge=0, lt=2**32, description="Random seed.")] = 42
    retry_tokens: Annotated[
        int | None,
        Field(
            description="Retry queries that max_tokens cut with this limit (thinking models)."
            " Default: no retry."
        ),
    ] = None

    def __post_init__(self) -> None:
        check_fields(self)
        unknown = [kind for kind in self.kinds if kind not in KINDS]
        if unknown or not self.kinds or len(set(self.kinds)) != len(self.kinds):
            raise OptionError(
                f"the kinds of queries are {', '.join(self.kinds) or 'empty'}; expected one or more"
                f" of {', '.join(KINDS)}, each once."
            )
        check_retry(self.retry_tokens, self.max_tokens)


@dataclass(frozen=True)
class _SourcePassages:
    """Passages that queries are made from.

    Attributes:
        rows: rows of the corpus, ascending.
        avoided: number of passages left out because they are relevant to a query.
        note: what a reader of the figures should know, for the record.
    """

    rows: np.ndarray
    avoided: int
    note: str = ""


def generate(
    collection: Collection,
    out: str | Path,
    options: Generation | None = None,
    llm: str | LanguageModel | None = None,
    examples: str | Collection | Sequence[tuple[str, str]] = (),
    log: str | Path | None = None,
) -> Collection:
    """Make synthetic queries from the passages of a collection.

    The new collection has the same corpus. The judgment of a query is its source passage, in the
    split ``train`` or, for held-out passages, ``dev``; if documents are split into passages, it is
    the document of the passage. The id of a query consists of its kind and the id of the passage.
    Queries and judgments of the collection are only read to avoid relevant passages as sources. An
    interrupted job resumes and ends with the same bytes. Unusable answers of the language model
    (refusals, cut answers) are left out and counted.

    Args:
        options: kinds and numbers of queries, see `Generation`.
        llm: a card, or a loaded language model; needed by written kinds.
        examples: a collection, or (passage, query) pairs; ``few-shot`` shows three at a time.
        log: response log of a local language model (default: next to ``out``).

    Returns:
        The collection ``OUT#train``.
    """
    options = options or Generation()
    pairs = example_pairs(examples)
    _check_inputs(options, llm, pairs)
    check_stored_passages(collection)
    model = load_writer(llm) if isinstance(llm, str) else llm
    log = response_log_path(out) if log is None else log
    sources = _source_passages(collection, options)
    counts: Counter[str] = Counter()
    known: set[str] = set()
    drafts: list[DraftQuery] = []
    replies: list[Reply] = []
    needs_words = {"keyword", "keyword-questions"} & set(options.kinds)
    keywords = KeywordSampler(reading_corpus(collection.corpus)) if needs_words else None
    for kind in options.kinds:
        before = len(drafts)
        if kind in EXTRACTED_KINDS or model is None:
            new = _extract(collection, sources, kind, options, keywords)
        else:
            rows, requests = _requests(collection, sources, kind, options, pairs, keywords)
            label = f"generate {kind}"
            written = write_queries(model, requests, log, label, options.retry_tokens)
            report_unusable(written, f"query of the kind {kind}", log_path(model, log))
            counts.update(reply.flag for reply in written if reply.flag)
            new = [
                DraftQuery(reply.text, row, kind)
                for row, reply in zip(rows, written, strict=True)
                if not reply.flag
            ]
            replies += written
        drafts += drop_duplicates(new, known, counts)
        counts[kind] = len(drafts) - before
    made_by = _record(options, sources, model, pairs)
    summary = ", ".join(f"{count} {kind}" for kind, count in counts.items())
    logger.info("%d queries of %d passages: %s", len(drafts), len(sources.rows), summary)
    dev = _dev_passages({source_document(collection, draft.row) for draft in drafts}, options)
    queries, qrels = assign_ids(collection, drafts, dev)
    splits = {
        split: {
            query_id: judged
            for query_id, judged in qrels.items()
            if (set(judged) <= dev) == (split == DEV)
        }
        for split in (TRAIN, DEV)
    }
    error = None if model is None else no_usable_answer(replies, "query", log_path(model, log))
    if error is not None and not queries:
        raise error
    made_by["counts"] = dict(counts)
    folder = write_derived(out, collection, queries, splits, made_by, same_questions=False)
    if error is not None:
        raise error
    return load_collection(f"{folder}#{TRAIN}")


def _check_inputs(
    options: Generation, llm: str | LanguageModel | None, pairs: Sequence[tuple[str, str]]
) -> None:
    written = [kind for kind in options.kinds if kind in WRITTEN_KINDS]
    if written and llm is None:
        raise OptionError(
            f"queries of the kinds {', '.join(written)} need a language model. Name its card"
            f" (--llm CARD), or use only {', '.join(EXTRACTED_KINDS)}."
        )
    if "few-shot" in written and len(pairs) < _FEW_SHOT_EXAMPLES:
        raise OptionError(
            f"few-shot needs at least {_FEW_SHOT_EXAMPLES} queries with relevant passages as"
            f" examples; got {len(pairs)}. Name a collection that has them (--examples)."
        )


def _record(
    options: Generation,
    sources: _SourcePassages,
    model: LanguageModel | None,
    pairs: Sequence[tuple[str, str]],
) -> dict[str, Any]:
    """The record of how the queries were made, for ``derived.json``."""
    made_by: dict[str, Any] = {
        "verb": "generate",
        **asdict(options),
        "sources": len(sources.rows),
        "avoided": sources.avoided,
    }
    if options.retry_tokens is None:
        del made_by["retry_tokens"]
    if sources.note:
        made_by["note"] = sources.note
        logger.warning("%s", sources.note)
    written = [kind for kind in options.kinds if kind in WRITTEN_KINDS]
    if written and model is not None:
        made_by["model"] = dict(model.identity)
        made_by["prompts"] = {kind: _template(kind).digest for kind in written}
        made_by["examples"] = digest(list(map(list, pairs)))
    return made_by


def _template(kind: str) -> Template:
    parts = read_prompt(f"prompts/{kind}")
    return Template(parts, ["passage"], f"the prompt for {kind}", ["examples"])


def _dev_passages(sources: set[str], options: Generation) -> set[str]:
    """Held-out passages, chosen by a hash of their ids; at least one of several."""
    order = sorted(
        (int(digest([options.seed, "held out", source]), 16) / 16**16, source) for source in sources
    )
    chosen = {source for value, source in order if value < options.held_out}
    return chosen or ({order[0][1]} if options.held_out and len(order) > 1 else set())


def assign_ids(
    collection: Collection, drafts: Sequence[DraftQuery], dev: Container[str] = ()
) -> tuple[list[Query], dict[str, dict[str, int]]]:
    """Queries with ids (kind, passage id, number), and their sources as judgments.

    An extracted training query excludes its source, which contains its words.

    Args:
        dev: ids of held-out passages.
    """
    numbers: Counter[str] = Counter()
    queries: list[Query] = []
    qrels: dict[str, dict[str, int]] = {}
    for draft in drafts:
        source = source_document(collection, draft.row)
        name = f"{draft.kind}:{reading_corpus(collection.corpus).id(draft.row)}"
        excluded = () if source in dev or draft.kind not in EXTRACTED_KINDS else (source,)
        query = Query(f"{name}:{numbers[name]}", draft.text, excluded=excluded)
        numbers[name] += 1
        queries.append(query)
        qrels[query.id] = {source: 1}
    return queries, qrels


def source_document(collection: Collection, row: int) -> str:
    """The id of the document that a source passage is, or is in."""
    corpus = collection.corpus
    if corpus.passages is None:
        return corpus.id(row)
    return corpus.id(int(corpus.passages.documents_of(np.array([row]))[0]))


def query_kind(query_id: str) -> str:
    """Kind of a synthetic query, from its id.

    Examples:
        >>> query_kind("title:doc-7:0")
        'title'
    """
    return query_id.partition(":")[0]


def example_pairs(
    examples: str | Collection | Sequence[tuple[str, str]],
) -> Sequence[tuple[str, str]]:
    """(passage, query) pairs; of a collection, a best-judged passage for each query."""
    if isinstance(examples, str):
        examples = load_collection(examples)
    if not isinstance(examples, Collection):
        return examples
    pairs, corpus = [], examples.corpus
    choice = None if corpus.passages is None else PassageChoice(corpus)
    for query in examples.queries.values():
        judged = [
            (grade, doc_id)
            for doc_id, grade in examples.qrels.get(query.id, {}).items()
            if grade > 0 and corpus.has(doc_id)
        ]
        if judged:
            ranked = RankedList(query.id, [max(judged)[1]], np.zeros(1, np.float32))
            if choice is not None:
                ranked = ranked._replace(passages=choice.best(query, ranked))
            pairs.append((list_texts(corpus, ranked)[0], query.text))
    return pairs


def _source_passages(collection: Collection, options: Generation) -> _SourcePassages:
    corpus = collection.corpus
    judged = {
        doc_id
        for documents in collection.qrels.values()
        for doc_id, grade in documents.items()
        if grade > 0
    }
    judged_rows = corpus.find(sorted(judged))
    relevant = np.unique(judged_rows[judged_rows >= 0])
    if corpus.passages is not None:
        relevant, corpus = corpus.passages.all_of(relevant), corpus.passages.corpus
    everything = np.arange(len(corpus))
    rows, note = np.setdiff1d(everything, relevant), ""
    avoided = len(relevant)
    if options.avoid == "never":
        avoided, rows = 0, everything
    elif options.avoid == "where-possible" and len(rows) * 5 < len(corpus):
        avoided, rows = 0, everything
        note = (
            f"{len(relevant)} of {len(corpus)} passages are judged relevant to queries of"
            f" {collection.id}; they are sources of queries too, because too few passages are left"
            " without them (the judgments themselves are not used)"
        )
    if not len(rows):
        raise InputError(
            f"every passage of {collection.id!r} is judged relevant to one of its queries, so none"
            " may be a source. Use --avoid never, unless figures on these queries are to be"
            " published as unseen."
        )
    chosen = np.random.default_rng([options.seed, 0]).permutation(rows)[: options.passages]
    return _SourcePassages(np.sort(chosen), avoided, note)


def _extract(
    collection: Collection,
    sources: _SourcePassages,
    kind: str,
    options: Generation,
    keywords: KeywordSampler | None,
) -> list[DraftQuery]:
    drafts: list[DraftQuery] = []
    for row in sources.rows.tolist():
        rng = np.random.default_rng([options.seed, 1, row])
        document = reading_corpus(collection.corpus).document(row)
        drafts += extract_queries(document, row, kind, options.sentences, rng, keywords)
    return drafts


def _requests(
    collection: Collection,
    sources: _SourcePassages,
    kind: str,
    options: Generation,
    pairs: Sequence[tuple[str, str]],
    keywords: KeywordSampler | None,
) -> tuple[list[int], list[Request]]:
    """Requests to the language model, and the row of the source passage of each.

    A kind that is written from a part of the passage has no request for a passage without it.
    """
    template = _template(kind)
    rows, requests = [], []
    for row in sources.rows.tolist():
        shown = ""
        if kind == "few-shot":
            rng = np.random.default_rng([options.seed, 2, row])
            chosen = rng.permutation(len(pairs))[:_FEW_SHOT_EXAMPLES].tolist()
            shown = "\n\n".join(
                f"Passage: {cut_passage(passage, 60)[0]}\nQuery: {query}"
                for passage, query in (pairs[place] for place in chosen)
            )
        text = reading_corpus(collection.corpus).text(row)
        if kind in FROM_PARTS:
            rng = np.random.default_rng([options.seed, 3, row])
            document = reading_corpus(collection.corpus).document(row)
            drafts = extract_queries(document, row, FROM_PARTS[kind], 1, rng, keywords)
            text = next((draft.text for draft in drafts), "")
            if not text:
                continue
        passage, _ = cut_passage(text, characters=options.characters)
        messages = template.messages(passage=passage, examples=shown)
        rows.append(row)
        requests.append(Request(messages, max_tokens=options.max_tokens))
    return rows, requests
