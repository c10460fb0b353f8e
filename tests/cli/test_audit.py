"""``irdistill audit`` from the command line: page, HTML and JSON of one run file against
another.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from irdistill.cli.entry_point import main


def test_page_html_and_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Eight queries; the teacher has the relevant document first, the first stage has it third:
    nDCG@10 1 against 0.5.
    """
    monkeypatch.setenv("IRDISTILL_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "set"
    (folder / "qrels").mkdir(parents=True)
    docs = [json.dumps({"_id": f"d{n}", "title": "", "text": f"text {n}"}) for n in range(4)]
    (folder / "corpus.jsonl").write_text("\n".join(docs) + "\n")
    (folder / "queries.jsonl").write_text(
        "".join(json.dumps({"_id": f"q{n}", "text": f"query {n}"}) + "\n" for n in range(8))
    )
    judged = [f"q{n}\td0\t1\nq{n}\td1\t0\n" for n in range(8)]
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(judged))
    for name, order in (("teacher.trec", (0, 1, 2, 3)), ("first.trec", (2, 1, 0, 3))):
        (tmp_path / name).write_text(
            "".join(
                f"q{n} Q0 d{doc} {place + 1} {9.5 - place * (1 + n / 10)} {name}\n"
                for n in range(8)
                for place, doc in enumerate(order)
            )
        )
    with pytest.raises(SystemExit) as stop:
        main(
            [
                "audit",
                "set",
                "teacher.trec",
                "--first-stage",
                "first.trec",
                "--html",
                "a/audit.html",
                "--json",
                "a/audit.json",
            ]
        )
    assert not stop.value.code
    page, html = capsys.readouterr().out, (tmp_path / "a" / "audit.html").read_text()
    data = json.loads((tmp_path / "a" / "audit.json").read_text())
    assert (data["teachers"][0]["value"], data["teachers"][0]["first_stage"]) == (
        1.0,
        pytest.approx(0.5),
    )
    assert data["teachers"][0]["ruling"]["decision"] == "learn" and data["relevant_from"] == 1
    assert data["teachers"][0]["verdict"] in page and "Learn from it" in html
    for title in (
        "Quality",
        "Scores",
        "Margins and temperatures",
        "Suspects",
        "Length and position",
    ):
        assert title in page and f">{title}</h2>" in html
    assert html.count("<svg") == 4 and "<script" not in html
