"""Published figures, made again: ``ok``, ``off by``, or why not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from irdistill.collections.slices import split_folder
from irdistill.errors import IrdistillError
from irdistill.evaluation.reporting import markdown_table
from irdistill.evaluation.suite_runs import Benchmark, System, choose, run_suite
from irdistill.evaluation.suites import Dataset, Published, Suite
from irdistill.storage.files import digest


@dataclass(frozen=True)
class Check:
    """A published figure and the one made here.

    Attributes:
        found: None where none was made.
        reason: why none was made.
    """

    row: Published
    found: float | None
    reason: str = ""

    @property
    def ok(self) -> bool:
        """Whether the figures agree within the row's tolerance."""
        return (
            self.found is not None and abs(self.found - self.row.value) <= self.row.tolerance + 1e-9
        )

    @property
    def verdict(self) -> str:
        """In words."""
        if self.found is None:
            return f"not made: {self.reason}"
        return "ok" if self.ok else f"off by {self.found - self.row.value:+.4f}"

    def to_json(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {**asdict(self.row), "found": self.found, "ok": self.ok, "verdict": self.verdict}


def compare_published(result: Benchmark) -> list[Check]:
    """The figures of a benchmark beside those published for the same system, of the datasets and
    averages that it has.
    """
    found = []
    for row in result.suite.published:
        value = result.value(row.where, row.measure)
        if value is not None and _system(row, result.suite, Path()) == _plain(
            result.system, result.suite
        ):
            found.append(Check(row, value))
    return found


def reproduce(
    suite: Suite,
    out: str | Path,
    datasets: Sequence[str] = (),
    data: str | Path | None = None,
    *,
    work: Path | None = None,
    overwrite: bool = False,
    seed: int = 42,
    system: System | None = None,
    told: Callable[[Check], None] = lambda check: None,
) -> list[Check]:
    """Make all published figures of a suite again, or those of one system.

    Args:
        datasets: only rows that these datasets (groups, averages) have all that is needed for;
            ``NAME=COLLECTION`` as for `run_suite`.
        told: hears of each check as it is made.

    Returns:
        A check for each row; one that cannot be made says why, and the others go on.
    """
    chosen = choose(suite, datasets)
    rows = [
        row
        for row in suite.published
        if all(dataset.name in chosen for dataset in suite.members(row.where))
        and (system is None or _system(row, suite, Path()) == _plain(system, suite))
    ]
    made: dict[tuple[System, str], Benchmark] = {}
    checks = []
    for row in rows:
        members = suite.members(row.where)
        words = [
            f"{dataset.name}={chosen[dataset.name]}" if chosen[dataset.name] else dataset.name
            for dataset in members
        ]
        try:
            own = _system(row, suite, _folder(row, members, chosen, data))
            if (own, row.where) not in made:
                made[own, row.where] = run_suite(
                    suite,
                    own,
                    Path(out) / digest([own.name, own.depth]),
                    words,
                    data,
                    work=work,
                    overwrite=overwrite,
                    seed=seed,
                )
            check = Check(row, made[own, row.where].value(row.where, row.measure))
        except IrdistillError as error:
            check = Check(row, None, str(error))
        checks.append(check)
        told(check)
    return checks


def checks_table(checks: Sequence[Check]) -> str:
    """The checks as Markdown."""
    rows = [
        [
            check.row.model or check.row.run,
            check.row.rerank or "-",
            check.row.where,
            check.row.measure,
            f"{check.row.value:.4f}",
            "-" if check.found is None else f"{check.found:.4f}",
            check.verdict,
        ]
        for check in checks
    ]
    return markdown_table(
        ["system", "reranks", "dataset", "measure", "published", "here", ""], rows
    )


def _folder(
    row: Published, members: Sequence[Dataset], chosen: dict[str, str], data: str | Path | None
) -> Path:
    """Where a run that comes with a dataset lies."""
    if not row.run:
        return Path()
    if len(members) != 1:
        raise IrdistillError(
            f"the run {row.run} belongs to one dataset, and {row.where!r} is several."
        )
    (dataset,) = members
    given = chosen[dataset.name] or str(Path(data or ".") / dataset.folder)
    return Path(split_folder(given)[0])


def _system(row: Published, suite: Suite, folder: Path) -> System:
    return _plain(
        System(
            row.model,
            row.rerank,
            str(folder / row.run) if row.run else "",
            row.depth or None,
            kind=row.kind or None,
        ),
        suite,
    )


def _plain(system: System, suite: Suite) -> System:
    """A system with its depth written out."""
    depth = system.depth or (suite.rerank_depth if system.rerank else suite.depth)
    return replace(system, depth=depth)
