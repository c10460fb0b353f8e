"""Experiment trackers (TensorBoard, Weights & Biases, …) through accelerate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.tracking import LOGGER_TYPE_TO_CLASS
from accelerate.utils import ProjectConfiguration

from irdistill.errors import MissingExtraError, OptionError

_PROJECT = "irdistill"
_NAMED = ("trackio", "wandb")
"""Trackers whose runs take a name."""


def check_trackers(names: Sequence[str]) -> None:
    """Check that the libraries of some trackers are installed.

    Raises:
        MissingExtraError: one is not.
        OptionError: accelerate does not support one.
    """
    for name in names:
        if name not in LOGGER_TYPE_TO_CLASS:
            raise OptionError(
                f"the installed version of accelerate has no tracker {name!r}; it has"
                f" {', '.join(sorted(LOGGER_TYPE_TO_CLASS))}. Upgrade accelerate, or choose one of"
                " these."
            )
        libraries = ("tensorboard", "tensorboardX") if name == "tensorboard" else (name,)
        if not any(map(find_spec, libraries)):
            raise MissingExtraError(name.replace("_", "-"), None, f"track={name}")


def start_accelerator(
    trackers: Sequence[str], folder: Path, config: Mapping[str, Any]
) -> Accelerator:
    """An accelerator whose trackers have started.

    Args:
        trackers: names of trackers.
        folder: of the training; files of trackers go to ``trackers`` in it.
        config: settings that the trackers record.
    """
    accelerator = Accelerator(
        log_with=list(trackers) or None,
        project_config=ProjectConfiguration(str(folder), logging_dir=str(folder / "trackers")),
    )
    if trackers:
        accelerator.init_trackers(
            _PROJECT,
            {name: _plain(value) for name, value in config.items()},
            {name: {"name": folder.name} for name in _NAMED},
        )
    return accelerator


def finish_trackers(accelerator: Accelerator) -> None:
    """Close the trackers.

    ``Accelerator.end_training`` would also destroy the process group.
    """
    for tracker in accelerator.trackers:
        tracker.finish()


def _plain(value: Any) -> bool | int | float | str:
    """A value that all trackers record."""
    return value if isinstance(value, bool | int | float | str) else str(value)
