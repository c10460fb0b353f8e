"""Foreign files are never replaced or deleted, and damaged blocks are detected."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from irdistill.cli.entry_point import cli
from irdistill.errors import DamagedError, IrdistillError
from irdistill.storage import checksums
from irdistill.storage.checksums import (
    CheckedArray,
    CheckedFile,
    check_folders,
    file_entry,
    open_files,
    read_sealed,
    write_sealed,
)
from irdistill.storage.files import atomic_path, staging_path
from irdistill.storage.locking import lock_folder
from irdistill.storage.ownership import (
    check_replaceable,
    claim_folder,
    list_files,
    move_into_place,
    no_file,
    remove_owned_files,
    write_file,
)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("IRDISTILL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_only_unchanged_files_are_replaced(tmp_path: Path) -> None:
    target = tmp_path / "x.txt"
    write_file(target, "one")
    write_file(target, "two")
    assert target.read_text() == "two"
    target.write_text("changed by a user")
    with pytest.raises(IrdistillError, match=r"x.txt holds something that irdistill did not write"):
        write_file(target, "three")
    assert target.read_text() == "changed by a user"
    target.unlink()
    write_file(target, "three")
    (tmp_path / "empty").touch()  # as mktemp makes it
    write_file(tmp_path / "empty", "text")


def test_links_and_folders_are_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "thesis")
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    (tmp_path / "folder").mkdir()
    for name, state in (("link", "is a link"), ("gone", "is a link"), ("folder", "is a folder")):
        with pytest.raises(IrdistillError, match=state):
            write_file(tmp_path / name, "text")
    assert (tmp_path / "thesis").read_text() == "mine" and not (tmp_path / "nowhere").exists()
    check_replaceable("/dev/stdout")


def test_kill_between_record_and_rename_is_harmless(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_file(tmp_path / "x", "one")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("irdistill.storage.files.os.replace", _interrupt)
        write_file(tmp_path / "x", "two")
    assert (tmp_path / "x").read_text() == "one"
    (tmp_path / ".x-irdistill-tmp-999999999").write_text("left by a killed process")
    write_file(tmp_path / "x", "two")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "x"]


def _interrupt(source: object, target: Path) -> None:
    if Path(target).name == "x":
        raise KeyboardInterrupt
    Path(str(source)).rename(target)


def test_commands_refuse_a_foreign_file_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "mine.json").write_text("mine")
    for words in (
        ["doctor"],
        ["evaluate", "no/such/collection", "no-run"],
        ["runs", "stats", "no-run"],
        ["audit", "x", "no-run"],
    ):
        result = CliRunner().invoke(cli, [*words, "--json", str(tmp_path / "mine.json")])
        message = result.output + str(result.exception)
        assert (
            result.exit_code and "mine.json holds something that irdistill did not write" in message
        )
    assert (tmp_path / "mine.json").read_text() == "mine"


def test_only_owned_files_are_deleted_and_links_are_not_followed(tmp_path: Path) -> None:
    folder, elsewhere = tmp_path / "x", tmp_path / "elsewhere"
    for path in (
        folder / "a" / "ours",
        folder / "a" / "b" / "ours",
        folder / "mine",
        elsewhere / "ours",
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("text")
    (folder / "link").symlink_to(elsewhere)
    assert sorted(list_files(folder)) == ["a/b/ours", "a/ours", "link", "mine"]
    remove_owned_files(folder, lambda name: name.endswith("ours"))
    assert (
        sorted(path.name for path in folder.iterdir()) == ["link", "mine"]
        and (elsewhere / "ours").exists()
    )
    remove_owned_files(folder, lambda name: name == "link")
    assert (elsewhere / "ours").exists() and not (folder / "link").is_symlink()


def test_folder_records_its_files(tmp_path: Path) -> None:
    folder = tmp_path / "x"
    claim_folder(folder, ["report.md"], "a report")
    (folder / "report.md").write_text("ours")
    claim_folder(folder, ["report.md", "more.md"], "a report")
    (folder / "new.md").write_text("mine")
    claim_folder(folder, ["report.md"], "a report")
    with pytest.raises(
        IrdistillError,
        match=r"holds new.md, which irdistill did not write there, so a report cannot",
    ):
        claim_folder(folder, ["new.md"], "a report")
    (tmp_path / "y").mkdir()
    (tmp_path / "y" / "report.md").write_text("mine")
    for record in (None, "{}", '{"format": "mine", "files": ["report.md"]}'):
        if record:
            (tmp_path / "y" / ".irdistill.json").write_text(record)
        with pytest.raises(IrdistillError, match="which irdistill did not write there"):
            claim_folder(tmp_path / "y", ["report.md"], "a report")


def test_folder_with_foreign_files_is_not_replaced(tmp_path: Path) -> None:
    staged, final = staging_path(tmp_path / "model"), tmp_path / "model"
    for folder in (staged, final):
        (folder / "part").mkdir(parents=True)
        (folder / "part" / "config.json").write_text("{}")
    with pytest.raises(IrdistillError, match=r"holds part/config.json, which"):
        move_into_place(staged, final, no_file)
    (final / "part" / "config.json").unlink()  # an empty folder is left
    move_into_place(staged, final)
    assert (final / "part" / "config.json").exists() and not staged.exists()


def test_locks_and_temporary_files_of_others_stay(tmp_path: Path) -> None:
    (tmp_path / ".lock").write_text("mine")
    (tmp_path / ".notes.tmp-12").write_text("mine")
    with lock_folder(tmp_path), atomic_path(tmp_path / "x") as temporary:
        temporary.write_text("text")
    assert (tmp_path / ".lock").read_text() == (tmp_path / ".notes.tmp-12").read_text() == "mine"


# -- checksums
# -----------------------------------------------------------------------------------------------


def test_each_block_is_checked_on_its_first_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checksums, "WHOLE_BYTES", 0)
    matrix = np.random.default_rng(1).normal(size=(6000, 32)).astype(np.float32)
    matrix.tofile(tmp_path / "m.bin")
    write_sealed(tmp_path / "manifest.json", {"rows": 6000}, ["m.bin"])
    data = bytearray((tmp_path / "m.bin").read_bytes())
    data[300_000] ^= 1  # in the second block of 256 KiB, row 2343
    (tmp_path / "m.bin").write_bytes(data)
    files = open_files(tmp_path, read_sealed(tmp_path / "manifest.json")["files"])
    array = CheckedArray(files["m.bin"], np.float32, (6000, 32))
    with pytest.raises(DamagedError, match=r"too short for \(6001, 32\) numbers"):
        CheckedArray(files["m.bin"], np.float32, (6001, 32))
    for key in (
        slice(0, 2000),
        5,
        -1,
        np.array([0, 5999, 4100]),
        slice(4200, None),
        (7, 3),
        [1, 2],
    ):
        np.testing.assert_array_equal(array[key], matrix[key])
    for key in (
        2343,
        slice(2000, 2400),
        np.array([0, 2343]),
        np.arange(6000) == 2343,
        slice(None, None, -1),
        (slice(None), 1),
    ):
        with pytest.raises(DamagedError, match="the 262144 bytes from 262144 on have changed"):
            array[key]
    with pytest.raises(DamagedError):
        np.asarray(array)
    result = check_folders(tmp_path)
    assert result.folders == 1 and len(result.damaged) == 1
    with pytest.raises(DamagedError, match="marked as damaged"):
        open_files(tmp_path, read_sealed(tmp_path / "manifest.json")["files"])


def test_manifest_checksum(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 10)
    write_sealed(tmp_path / "manifest.json", {"rows": 10}, ["a"])
    text = (tmp_path / "manifest.json").read_text()
    for changed in (
        text.replace('"rows": 10', '"rows": 11'),
        text.replace('"bytes": 10', '"bytes": 11'),
    ):
        (tmp_path / "manifest.json").write_text(changed)
        with pytest.raises(DamagedError, match="its checksum differs"):
            read_sealed(tmp_path / "manifest.json")


@pytest.mark.parametrize("size", [0, 1, (1 << 18) - 1, 1 << 18, (1 << 18) + 1])
def test_files_of_any_size(size: int, tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"a" * size)
    entry = json.loads(json.dumps(file_entry(path)))
    CheckedFile(path, entry).check_all()
    with open(path, "ab") as stream:
        stream.write(b"b")
    with pytest.raises(DamagedError, match=f"it has {size + 1} bytes, not {size} bytes"):
        CheckedFile(path, entry)


def test_doctor_reads_the_caches(tmp_path: Path, cache: Path) -> None:
    folder = cache / "vectors" / "0123456789abcdef"
    folder.mkdir(parents=True)
    (folder / "a").write_bytes(b"x" * 10)
    write_sealed(folder / "manifest.json", {}, ["a"])
    assert CliRunner().invoke(cli, ["doctor", "--cache"]).exit_code == 0
    (folder / "a").write_bytes(b"x" * 9 + b"y")
    result = CliRunner().invoke(cli, ["doctor", "--cache"])
    assert (
        result.exit_code == 1
        and f"{folder / 'a'} is damaged" in result.output
        and "damaged              1" in result.output
    )
