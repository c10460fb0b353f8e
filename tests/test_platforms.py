"""The package uses no POSIX-only module, and its locks and reads work without one."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from irdistill.errors import LockedError
from irdistill.storage.checksums import CheckedFile, file_entry
from irdistill.storage.locking import lock_folder, wait_for_lock

REPOSITORY = Path(__file__).resolve().parents[1]
POSIX_ONLY = {"fcntl", "resource", "pwd", "grp", "termios", "pty", "posix"}

LOCK_AND_SLEEP = """
import sys, time
from irdistill.storage.locking import lock_folder
with lock_folder(sys.argv[1]):
    print("locked", flush=True)
    time.sleep(60)
"""


def test_no_module_imports_posix_only_modules() -> None:
    places = []
    for path in sorted((REPOSITORY / "irdistill").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = (
                [alias.name for alias in node.names]
                if isinstance(node, ast.Import)
                else [node.module or ""]
                if isinstance(node, ast.ImportFrom)
                else []
            )
            places += [f"{path}: {name}" for name in names if name in POSIX_ONLY]
    assert places == []


def test_lock_of_a_folder_is_exclusive_and_released_by_a_kill(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    child = subprocess.Popen(
        [sys.executable, "-c", LOCK_AND_SLEEP, str(tmp_path)],
        stdout=subprocess.PIPE,
        env=environment,
    )
    assert child.stdout is not None and child.stdout.readline() == b"locked\n"
    with pytest.raises(LockedError, match="is being written by another process"):
        lock_folder(tmp_path).__enter__()
    killer = threading.Timer(0.3, child.kill)
    killer.start()
    with lock_folder(tmp_path, wait=True):  # entered when the child is dead
        assert child.wait(timeout=10) != 0
    killer.join()
    child.stdout.close()
    with lock_folder(tmp_path):
        pass
    with wait_for_lock(tmp_path / "x.lock"):
        pass


def test_blocks_are_read_without_pread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "pread")
    path = tmp_path / "numbers"
    np.arange(100_000).tofile(path)
    checked = CheckedFile(path, file_entry(path))
    checked.check_all()
    assert checked.whole


def test_folders_are_not_synced_on_windows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from irdistill.storage import files

    monkeypatch.setattr(files.os, "name", "nt")
    files.fsync_folder(tmp_path / "absent")  # os.open would raise
