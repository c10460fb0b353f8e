"""Running a recipe: every stage once; stopped at any moment, the same call goes on where it was."""

from __future__ import annotations

import inspect
import json
import logging
import time
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from irdistill import __version__
from irdistill.collections.derived import derived_files
from irdistill.console.progress import describe_kept, note_on_interrupt
from irdistill.errors import IrdistillError
from irdistill.recipes.recipe import Recipe, Stage, fill
from irdistill.recipes.summary import write_summary
from irdistill.recipes.verbs import (
    COMPARISON,
    RESULT,
    VERBS,
    WITHOUT_QUERIES,
    RecipeContext,
    artifact,
    check_arguments,
)
from irdistill.runs import open_run
from irdistill.runs.manifest import MANIFEST
from irdistill.runs.run_files import run_files
from irdistill.storage.files import (
    differences,
    make_folder,
    read_json_object,
    remove_temporary_files,
    write_json,
)
from irdistill.storage.locking import lock_folder
from irdistill.storage.ownership import (
    FileTest,
    claim_folder,
    claimed_files,
    is_manifest,
    no_file,
    refuse_foreign_files,
    remove_owned_files,
)
from irdistill.storage.plain_data import check_values
from irdistill.training.training_files import training_file_test

logger = logging.getLogger(__name__)

_COLLECTIONS = ("collection", "datasets")


def run_recipe(
    recipe: Recipe,
    out: str | Path,
    seed: int = 42,
    overwrite: bool = False,
    work: Path | None = None,
) -> Path:
    """Run all stages that are not done, then write ``report.md`` and ``results.json``.

    A stage is done when its record in ``stages/`` holds its result, and names the same verb,
    arguments, collections, results of earlier stages and contents of runs made elsewhere; one that
    has begun goes on if it names the same. Its artifact lies in a folder of its name.

    Args:
        overwrite: make anew what was made with other settings, instead of stopping.
        work: where vectors and indexes are kept; the cache folder where None.

    Returns:
        The folder.

    Raises:
        IrdistillError: a stage is faulty (found before any runs), or was made with other settings.
    """
    folder = Path(out)
    claim_folder(
        folder,
        recipe_files(recipe),
        "the results of a recipe",
        lambda name: _recorded_before(folder, name),
    )
    make_folder(folder)
    kitchen = RecipeContext(seed, work)
    for stage in recipe.stages:
        _check(stage)
        for name in _collections(stage):
            kitchen.collection(name, queries=stage.verb not in WITHOUT_QUERIES)
    with lock_folder(folder):
        remove_temporary_files(make_folder(folder / "stages"))
        made: dict[str, str] = {}
        paths: dict[str, str] = {}
        for place, stage in enumerate(recipe.stages, 1):
            paths[stage.name] = artifact(stage.verb, folder / stage.name)
            inputs = _inputs(stage, kitchen, made, seed)
            found = _recorded(folder, stage, inputs, overwrite)
            if found is None:
                logger.info("[%d/%d] %s: %s", place, len(recipe.stages), stage.name, stage.verb)
                record = folder / "stages" / f"{stage.name}.json"
                write_json(
                    record, {"inputs": inputs, "fingerprint": None}
                )  # begun: what it leaves behind is of these inputs
                with note_on_interrupt(
                    partial(describe_kept, place - 1, len(recipe.stages), f"stages of {folder}")
                ):
                    found = _run(folder, stage, fill(stage.arguments, paths), kitchen)
                write_json(record, {"inputs": inputs, "fingerprint": found})
            else:
                logger.info("[%d/%d] %s: done already", place, len(recipe.stages), stage.name)
            made[stage.name] = found
        write_summary(recipe, folder, _seconds(folder), _peak_memory())
    return folder


def _check(stage: Stage) -> None:
    """Refuse an unknown verb, an argument too many or too few, and values that can be seen to be
    wrong.
    """
    if stage.verb not in VERBS:
        raise IrdistillError(
            f"the stage {stage.name!r} has the verb {stage.verb!r}; one of {', '.join(VERBS)} was"
            " expected."
        )
    try:
        inspect.signature(VERBS[stage.verb]).bind(None, None, **stage.arguments)
        check_values(stage.arguments, VERBS[stage.verb], "its arguments", free=True)
        check_arguments(stage.verb, stage.arguments)
    except (TypeError, IrdistillError) as error:
        raise IrdistillError(
            f"the stage {stage.name!r} ({stage.verb}) cannot run: {error}"
        ) from error


def _collections(stage: Stage) -> list[str]:
    """Those there are before anything runs; what an earlier stage makes is known by that stage."""
    datasets = stage.arguments.get("datasets", {})
    own = [stage.arguments.get(key) for key in ("collection", "dev")]
    compared = [
        run["collection"] for run in stage.arguments.get("runs", []) if isinstance(run, dict)
    ]
    return [
        name
        for name in [*datasets, *(name for name in own if name), *dict.fromkeys(compared)]
        if "${" not in name
    ]


def _inputs(
    stage: Stage, kitchen: RecipeContext, made: dict[str, str], seed: int
) -> dict[str, Any]:
    """Everything that decides what a stage makes, as JSON."""
    runs = {
        text: open_run(text).fingerprint
        for text in stage.texts()
        if (Path(text) / MANIFEST).is_file()
    }  # made elsewhere
    return json.loads(
        json.dumps(
            {
                "verb": stage.verb,
                "arguments": stage.arguments,
                "version": __version__,
                "seed": seed,
                "collections": {
                    name: kitchen.collection(name, queries=False).fingerprint
                    for name in _collections(stage)
                },
                "stages": {name: made[name] for name in stage.needs()},
            }
            | ({"runs": runs} if runs else {})
        )
    )


def _recorded(folder: Path, stage: Stage, inputs: dict[str, Any], overwrite: bool) -> str | None:
    """The fingerprint of what is there, or None where the stage is to be run."""
    record = folder / "stages" / f"{stage.name}.json"
    if not record.exists():
        return None
    there = read_json_object(record)
    if not {"inputs", "fingerprint"} <= set(there) or not isinstance(there["inputs"], dict):
        raise IrdistillError(
            f"{record} is damaged; delete it and the folder {folder / stage.name}, and run the"
            " recipe again."
        )
    if there["fingerprint"] is None and not (folder / stage.name).exists():
        return None  # it failed before it made anything
    if there["inputs"] == inputs:
        done = (
            there["fingerprint"] is not None
            and Path(artifact(stage.verb, folder / stage.name)).exists()
        )
        return str(there["fingerprint"]) if done else None
    if not overwrite:
        raise IrdistillError(
            f"the stage {stage.name!r} in {folder} was made with other settings:"
            f" {_changes(there['inputs'], inputs)}. Choose another --out, or give --overwrite to"
            " make it and what depends on it anew."
        )
    made = folder / stage.name
    ours = stage_files(folder, stage.name)
    refuse_foreign_files(made, ours, f"the stage {stage.name!r}")
    record.unlink()
    if made.is_dir():
        remove_owned_files(made, ours)
    return None


def recipe_files(recipe: Recipe) -> list[str]:
    """The files that a recipe writes beside what its stages make in ways that know their own
    files.
    """
    names = [f"stages/{stage.name}.json" for stage in recipe.stages]
    return [
        *names,
        "journal.jsonl",
        "report.md",
        "results.json",
        *(f"{stage.name}/{name}" for stage in recipe.stages for name in (RESULT, COMPARISON)),
    ]


def stage_files(folder: Path, name: str) -> FileTest:
    """Whether a file in the folder of a stage is part of what the stage made."""
    place = folder / name
    results = {
        key.partition("/")[2] for key in claimed_files(folder) or () if key.startswith(f"{name}/")
    }
    try:
        run = run_files(place)
    except IrdistillError:
        run = no_file
    training, derived = training_file_test(place), derived_files(place)
    return lambda file: file in results or run(file) or training(file) or derived(file)


def _recorded_before(folder: Path, name: str) -> bool:
    """Whether a file is part of the results of a recipe that an earlier version ran: there are
    records of its stages.
    """
    return any(
        is_manifest(path, ("inputs", "fingerprint")) for path in (folder / "stages").glob("*.json")
    )


def _changes(there: dict[str, Any], here: dict[str, Any]) -> str:
    """What differs between the inputs of a stage, at most four settings of it."""
    lines = differences(there, here)
    more = f"; and {len(lines) - 4} more" if len(lines) > 4 else ""
    return "; ".join(line.removeprefix("arguments.") for line in lines[:4]) + more


def _run(folder: Path, stage: Stage, arguments: dict[str, Any], kitchen: RecipeContext) -> str:
    began = time.monotonic()
    remove_temporary_files(folder / stage.name)
    try:
        return VERBS[stage.verb](kitchen, folder / stage.name, **arguments)
    finally:
        entry = {
            "stage": stage.name,
            "seconds": round(time.monotonic() - began, 3),
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        with open(folder / "journal.jsonl", "a", encoding="utf-8") as stream:
            stream.write(json.dumps(entry) + "\n")


def _seconds(folder: Path) -> dict[str, float]:
    """Wall time of each stage over all attempts that ended by themselves."""
    totals: dict[str, float] = {}
    journal = folder / "journal.jsonl"
    for line in journal.read_text(encoding="utf-8").splitlines() if journal.exists() else []:
        try:
            entry = json.loads(line)
            totals[entry["stage"]] = round(
                totals.get(entry["stage"], 0.0) + float(entry["seconds"]), 3
            )
        except (ValueError, RecursionError, KeyError, TypeError):
            continue  # a line that a kill cut short
    return totals


def _peak_memory() -> int:
    """The peak memory of this process in bytes; on macOS, which does not record it, the memory in
    use now.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    memory = psutil.Process().memory_info()
    return int(getattr(memory, "peak_wset", memory.rss))
