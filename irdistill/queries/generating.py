"""The verb *generate*: a corpus in, a collection of synthetic queries with their source passages
out; no labels are used.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection as MultiValueCommand
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from irdistill.collections import Collection, Query, load_collection
from irdistill.collections.derived import write_derived
from irdistill.errors import IrdistillError
from irdistill.queries.llm_writing import log_path, no_usable_answer, report_unusable, write_queries
from irdistill.queries.query_kinds import (
    EXTRACTED_KINDS,
    KINDS,
    WRITTEN_KINDS,
    Draft,
    distinct,
    extract_queries,
)
from irdistill.queries.rewriting import read_prompt
from irdistill.storage.files import digest
from irdistill.teachers.llm.language_model import LanguageModel, Request
from irdistill.teachers.llm.prompt_templates import Template, cut_passage
from irdistill.teachers.llm.queue import check_retry
from irdistill.teachers.llm.reading import Reply

logger = logging.getLogger(__name__)
TRAIN, HELD_OUT = "train", "dev"
_SHOWN = 3


@dataclass(frozen=True)
class Generation:
    """What is asked of `generate`.

    Attributes:
        kinds: of queries, see `irdistill.queries.query_kinds`.
        passages: at most so many source passages, drawn at random; all where None.
        sentences: queries of the kind ``sentence`` a passage.
        avoid: ``always``: no passage that is judged relevant to a query of the collection is a
            source; ``where-possible``: the same, unless fewer than a fifth of the passages would be
            left, and then any may be one, which the record says; ``never``.
        held_out: the share of the passages whose queries make up the split ``dev`` instead of
            ``train``.
        characters: of a passage that a language model is shown.
        max_tokens: of what it writes.
        retry_tokens: what that limit cut is asked for once more, with this limit; None for no
            second try.
        seed: of everything drawn.
    """

    kinds: tuple[str, ...] = EXTRACTED_KINDS
    passages: int | None = None
    sentences: int = 2
    avoid: str = "always"
    held_out: float = 0.1
    characters: int = 2048
    max_tokens: int = 50
    seed: int = 42
    retry_tokens: int | None = None

    def __post_init__(self) -> None:
        unknown = [kind for kind in self.kinds if kind not in KINDS]
        if unknown or not self.kinds or len(set(self.kinds)) != len(self.kinds):
            raise IrdistillError(
                f"the kinds of queries {', '.join(self.kinds) or '(none)'} were asked for; give"
                f" some of {', '.join(KINDS)}, each once."
            )
        if self.avoid not in ("always", "where-possible", "never"):
            raise IrdistillError(
                f"avoid is {self.avoid!r}; always, where-possible or never was expected."
            )
        if not 0 <= self.held_out < 1:
            raise IrdistillError(
                f"held_out is {self.held_out}; a share from 0 to below 1 was expected."
            )
        for name in ("passages", "sentences", "characters", "max_tokens"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise IrdistillError(f"{name} is {value}; at least 1 was expected.")
        check_retry(self.retry_tokens, self.max_tokens)


@dataclass
class SourcePassages:
    """Which passages queries are made of: row numbers in the order of the draw, and how many were
    avoided.
    """

    rows: np.ndarray
    avoided: int
    note: str = ""
    rng: np.random.Generator = field(default_factory=np.random.default_rng)


def generate(
    collection: Collection,
    out: str | Path,
    settings: Generation | None = None,
    model: LanguageModel | None = None,
    examples: Sequence[tuple[str, str]] = (),
    log: str | Path | None = None,
) -> Collection:
    """Make queries out of the passages of a collection.

    The new collection has the same corpus; each query's judgment is its source passage, in the
    split ``train`` or, for the passages held out, ``dev``. Its id is made of its kind and the
    passage's id. Nothing of the collection's queries or judgments is read, but to keep passages
    that are judged relevant from becoming sources. Stopped and started again it goes on, and ends
    with the same bytes. Answers of the model that hold no query (refusals, cut ones) are left out
    and counted.

    Args:
        model: writes queries, for kinds that are written.
        examples: (passage, query) pairs that ``few-shot`` shows, three at a time.
        log: keeps the answers of a local model; beside ``out`` where None.

    Returns:
        The collection ``OUT#train``.

    Raises:
        IrdistillError: a kind needs a model or examples and there are none, no passage is left to
            make queries of, or ``out`` holds another collection; or no answer of the model holds a
            query: then what was extract_queries from the passages, and all answers, are saved.
    """
    given = settings or Generation()
    written = [kind for kind in given.kinds if kind in WRITTEN_KINDS]
    if written and model is None:
        raise IrdistillError(
            f"queries of the kinds {', '.join(written)} are written by a language model; name one"
            f" (--llm CARD), or ask for {', '.join(EXTRACTED_KINDS)} alone."
        )
    if "few-shot" in written and len(examples) < _SHOWN:
        raise IrdistillError(
            f"few-shot queries are shown {_SHOWN} real queries with their passages; {len(examples)}"
            " were given."
        )
    sources = _sources(collection, given)
    counts: Counter[str] = Counter()
    seen: set[str] = set()
    drafts: list[Draft] = []
    answers: list[Reply] = []
    for kind in given.kinds:
        before = len(drafts)
        if kind in EXTRACTED_KINDS or model is None:
            made = _taken(collection, sources, kind, given)
        else:
            lines = _written(collection, sources, kind, given, model, examples, log or _log(out))
            report_unusable(lines, f"query of the kind {kind}", log_path(model, log or _log(out)))
            counts.update(line.flag for line in lines if line.flag)
            made = [
                Draft(line.text, row, kind)
                for row, line in zip(sources.rows.tolist(), lines, strict=True)
                if not line.flag
            ]
            answers += lines
        drafts += distinct(iter(made), seen, lambda why: counts.update([why]))
        counts[kind] = len(drafts) - before
    settings_kept = {
        key: value
        for key, value in asdict(given).items()
        if key != "retry_tokens" or value is not None
    }
    made_by: dict[str, Any] = {
        "verb": "generate",
        **settings_kept,
        "sources": len(sources.rows),
        "avoided": sources.avoided,
    }
    if sources.note:
        made_by["note"] = sources.note
        logger.warning("%s", sources.note)
    if written and model is not None:
        prompts = {
            kind: Template(read_prompt(f"prompts/{kind}"), ["passage"], kind, ["examples"]).digest
            for kind in written
        }
        made_by |= {
            "model": dict(model.identity),
            "prompts": prompts,
            "examples": digest(list(map(list, examples))),
        }
    told = ", ".join(f"{count} {kind}" for kind, count in counts.items())
    logger.info("%d queries of %d passages: %s", len(drafts), len(sources.rows), told)
    held_out = _held_out({collection.corpus.id(draft.row) for draft in drafts}, given)
    queries, qrels = number(collection, drafts, held_out)
    splits = {
        name: {
            query_id: judged
            for query_id, judged in qrels.items()
            if (set(judged) <= held_out) == (name == HELD_OUT)
        }
        for name in (TRAIN, HELD_OUT)
    }
    failed = (
        no_usable_answer(answers, "query", log_path(model, log or _log(out)))
        if model is not None
        else None
    )
    if failed is not None and not queries:
        raise failed
    folder = write_derived(
        out, collection, queries, splits, made_by | {"counts": dict(counts)}, same_questions=False
    )
    if failed is not None:
        raise failed
    return load_collection(f"{folder}#{TRAIN}")


def _held_out(sources: set[str], given: Generation) -> set[str]:
    """The passages held out, by a hash of their ids, so that what else is made changes nothing; one
    at least, of several.
    """
    order = sorted(
        (int(digest([given.seed, "held out", source]), 16) / 16**16, source) for source in sources
    )
    chosen = {source for place, source in order if place < given.held_out}
    return chosen or ({order[0][1]} if given.held_out and len(order) > 1 else set())


def number(
    collection: Collection, drafts: Sequence[Draft], held_out: MultiValueCommand[str] = ()
) -> tuple[list[Query], dict[str, dict[str, int]]]:
    """Queries with ids (kind, passage, place), and their sources as judgments.

    A query to learn from that is its source's own words excludes the source.
    """
    places: Counter[str] = Counter()
    queries: list[Query] = []
    qrels: dict[str, dict[str, int]] = {}
    for draft in drafts:
        source = collection.corpus.id(draft.row)
        name = f"{draft.kind}:{source}"
        own = () if source in held_out or draft.kind not in EXTRACTED_KINDS else (source,)
        query = Query(f"{name}:{places[name]}", draft.text, excluded=own)
        places[name] += 1
        queries.append(query)
        qrels[query.id] = {source: 1}
    return queries, qrels


def query_kind(query_id: str) -> str:
    """The kind, which the id begins with."""
    return query_id.partition(":")[0]


def example_pairs(collection: Collection) -> list[tuple[str, str]]:
    """(passage, query) pairs of a collection with judgments, a best-judged passage for each query,
    for few-shot prompts.
    """
    pairs, corpus = [], collection.corpus
    for query in collection.queries.values():
        judged = [
            (grade, doc)
            for doc, grade in collection.qrels.get(query.id, {}).items()
            if grade > 0 and corpus.has(doc)
        ]
        if judged:
            pairs.append((corpus.text(corpus.row(max(judged)[1])), query.text))
    return pairs


def _sources(collection: Collection, given: Generation) -> SourcePassages:
    corpus = collection.corpus
    judged: MultiValueCommand[str] = {
        doc
        for documents in collection.qrels.values()
        for doc, grade in documents.items()
        if grade > 0
    }
    found = corpus.find(sorted(judged))
    relevant = np.unique(found[found >= 0])
    free = np.setdiff1d(np.arange(len(corpus)), relevant)
    note = ""
    if given.avoid == "never":
        avoided, rows = 0, np.arange(len(corpus))
    elif given.avoid == "where-possible" and len(free) * 5 < len(corpus):
        avoided, rows = 0, np.arange(len(corpus))
        note = (
            f"{len(relevant)} of {len(corpus)} passages are judged relevant to queries of"
            f" {collection.id}; queries are made of these too, for too few are left without them"
            " (judgments themselves are not read)"
        )
    else:
        avoided, rows = len(relevant), free
    if not len(rows):
        raise IrdistillError(
            f"every passage of {collection.id!r} is judged relevant to one of its queries, so none"
            " may be a source; give --avoid never if the figures on these queries are not to be"
            " published as unseen."
        )
    draw = np.random.default_rng([given.seed, 0])
    chosen = draw.permutation(rows)
    return SourcePassages(np.sort(chosen[: given.passages]), avoided, note)


def _taken(
    collection: Collection, sources: SourcePassages, kind: str, given: Generation
) -> list[Draft]:
    found: list[Draft] = []
    for row in sources.rows.tolist():
        draw = np.random.default_rng([given.seed, 1, row])
        found += extract_queries(collection.corpus.document(row), row, kind, given.sentences, draw)
    return found


def _written(
    collection: Collection,
    sources: SourcePassages,
    kind: str,
    given: Generation,
    model: LanguageModel,
    examples: Sequence[tuple[str, str]],
    log: str | Path,
) -> list[Reply]:
    template = Template(
        read_prompt(f"prompts/{kind}"), ["passage"], f"the prompt for {kind}", ["examples"]
    )
    requests = []
    for row in sources.rows.tolist():
        shown = ""
        if kind == "few-shot":
            draw = np.random.default_rng([given.seed, 2, row])
            picked = [
                examples[place] for place in draw.permutation(len(examples))[:_SHOWN].tolist()
            ]
            shown = "\n\n".join(
                f"Passage: {cut_passage(passage, 60)[0]}\nQuery: {query}"
                for passage, query in picked
            )
        passage, _ = cut_passage(collection.corpus.text(row), characters=given.characters)
        requests.append(
            Request(template.messages(passage=passage, examples=shown), max_tokens=given.max_tokens)
        )
    return write_queries(model, requests, log, f"generate {kind}", given.retry_tokens)


def _log(out: str | Path) -> Path:
    folder = Path(out)
    return folder.with_name(f"{folder.name}.responses.jsonl")
