"""Suite cards: YAML files with a benchmark's datasets, measures, policies and published figures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from irdistill.card_files import find_card
from irdistill.errors import InputError, NotFoundError
from irdistill.evaluation.measure_names import parse_measures
from irdistill.evaluation.ranking_policies import SELF_MATCH
from irdistill.storage.plain_data import check_values, read_yaml

POLICIES = {
    "self_match": SELF_MATCH,
    "duplicates": ("keep", "drop"),
    "queries": ("turn", "rewrite"),
}
TOLERANCE = 0.0005


@dataclass(frozen=True)
class Dataset:
    """One dataset of a suite.

    Attributes:
        name: name within the suite.
        id: id in ir_datasets, or empty.
        folder: folder in BEIR layout within the user's folder of datasets (``NAME#SPLIT``); empty
            if there is an id.
        group: datasets of one group count as one in averages.
        self_match: ``drop`` leaves out a document whose id is the query's.
        duplicates: ``drop`` leaves out a document with the text of a document ranked above it.
        queries: ``turn`` uses the text of the query, the last turn of a conversation; ``rewrite``
            uses its rewrite.
        measures: replace the suite's measures.
        note: a note for readers of the figures.
    """

    name: str
    id: str = ""
    folder: str = ""
    group: str = ""
    self_match: str = "keep"
    duplicates: str = "keep"
    queries: str = "turn"
    measures: tuple[str, ...] = ()
    note: str = ""


@dataclass(frozen=True)
class Published:
    """A published figure and the system to reproduce it with.

    Attributes:
        where: name of a dataset or of an average.
        model: the model, as for ``--model``; empty for a run that comes with the dataset.
        run: file of the run in the dataset's folder.
        rerank: first stage whose first ``k`` documents the model reranks.
        kind: kind of the model, such as ``sparse``; detected from its files if empty.
        tolerance: allowed difference of the reproduced figure.
    """

    where: str
    measure: str
    value: float
    source: str
    model: str = ""
    run: str = ""
    rerank: str = ""
    k: int = 0
    kind: str = ""
    tolerance: float = TOLERANCE

    def command(self, suite: str) -> str:
        """The command that reproduces the figure."""
        kind = f" --kind {self.kind}" if self.kind else ""
        model = f"--model {self.model}{kind}" if self.model else f"--runs {self.run}"
        stage = f" --rerank {self.rerank} --k {self.k}" if self.rerank else ""
        return f"irdistill benchmark {suite} {model}{stage} --datasets {self.where}"


@dataclass(frozen=True)
class Suite:
    """A benchmark.

    Attributes:
        k, rerank_k: documents per query that are retrieved, and that are reranked.
        averages: name -> the datasets and groups whose figures are averaged.
        needs: required disk space.
        source: where the benchmark was published.
    """

    name: str
    datasets: dict[str, Dataset]
    measures: tuple[str, ...]
    k: int = 1000
    rerank_k: int = 100
    averages: dict[str, tuple[str, ...]] = field(default_factory=dict)
    published: tuple[Published, ...] = ()
    needs: str = ""
    source: str = ""
    description: str = ""

    def members(self, name: str) -> list[Dataset]:
        """The datasets of a name: a dataset, a group or an average."""
        if name in self.datasets:
            return [self.datasets[name]]
        if name in self.averages:
            return [dataset for part in self.averages[name] for dataset in self.members(part)]
        members = [dataset for dataset in self.datasets.values() if dataset.group == name and name]
        if not members:
            groups = dict.fromkeys(
                dataset.group for dataset in self.datasets.values() if dataset.group
            )
            raise NotFoundError(
                f"the suite {self.name!r} has no dataset {name!r}. It has"
                f" {', '.join(self.datasets)}"
                f"{'; groups: ' + ', '.join(groups) if groups else ''}"
                f"{'; averages: ' + ', '.join(self.averages) if self.averages else ''}."
            )
        return members


def read_suite(name: str | Path) -> Suite:
    """Read a suite card by name or path."""
    path = find_card("eval", str(name))
    data = read_yaml(path, "suite card")
    return _suite(path.stem, data, str(path))


def _suite(name: str, data: dict[str, Any], place: str) -> Suite:
    policies = {key: data.pop(key) for key in POLICIES if key in data}
    known = {entry.name for entry in fields(Suite)} - {"name"}
    _refuse(place, set(data) - known, known | set(POLICIES))
    if (
        not isinstance(data.get("datasets"), dict)
        or not data["datasets"]
        or not data.get("measures")
    ):
        raise InputError(
            f"the suite card {place} needs datasets, a mapping of names, and measures."
        )
    measures = _measures(data.pop("measures"), place)
    datasets = {
        key: _dataset(key, value, policies, place) for key, value in data.pop("datasets").items()
    }
    averages = data.pop("averages", None) or {}
    if not isinstance(averages, dict) or not all(_is_texts(parts) for parts in averages.values()):
        raise InputError(
            f"the averages of {place} must be a mapping of names to lists of datasets."
        )
    averages = {key: tuple(parts) for key, parts in averages.items()}
    entries = data.pop("published", None) or []
    if not isinstance(entries, list):
        raise InputError(f"published of {place} is {entries!r}; a list of mappings was expected.")
    published = tuple(row for entry in entries for row in _published(entry, place))
    check_values(data, Suite, place)
    for key in ("k", "rerank_k"):
        if data.get(key, 1) < 1:
            raise InputError(f"{place} has {key}: {data[key]}; at least 1 was expected.")
    suite = Suite(name, datasets, measures, averages=averages, published=published, **data)
    for part in [*averages, *(row.where for row in published)]:
        suite.members(part)
    return suite


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(entry, str) for entry in value)


def _measures(value: Any, place: str) -> tuple[str, ...]:
    if not isinstance(value, str) and not _is_texts(value):
        raise InputError(
            f"{place} has measures: {value!r}; a text such as nDCG@10 RR@10, or a list of texts,"
            " was expected."
        )
    return tuple(str(measure) for measure in parse_measures(value))


def _dataset(name: str, entry: Any, policies: Mapping[str, str], place: str) -> Dataset:
    if not isinstance(entry, str | dict | None):
        raise InputError(
            f"the dataset {name!r} of {place} is {entry!r}; an id or a mapping was expected."
        )
    settings: dict[str, Any] = {
        **policies,
        **({"id": entry} if isinstance(entry, str) else entry or {}),
    }
    _refuse(
        f"{place}, dataset {name}", set(settings) - {field.name for field in fields(Dataset)}, set()
    )
    measures = (
        _measures(settings.pop("measures"), f"{place}, dataset {name}")
        if "measures" in settings
        else ()
    )
    check_values(settings, Dataset, f"{place}, dataset {name}")
    if bool(settings.get("id")) == bool(settings.get("folder")):
        raise InputError(
            f"the dataset {name!r} of {place} needs either an id of ir_datasets or a folder."
        )
    for key, allowed in POLICIES.items():
        if settings.get(key, allowed[0]) not in allowed:
            raise InputError(
                f"the dataset {name!r} of {place} has {key}: {settings[key]}; known are"
                f" {', '.join(allowed)}."
            )
    return Dataset(name, measures=measures, **settings)


def _published(entry: Any, place: str) -> Iterator[Published]:
    """One row per figure; ``values`` maps measures to mappings of datasets or averages."""
    if not isinstance(entry, dict) or not isinstance(entry.get("values", {}), dict):
        raise InputError(
            f"a published figure in {place} is {entry!r}; a mapping with a mapping of values was"
            " expected."
        )
    settings = dict(entry)
    values = settings.pop("values", {})
    _refuse(
        f"{place}, published", set(settings) - {field.name for field in fields(Published)}, set()
    )
    check_values(settings, Published, f"{place}, published")
    if not settings.get("source") or bool(settings.get("model")) == bool(settings.get("run")):
        raise InputError(
            f"a published figure in {place} needs a source, and either a model or a run; it has"
            f" {settings}."
        )
    for measure, figures in values.items():
        if not isinstance(figures, dict) or not all(
            isinstance(value, int | float) and abs(value) < 1e9 for value in figures.values()
        ):
            raise InputError(
                f"published values of {measure} in {place} are {figures!r}; a mapping of datasets"
                " to numbers was expected."
            )
        (name,) = _measures([measure], place)
        for where, value in figures.items():
            yield Published(where=where, measure=name, value=float(value), **settings)


def _refuse(place: str, unknown: set[str], known: set[str]) -> None:
    if unknown:
        listed = f" Known: {', '.join(sorted(known))}." if known else ""
        raise InputError(f"{place} has unknown keys: {', '.join(sorted(unknown))}.{listed}")
