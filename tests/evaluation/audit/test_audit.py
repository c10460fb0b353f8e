"""Verdicts, Markdown, HTML and JSON of an audit."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from irdistill import IrdistillError
from irdistill.collections import Collection
from irdistill.evaluation import AuditOptions, audit
from irdistill.runs import MemoryRun, RankedList, RunIdentity
from tests.evaluation.audit.audit_data import noisy, run_of, small_collection


def teachers(loaded: Collection) -> dict[str, MemoryRun]:
    good = noisy(loaded, 8.0, 1)
    return {
        "good": run_of(loaded, good),
        "squashed": run_of(
            loaded, {query: 1 / (1 + np.exp(-(3 * values - 9))) for query, values in good.items()}
        ),
        "same": run_of(loaded, noisy(loaded, 2.0, 5)),
        "random": run_of(loaded, noisy(loaded, 0.0, 9)),
    }


def test_verdicts_follow_the_ndcg() -> None:
    loaded = small_collection()
    first = run_of(loaded, noisy(loaded, 2.0, 5))
    again = run_of(loaded, noisy(loaded, 2.0, 6))
    result = {
        one.teacher: one
        for one in audit(loaded, {**teachers(loaded), "again": again}, first).teachers
    }
    assert {name: one.ruling.decision for name, one in result.items()} == {
        "good": "learn",
        "squashed": "repair",
        "same": "no",
        "random": "no",
        "again": "no evidence",
    }
    figures = {name: one.summary() for name, one in result.items()}
    good = result["good"]
    assert (
        figures["good"]["value"] == 1.0
        and figures["good"]["first_stage"] is not None
        and figures["good"]["gain"] == pytest.approx(1 - figures["good"]["first_stage"])
    )
    assert (
        good.ruling.words.startswith("Learn from it, with KL(tau=")
        and good.ruling.loss in good.ruling.words
    )
    assert "nDCG@10 1.0000 against" in good.ruling.words
    squashed = result["squashed"]
    assert (
        figures["squashed"]["value"] == figures["good"]["value"]
        and "sigmoid" in squashed.ruling.words
        and squashed.ruling.loss is None
    )
    assert (
        figures["random"]["gain"] is not None
        and figures["random"]["gain"] < 0
        and "below the first stage" in result["random"].ruling.words
    )
    assert "exactly as the first stage" in result["same"].ruling.words
    assert (
        "60 queries" in result["again"].ruling.words
        and "four times in five" in result["again"].ruling.words
    )


def test_correction_can_change_a_verdict() -> None:
    """p of about 0.03 is evidence for one teacher, but not for one of four."""
    loaded = small_collection(queries=40)
    first = run_of(loaded, noisy(loaded, 1.0, 5))
    run = run_of(loaded, noisy(loaded, 1.4, 20))
    alone = audit(loaded, {"t": run}, first).teachers[0]
    p = alone.summary()["p"]
    assert 0.02 < p < 0.045 and alone.summary()["gain"] > 0
    assert alone.ruling.decision == "learn" and alone.p_holm == p
    others = {f"r{seed}": run_of(loaded, noisy(loaded, 1.0, seed)) for seed in (300, 301, 302)}
    together = audit(loaded, {"t": run, **others}, first).teachers[0]
    assert together.summary()["p"] == p and together.p_holm is not None and together.p_holm > 0.05
    assert together.ruling.decision == "no evidence"


def test_no_verdict_without_judgments_or_first_stage() -> None:
    loaded, unjudged = small_collection(), small_collection(judged=False)
    assert (
        audit(loaded, {"t": run_of(loaded, noisy(loaded, 8, 1))}).teachers[0].ruling.decision
        == "cannot tell"
    )
    result = audit(
        unjudged,
        {"t": run_of(unjudged, noisy(unjudged, 8, 1))},
        run_of(unjudged, noisy(unjudged, 0, 2)),
    )
    one = result.teachers[0]
    assert (
        one.ruling.decision == "cannot tell"
        and one.summary()["value"] is None
        and "nothing is judged" in one.line
    )
    assert (
        "Suspected" not in result.to_markdown()
        and "nothing is known of the quality" in result.to_markdown()
    )


def test_few_queries_are_mentioned() -> None:
    loaded = small_collection(queries=12)
    result = audit(
        loaded, {"t": run_of(loaded, noisy(loaded, 1.2, 6))}, run_of(loaded, noisy(loaded, 1.0, 5))
    ).teachers[0]
    assert result.ruling.decision == "no evidence" and "With only 12 queries" in result.ruling.words


def test_teacher_without_most_scores_must_be_repaired() -> None:
    loaded = small_collection()
    scores = {
        query: np.where(np.arange(20) < 8, values, np.nan)
        for query, values in noisy(loaded, 8, 1).items()
    }
    flags = {query: [None] * 8 + ["omitted"] * 12 for query in scores}
    result = audit(
        loaded, {"t": run_of(loaded, scores, flags=flags)}, run_of(loaded, noisy(loaded, 0, 5))
    ).teachers[0]
    assert result.distribution.unscored == 60 * 12 and result.distribution.flags == {"omitted": 720}
    assert (
        result.ruling.decision == "repair"
        and "720 of 1200 documents have no score" in result.ruling.words
    )


def test_unjudged_documents_at_the_top_are_a_caution() -> None:
    """The first stage ranks judged documents first, the teacher unjudged ones."""
    loaded = small_collection(queries=60, depth=30)
    qrels = {query: {f"{query}-d{d}": int(d < 2) for d in range(10)} for query in loaded.queries}
    holes = Collection.from_dicts(
        "holes",
        {doc.id: doc.text for doc in loaded.corpus.documents()},
        {query.id: query.text for query in loaded.queries.values()},
        qrels,
    )
    first = {query: -np.arange(30.0) for query in holes.queries}
    mine = {
        query: np.where(np.arange(30) < 10, -np.arange(30.0), 40.0 - np.arange(30.0))
        for query in holes.queries
    }
    result = audit(holes, {"t": run_of(holes, mine)}, run_of(holes, first)).teachers[0]
    assert result.ruling.decision == "no"
    assert "Only 0% of its first ten are judged, of the first stage's 100%" in result.ruling.words
    assert result.suspects.above == 60 * 20 and result.suspects.queries_above == 60


def test_scored_nothing_and_constant() -> None:
    loaded = small_collection(queries=3)
    nothing = run_of(loaded, {query: np.full(20, np.nan) for query in loaded.queries})
    flat = run_of(loaded, {query: np.ones(20) for query in loaded.queries})
    result = audit(loaded, {"nothing": nothing, "flat": flat}, run_of(loaded, noisy(loaded, 1, 2)))
    assert [one.ruling.decision for one in result.teachers] == ["no", "no"]
    assert result.teachers[0].ruling.words == "Do not learn from it: it scored nothing."
    assert "all scores of a list are equal" in result.teachers[1].ruling.words
    json.dumps(result.to_json(), allow_nan=False)
    result.to_markdown()
    result.to_html()


def test_sample_is_reproducible_and_stated() -> None:
    loaded = small_collection(queries=50)
    run = run_of(loaded, noisy(loaded, 3, 1))
    result, again = (audit(loaded, {"t": run}, options=AuditOptions(sample=10)) for _ in range(2))
    assert result.to_json() == again.to_json()
    assert (result.sampled, result.population, result.teachers[0].distribution.queries) == (
        10,
        50,
        10,
    )
    assert "10 drawn at random of 50 queries" in result.to_markdown()
    with pytest.raises(IrdistillError, match="at least 1"):
        AuditOptions(sample=0)


def test_queries_that_no_teacher_has_are_counted() -> None:
    loaded = small_collection(queries=5)
    scores = noisy(loaded, 3, 1)
    result = audit(loaded, {"t": run_of(loaded, {query: scores[query] for query in ("q0", "q3")})})
    assert (result.population, result.unheld) == (2, 3)
    assert "3 judged queries of the collection are in no run" in result.to_markdown()


def test_student_is_compared_and_fitted(monkeypatch: pytest.MonkeyPatch) -> None:
    from irdistill.evaluation.auditing import auditor
    from irdistill.evaluation.auditing.matching import StudentScores

    loaded = small_collection(queries=30)
    monkeypatch.setattr(
        auditor,
        "score_with_student",
        lambda collection, lists, model, *_: StudentScores(
            model,
            "cosine",
            {
                query: result._replace(scores=result.scores * 0.02)
                for query, result in lists["good"].items()
            },
        ),
    )
    result = audit(
        loaded,
        {"good": run_of(loaded, noisy(loaded, 8, 1))},
        run_of(loaded, noisy(loaded, 0, 2)),
        options=AuditOptions(student="mini"),
    )
    assert (
        result.agreements[0].right == "the untrained student mini"
        and result.agreements[0].tau == 1.0
    )
    one = result.teachers[0]
    assert one.matching.tau == pytest.approx(0.02 * (one.matching.teacher_tau or 0), rel=0.06)
    assert f"tau={one.matching.tau:g}" in (one.ruling.loss or "")
    assert "With tau=" in result.to_markdown()
    assert (
        one.ruling.decision == "learn"
        and "the untrained student mini orders the documents almost so already" in one.ruling.words
    )


def test_preference_for_the_first_stage_is_a_caution() -> None:
    """Relevance does not depend on the first stage's order; one teacher's scores do."""
    loaded = small_collection()
    random = np.random.default_rng(4)
    order = {query: random.permutation(20).astype(float) for query in loaded.queries}
    labels = noisy(loaded, 3, 5)
    keeps = {query: order[query] + labels[query] for query in order}
    result = audit(
        loaded,
        {"keeps": run_of(loaded, keeps), "free": run_of(loaded, labels)},
        run_of(loaded, order),
    )
    answers = {
        one.teacher: "keeps to the first stage's order more than the judgments do"
        in one.ruling.words
        for one in result.teachers
    }
    assert answers == {"keeps": True, "free": False}


def test_relevant_from() -> None:
    """The teacher ranks d0 (grade 1), an unjudged document, and d1 (grade 2)."""
    loaded = Collection.from_dicts(
        "g",
        {f"d{place}": "text" for place in range(4)},
        {"q": "question"},
        {"q": {"d0": 1, "d1": 2}},
    )
    run = run_of(loaded, {})
    run = MemoryRun(
        run.identity,
        [RankedList("q", ["d0", "d2", "d1", "d3"], np.array([4, 3, 2, 1], np.float32), None)],
    )
    any_grade, high = (
        audit(loaded, {"t": run}, options=AuditOptions(relevant_from=grade)).teachers[0]
        for grade in (1, 2)
    )
    assert any_grade.quality is not None and any_grade.quality.values["RR@10"] == 1.0
    assert high.quality is not None and high.quality.values["RR(rel=2)@10"] == pytest.approx(1 / 3)
    assert any_grade.quality.values["nDCG@10"] == high.quality.values["nDCG@10"]
    assert (any_grade.suspects.above, high.suspects.above) == (0, 1)
    assert (any_grade.margins.pairs, any_grade.margins.wrong) == (4, 0.25)
    assert (high.margins.pairs, high.margins.wrong) == (3, pytest.approx(2 / 3))
    assert (
        "Documents of grade 2 or above"
        in audit(loaded, {"t": run}, options=AuditOptions(relevant_from=2)).to_markdown()
    )
    with pytest.raises(IrdistillError, match="relevant_from=0"):
        AuditOptions(relevant_from=0)


class Elements(HTMLParser):
    """Collects tags, ids, and attributes that load or link."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [
            value or ""
            for name, value in attrs
            if name in ("src", "href", "xlink:href", "action", "data")
        ]
        self.ids += [value or "" for name, value in attrs if name == "id"]


def test_html_is_escaped_and_loads_nothing(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script> & <img src=x onerror=alert(2)>"
    docs = {f"d{place}": f"{evil} {place}" for place in range(12)}
    loaded = Collection.from_dicts(
        "a <b>", docs, {"q<i>": f"query {evil}"}, {"q<i>": {"d5": 1, "d11": 1}}
    )
    scores = np.arange(12, 0, -1, dtype=np.float32) + np.arange(12, dtype=np.float32) ** 2 / 100
    run = MemoryRun(
        RunIdentity("teacher", {}, loaded.describe()), [RankedList("q<i>", list(docs), scores)]
    )
    other = MemoryRun(
        RunIdentity("teacher", {}, loaded.describe()), [RankedList("q<i>", list(docs), -scores)]
    )
    result = audit(loaded, {"<u>bad</u>": run, "t$x_2$": other}, other)
    result.write_html(tmp_path / "deep" / "audit.html")
    page = (tmp_path / "deep" / "audit.html").read_text()
    parsed = Elements()
    parsed.feed(page)
    assert (
        "script" not in parsed.tags
        and "img" not in parsed.tags
        and "u" not in parsed.tags
        and "i" not in parsed.tags
    )
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert parsed.tags.count("svg") == 8
    assert parsed.links and all(link.startswith("#") for link in parsed.links)
    assert len(set(parsed.ids)) == len(parsed.ids)
    assert not re.search(r"https?:|//\w|@import|url\((?!#)", page)
    assert {link[1:] for link in parsed.links} <= set(parsed.ids)
    assert result.to_html() == page


def test_json_has_full_precision(tmp_path: Path) -> None:
    loaded = small_collection(queries=30)
    result = audit(
        loaded, {"t": run_of(loaded, noisy(loaded, 2, 1))}, run_of(loaded, noisy(loaded, 1, 2))
    )
    data = json.loads(json.dumps(result.to_json(), allow_nan=False))
    one = data["teachers"][0]
    summary = result.teachers[0].summary()
    assert one["value"] == summary["value"] and one["gain"] == summary["gain"]
    assert one["quality"]["against"]["measures"][0]["difference"]["p"] == summary["p"]
    assert len(repr(one["spread"])) > 10
    assert one["ruling"]["decision"] == result.teachers[0].ruling.decision
    assert len(one["quality"]["against"]["changes"]) == 30


def test_no_teacher_or_another_collection_is_an_error() -> None:
    loaded, other = small_collection(queries=3), small_collection(queries=4)
    with pytest.raises(IrdistillError, match="no run"):
        audit(loaded, {})
    with pytest.raises(IrdistillError, match="fingerprints"):
        audit(loaded, {"t": run_of(other, noisy(other, 1, 1))})


def test_an_audit_shows_itself() -> None:
    collection = small_collection(queries=12)
    result = audit(
        collection,
        {"t": run_of(collection, noisy(collection, 8, 1))},
        run_of(collection, noisy(collection, 0, 2)),
    )
    assert repr(result).startswith("# Audit of t on made") and result.lines[0] in repr(result)
    html = result._repr_html_()
    assert html.count("<svg") == 4 and "severity good" in html and "<html" not in html
    (row,) = result.to_rows()
    assert row["value"] == 1.0 and row["verdict"] == result.teachers[0].ruling.words
    assert result.findings()[0].severity == "good"


def test_the_page_begins_with_the_decisions() -> None:
    collection = small_collection(queries=12)
    good = run_of(collection, noisy(collection, 8, 1))
    first = run_of(collection, noisy(collection, 0, 2))
    result = audit(collection, {"good": good, "better": good, "same": first}, first)
    assert result.headline == "Learn from good and better. Do not learn from same."
    page = result.to_html()
    assert page.index(result.headline) < page.index('class="severity')
    unknown = audit(collection, {"good": good})
    assert unknown.headline == "Nothing here tells whether to learn from good."
