"""The guard of a training, made from its probes and its validation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from irdistill.errors import OptionError
from irdistill.storage.files import staging_path
from irdistill.students.lora import has_adapters
from irdistill.training.guarding import Guard, WeightChoice
from irdistill.training.options import TrainOptions
from irdistill.training.validation_data import ValidationData, check_collections, judged_queries
from irdistill.training.validation_sets import MeasuredQueries, ValidationSet
from irdistill.training.validation_setup import measured_set

if TYPE_CHECKING:
    from irdistill.collections import Collection
    from irdistill.students.student_base import Student

HELD_OUT_SHARE = 0.1
"""Share of the training queries that choose the weight if no validation is given."""


@dataclass(frozen=True)
class GuardData:
    """What a student may not become worse on.

    Attributes:
        probes: collections with judgments.
        measure: a measure of ranked documents, as of the validation.
        tolerance: how far the measure may fall on a probe.
    """

    probes: tuple[Collection, ...]
    measure: str
    tolerance: float

    @classmethod
    def read(
        cls,
        keep: Collection | Sequence[Collection],
        validation: ValidationData | None,
        options: TrainOptions,
        student: Student,
    ) -> GuardData | None:
        """The checked data; None without probes.

        Raises:
            OptionError: a probe is given twice, an option needs a probe, or merged models cannot be
                measured or saved.
            InputError: a probe has no judgments.
        """
        probes = tuple(keep) if isinstance(keep, Sequence) else (keep,)
        if not probes:
            if options.keep_tolerance:
                raise OptionError(
                    f"keep_tolerance={options.keep_tolerance} was given without keep, which names"
                    " the probes; add keep=pydocs/howto, or leave it out."
                )
            return None
        check_collections(probes, "keep")
        if validation is None or not validation.retrieval_measures:
            raise OptionError(
                f"keep chooses among merged models by a measure of ranked documents, and"
                f" validate_measures is {options.validate_measures!r}; add nDCG@10."
            )
        if has_adapters(student.model) and not student.merge_lora:
            raise OptionError(
                "keep merges weights, and lora_merge=False saves adapters without them; leave"
                " lora_merge out."
            )
        return cls(probes, validation.retrieval_measures[0], options.keep_tolerance)

    def identity(self) -> dict[str, Any]:
        """What decides the choice, as JSON values."""
        return {
            "probes": [
                probe.describe() | {"qrels": probe.qrels.fingerprint} for probe in self.probes
            ],
            "measure": self.measure,
            "tolerance": self.tolerance,
        }


def make_guard(
    data: GuardData,
    held_out: Sequence[ValidationSet],
    options: TrainOptions,
    student: Student,
    folder: Path,
    work: str | Path | None,
    identity: dict[str, Any],
) -> Guard:
    """The guard of a student that has its weights at the start.

    Args:
        held_out: the sets of the validation.
        folder: of the training.
        work: folder of indexes and of stored vectors; the cache folder by default.
        identity: of the training.
    """
    probes = []
    for number, probe in enumerate(data.probes):
        queries = MeasuredQueries.of(probe.id, probe, judged_queries(probe), (data.measure,))
        scratch = staging_path(folder / f"probe-{number}")
        probes.append(measured_set(queries, None, options, student, scratch, work))
    choice = WeightChoice(held_out, probes, data.measure, data.tolerance, folder, identity)
    return Guard(student, choice)
