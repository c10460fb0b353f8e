"""The verb *score*: teacher x collection x run -> run."""

from __future__ import annotations

from pathlib import Path

from irdistill.collections import Collection
from irdistill.collections.split_collections import without_passages
from irdistill.errors import OptionError
from irdistill.runs import Run, check_out
from irdistill.teachers.function_teacher import LoadedTeacher, TeacherFunction
from irdistill.teachers.recording import RecordingEngine
from irdistill.teachers.score_options import ScoreOptions
from irdistill.teachers.scoring_engine import (
    LocalEngine,
    ScoringEngine,
    open_candidates,
    score_run,
)
from irdistill.teachers.teacher_loading import TeacherSpec


def score(
    collection: Collection,
    candidates: Run | str | Path,
    teacher: str | TeacherFunction | LoadedTeacher | TeacherSpec,
    out: str | Path,
    options: ScoreOptions | None = None,
) -> Run:
    """Score the candidates of every query with a teacher.

    A part (``part_queries`` queries) is the unit of work. Its unique pairs are sorted by length
    and cut into batches of a token budget, independently of all other parts: parts give the same
    numbers in any order, on any shard and on any worker. A job that was stopped resumes where it
    stopped and ends with the same bytes. A listwise teacher gets whole lists; documents that it
    leaves out are null with a flag. Of documents that are split into passages the teacher reads
    passages, see `ScoreOptions.score_passages`; the run names the best one of each.

    With ``representations``, the vectors from which the scores are made are stored next to the
    run: D numbers per pair of a cross-encoder, D per query and document of a dense retriever, or
    per token of a late-interaction one. The run itself is the same. Representations of a finished
    run are added by scoring its pairs again.

    Args:
        collection: queries and documents.
        candidates: the run whose documents are scored.
        teacher: name or path of a card, ``bm25``, a model (folder, ``package:`` path or hub id),
            ``module:function``, a function ``(queries, documents) -> scores``, or a teacher
            object.
        out: folder of the run.
        options: `ScoreOptions`.

    Returns:
        The finished run. ``run[query_id].scores`` holds float32 scores, NaN for documents that
        were not scored.

    Raises:
        NothingScoredError: no document has a score. The run is complete and saved.
        WrongCollectionError: the candidates belong to another collection.
        SettingsDifferError: ``out`` holds a run with other settings.
        ModelError: a score is NaN or infinite.

    Examples:
        >>> import tempfile, numpy as np
        >>> from irdistill.collections import Collection
        >>> from irdistill.runs import MemoryRun, RankedList, RunIdentity
        >>> from irdistill.teachers import score, teacher
        >>> collection = Collection.from_dicts(
        ...     "tiny", {"d1": "the cat sat", "d2": "a dog"}, {"q1": "cat and dog"}, {})
        >>> candidates = MemoryRun(
        ...     RunIdentity("first-stage", {}, collection.describe()),
        ...     [RankedList("q1", ["d1", "d2"], np.array([2, 1], np.float32))])
        >>> @teacher(name="length", version="1")
        ... def length(queries, documents):
        ...     return [len(document) for document in documents]
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     run = score(collection, candidates, length, folder + "/run")
        ...     run["q1"].doc_ids, run["q1"].scores.tolist()
        (['d1', 'd2'], [11.0, 5.0])
    """
    options = options or ScoreOptions()
    if not isinstance(teacher, TeacherSpec):
        teacher = options.spec(teacher, out)
    elif settings := options.teacher_settings():
        raise OptionError(
            f"the options {', '.join(settings)} were given with a TeacherSpec; set them in the"
            " TeacherSpec."
        )
    options.check_passages(collection)
    if options.aggregate == "whole":
        collection = without_passages(collection)
    opened = open_candidates(collection, candidates)
    check_out(out, options.overwrite, [opened])
    if options.representations is None:
        return score_run(collection, opened, teacher, out, options, _engine(options))
    engine = RecordingEngine(Path(out), collection, opened, options)
    run = score_run(collection, opened, teacher, out, options, engine)
    engine.complete()
    return run


def _engine(options: ScoreOptions) -> ScoringEngine:
    if options.engine == "local":
        return LocalEngine()
    from irdistill.teachers.ray_scoring import RayEngine

    return RayEngine(options.workers, options.ray_address)
