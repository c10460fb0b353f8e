"""Run a recipe: every stage once. A stopped run resumes where it stopped."""

from __future__ import annotations

import json
import logging
import os
import socket
import time
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from irdistill import __version__
from irdistill.bundles.bundle_manifest import package_files
from irdistill.collections.derived import derived_files
from irdistill.console.progress_bars import describe_kept, note_on_interrupt
from irdistill.errors import DamagedError, IrdistillError, SettingsDifferError, one_line
from irdistill.recipes.recipe import Recipe, Stage, fill
from irdistill.recipes.stages import (
    COMPARISON,
    RESULT,
    WITHOUT_QUERIES,
    RecipeContext,
    artifact,
    check_stage,
    run_stage,
    stage_collections,
    stage_verb,
)
from irdistill.recipes.summary import write_summary
from irdistill.runs import open_run
from irdistill.runs.manifest import MANIFEST
from irdistill.runs.run_ownership import run_files
from irdistill.storage.files import (
    differences,
    file_sha256,
    input_checksums,
    make_folder,
    read_json_object,
    remove_temporary_files,
    write_json,
)
from irdistill.storage.json_lines import JOURNAL, read_json_lines, write_event
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
from irdistill.training.training_files import training_file_test
from irdistill.user_modules import import_user_modules
from irdistill.verbs.input_contents import named_contents

logger = logging.getLogger(__name__)


def run_recipe(recipe: Recipe, out: str | Path, seed: int = 42, overwrite: bool = False) -> Path:
    """Run all stages that are not done, then write ``report.md`` and ``results.json``.

    A stage is done when its record in ``stages/`` holds its result and names the same verb,
    arguments, collections, results of earlier stages and contents of runs made elsewhere. Its
    artifact is in a folder of its name.

    Args:
        overwrite: repeat stages that were run with other settings, instead of stopping.

    Returns:
        The folder.
    """
    folder = Path(out)
    claim_folder(
        folder,
        recipe_files(recipe),
        "the results of a recipe",
        lambda name: _is_recipe_folder(folder),
    )
    make_folder(folder)
    import_user_modules(recipe.imports)
    context = RecipeContext(seed)
    for stage in recipe.stages:
        check_stage(stage)
        for name in stage_collections(stage):
            context.collection(name, queries=stage.verb not in WITHOUT_QUERIES)
    with lock_folder(folder):
        remove_temporary_files(make_folder(folder / "stages"))
        fingerprints: dict[str, str] = {}
        started = False
        for number, stage in enumerate(recipe.stages, 1):
            inputs = _inputs(recipe, stage, context, fingerprints)
            fingerprint = _recorded(folder, stage, inputs, overwrite)
            progress = f"[{number}/{len(recipe.stages)}] {stage.name}: "
            if fingerprint is not None:
                logger.info("%sdone already", progress)
            else:
                logger.info("%s%s", progress, stage.verb)
                record = folder / "stages" / f"{stage.name}.json"
                # recorded before the stage runs: what a crash leaves has these inputs
                write_json(record, {"inputs": inputs, "fingerprint": None})
                if not started:
                    started = True
                    process = f"{socket.gethostname()}:{os.getpid()}"
                    write_event(folder, event="start", process=process, stages=_listed(recipe))
                write_event(folder, event="stage", stage=stage.name)
                kept = partial(describe_kept, number - 1, len(recipe.stages), f"stages of {folder}")
                with note_on_interrupt(kept):
                    fingerprint = _run(recipe, stage, folder, context)
                write_json(record, {"inputs": inputs, "fingerprint": fingerprint})
            fingerprints[stage.name] = fingerprint
        write_summary(recipe, folder, recorded_seconds(folder), _peak_memory())
    return folder


def _listed(recipe: Recipe) -> list[list[str]]:
    """Name and verb of each stage."""
    return [[stage.name, stage.verb] for stage in recipe.stages]


def _inputs(
    recipe: Recipe, stage: Stage, context: RecipeContext, fingerprints: dict[str, str]
) -> dict[str, Any]:
    """Everything that decides the result of a stage, as JSON."""
    runs = {
        text: open_run(text).fingerprint
        for text in stage.texts()
        if (Path(text) / MANIFEST).is_file()
    }  # made elsewhere
    imports = {name: file_sha256(Path(name)) for name in recipe.imports if Path(name).is_file()}
    options = stage_verb(stage).options
    read = [value for name, value in stage.arguments.items() if options[name].source == "files"]
    inputs = {
        "verb": stage.verb,
        "arguments": stage.arguments,
        "version": __version__,
        "seed": context.seed,
        "collections": {
            name: context.collection(name, queries=False).fingerprint
            for name in stage_collections(stage)
        },
        "stages": {name: fingerprints[name] for name in stage.needs()},
        "contents": {
            name: content
            for name, content in named_contents(stage_verb(stage), stage.arguments).items()
            if name not in runs
        },
    }
    more = {"runs": runs, "imports": imports, "files": [input_checksums(value) for value in read]}
    loaded: dict[str, Any] = json.loads(
        json.dumps(inputs | {key: value for key, value in more.items() if value})
    )
    return loaded


def _recorded(folder: Path, stage: Stage, inputs: dict[str, Any], overwrite: bool) -> str | None:
    """The fingerprint of a finished stage, or None if the stage must run."""
    record = folder / "stages" / f"{stage.name}.json"
    place = folder / stage.name
    if not record.exists():
        return None
    recorded = read_json_object(record)
    if not {"inputs", "fingerprint"} <= set(recorded) or not isinstance(recorded["inputs"], dict):
        raise DamagedError(
            record,
            "is not a record of a stage",
            f"Delete it and the folder {place}, and run the recipe again.",
        )
    if recorded["fingerprint"] is None and not place.exists():
        return None  # the stage failed before it wrote anything
    if "contents" not in recorded["inputs"]:  # a record of an earlier version
        inputs = {key: value for key, value in inputs.items() if key != "contents"}
    if recorded["inputs"] == inputs:
        done = recorded["fingerprint"] is not None and Path(artifact(stage.verb, place)).exists()
        return str(recorded["fingerprint"]) if done else None
    if not overwrite:
        raise SettingsDifferError(
            f"the stage {stage.name!r} in {folder} was run with other settings:"
            f" {_changes(recorded['inputs'], inputs)}. Choose another --out, or give --overwrite to"
            " repeat it and the stages that depend on it."
        )
    ours = stage_files(folder, stage.name)
    refuse_foreign_files(place, ours, f"the stage {stage.name!r}")
    record.unlink()
    if place.is_dir():
        remove_owned_files(place, ours)
    return None


def recipe_files(recipe: Recipe) -> list[str]:
    """The files of a recipe's folder, except those that the artifacts of stages list themselves."""
    names = [stage.name for stage in recipe.stages]
    return [
        *(f"stages/{name}.json" for name in names),
        JOURNAL,
        "report.md",
        "results.json",
        *(f"{name}/{file}" for name in names for file in (RESULT, COMPARISON)),
    ]


def stage_files(folder: Path, name: str) -> FileTest:
    """Whether a file in the folder of a stage belongs to the stage."""
    place = folder / name
    results = {
        key.partition("/")[2] for key in claimed_files(folder) or () if key.startswith(f"{name}/")
    }
    try:
        run = run_files(place)
    except IrdistillError:
        run = no_file
    tests = (run, training_file_test(place), derived_files(place), package_files(place))
    return lambda file: file in results or any(test(file) for test in tests)


def _is_recipe_folder(folder: Path) -> bool:
    """Whether a recipe ran here: there are records of its stages."""
    records = (folder / "stages").glob("*.json")
    return any(is_manifest(path, ("inputs", "fingerprint")) for path in records)


def _changes(before: dict[str, Any], now: dict[str, Any]) -> str:
    """At most four settings in which the inputs of a stage differ."""
    lines = differences(before, now)
    more = f"; and {len(lines) - 4} more" if len(lines) > 4 else ""
    return "; ".join(line.removeprefix("arguments.") for line in lines[:4]) + more


def _run(recipe: Recipe, stage: Stage, folder: Path, context: RecipeContext) -> str:
    began, end = time.monotonic(), dict[str, Any](done=False)
    paths = {other.name: artifact(other.verb, folder / other.name) for other in recipe.stages}
    remove_temporary_files(folder / stage.name)
    try:
        fingerprint = run_stage(stage, fill(stage.arguments, paths), folder / stage.name, context)
        end["done"] = True
        return fingerprint
    except Exception as error:
        end["error"] = one_line(error)
        raise
    finally:
        seconds = round(time.monotonic() - began, 3)
        write_event(folder, stage=stage.name, seconds=seconds, **end)


def recorded_seconds(folder: Path) -> dict[str, float]:
    """Wall time of each stage, over all attempts that were not killed."""
    totals: dict[str, float] = {}
    for entry in read_json_lines(folder / JOURNAL):
        stage, seconds = entry.get("stage"), entry.get("seconds")
        if isinstance(stage, str) and isinstance(seconds, int | float):
            totals[stage] = round(totals.get(stage, 0.0) + seconds, 3)
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
