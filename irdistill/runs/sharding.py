"""Joining the shards of a run."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa

from irdistill.console.progress import progress
from irdistill.errors import IrdistillError
from irdistill.runs import parquet
from irdistill.runs.manifest import MANIFEST, QUERIES, Journal, Manifest, PartEntry
from irdistill.runs.run_files import check_out, clear
from irdistill.runs.store import StoredRun, check_sizes, is_whole
from irdistill.storage.files import differences, make_folder
from irdistill.storage.locking import lock_folder


def merge(paths: Sequence[str | Path], out: str | Path, overwrite: bool = False) -> StoredRun:
    """Join shards into the run that one process would have written, byte for byte.

    Every part is checked against its checksum while it is copied. A merge that was stopped is
    continued, and one that is finished is checked, and repaired where a part is missing or damaged.

    Raises:
        IrdistillError: a shard is not finished or damaged, identities differ, a part is missing or
            comes twice, or ``out`` holds something.
    """
    folders = [Path(path) for path in paths]
    target = Path(out)
    manifests = [Manifest.read(folder) for folder in folders]
    for folder, manifest in zip(folders, manifests, strict=True):
        if not manifest.complete:
            raise IrdistillError(
                f"the shard {folder} is not finished; start its command again, it continues."
            )
        check_sizes(folder, manifest)
    if not folders:
        raise IrdistillError("no shard was given to merge.")
    plans = [
        {key: value for key, value in manifest.plan().items() if key != "shard"}
        for manifest in manifests
    ]
    for folder, plan in zip(folders[1:], plans[1:], strict=True):
        lines = differences(plans[0], plan)
        if lines:
            raise IrdistillError(
                f"{folders[0]} and {folder} are not shards of one run. What differs:"
                f" {'; '.join(lines)}."
            )
    sources: dict[int, tuple[Path, PartEntry]] = {}
    for folder, manifest in zip(folders, manifests, strict=True):
        for part in manifest.parts:
            if part.number in sources:
                raise IrdistillError(
                    f"part {part.number} is in {sources[part.number][0]} and in {folder}; give each"
                    " shard once."
                )
            sources[part.number] = (folder, part)
    gaps = sorted(set(range(manifests[0].number_of_parts())) - set(sources))
    if gaps:
        shards = sorted({manifest.shard for manifest in manifests if manifest.shard})
        raise IrdistillError(
            f"{len(gaps)} of {manifests[0].number_of_parts()} parts are missing, the first is part"
            f" {gaps[0]}; the shards given are {', '.join(f'{i}/{n}' for i, n in shards)}. Give all"
            " shards."
        )
    StoredRun(folders[0], manifests[0]).query_ids  # noqa: B018 - refuses a damaged list of queries
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
        parquet.write(target / QUERIES, pa.py_buffer((folders[0] / QUERIES).read_bytes()))
        if not Manifest.read(target).complete:
            finished.write(target)
    return StoredRun.open(target)


def _check_same(target: Path, whole: Manifest, finished: Manifest) -> None:
    """Refuse a folder that holds, or is about to hold, something else than these shards joined."""
    stored = Manifest.read(target)
    lines = differences(stored.plan(), whole.plan())
    if lines:
        raise IrdistillError(
            f"{target} holds another run. What differs: {'; '.join(lines)}. Choose another --out,"
            " or give --overwrite to replace it."
        )
    parts = stored.parts or tuple(entry for entry, _ in Journal(target).read().values())
    expected = {part.number: part for part in finished.parts}
    other = next((part for part in parts if expected[part.number].sha256 != part.sha256), None)
    if other is not None:
        raise IrdistillError(
            f"{target} holds parts of other shards: {other.name} has the SHA-256 {other.sha256}"
            f" there, and {expected[other.number].sha256} in the shards given. Give the shards that"
            " it was begun with, choose another --out, or give --overwrite to replace it."
        )


def _copy(
    target: Path,
    sources: Mapping[int, tuple[Path, PartEntry]],
    usages: Mapping[int, Mapping[str, float]],
) -> None:
    """Copy the parts that are missing or damaged, each checked against its checksum."""
    journal = Journal(target)
    recorded = journal.read()
    with progress(len(sources), "parts", "merge") as bar:
        for number in sorted(sources):
            folder, part = sources[number]
            if not is_whole(target / part.name, part):
                data = pa.py_buffer((folder / part.name).read_bytes())
                checksum = hashlib.sha256(memoryview(data)).hexdigest()
                if checksum != part.sha256:
                    raise IrdistillError(
                        f"{folder / part.name} is damaged: its SHA-256 is {checksum}, the manifest"
                        f" says {part.sha256}. Write that shard again."
                    )
                parquet.write(target / part.name, data)
            if number not in recorded:
                journal.append(part, usages.get(number, {}), {"from": str(folder)})
            bar.update()
