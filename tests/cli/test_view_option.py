"""The option ``--view`` of long jobs: a page beside the job, which ends with it."""

from __future__ import annotations

import os
import subprocess
import sys
from http.cookiejar import CookieJar
from pathlib import Path
from urllib.request import HTTPCookieProcessor, build_opener

import pytest

from irdistill.cli.view_companion import page_beside, viewed_folder
from irdistill.errors import MissingExtraError, OptionError
from irdistill.view import view_options

CODE = """
import time, sys
from pathlib import Path
from irdistill.cli.view_companion import page_beside
out = Path(sys.argv[1])
with page_beside("train", {"out": out}):
    while not (out / "go").exists():
        time.sleep(0.01)
"""


def test_the_page_is_served_while_the_job_works(tmp_path: Path) -> None:
    out = tmp_path / "later" / "student"
    job = subprocess.Popen(
        [sys.executable, "-c", CODE, str(out)],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert job.stderr is not None
    line = job.stderr.readline()
    try:
        assert line.startswith("view: http://127.0.0.1:")
        with build_opener(HTTPCookieProcessor(CookieJar())).open(line.split()[1]) as answer:
            assert b"Nothing has been run here yet" in answer.read()
    finally:
        out.mkdir(parents=True)
        (out / "go").touch()
        assert job.wait(30) == 0
        job.stderr.close()


def test_which_folder_is_shown(tmp_path: Path) -> None:
    assert viewed_folder("train", {"out": Path("out/student")}) == Path("out")
    assert viewed_folder("run", {"out": Path("out/mine"), "recipe": "quickstart"}) == Path(
        "out/mine"
    )
    assert viewed_folder("run", {"recipe": "quickstart"}) == Path("out/quickstart")
    with pytest.raises(OptionError, match="give --out"):
        viewed_folder("train", {})


def test_a_missing_extra_is_an_error_before_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(view_options, "find_spec", lambda name: None)
    page = page_beside("train", {"out": Path("out/student")})
    with pytest.raises(MissingExtraError, match="view"), page:
        raise AssertionError("the work began")
