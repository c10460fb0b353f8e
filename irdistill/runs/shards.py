"""Joining the shards of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa

from irdistill.errors import IrdistillError
from irdistill.files import differences, exclusive, make_folder
from irdistill.progress import progress
from irdistill.runs import parquet
from irdistill.runs.manifest import MANIFEST, QUERIES, Journal, Manifest, PartEntry
from irdistill.runs.store import Run, check_sizes
from irdistill.runs.writer import clear


def merge(paths: Sequence[str | Path], out: str | Path, overwrite: bool = False) -> Run:
    """Join shards into the run that one process would have written, byte for byte.

    Every part is checked against its checksum while it is copied.

    Raises:
        IrdistillError: a shard is not finished or damaged, identities differ, a part is missing or comes twice,
            or ``out`` holds something.
    """
    folders = [Path(path) for path in paths]
    target = Path(out)
    manifests = [Manifest.read(folder) for folder in folders]
    for folder, manifest in zip(folders, manifests, strict=True):
        if not manifest.complete:
            raise IrdistillError(f"the shard {folder} is not finished; start its command again, it continues.")
        check_sizes(folder, manifest)
    if not folders:
        raise IrdistillError("no shard was given to merge.")
    plans = [{key: value for key, value in manifest.plan().items() if key != "shard"} for manifest in manifests]
    for folder, plan in zip(folders[1:], plans[1:], strict=True):
        lines = differences(plans[0], plan)
        if lines:
            raise IrdistillError(f"{folders[0]} and {folder} are not shards of one run. What differs: {'; '.join(lines)}.")
    sources: dict[int, tuple[Path, PartEntry]] = {}
    for folder, manifest in zip(folders, manifests, strict=True):
        for part in manifest.parts:
            if part.number in sources:
                raise IrdistillError(
                    f"part {part.number} is in {sources[part.number][0]} and in {folder}; give each shard once."
                )
            sources[part.number] = (folder, part)
    gaps = sorted(set(range(manifests[0].number_of_parts())) - set(sources))
    if gaps:
        shards = sorted({manifest.shard for manifest in manifests if manifest.shard})
        raise IrdistillError(
            f"{len(gaps)} of {manifests[0].number_of_parts()} parts are missing, the first is part {gaps[0]}; the shards "
            f"given are {', '.join(f'{i}/{n}' for i, n in shards)}. Give all shards."
        )
    usages = {number: usage for folder in folders for number, (_, usage) in Journal(folder).read().items()}
    whole = replace(manifests[0], shard=None, complete=False, parts=(), usage={})
    make_folder(target)
    with exclusive(target):
        if overwrite:
            clear(target)
        elif (target / MANIFEST).exists() and Manifest.read(target).complete:
            raise IrdistillError(f"{target} holds a run already; choose another --out or give --overwrite.")
        journal = Journal(target)
        copied = journal.read()
        with progress(len(sources), "parts", "merge") as bar:
            for number in sorted(sources):
                folder, part = sources[number]
                if number not in copied:
                    checksum = parquet.write(target / part.name, pa.py_buffer((folder / part.name).read_bytes()))
                    if checksum != part.sha256:
                        (target / part.name).unlink()
                        raise IrdistillError(
                            f"{folder / part.name} is damaged: its SHA-256 is {checksum}, the manifest says {part.sha256}. "
                            "Write that shard again."
                        )
                    journal.append(part, usages.get(number, {}), {"from": str(folder)})
                bar.update()
        parquet.write(target / QUERIES, pa.py_buffer((folders[0] / QUERIES).read_bytes()))
        finished = whole.completed({number: (part, usages.get(number, {})) for number, (_, part) in sources.items()})
        finished.write(target)
    return Run.open(target)
