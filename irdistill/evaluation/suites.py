"""Suite cards: YAML files with a benchmark's datasets, measures, policies and published figures."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from irdistill.card_files import find_card
from irdistill.errors import InputError, NotFoundError
from irdistill.evaluation.measure_names import parse_measures
from irdistill.evaluation.ranking_policies import SelfMatch
from irdistill.storage.plain_data import read_yaml, validation_problem

_POLICIES = ("self_match", "duplicates", "queries")
_STRICT = ConfigDict(extra="forbid", strict=True)


def _parse_measures(value: Any) -> Any:
    """The names of ir-measures; other values than texts are left for pydantic to refuse."""
    is_list = isinstance(value, list) and all(isinstance(name, str) for name in value)
    return tuple(map(str, parse_measures(value))) if isinstance(value, str) or is_list else value


Measures = Annotated[tuple[str, ...], BeforeValidator(_parse_measures)]


@dataclass(frozen=True, config=_STRICT)
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
    self_match: SelfMatch = "keep"
    duplicates: Literal["keep", "drop"] = "keep"
    queries: Literal["turn", "rewrite"] = "turn"
    measures: Measures = ()
    note: str = ""

    def __post_init__(self) -> None:
        if bool(self.id) == bool(self.folder):
            raise InputError(
                f"the dataset {self.name!r} needs either an id of ir_datasets or a folder."
            )


@dataclass(frozen=True, config=_STRICT)
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
    value: Annotated[float, Field(gt=-1e9, lt=1e9)]
    source: Annotated[str, Field(min_length=1)]
    model: str = ""
    run: str = ""
    rerank: str = ""
    k: int = 0
    kind: str = ""
    tolerance: float = 0.0005

    def __post_init__(self) -> None:
        if bool(self.model) == bool(self.run):
            raise InputError(
                f"the published figure of {self.where} needs either a model or a run; it has model"
                f" {self.model!r} and run {self.run!r}."
            )

    def command(self, suite: str) -> str:
        """The command that reproduces the figure."""
        kind = f" --kind {self.kind}" if self.kind else ""
        model = f"--model {self.model}{kind}" if self.model else f"--runs {self.run}"
        stage = f" --rerank {self.rerank} --k {self.k}" if self.rerank else ""
        return f"irdistill benchmark {suite} {model}{stage} --datasets {self.where}"


def _are_figures(figures: Any) -> bool:
    numbers = figures.values() if isinstance(figures, dict) else [None]
    return all(type(number) in (int, float) for number in numbers)


def _rows(entries: Any) -> Any:
    """One row per figure; ``values`` of an entry maps measures to mappings of names to figures."""
    rows: list[Any] = []
    for entry in entries if isinstance(entries, list) else [entries]:
        values = entry.get("values") if isinstance(entry, dict) else None
        if not isinstance(values, dict) or not all(map(_are_figures, values.values())):
            raise InputError(
                f"a published figure is {entry!r}; a list of mappings was expected, each with"
                " values: {MEASURE: {DATASET: NUMBER}}."
            )
        settings = {key: value for key, value in entry.items() if key != "values"}
        for measure, figures in values.items():
            named = {"measure": str(*parse_measures([measure])), **settings}
            rows += [{"where": where, "value": value, **named} for where, value in figures.items()]
    return tuple(rows)


@dataclass(frozen=True, config=_STRICT)
class Suite:
    """A benchmark.

    Attributes:
        k, rerank_k: documents per query that are retrieved, and that are reranked.
        averages: name -> the datasets and groups whose figures are averaged.
        needs: required disk space.
        source: where the benchmark was published.
    """

    name: str
    datasets: Annotated[dict[str, Dataset], Field(min_length=1)]
    measures: Annotated[Measures, Field(min_length=1)]
    k: Annotated[int, Field(ge=1)] = 1000
    rerank_k: Annotated[int, Field(ge=1)] = 100
    averages: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    published: Annotated[tuple[Published, ...], BeforeValidator(_rows)] = ()
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
    policies = {key: data.pop(key) for key in _POLICIES if key in data}
    content = {key: value for key, value in data.items() if value is not None}
    if isinstance(data.get("datasets"), dict):
        entries = data["datasets"].items()
        content["datasets"] = {key: _dataset(key, entry, policies) for key, entry in entries}
    try:
        suite = TypeAdapter(Suite).validate_json(json.dumps(content | {"name": path.stem}))
    except ValidationError as error:
        problem = validation_problem("the card", content, error)
        raise InputError(f"the suite card {path}: {problem}") from error
    for part in [*suite.averages, *(row.where for row in suite.published)]:
        suite.members(part)
    return suite


def _dataset(name: str, entry: Any, policies: Mapping[str, Any]) -> Any:
    """The settings of a dataset: the card's policies and its own; an id alone is also accepted."""
    settings = {"id": entry} if isinstance(entry, str) else entry or {}
    return {**policies, **settings, "name": name} if isinstance(settings, dict) else entry
