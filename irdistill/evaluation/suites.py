"""Suite cards: one YAML file a benchmark, with its datasets, measures, policies and the figures published for it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from irdistill.cards import find_card
from irdistill.errors import IrdistillError
from irdistill.evaluation.measures import parse_measures

POLICIES = {"self_match": ("keep", "drop"), "duplicates": ("keep", "drop"), "queries": ("turn", "rewrite")}
TOLERANCE = 0.0005


@dataclass(frozen=True)
class Dataset:
    """One dataset of a suite.

    Attributes:
        name: as the suite calls it.
        id: of ir_datasets; empty where it has none.
        folder: below the user's folder of datasets, in BEIR layout (``NAME#SPLIT``); empty where ``id`` serves.
        group: datasets of one group count as one in averages.
        self_match: ``drop`` leaves out a document whose id is the query's.
        duplicates: ``drop`` leaves out a document with the text of one ranked above it.
        queries: ``turn`` asks the text of the query, which is the last turn of a conversation; ``rewrite`` its rewrite.
        measures: in place of the suite's.
        note: what a reader of the figures should know.
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
    """A figure that somebody published, and how it is made again.

    Attributes:
        model: what made it, as ``--model`` takes it; empty for a run that comes with the dataset.
        run: of the dataset's folder.
        rerank: the first stage whose documents the model reorders; ``depth`` of them.
        where: the name of a dataset, or of an average.
        kind: how the model is read, as ``sparse``; detected from its files where empty.
        tolerance: how far a figure made again may be off.
    """

    where: str
    measure: str
    value: float
    source: str
    model: str = ""
    run: str = ""
    rerank: str = ""
    depth: int = 0
    kind: str = ""
    tolerance: float = TOLERANCE

    def command(self, suite: str) -> str:
        """The command that makes the figure."""
        kind = f" --kind {self.kind}" if self.kind else ""
        model = f"--model {self.model}{kind}" if self.model else f"--runs {self.run}"
        stage = f" --rerank {self.rerank} --depth {self.depth}" if self.rerank else ""
        return f"irdistill benchmark {suite} {model}{stage} --datasets {self.where}"


@dataclass(frozen=True)
class Suite:
    """A benchmark.

    Attributes:
        depth, rerank_depth: documents a query that are retrieved, and that are reranked.
        averages: name -> the datasets and groups whose figures are averaged.
        needs: what it takes on disk.
        source: where it was published.
    """

    name: str
    datasets: dict[str, Dataset]
    measures: tuple[str, ...]
    depth: int = 1000
    rerank_depth: int = 100
    averages: dict[str, tuple[str, ...]] = field(default_factory=dict)
    published: tuple[Published, ...] = ()
    needs: str = ""
    source: str = ""
    description: str = ""

    def members(self, name: str) -> list[Dataset]:
        """The datasets that a name stands for: one, those of a group, or those of an average.

        Raises:
            IrdistillError: nothing has this name.
        """
        if name in self.datasets:
            return [self.datasets[name]]
        if name in self.averages:
            return [dataset for part in self.averages[name] for dataset in self.members(part)]
        found = [dataset for dataset in self.datasets.values() if dataset.group == name and name]
        if not found:
            groups = dict.fromkeys(dataset.group for dataset in self.datasets.values() if dataset.group)
            raise IrdistillError(
                f"the suite {self.name!r} has no dataset {name!r}. It has {', '.join(self.datasets)}"
                f"{'; groups: ' + ', '.join(groups) if groups else ''}"
                f"{'; averages: ' + ', '.join(self.averages) if self.averages else ''}."
            )
        return found


def read_suite(name: str | Path) -> Suite:
    """Read a suite card by name or path.

    Raises:
        IrdistillError: there is none, it is no YAML mapping, or something in it is unknown or missing.
    """
    path = find_card("eval", str(name))
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise IrdistillError(f"the suite card {path} is not readable as YAML: {error}") from error
    if not isinstance(data, dict):
        raise IrdistillError(f"the suite card {path} holds no mapping; see eval/README.md.")
    return _suite(path.stem, data, str(path))


def _suite(name: str, data: dict[str, Any], place: str) -> Suite:
    policies = {key: data.pop(key) for key in POLICIES if key in data}
    known = {entry.name for entry in fields(Suite)} - {"name"}
    _refuse(place, set(data) - known, known | set(POLICIES))
    if not isinstance(data.get("datasets"), dict) or not data["datasets"] or not data.get("measures"):
        raise IrdistillError(f"the suite card {place} needs datasets, a mapping of names, and measures.")
    measures = _measures(data.pop("measures"))
    datasets = {key: _dataset(str(key), value, policies, place) for key, value in data.pop("datasets").items()}
    averages = {key: tuple(parts) for key, parts in (data.pop("averages", None) or {}).items()}
    published = tuple(row for entry in data.pop("published", None) or () for row in _published(entry, place))
    suite = Suite(name, datasets, measures, averages=averages, published=published, **data)
    for part in [*averages, *(row.where for row in published)]:
        suite.members(part)
    return suite


def _measures(given: str | Sequence[str]) -> tuple[str, ...]:
    return tuple(str(measure) for measure in parse_measures(given))


def _dataset(name: str, given: Any, policies: Mapping[str, str], place: str) -> Dataset:
    settings: dict[str, Any] = {**policies, **({"id": given} if isinstance(given, str) else dict(given or {}))}
    _refuse(f"{place}, dataset {name}", set(settings) - {entry.name for entry in fields(Dataset)}, set())
    if "measures" in settings:
        settings["measures"] = _measures(settings["measures"])
    if bool(settings.get("id")) == bool(settings.get("folder")):
        raise IrdistillError(f"the dataset {name!r} of {place} needs either an id of ir_datasets or a folder.")
    for key, allowed in POLICIES.items():
        if settings.get(key, allowed[0]) not in allowed:
            raise IrdistillError(f"the dataset {name!r} of {place} has {key}: {settings[key]}; known are {', '.join(allowed)}.")
    return Dataset(name, **settings)


def _published(entry: Any, place: str) -> Iterator[Published]:
    """One row for each figure of an entry: ``values`` maps measures to a mapping of datasets or averages."""
    given = dict(entry)
    values = given.pop("values", {})
    _refuse(f"{place}, published", set(given) - {field.name for field in fields(Published)}, set())
    if not given.get("source") or bool(given.get("model")) == bool(given.get("run")):
        raise IrdistillError(f"a published figure in {place} needs a source, and either a model or a run: {given}.")
    for measure, figures in values.items():
        (name,) = _measures([measure])
        for where, value in figures.items():
            yield Published(where=where, measure=name, value=float(value), **given)


def _refuse(place: str, unknown: set[str], known: set[str]) -> None:
    if unknown:
        listed = f" Known: {', '.join(sorted(known))}." if known else ""
        raise IrdistillError(f"{place} has unknown keys: {', '.join(sorted(unknown))}.{listed}")
