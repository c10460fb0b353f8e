"""Verdicts follow the nDCG; the page, the HTML and the JSON say the same, and only what is true."""

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
from tests.evaluation.audit.made import made_collection, made_run, noisy


def teachers(held: Collection) -> dict[str, MemoryRun]:
    good = noisy(held, 8.0, 1)
    return {
        "good": made_run(held, good),
        "squashed": made_run(
            held, {query: 1 / (1 + np.exp(-(3 * values - 9))) for query, values in good.items()}
        ),
        "same": made_run(held, noisy(held, 2.0, 5)),
        "random": made_run(held, noisy(held, 0.0, 9)),
    }


def test_verdicts_follow_the_ndcg() -> None:
    held = made_collection()
    first = made_run(held, noisy(held, 2.0, 5))
    again = made_run(held, noisy(held, 2.0, 6))
    found = {
        one.teacher: one for one in audit(held, {**teachers(held), "again": again}, first).teachers
    }
    assert {name: one.ruling.decision for name, one in found.items()} == {
        "good": "learn",
        "squashed": "repair",
        "same": "no",
        "random": "no",
        "again": "no evidence",
    }
    figures = {name: one.summary() for name, one in found.items()}
    good = found["good"]
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
    squashed = found["squashed"]
    assert (
        figures["squashed"]["value"] == figures["good"]["value"]
        and "sigmoid" in squashed.ruling.words
        and squashed.ruling.loss is None
    )
    assert (
        figures["random"]["gain"] is not None
        and figures["random"]["gain"] < 0
        and "below the first stage" in found["random"].ruling.words
    )
    assert "exactly as the first stage" in found["same"].ruling.words
    assert (
        "60 queries" in found["again"].ruling.words
        and "four times in five" in found["again"].ruling.words
    )


def test_the_correction_can_take_a_verdict_back() -> None:
    """p of about 0.03 alone is evidence; as one of three teachers it is none."""
    held = made_collection(queries=40)
    first = made_run(held, noisy(held, 1.0, 5))
    run = made_run(held, noisy(held, 1.4, 20))
    alone = audit(held, {"t": run}, first).teachers[0]
    p = alone.summary()["p"]
    assert 0.02 < p < 0.045 and alone.summary()["gain"] > 0
    assert alone.ruling.decision == "learn" and alone.p_holm == p
    others = {f"r{seed}": made_run(held, noisy(held, 1.0, seed)) for seed in (300, 301, 302)}
    together = audit(held, {"t": run, **others}, first).teachers[0]
    assert together.summary()["p"] == p and together.p_holm is not None and together.p_holm > 0.05
    assert together.ruling.decision == "no evidence"


def test_without_judgments_or_first_stage_nothing_is_claimed() -> None:
    held, unjudged = made_collection(), made_collection(judged=False)
    assert (
        audit(held, {"t": made_run(held, noisy(held, 8, 1))}).teachers[0].ruling.decision
        == "cannot tell"
    )
    found = audit(
        unjudged,
        {"t": made_run(unjudged, noisy(unjudged, 8, 1))},
        made_run(unjudged, noisy(unjudged, 0, 2)),
    )
    one = found.teachers[0]
    assert (
        one.ruling.decision == "cannot tell"
        and one.summary()["value"] is None
        and "nothing is judged" in one.line
    )
    assert (
        "Suspected" not in found.to_markdown()
        and "nothing is known of the quality" in found.to_markdown()
    )


def test_few_queries_are_said_to_be_few() -> None:
    held = made_collection(queries=12)
    found = audit(
        held, {"t": made_run(held, noisy(held, 1.2, 6))}, made_run(held, noisy(held, 1.0, 5))
    ).teachers[0]
    assert found.ruling.decision == "no evidence" and "With only 12 queries" in found.ruling.words


def test_a_better_teacher_without_most_scores_must_be_repaired() -> None:
    held = made_collection()
    scores = {
        query: np.where(np.arange(20) < 8, values, np.nan)
        for query, values in noisy(held, 8, 1).items()
    }
    flags = {query: [None] * 8 + ["omitted"] * 12 for query in scores}
    found = audit(
        held, {"t": made_run(held, scores, flags=flags)}, made_run(held, noisy(held, 0, 5))
    ).teachers[0]
    assert found.distribution.unscored == 60 * 12 and found.distribution.flags == {"omitted": 720}
    assert (
        found.ruling.decision == "repair"
        and "720 of 1200 documents have no score" in found.ruling.words
    )


def test_unjudged_tops_are_held_in_favour_of_the_teacher() -> None:
    """The first stage puts the judged documents on top, the teacher strange ones: its figure may be
    too low, and that is said.
    """
    held = made_collection(queries=60, depth=30)
    qrels = {query: {f"{query}-d{d}": int(d < 2) for d in range(10)} for query in held.queries}
    holes = Collection.from_dicts(
        "holes",
        {doc.id: doc.text for doc in held.corpus.documents()},
        {query.id: query.text for query in held.queries.values()},
        qrels,
    )
    first = {query: -np.arange(30.0) for query in holes.queries}
    mine = {
        query: np.where(np.arange(30) < 10, -np.arange(30.0), 40.0 - np.arange(30.0))
        for query in holes.queries
    }
    found = audit(holes, {"t": made_run(holes, mine)}, made_run(holes, first)).teachers[0]
    assert found.ruling.decision == "no"
    assert "Only 0% of its first ten are judged, of the first stage's 100%" in found.ruling.words
    assert found.suspects.above == 60 * 20 and found.suspects.queries_above == 60


def test_scored_nothing_and_constant() -> None:
    held = made_collection(queries=3)
    nothing = made_run(held, {query: np.full(20, np.nan) for query in held.queries})
    flat = made_run(held, {query: np.ones(20) for query in held.queries})
    found = audit(held, {"nothing": nothing, "flat": flat}, made_run(held, noisy(held, 1, 2)))
    assert [one.ruling.decision for one in found.teachers] == ["no", "no"]
    assert found.teachers[0].ruling.words == "Do not learn from it: it scored nothing."
    assert "all scores of a list are equal" in found.teachers[1].ruling.words
    json.dumps(found.to_json(), allow_nan=False)
    found.to_markdown()
    found.to_html()


def test_a_sample_is_drawn_the_same_way_and_stated() -> None:
    held = made_collection(queries=50)
    run = made_run(held, noisy(held, 3, 1))
    found, again = (audit(held, {"t": run}, options=AuditOptions(sample=10)) for _ in range(2))
    assert found.to_json() == again.to_json()
    assert (found.sampled, found.population, found.teachers[0].distribution.queries) == (10, 50, 10)
    assert "10 drawn at random of 50 queries" in found.to_markdown()
    with pytest.raises(IrdistillError, match="at least 1"):
        AuditOptions(sample=0)


def test_queries_that_no_teacher_holds_are_counted() -> None:
    held = made_collection(queries=5)
    scores = noisy(held, 3, 1)
    found = audit(held, {"t": made_run(held, {query: scores[query] for query in ("q0", "q3")})})
    assert (found.population, found.unheld) == (2, 3)
    assert "3 judged queries of the collection are in no run" in found.to_markdown()


def test_the_student_is_compared_and_fitted(monkeypatch: pytest.MonkeyPatch) -> None:
    from irdistill.evaluation.auditing import auditor
    from irdistill.evaluation.auditing.matching import StudentScores

    held = made_collection(queries=30)
    monkeypatch.setattr(
        auditor,
        "score_with_student",
        lambda collection, lists, model, *_: StudentScores(
            model,
            "cosine",
            {
                query: found._replace(scores=found.scores * 0.02)
                for query, found in lists["good"].items()
            },
        ),
    )
    found = audit(
        held,
        {"good": made_run(held, noisy(held, 8, 1))},
        made_run(held, noisy(held, 0, 2)),
        options=AuditOptions(student="mini"),
    )
    assert (
        found.agreements[0].right == "the untrained student mini" and found.agreements[0].tau == 1.0
    )
    one = found.teachers[0]
    assert one.matching.tau == pytest.approx(0.02 * (one.matching.teacher_tau or 0), rel=0.06)
    assert f"tau={one.matching.tau:g}" in (one.ruling.loss or "")
    assert "With tau=" in found.to_markdown()
    assert (
        one.ruling.decision == "learn"
        and "the untrained student mini orders the documents almost so already" in one.ruling.words
    )


def test_a_teacher_that_keeps_to_the_first_stage_is_told() -> None:
    """Relevance is independent of the first stage's order, so all correlation with that order is
    the teacher's own.
    """
    held = made_collection()
    random = np.random.default_rng(4)
    order = {query: random.permutation(20).astype(float) for query in held.queries}
    labels = noisy(held, 3, 5)
    keeps = {query: order[query] + labels[query] for query in order}
    found = audit(
        held,
        {"keeps": made_run(held, keeps), "free": made_run(held, labels)},
        made_run(held, order),
    )
    told = {
        one.teacher: "keeps to the first stage's order more than the judgments do"
        in one.ruling.words
        for one in found.teachers
    }
    assert told == {"keeps": True, "free": False}


def test_the_grade_from_which_a_document_is_relevant() -> None:
    """d0 has grade 1 and d1 grade 2; the teacher has d0, an unjudged document, and d1 in this
    order.
    """
    held = Collection.from_dicts(
        "g",
        {f"d{place}": "text" for place in range(4)},
        {"q": "question"},
        {"q": {"d0": 1, "d1": 2}},
    )
    run = made_run(held, {})
    run = MemoryRun(
        run.identity,
        [RankedList("q", ["d0", "d2", "d1", "d3"], np.array([4, 3, 2, 1], np.float32), None)],
    )
    any_grade, high = (
        audit(held, {"t": run}, options=AuditOptions(relevant_from=grade)).teachers[0]
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
        in audit(held, {"t": run}, options=AuditOptions(relevant_from=2)).to_markdown()
    )
    with pytest.raises(IrdistillError, match="relevant_from=0"):
        AuditOptions(relevant_from=0)


class Elements(HTMLParser):
    """Tags, and all attributes that load or lead somewhere."""

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


def test_html_is_escaped_and_needs_nothing(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script> & <img src=x onerror=alert(2)>"
    docs = {f"d{place}": f"{evil} {place}" for place in range(12)}
    held = Collection.from_dicts(
        "a <b>", docs, {"q<i>": f"query {evil}"}, {"q<i>": {"d5": 1, "d11": 1}}
    )
    scores = np.arange(12, 0, -1, dtype=np.float32) + np.arange(12, dtype=np.float32) ** 2 / 100
    run = MemoryRun(
        RunIdentity("teacher", {}, held.describe()), [RankedList("q<i>", list(docs), scores)]
    )
    other = MemoryRun(
        RunIdentity("teacher", {}, held.describe()), [RankedList("q<i>", list(docs), -scores)]
    )
    found = audit(held, {"<u>bad</u>": run, "t$x_2$": other}, other)
    found.write_html(tmp_path / "deep" / "audit.html")
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
    assert parsed.tags.count("svg") == 6
    assert parsed.links and all(link.startswith("#") for link in parsed.links)
    assert len(set(parsed.ids)) == len(parsed.ids)
    assert not re.search(r"https?:|//\w|@import|url\((?!#)", page)
    assert {link[1:] for link in parsed.links} <= set(parsed.ids)
    assert found.to_html() == page


def test_json_has_full_precision(tmp_path: Path) -> None:
    held = made_collection(queries=30)
    found = audit(held, {"t": made_run(held, noisy(held, 2, 1))}, made_run(held, noisy(held, 1, 2)))
    data = json.loads(json.dumps(found.to_json(), allow_nan=False))
    one = data["teachers"][0]
    summary = found.teachers[0].summary()
    assert one["value"] == summary["value"] and one["gain"] == summary["gain"]
    assert one["quality"]["against"]["measures"][0]["difference"]["p"] == summary["p"]
    assert len(repr(one["spread"])) > 10
    assert one["ruling"]["decision"] == found.teachers[0].ruling.decision
    assert len(one["quality"]["against"]["changes"]) == 30


def test_no_teacher_and_another_collection_stop() -> None:
    held, other = made_collection(queries=3), made_collection(queries=4)
    with pytest.raises(IrdistillError, match="no run"):
        audit(held, {})
    with pytest.raises(IrdistillError, match="fingerprints"):
        audit(held, {"t": made_run(other, noisy(other, 1, 1))})
