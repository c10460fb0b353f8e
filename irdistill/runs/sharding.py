"""Joining the shards of a run."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa

from irdistill.console.progress_bars import progress
from irdistill.errors import DamagedError, InputError, OutputExistsError, SettingsDifferError
from irdistill.runs.journal import Journal
from irdistill.runs.manifest import MANIFEST, QUERIES, Manifest, PartEntry
from irdistill.runs.part_files import write_encoded
from irdistill.runs.run_ownership import check_out, clear
from irdistill.runs.store import StoredRun, check_sizes, is_whole
from irdistill.storage.files import differences, make_folder
from irdistill.storage.locking import lock_folder


def merge(paths: Sequence[str | Path], out: str | Path, overwrite: bool = False) -> StoredRun:
    """Join shards into the run that one process would have written, byte for byte.

    Every part is compared with its checksum while it is copied. A merge that was interrupted is
    resumed. A finished one is checked, and repaired if a part is missing or damaged.

    Args:
        paths: the folders of all shards.
        out: the folder of the run.
        overwrite: replace another run in ``out``.
    """
    folders, target = [Path(path) for path in paths], Path(out)
    manifests = _read_manifests(folders)
    sources = _sources(folders, manifests)
    usages = {
        number: usage
        for folder in folders
        for number, (_, usage) in Journal(folder).read(repair=False).items()
    }
    whole = replace(manifests[0], shard=None, complete=False, parts=(), usage={})
    finished = whole.completed(
        {number: (part, usages.get(number, {})) for number, (_, part) in sources.items()}
    )
    check_out(target, overwrite, folders)
    make_folder(target)
    with lock_folder(target):
        check_out(target, overwrite, folders)
        if overwrite:
            clear(target)
        if (target / MANIFEST).is_file():
            _check_same(target, whole, finished)
        else:
            whole.write(target)
        _copy(target, sources, usages)
        write_encoded(target / QUERIES, pa.py_buffer((folders[0] / QUERIES).read_bytes()))
        if not Manifest.read(target).complete:
            finished.write(target)
    return StoredRun.open(target)


def _read_manifests(folders: Sequence[Path]) -> list[Manifest]:
    """The manifests of finished shards of one run."""
    if not folders:
        raise InputError("no shard was given to merge.")
    manifests = [Manifest.read(folder) for folder in folders]
    for folder, manifest in zip(folders, manifests, strict=True):
        if not manifest.complete:
            raise InputError(
                f"the shard {folder} is not finished; run its command again to resume."
            )
        check_sizes(folder, manifest)
    plans = [manifest.plan() | {"shard": None} for manifest in manifests]
    for folder, plan in zip(folders[1:], plans[1:], strict=True):
        lines = differences(plans[0], plan)
        if lines:
            raise SettingsDifferError(
                f"{folders[0]} and {folder} are not shards of one run. What differs:"
                f" {'; '.join(lines)}."
            )
    StoredRun(folders[0], manifests[0]).query_ids  # noqa: B018 - checks the list of queries
    return manifests


def _sources(
    folders: Sequence[Path], manifests: Sequence[Manifest]
) -> dict[int, tuple[Path, PartEntry]]:
    """Number of each part of the run -> the shard that has it, and its entry."""
    sources: dict[int, tuple[Path, PartEntry]] = {}
    for folder, manifest in zip(folders, manifests, strict=True):
        for part in manifest.parts:
            if part.number in sources:
                raise InputError(
                    f"part {part.number} is in {sources[part.number][0]} and in {folder}; give each"
                    " shard once."
                )
            sources[part.number] = (folder, part)
    count = manifests[0].number_of_parts()
    gaps = sorted(set(range(count)) - set(sources))
    if gaps:
        shards = sorted({manifest.shard for manifest in manifests if manifest.shard})
        raise InputError(
            f"{len(gaps)} of {count} parts are missing, the first is part {gaps[0]}; the shards"
            f" given are {', '.join(f'{i}/{n}' for i, n in shards)}. Give all shards."
        )
    return sources


def _check_same(target: Path, whole: Manifest, finished: Manifest) -> None:
    """Check that a folder holds, or will hold, the result of joining these shards."""
    stored = Manifest.read(target)
    lines = differences(stored.plan(), whole.plan())
    if lines:
        raise SettingsDifferError(
            f"{target} holds another run. What differs: {'; '.join(lines)}. Choose another --out,"
            " or give --overwrite to replace it."
        )
    parts = stored.parts or tuple(entry for entry, _ in Journal(target).read().values())
    expected = {part.number: part for part in finished.parts}
    other = next((part for part in parts if expected[part.number].sha256 != part.sha256), None)
    if other is not None:
        raise OutputExistsError(
            f"{target} holds parts of other shards: {other.name} has the SHA-256 {other.sha256}"
            f" there, and {expected[other.number].sha256} in the shards given. Give the shards that"
            " it was begun with, choose another --out, or give --overwrite to replace it."
        )


def _copy(
    target: Path,
    sources: Mapping[int, tuple[Path, PartEntry]],
    usages: Mapping[int, Mapping[str, float]],
) -> None:
    """Copy the parts that are missing or damaged, each compared with its checksum."""
    journal = Journal(target)
    recorded = journal.read()
    with progress(len(sources), "parts", "merge") as bar:
        for number in sorted(sources):
            folder, part = sources[number]
            if not is_whole(target / part.name, part):
                data = pa.py_buffer((folder / part.name).read_bytes())
                checksum = hashlib.sha256(memoryview(data)).hexdigest()
                if checksum != part.sha256:
                    raise DamagedError(
                        folder / part.name,
                        f"is damaged: its SHA-256 is {checksum}, the manifest says {part.sha256}",
                        "Write that shard again.",
                    )
                write_encoded(target / part.name, data)
            if number not in recorded:
                journal.append(part, usages.get(number, {}), {"from": str(folder)})
            bar.update()
