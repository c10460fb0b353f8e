"""Published figures, reproduced: ``ok``, ``off by``, or the reason why not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from irdistill.collections.slices import split_folder
from irdistill.errors import InputError, IrdistillError
from irdistill.evaluation.reporting.findings import Table, cell
from irdistill.evaluation.suite_runs import Benchmark, BenchmarkSystem, choose, run_suite
from irdistill.evaluation.suites import Dataset, Published, Suite
from irdistill.storage.files import digest


@dataclass(frozen=True)
class ReproducedFigure:
    """A published figure and the one computed here.

    Attributes:
        value: None if it could not be computed.
        reason: why it could not be computed.
    """

    row: Published
    value: float | None
    reason: str = ""

    @property
    def ok(self) -> bool:
        """Whether the figures agree within the row's tolerance."""
        return (
            self.value is not None and abs(self.value - self.row.value) <= self.row.tolerance + 1e-9
        )

    @property
    def verdict(self) -> str:
        """The outcome in words."""
        if self.value is None:
            return f"not reproduced: {self.reason}"
        return "ok" if self.ok else f"off by {self.value - self.row.value:+.4f}"

    def to_json(self) -> dict[str, Any]:
        """The published row, the value found here, and the verdict."""
        return {**asdict(self.row), "found": self.value, "ok": self.ok, "verdict": self.verdict}


def compare_published(result: Benchmark) -> list[ReproducedFigure]:
    """Compare the figures of a benchmark with those published for the same system."""
    system = _with_k(result.system, result.suite)
    values = [
        (row, result.value(row.where, row.measure))
        for row in result.suite.published
        if _system(row, result.suite, Path()) == system
    ]
    return [ReproducedFigure(row, value) for row, value in values if value is not None]


def reproduce(
    suite: Suite,
    out: str | Path,
    datasets: Sequence[str] = (),
    data: str | Path | None = None,
    *,
    work: Path | None = None,
    overwrite: bool = False,
    seed: int = 42,
    system: BenchmarkSystem | None = None,
) -> list[ReproducedFigure]:
    """Reproduce all published figures of a suite, or those of one system.

    Args:
        datasets: only rows that need no other dataset than these (names, groups, averages);
            ``NAME=COLLECTION`` as in `run_suite`.

    Returns:
        One check per row. A row that cannot be reproduced says why; the others continue.
    """
    chosen = choose(suite, datasets)
    rows = [
        row
        for row in suite.published
        if all(dataset.name in chosen for dataset in suite.members(row.where))
        and (system is None or _system(row, suite, Path()) == _with_k(system, suite))
    ]
    benchmarks: dict[tuple[BenchmarkSystem, str], Benchmark] = {}
    checks = []
    for row in rows:
        members = suite.members(row.where)
        names = [
            f"{dataset.name}={chosen[dataset.name]}" if chosen[dataset.name] else dataset.name
            for dataset in members
        ]
        try:
            row_system = _system(row, suite, _folder(row, members, chosen, data))
            key = (row_system, row.where)
            if key not in benchmarks:
                folder = Path(out) / digest([row_system.name, row_system.k])
                benchmarks[key] = run_suite(
                    suite,
                    row_system,
                    folder,
                    names,
                    data,
                    work=work,
                    overwrite=overwrite,
                    seed=seed,
                )
            check = ReproducedFigure(row, benchmarks[key].value(row.where, row.measure))
        except IrdistillError as error:
            check = ReproducedFigure(row, None, str(error))
        checks.append(check)
    return checks


def checks_table(checks: Sequence[ReproducedFigure]) -> Table:
    """The checks as a table."""
    rows = [
        [
            check.row.model or check.row.run,
            check.row.rerank or "-",
            check.row.where,
            check.row.measure,
            f"{check.row.value:.4f}",
            cell(check.value, ".4f"),
            check.verdict,
        ]
        for check in checks
    ]
    return Table(["system", "reranks", "dataset", "measure", "published", "here", ""], rows)


def _folder(
    row: Published, members: Sequence[Dataset], chosen: dict[str, str], data: str | Path | None
) -> Path:
    """The folder of a run that comes with a dataset."""
    if not row.run:
        return Path()
    if len(members) != 1:
        raise InputError(
            f"the run {row.run} belongs to one dataset, and {row.where!r} is several datasets."
        )
    (dataset,) = members
    return Path(split_folder(chosen[dataset.name] or str(Path(data or ".") / dataset.folder))[0])


def _system(row: Published, suite: Suite, folder: Path) -> BenchmarkSystem:
    runs = str(folder / row.run) if row.run else ""
    system = BenchmarkSystem(row.model, row.rerank, runs, row.k or None, kind=row.kind or None)
    return _with_k(system, suite)


def _with_k(system: BenchmarkSystem, suite: Suite) -> BenchmarkSystem:
    """The system with the suite's ``k`` if it has none."""
    return replace(system, k=system.k_on(suite))
