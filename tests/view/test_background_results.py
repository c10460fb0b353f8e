"""Results that are computed in the background, and the runs of a folder in short."""

from __future__ import annotations

from pathlib import Path

import pytest

from irdistill.view import background_results
from irdistill.view.background_results import BackgroundResults
from irdistill.view.run_summaries import RunSummaries
from irdistill.view.workspace import RUN, Workspace
from tests.view.compared_runs import write_compared_runs


def test_each_result_is_computed_once() -> None:
    results, calls = BackgroundResults(most=2), []

    def compute(name: str) -> str:
        calls.append(name)
        return name * 2

    for name in ("a", "b", "a", "c", "a", "b"):
        assert results.get(name, lambda name=name: compute(name)).result(5) == name * 2
    assert calls == ["a", "b", "c", "b"]  # b was used longest ago when c came


def test_a_failed_result_is_repeated_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    results, answers = BackgroundResults(), [ValueError("first"), "second"]

    def compute() -> str:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    for _ in range(2):
        with pytest.raises(ValueError, match="first"):
            results.get("key", compute).result(5)
    monkeypatch.setattr(background_results, "_RETRY", -1.0)
    assert results.get("key", compute).result(5) == "second"


def test_summaries_leave_out_what_is_damaged(tmp_path: Path) -> None:
    write_compared_runs(tmp_path)
    manifest = tmp_path / "out" / "other" / "manifest.json"
    text = manifest.read_text()
    manifest.write_text(text.replace('"queries": 30', '"queries": 31'))
    summaries, artifacts = RunSummaries(), Workspace([tmp_path]).artifacts(RUN)
    first, student = summaries.of(artifacts)
    assert (first.key, first.kind, first.model) == ("out/first", "first-stage", "first")
    assert (student.queries, student.rows, student.documents_per_query) == (30, 240, "8")
    assert first.corpus_and_queries == student.corpus_and_queries
    manifest.write_text(text)
    assert len(summaries.of(artifacts)) == 3
