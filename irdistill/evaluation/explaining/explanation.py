"""The result of explaining a document: figures, and the sentences and tables that show them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from irdistill.console.terminal import counted
from irdistill.evaluation.reporting.findings import Finding, Table, cell, plain
from irdistill.evaluation.reporting.rendering import Displayed

MOST_PARTS = 40
"""Rows of a table of parts; JSON has all."""


@dataclass(frozen=True)
class WordScore:
    """What a term of the query adds to the BM25 score.

    Attributes:
        stem: the term.
        words: the words of the document with this stem.
        count: how often the term is in the query.
        documents: how many documents of the collection it is in.
        score: 0.0 if it is not in the document.
    """

    stem: str
    words: Sequence[str]
    count: int
    documents: int
    score: float


@dataclass(frozen=True)
class WordMatch:
    """The BM25 score of a document.

    Attributes:
        score: of the document; 0.0 without a common term.
        passage: number of the best passage; None if documents are read whole.
        words: all terms of the query; their scores add up to that of the passage, which is the
            document's unless passages are aggregated in another way than by their maximum.
    """

    score: float
    passage: int | None
    words: Sequence[WordScore]


@dataclass(frozen=True)
class ScorePart:
    """A part of a model's score.

    Attributes:
        name: the term, word or token; ``tower`` for a transformer.
        count: how often it is in the query; None for a term of a sparse model.
        query, document: the weights of a term of a sparse model, whose product is the score.
    """

    name: str
    score: float
    count: int | None = None
    query: float | None = None
    document: float | None = None


@dataclass(frozen=True)
class TokenMatch:
    """The similarities of the tokens of a query and a document, for MaxSim.

    Attributes:
        query, document: names of the tokens.
        similarities: for each query token those to all document tokens.
        best: for each query token the document token with the largest.
        mean: whether the score is the mean of the largest similarities, and not their sum.
    """

    query: Sequence[str]
    document: Sequence[str]
    similarities: Sequence[Sequence[float]]
    best: Sequence[int]
    mean: bool

    @property
    def largest(self) -> list[float]:
        """The largest similarity of each query token."""
        return [row[at] for row, at in zip(self.similarities, self.best, strict=True)]


@dataclass(frozen=True)
class ModelScore:
    """The score of a model, and what it is made of.

    Attributes:
        kind: ``dense``, ``sparse``, ``late-interaction`` or ``cross-encoder``.
        similarity: how it compares: ``cosine``, ``dot``, ``maxsim``, ``meanmaxsim`` or ``logit``.
        score: of the document; None if it has none.
        passage: number of the best passage; None if documents are read whole.
        passages: number of passages that were compared.
        parts: add up to the score of the passage; None if the score has no parts.
        tokens: of a late-interaction model.
        note: why there is no score, or no parts; empty otherwise.
    """

    model: str
    kind: str
    similarity: str
    score: float | None
    passage: int | None = None
    passages: int = 1
    parts: Sequence[ScorePart] | None = None
    tokens: TokenMatch | None = None
    note: str = ""


@dataclass(frozen=True)
class RunScore:
    """What a run has for the document.

    Attributes:
        kind: of the run: ``teacher``, ``student``, ``first-stage`` and so on.
        documents: length of the query's list; None if the run does not have the query.
        rank: from 1; None if the list lacks the document, or has no score for it.
        score: None if it is not scored.
        flag: why the score is missing or doubtful.
        passage: number of the best passage.
    """

    run: str
    kind: str
    documents: int | None
    rank: int | None = None
    score: float | None = None
    flag: str | None = None
    passage: int | None = None


@dataclass(frozen=True, repr=False)
class Explanation(Displayed):
    """Why a document is in a ranking.

    Attributes:
        query_id: id of the query; None if it is not in the collection.
        text: of the document, or of its best passage.
        passage: the number of the passage in ``text``; None for a whole document.
        words: BM25 of the document; None if it was not computed.
        model: score of the model; None without a model.
        runs: what runs have for the pair.
        judged: whether the query has judgments.
        grade: of the judgment; None if the document is not judged.

    Examples:
        >>> from irdistill.collections import Collection
        >>> from irdistill.evaluation.explaining import DocumentExplainer
        >>> docs = {"a": "merge two dictionaries", "b": "sort a list"}
        >>> why = DocumentExplainer(Collection.from_dicts("two", docs, {})).explain("merge", "a")
        >>> [(word.stem, word.documents) for word in why.words.words]
        [('merg', 1)]
    """

    query_id: str | None
    query: str
    doc_id: str
    document_title: str
    text: str
    passage: int | None
    words: WordMatch | None
    model: ModelScore | None
    runs: Sequence[RunScore]
    judged: bool
    grade: int | None

    def verdict(self) -> str:
        """The explanation in one to four sentences."""
        sentences = []
        if self.words is not None:
            sentences.append(_words_sentence(self.words))
        if self.model is not None:
            sentences.append(_model_sentence(self.model))
        if self.runs:
            sentences.append(_runs_sentence(self.runs))
        if self.judged:
            grade = self.grade
            sentences.append("It is not judged." if grade is None else f"It is judged {grade}.")
        return " ".join(sentences)

    def findings(self) -> list[Finding]:
        """The verdict, and a section for each of words, model, runs and judgment."""
        passage = "" if self.passage is None else f", passage {self.passage}"
        heading = f"{self.doc_id}{passage} for “{self.query}”"
        findings = [Finding("verdict", heading, [self.verdict()])]
        if self.words is not None:
            findings.append(_words_finding(self.words))
        if self.model is not None:
            findings.append(_model_finding(self.model))
        if self.runs:
            findings.append(_runs_finding(self.runs))
        return findings

    def to_rows(self) -> list[dict[str, Any]]:
        """One mapping per part of a score: of BM25, and of the model."""
        words = self.words.words if self.words else ()
        rows = [{"of": "bm25", "name": word.stem, "score": word.score} for word in words]
        if self.model is not None:
            parts = self.model.parts or ()
            rows += [{"of": self.model.model, "name": p.name, "score": p.score} for p in parts]
        return rows

    def to_json(self) -> dict[str, Any]:
        """All figures at full precision."""
        return {"verdict": self.verdict(), **plain(self)}


def _words_sentence(match: WordMatch) -> str:
    matched = [word for word in match.words if word.score]
    if not matched:
        return "BM25 gives 0: the document has no word of the query."
    best = max(matched, key=lambda word: word.score)
    share = f"{len(matched)} of the {counted(len(match.words), 'word')}"
    return (
        f"BM25 gives {match.score:.4f} for {share} of the query, most for “{best.words[0]}”"
        f" ({best.score:.4f})."
    )


def _model_sentence(model: ModelScore) -> str:
    if model.score is None:
        return f"The model gives no score: {model.note}"
    text = f"The model gives {model.score:.4f}"
    if model.tokens is not None:
        return f"{text} over {counted(len(model.tokens.query), 'query token')}."
    if model.parts is None:
        return f"{text}."
    tower = [part for part in model.parts if part.name == "tower" and model.kind == "dense"]
    words = [part for part in model.parts if part not in tower]
    total = sum(part.score for part in words)
    if tower:
        return (
            f"{text}: {tower[0].score:.4f} from its tower and {total:.4f} from"
            f" {counted(len(words), 'word')}."
        )
    name = "common term" if model.kind == "sparse" else "token"
    return f"{text} from {counted(len(words), name)}."


def _runs_sentence(runs: Sequence[RunScore]) -> str:
    ranked = [run for run in runs if run.rank is not None]
    if not ranked:
        return f"None of {counted(len(runs), 'run')} scores it."
    best = min(ranked, key=lambda run: run.rank or 0)
    return (
        f"{len(ranked)} of {counted(len(runs), 'run')} score it; its best rank is {best.rank} of"
        f" {best.documents} in {best.run}."
    )


def _words_finding(match: WordMatch) -> Finding:
    passage = "" if match.passage is None else f" of passage {match.passage}"
    text = f"BM25{passage}: {match.score:.4f}, the sum over the terms of the query."
    rows = [
        [
            word.stem,
            f"{word.score:.4f}",
            " ".join(word.words) or "-",
            str(word.count),
            str(word.documents),
        ]
        for word in sorted(match.words, key=lambda word: -word.score)
    ]
    header = ["term", "score", "matched", "in query", "documents"]
    tables = [Table(header, rows)] if rows else []
    notes = [] if rows else ["The query has only stop words."]
    return Finding("words", "Words", [text], tables, notes, values={"score": match.score})


def _model_finding(model: ModelScore) -> Finding:
    shown = "no score" if model.score is None else f"{model.score:.4f}"
    passage = ""
    if model.passage is not None:
        passage = f", best passage {model.passage} of {model.passages} (from 0)"
    text = f"{model.model} ({model.kind}, {model.similarity}): {shown}{passage}."
    tables = []
    notes = [model.note] if model.note else []
    if model.tokens is not None:
        tables.append(_tokens_table(model.tokens))
        kind = "mean" if model.tokens.mean else "sum"
        notes.append(f"The score is the {kind} of the largest similarity of each query token.")
    elif model.parts is not None:
        tables.append(_parts_table(model.parts, model.kind))
        if len(model.parts) > MOST_PARTS:
            notes.append(f"{len(model.parts) - MOST_PARTS} smaller parts are in the JSON only.")
    return Finding("model", "Model", [text], tables, notes, values={"score": model.score})


def _parts_table(parts: Sequence[ScorePart], kind: str) -> Table:
    largest = sorted(parts, key=lambda part: -abs(part.score))[:MOST_PARTS]
    total = sum(part.score for part in parts)
    if kind == "sparse":
        rows = [
            [part.name, f"{part.score:.4f}", cell(part.query, ".4f"), cell(part.document, ".4f")]
            for part in largest
        ]
        return Table(["term", "product", "query weight", "document weight"], rows)
    rows = [
        [
            part.name,
            f"{part.score:.4f}",
            f"{part.score / total:.1%}" if total else "-",
            cell(part.count, "d"),
        ]
        for part in largest
    ]
    return Table(["part", "score", "share", "in query"], rows)


def _tokens_table(tokens: TokenMatch) -> Table:
    rows = [
        [name, tokens.document[at], f"{value:.4f}"]
        for name, at, value in zip(tokens.query, tokens.best, tokens.largest, strict=True)
    ]
    return Table(["query token", "most similar document token", "similarity"], rows)


def _runs_finding(runs: Sequence[RunScore]) -> Finding:
    columns = {
        "run": [run.run for run in runs],
        "rank": [_rank(run) for run in runs],
        "score": [cell(run.score, ".4f") for run in runs],
        "kind": [run.kind for run in runs],
    }
    if any(run.passage is not None for run in runs):
        columns["passage"] = [cell(run.passage, "d") for run in runs]
    if any(run.flag for run in runs):
        columns["flag"] = [run.flag or "-" for run in runs]
    table = Table([*columns], [list(row) for row in zip(*columns.values(), strict=True)])
    return Finding("runs", "Teachers and other runs", tables=[table])


def _rank(run: RunScore) -> str:
    if run.documents is None:
        return "query not in run"
    if run.rank is not None:
        return f"{run.rank} of {run.documents}"
    return f"not in {run.documents}" if run.flag is None else "-"
