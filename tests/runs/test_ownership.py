"""Users' files survive whatever is written beside or over them, and merging runs loses nothing."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from irdistill.errors import IrdistillError
from irdistill.runs import (
    RunWriter,
    compile_run,
    fuse,
    mask,
    merge,
    open_run,
    verify,
)
from irdistill.runs.manifest import MANIFEST, Manifest
from tests.runs.shards import COLLECTION, QUERIES, identity, lists, write, write_shard


def tree(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.endswith(".lock")
    }


FOREIGN = (
    "part-00000.parquet",
    "queries.parquet",
    "journal.jsonl",
    "thesis.tex",
    "compiled/thesis.tex",
    "compiled/x/offsets.npy",
    "representations/thesis.tex",
    "part-00000.snappy.parquet",
    "PART-00000.PARQUET",
    ".hidden",
    "a/b/c.txt",
    "representations/part-00000.bin",
    ".notes.tmp-12",
)


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("name", FOREIGN)
def test_a_folder_with_a_foreign_file_is_refused(
    name: str, overwrite: bool, tmp_path: Path
) -> None:
    path = tmp_path / "x" / name
    path.parent.mkdir(parents=True)
    path.write_text("mine")
    for verb in (
        lambda: write(tmp_path / "x", overwrite=overwrite),
        lambda: merge(
            [write_shard(tmp_path / "1", 1), write_shard(tmp_path / "2", 2)],
            tmp_path / "x",
            overwrite,
        ),
    ):
        with pytest.raises(
            IrdistillError, match=f"holds {name}, which irdistill did not write there"
        ):
            verb()
        assert tree(tmp_path / "x") == {name: b"mine"}


@pytest.mark.parametrize(
    "name",
    [
        "thesis.tex",
        "part-00009.parquet",
        "part-0.parquet",
        "compiled/thesis.tex",
        "representations/thesis.tex",
        "x.snappy.parquet",
        "part-00000.bin",
        "compiled/a/rows.npy",
    ],
)
def test_overwriting_a_run_keeps_what_its_manifest_does_not_name(name: str, tmp_path: Path) -> None:
    run = write(tmp_path / "x")
    compiled = compile_run(run, COLLECTION.corpus).folder
    assert compiled is not None  # earlier versions had it in the run's folder
    shutil.copytree(compiled, tmp_path / "x" / "compiled" / compiled.name)
    (tmp_path / "x" / name).parent.mkdir(exist_ok=True)
    (tmp_path / "x" / name).write_text("mine")
    before = tree(tmp_path / "x")
    with pytest.raises(IrdistillError, match=f"holds {name}, which"):
        write(tmp_path / "x", "b", overwrite=True)
    assert tree(tmp_path / "x") == before
    (tmp_path / "x" / name).unlink()
    shutil.rmtree(tmp_path / "x" / "compiled" / "a", ignore_errors=True)
    assert write(tmp_path / "x", "b", 1.0, overwrite=True).identity.producer == {"model": "b"}
    assert not (tmp_path / "x" / "compiled").exists()
    assert (
        tree(tmp_path / "x").keys()
        == tree(write(tmp_path / "fresh", "b", 1.0).path or tmp_path).keys()
    )


def test_a_foreign_manifest_is_refused(tmp_path: Path) -> None:
    for text in (
        "{}",
        "not JSON",
        '{"format": "mine"}',
        "[]",
        json.dumps({"format": "irdistill-run"}),
    ):
        shutil.rmtree(tmp_path / "x", ignore_errors=True)
        (tmp_path / "x").mkdir()
        (tmp_path / "x" / MANIFEST).write_text(text)
        (tmp_path / "x" / "part-00000.parquet").write_text("mine")
        before = tree(tmp_path / "x")
        for overwrite in (False, True):
            with pytest.raises(IrdistillError):
                write(tmp_path / "x", overwrite=overwrite)
            assert tree(tmp_path / "x") == before


@pytest.mark.parametrize(
    "name", ["../../victim", "/victim", "../victim", "part-00001.parquet", "compiled"]
)
def test_names_in_a_tampered_manifest_are_never_followed(name: str, tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("mine")
    name = str(tmp_path / "victim") if name.startswith("/") else name
    write(tmp_path / "a" / "x")
    path = tmp_path / "a" / "x" / MANIFEST
    data = {key: value for key, value in json.loads(path.read_text()).items() if key != "checksum"}
    data["parts"][0]["name"] = name
    path.write_text(json.dumps(data))
    for use in (
        lambda: write(tmp_path / "a" / "x", "b", overwrite=True),
        lambda: write(tmp_path / "a" / "x"),
        lambda: open_run(tmp_path / "a" / "x"),
        lambda: merge([tmp_path / "a" / "x"], tmp_path / "y"),
    ):
        with pytest.raises(IrdistillError, match=r"manifest.json is damaged: part 0 is"):
            use()
    assert (tmp_path / "victim").read_text() == "mine" and len(
        list((tmp_path / "a" / "x").glob("part-*"))
    ) == 4


@pytest.mark.parametrize("name", ["compiled", "representations", "part-00000.parquet", "thesis"])
def test_links_are_never_followed(name: str, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "thesis.tex").write_text("mine")
    write(tmp_path / "x")
    (tmp_path / "x" / name).unlink(missing_ok=True)
    target = tmp_path / "elsewhere" / ("thesis.tex" if "." in name else "")
    (tmp_path / "x" / name).symlink_to(target)
    try:
        write(tmp_path / "x", "b", overwrite=True)
    except IrdistillError as error:
        assert f"holds {name}, which" in str(error)
    assert (tmp_path / "elsewhere" / "thesis.tex").read_text() == "mine"


def test_a_link_to_a_folder_is_written_through(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "x").symlink_to(tmp_path / "disk")
    write(tmp_path / "x")
    assert len(write(tmp_path / "x", "b", overwrite=True)) == 10 and (tmp_path / "x").is_symlink()


def test_a_part_that_was_changed_is_written_again(tmp_path: Path) -> None:
    right = tree(write(tmp_path / "right").path or tmp_path)
    write(tmp_path / "x")
    part = tmp_path / "x" / "part-00002.parquet"
    data = bytearray(part.read_bytes())
    data[len(data) // 2] ^= 1
    part.write_bytes(data)
    with pytest.raises(
        IrdistillError, match=r"part-00002.parquet is truncated or damaged .its SHA-256"
    ):
        list(open_run(tmp_path / "x"))
    (tmp_path / "x" / "queries.parquet").unlink()
    write(tmp_path / "x")
    assert {name: data for name, data in tree(tmp_path / "x").items() if "journal" not in name} == {
        name: data for name, data in right.items() if "journal" not in name
    }


def test_a_run_is_not_written_over_its_own_input(tmp_path: Path) -> None:
    one, two = write(tmp_path / "one"), write(tmp_path / "two", "b", 1.0)
    before = tree(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path / "one")
    for verb in (
        lambda out: fuse([one, two], out, overwrite=True),
        lambda out: mask(one, COLLECTION, out, ["margin=1"], overwrite=True),
        lambda out: merge([tmp_path / "one"], out, overwrite=True),
    ):
        for out in (tmp_path / "one", tmp_path / "link"):
            with pytest.raises(IrdistillError, match="is an input and cannot be the output too"):
                verb(out)
    assert tree(tmp_path) == before


# -- merge
# ---------------------------------------------------------------------------------------------------


@pytest.fixture
def shards(tmp_path: Path) -> list[Path]:
    return [write_shard(tmp_path / "1", 1), write_shard(tmp_path / "2", 2)]


def test_merging_again_changes_nothing(shards: list[Path], tmp_path: Path) -> None:
    merge(shards, tmp_path / "x")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "x").glob("part-*")}
    content = tree(tmp_path / "x")
    assert (
        merge(shards, tmp_path / "x").fingerprint == merge(shards[::-1], tmp_path / "x").fingerprint
    )
    assert tree(tmp_path / "x") == content and all(
        path.stat().st_mtime_ns == time for path, time in before.items()
    )
    assert open_run(tmp_path / "x").manifest.usage == {"pairs": 10}


@pytest.mark.parametrize("damage", ["missing", "flipped", "truncated", "emptied", "queries"])
@pytest.mark.parametrize("finished", [False, True])
def test_a_merge_with_a_damaged_part_is_repaired(
    damage: str, finished: bool, shards: list[Path], tmp_path: Path
) -> None:
    merge(shards, tmp_path / "x")
    right = tree(tmp_path / "x")
    if not finished:
        manifest = Manifest.read(tmp_path / "x")
        Manifest(
            manifest.identity,
            manifest.queries,
            manifest.queries_digest,
            manifest.part_queries,
            software=manifest.software,
        ).write(tmp_path / "x")
    path = tmp_path / "x" / ("queries.parquet" if damage == "queries" else "part-00001.parquet")
    data = path.read_bytes()
    path.write_bytes(
        {"flipped": bytes([data[0] ^ 1]) + data[1:], "truncated": data[:-5]}.get(damage, b"")
    )
    if damage == "missing":
        path.unlink()
    merge(shards, tmp_path / "x")
    assert tree(tmp_path / "x") == right and verify(tmp_path / "x") == []


def test_merging_into_another_run_keeps_it(shards: list[Path], tmp_path: Path) -> None:
    with RunWriter(tmp_path / "x", identity("other"), QUERIES, 3) as writer:
        writer.write_part(0, lists()[:3])
    before = tree(tmp_path / "x")
    with pytest.raises(
        IrdistillError,
        match=r'holds another run. What differs: producer.model: "other" there, "a" here',
    ):
        merge(shards, tmp_path / "x")
    assert tree(tmp_path / "x") == before
    write(tmp_path / "whole", "other")
    with pytest.raises(IrdistillError, match="holds another run"):
        merge(shards, tmp_path / "whole")
    assert merge(shards, tmp_path / "whole", overwrite=True).identity.producer == {"model": "a"}


@pytest.mark.parametrize("model", ["a", "b"])
def test_a_half_done_merge_is_not_continued_with_other_shards(
    model: str, shards: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied: list[Path] = []
    whole = os.replace

    def stop(source: Path, target: Path) -> None:
        if Path(target).name.startswith("part-"):
            copied.append(target)
            if len(copied) == 3:
                raise KeyboardInterrupt
        whole(source, target)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(os, "replace", stop)
        merge(shards, tmp_path / "x")
    before = tree(tmp_path / "x")
    others = [write_shard(tmp_path / f"other-{number}", number, model, 5.0) for number in (1, 2)]
    with pytest.raises(
        IrdistillError, match="holds parts of other shards" if model == "a" else "holds another run"
    ):
        merge(others, tmp_path / "x")
    assert tree(tmp_path / "x") == before
    merge(shards, tmp_path / "x")
    merge(shards, tmp_path / "fresh")
    assert tree(tmp_path / "x") == tree(tmp_path / "fresh")


def test_a_shard_that_is_damaged_is_named(shards: list[Path], tmp_path: Path) -> None:
    part = shards[1] / "part-00001.parquet"
    data = bytearray(part.read_bytes())
    data[7] ^= 1
    part.write_bytes(data)
    with pytest.raises(IrdistillError, match=r"2/part-00001.parquet is damaged: its SHA-256"):
        merge(shards, tmp_path / "x")
    assert not Manifest.read(tmp_path / "x").complete
