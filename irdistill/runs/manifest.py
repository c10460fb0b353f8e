"""What a run's folder says about the run: identity, parts and counts."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from types import NoneType
from typing import Any, Self

from irdistill.errors import DamagedError, InputError, IrdistillError, OptionError
from irdistill.storage.checksums import CHECKSUM, verify_manifest
from irdistill.storage.files import digest, read_json, write_json

FORMAT = "irdistill-run"
VERSION = 1
KINDS = ("first-stage", "teacher", "student", "fused", "imported")
MANIFEST, JOURNAL, QUERIES = "manifest.json", "journal.jsonl", "queries.parquet"

_SHA256 = re.compile("[0-9a-f]{64}")
_MANIFEST_TYPES: Mapping[str, Any] = {
    **dict.fromkeys(("kind", "queries_digest"), str),
    **dict.fromkeys(("producer", "collection", "settings", "usage", "software"), dict),
    **dict.fromkeys(("queries", "part_queries"), int),
    **{"candidates": (str, NoneType), "shard": (list, NoneType), "complete": bool, "parts": list},
}
_ADVICE = "Restore it, or write the run again."


def _check_types(data: Mapping[str, Any], types: Mapping[str, Any], where: str = "") -> None:
    for key, kind in types.items():
        value = data[key]
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise TypeError(f"{where}{key} is {value!r:.80}")


@dataclass(frozen=True)
class RunIdentity:
    """What decides every number of a run: two runs with one identity hold the same rows.

    Attributes:
        kind: ``first-stage``, ``teacher``, ``student``, ``fused`` or ``imported``.
        producer: what computed the scores (model, revision, lengths, precision), as JSON values.
        collection: ``Collection.describe()``: the id and the fingerprints of corpus and queries.
        candidates: the fingerprint of the run whose documents were scored.
        settings: other settings of the verb, such as ``k``.
    """

    kind: str
    producer: dict[str, Any]
    collection: dict[str, Any]
    candidates: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise OptionError(
                f"the kind of a run is {self.kind!r}; one of {', '.join(KINDS)} was expected."
            )
        for name in ("producer", "collection", "settings"):
            try:
                plain = json.loads(json.dumps(getattr(self, name), allow_nan=False))
            except (TypeError, ValueError) as error:
                raise InputError(f"the {name} of a run's identity is not JSON: {error}.") from error
            object.__setattr__(self, name, plain)


_TYPES: Mapping[Any, type] = {"int": int, "str": str}


@dataclass(frozen=True)
class PartEntry:
    """One part file: queries ``first`` to ``first + queries - 1`` of the run."""

    number: int
    name: str
    first: int
    queries: int
    rows: int
    nulls: int
    bytes: int
    sha256: str

    @classmethod
    def read(cls, data: Any) -> Self:
        """Read an entry of a manifest or journal."""
        if not isinstance(data, dict):
            raise TypeError(f"a part is {data!r:.80}; an object was expected")
        _check_types(data, {entry.name: _TYPES[entry.type] for entry in fields(cls)}, "of a part, ")
        entry = cls(**data)
        if (
            min(entry.first, entry.queries, entry.rows, entry.nulls, entry.bytes) < 0
            or entry.nulls > entry.rows
        ):
            raise ValueError(f"the counts of {entry.name} cannot be right")
        if not _SHA256.fullmatch(entry.sha256):
            raise ValueError(
                f"the checksum of {entry.name} is {entry.sha256!r:.80}; 64 hexadecimal digits were"
                " expected"
            )
        return entry


@dataclass(frozen=True)
class Manifest:
    """``manifest.json``: the same bytes however often the job was interrupted.

    Wall times are in the journal.

    Attributes:
        identity: what decides the numbers.
        queries: number of queries, over all shards; ``queries.parquet`` has their ids in order.
        queries_digest: a fingerprint of those ids.
        part_queries: queries per part.
        shard: (i, n) if the folder holds every n-th part from the i-th (from 1); else None.
        complete: whether all parts (of this shard) are present.
        parts: in order.
        usage: sums over the parts of what the producer counted (pairs, tokens, cost).
        software: versions that wrote the run.
    """

    identity: RunIdentity
    queries: int
    queries_digest: str
    part_queries: int
    shard: tuple[int, int] | None = None
    complete: bool = False
    parts: tuple[PartEntry, ...] = ()
    usage: Mapping[str, float] = field(default_factory=dict)
    software: Mapping[str, str] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """Rows over all parts."""
        return sum(part.rows for part in self.parts)

    @property
    def nulls(self) -> int:
        """Rows without a score."""
        return sum(part.nulls for part in self.parts)

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits over the identity and the checksums of the parts."""
        return digest(
            [asdict(self.identity), self.queries_digest, [part.sha256 for part in self.parts]]
        )

    def number_of_parts(self) -> int:
        """Number of parts of the whole run, over all shards."""
        return -(-self.queries // self.part_queries)

    def __contains__(self, number: int) -> bool:
        """Whether the part of a number belongs in this folder."""
        step, first = (self.shard[1], self.shard[0] - 1) if self.shard else (1, 0)
        return 0 <= number < self.number_of_parts() and number % step == first

    def part_numbers(self) -> list[int]:
        """The numbers of the parts that belong in this folder."""
        step, first = (self.shard[1], self.shard[0] - 1) if self.shard else (1, 0)
        return list(range(first, self.number_of_parts(), step))

    def plan(self) -> dict[str, Any]:
        """What must agree so that a folder can be resumed."""
        return {
            **asdict(self.identity),
            "queries": self.queries,
            "queries_digest": self.queries_digest,
            "part_queries": self.part_queries,
            "shard": list(self.shard) if self.shard else None,
        }

    def to_json(self) -> dict[str, Any]:
        """The content of the file."""
        content = {
            "format": FORMAT,
            "version": VERSION,
            "complete": self.complete,
            **self.plan(),
            "rows": self.rows,
            "nulls": self.nulls,
            "usage": dict(self.usage),
            "software": dict(self.software),
            "parts": [asdict(part) for part in self.parts],
        }
        return content | {CHECKSUM: digest(content)}

    def write(self, folder: Path) -> None:
        """Write the file, atomically."""
        write_json(folder / MANIFEST, self.to_json())

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read a folder's manifest."""
        path = folder / MANIFEST
        if not path.is_file():
            raise InputError(
                f"{folder} is not a run: it has no {MANIFEST}. Give a run's folder or a TREC run"
                " file."
            )
        data = read_json(path)
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise InputError(f"{path} is not the manifest of a run: its format is not {FORMAT!r}.")
        if data.get("version") != VERSION:
            raise InputError(
                f"{path} has format version {data.get('version')}, and this irdistill reads version"
                f" {VERSION}; upgrade irdistill."
            )
        try:
            _check_types(data, _MANIFEST_TYPES)
            identity = {entry.name: data[entry.name] for entry in fields(RunIdentity)}
            manifest = cls(
                RunIdentity(**identity),
                data["queries"],
                data["queries_digest"],
                data["part_queries"],
                tuple(data["shard"]) if data["shard"] else None,
                data["complete"],
                tuple(PartEntry.read(part) for part in data["parts"]),
                data["usage"],
                data["software"],
            )
            manifest._check()
        except (KeyError, TypeError, ValueError, IrdistillError) as error:
            problem = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
            raise DamagedError(path, f"is damaged: {problem.rstrip('.')}", _ADVICE) from error
        verify_manifest(path, data, "Restore it, or write the run again in another folder.")
        return manifest

    def _check(self) -> None:
        """Check that counts and parts fit together."""
        if self.queries < 0 or self.part_queries < 1:
            raise ValueError(f"queries is {self.queries} and part_queries {self.part_queries}")
        if self.shard and not (
            len(self.shard) == 2
            and all(type(value) is int for value in self.shard)
            and 1 <= self.shard[0] <= self.shard[1]
        ):
            raise ValueError(
                f"shard is {list(self.shard)}; two numbers i and n with 1 <= i <= n were expected"
            )
        for key, value in self.usage.items():
            if type(value) not in (int, float) or not math.isfinite(value):
                raise ValueError(f"usage.{key} is {value!r}; a number was expected")
        numbers = [part.number for part in self.parts]
        # Numbers are compared first: a manifest that claims 10**18 queries must not allocate a list
        # of their parts.
        if self.complete and (
            self.number_of_parts() > (len(numbers) + 1) * (self.shard[1] if self.shard else 1)
            or numbers != self.part_numbers()
        ):
            raise ValueError(
                f"it says that the run is complete, and has {len(numbers)} parts for {self.queries}"
                f" queries in parts of {self.part_queries}"
                + (f", shard {self.shard[0]}/{self.shard[1]}" if self.shard else "")
            )
        for part in self.parts:
            first = part.number * self.part_queries
            expected = part_name(part.number), first, min(self.part_queries, self.queries - first)
            if part.number < 0 or (part.name, part.first, part.queries) != expected:
                raise ValueError(
                    f"part {part.number} is {part.name!r} with {part.queries} queries from"
                    f" {part.first}; {expected[0]} with {expected[2]} from {expected[1]} was"
                    " expected"
                )

    def completed(self, entries: Mapping[int, tuple[PartEntry, dict[str, float]]]) -> Manifest:
        """The final manifest, with the parts in order and their usage summed in that order.

        ``x_sum`` over ``x_count`` gives ``x_mean``, and ``x_low_count`` over it ``x_low_share``.
        """
        usage: dict[str, float] = {}
        for number in sorted(entries):
            for key, value in entries[number][1].items():
                usage[key] = usage.get(key, 0) + value
        for name in [key.removesuffix("_count") for key in usage if key.endswith("_count")]:
            count = usage[f"{name}_count"]
            if count and f"{name}_sum" in usage:
                usage[f"{name}_mean"] = usage[f"{name}_sum"] / count
                if f"{name}_low_count" in usage:
                    usage[f"{name}_low_share"] = usage[f"{name}_low_count"] / count
        parts = tuple(entries[number][0] for number in sorted(entries))
        return replace(self, complete=True, parts=parts, usage=dict(sorted(usage.items())))


def part_name(number: int, ending: str = ".parquet") -> str:
    """The file of a part: ``part-00000.parquet``."""
    return f"part-{number:05d}{ending}"
