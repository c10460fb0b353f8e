"""Suite cards: one YAML file a benchmark, with its datasets, measures, policies and the figures
published for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from irdistill.card_files import find_card
from irdistill.errors import IrdistillError
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
        name: as the suite calls it.
        id: of ir_datasets; empty where it has none.
        folder: below the user's folder of datasets, in BEIR layout (``NAME#SPLIT``); empty where
            ``id`` serves.
        group: datasets of one group count as one in averages.
        self_match: ``drop`` leaves out a document whose id is the query's.
        duplicates: ``drop`` leaves out a document with the text of one ranked above it.
        queries: ``turn`` asks the text of the query, which is the last turn of a conversation;
            ``rewrite`` its rewrite.
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
        stage = f" --rerank {self.rerank} --k {self.depth}" if self.rerank else ""
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
            groups = dict.fromkeys(
                dataset.group for dataset in self.datasets.values() if dataset.group
            )
            raise IrdistillError(
                f"the suite {self.name!r} has no dataset {name!r}. It has"
                f" {', '.join(self.datasets)}"
                f"{'; groups: ' + ', '.join(groups) if groups else ''}"
                f"{'; averages: ' + ', '.join(self.averages) if self.averages else ''}."
            )
        return found


def read_suite(name: str | Path) -> Suite:
    """Read a suite card by name or path.

    Raises:
        IrdistillError: there is none, it is no YAML mapping, or something in it is unknown or
            missing.
    """
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
        raise IrdistillError(
            f"the suite card {place} needs datasets, a mapping of names, and measures."
        )
    measures = _measures(data.pop("measures"), place)
    datasets = {
        key: _dataset(key, value, policies, place) for key, value in data.pop("datasets").items()
    }
    averages = data.pop("averages", None) or {}
    if not isinstance(averages, dict) or not all(_is_texts(parts) for parts in averages.values()):
        raise IrdistillError(
            f"the averages of {place} must be a mapping of names to lists of datasets."
        )
    averages = {key: tuple(parts) for key, parts in averages.items()}
    entries = data.pop("published", None) or []
    if not isinstance(entries, list):
        raise IrdistillError(
            f"published of {place} is {entries!r}; a list of mappings was expected."
        )
    published = tuple(row for entry in entries for row in _published(entry, place))
    check_values(data, Suite, place)
    for key in ("depth", "rerank_depth"):
        if data.get(key, 1) < 1:
            raise IrdistillError(f"{place} has {key}: {data[key]}; at least 1 was expected.")
    suite = Suite(name, datasets, measures, averages=averages, published=published, **data)
    for part in [*averages, *(row.where for row in published)]:
        suite.members(part)
    return suite


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


def _measures(value: Any, place: str) -> tuple[str, ...]:
    if not isinstance(value, str) and not _is_texts(value):
        raise IrdistillError(
            f"{place} has measures: {value!r}; a text such as nDCG@10 RR@10, or a list of texts,"
            " was expected."
        )
    return tuple(str(measure) for measure in parse_measures(value))


def _dataset(name: str, given: Any, policies: Mapping[str, str], place: str) -> Dataset:
    if not isinstance(given, str | dict | None):
        raise IrdistillError(
            f"the dataset {name!r} of {place} is {given!r}; an id or a mapping was expected."
        )
    settings: dict[str, Any] = {
        **policies,
        **({"id": given} if isinstance(given, str) else given or {}),
    }
    _refuse(
        f"{place}, dataset {name}", set(settings) - {entry.name for entry in fields(Dataset)}, set()
    )
    measures = (
        _measures(settings.pop("measures"), f"{place}, dataset {name}")
        if "measures" in settings
        else ()
    )
    check_values(settings, Dataset, f"{place}, dataset {name}")
    if bool(settings.get("id")) == bool(settings.get("folder")):
        raise IrdistillError(
            f"the dataset {name!r} of {place} needs either an id of ir_datasets or a folder."
        )
    for key, allowed in POLICIES.items():
        if settings.get(key, allowed[0]) not in allowed:
            raise IrdistillError(
                f"the dataset {name!r} of {place} has {key}: {settings[key]}; known are"
                f" {', '.join(allowed)}."
            )
    return Dataset(name, measures=measures, **settings)


def _published(entry: Any, place: str) -> Iterator[Published]:
    """One row for each figure of an entry: ``values`` maps measures to a mapping of datasets or
    averages.
    """
    if not isinstance(entry, dict) or not isinstance(entry.get("values", {}), dict):
        raise IrdistillError(
            f"a published figure in {place} is {entry!r}; a mapping with a mapping of values was"
            " expected."
        )
    given = dict(entry)
    values = given.pop("values", {})
    _refuse(f"{place}, published", set(given) - {field.name for field in fields(Published)}, set())
    check_values(given, Published, f"{place}, published")
    if not given.get("source") or bool(given.get("model")) == bool(given.get("run")):
        raise IrdistillError(
            f"a published figure in {place} needs a source, and either a model or a run: {given}."
        )
    for measure, figures in values.items():
        if not isinstance(figures, dict) or not all(
            isinstance(one, int | float) and abs(one) < 1e9 for one in figures.values()
        ):
            raise IrdistillError(
                f"published values of {measure} in {place} are {figures!r}; a mapping of datasets"
                " to numbers was expected."
            )
        (name,) = _measures([measure], place)
        for where, value in figures.items():
            yield Published(where=where, measure=name, value=float(value), **given)


def _refuse(place: str, unknown: set[str], known: set[str]) -> None:
    if unknown:
        listed = f" Known: {', '.join(sorted(known))}." if known else ""
        raise IrdistillError(f"{place} has unknown keys: {', '.join(sorted(unknown))}.{listed}")
