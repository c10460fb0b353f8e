"""Datasets of Hugging Face, from the Hub or from a folder, as tables."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from irdistill.collections.collecting.row_tables import Row
from irdistill.collections.foreign_tables import import_library
from irdistill.errors import InputError, NotFoundError, one_line

PREFIX = "hf:"
_SAVED = ("dataset_info.json", "dataset_dict.json")
_NAME = re.compile(r"hf:(?P<path>[^#:]+)(?::(?P<config>[^#]+))?(?:#(?P<split>[^#]+))?")


class HubName(NamedTuple):
    """The parts of ``hf:PATH:CONFIG#SPLIT``; config and split may be empty."""

    path: str
    config: str
    split: str


def is_hub_name(source: str) -> bool:
    """Whether a source is a dataset of Hugging Face."""
    return source.startswith(PREFIX)


def parse_hub_name(source: str) -> HubName:
    """The parts of the name of a dataset.

    Raises:
        InputError: it cannot be read.

    Examples:
        >>> parse_hub_name("hf:owner/name:config#train")
        HubName(path='owner/name', config='config', split='train')
    """
    match = _NAME.fullmatch(source)
    if match is None:
        raise InputError(
            f"the dataset {source!r} cannot be read; write hf:OWNER/NAME, hf:OWNER/NAME#SPLIT or"
            " hf:OWNER/NAME:CONFIG#SPLIT. A folder may stand for OWNER/NAME."
        )
    return HubName(*(value or "" for value in match.group("path", "config", "split")))


class HubTable:
    """One split of a dataset. No code of the dataset is run."""

    encoding = ""

    def __init__(self, source: str) -> None:
        name = parse_hub_name(source)
        self._dataset = _load(source, name)
        self.names = list(self._dataset.column_names)
        self.count = int(self._dataset.num_rows)

    def rows(self, columns: Sequence[str]) -> Iterator[tuple[int, Row]]:
        """The rows with their numbers from 1."""
        chosen = self._dataset.with_format(None).select_columns(list(columns))
        yield from enumerate(chosen, 1)

    def state(self) -> list[Any]:
        """What changes if the dataset changes: its files with their sizes and times."""
        files = [Path(entry["filename"]) for entry in self._dataset.cache_files]
        states = [(path, path.stat()) for path in files]
        return [
            [str(path), state.st_size, state.st_mtime_ns, state.st_ctime_ns]
            for path, state in states
        ]


def _load(source: str, name: HubName) -> Any:
    datasets = import_library("datasets", f"the dataset {source!r}")
    folder = Path(name.path).expanduser()
    try:
        if folder.is_dir() and any((folder / file).is_file() for file in _SAVED):
            loaded = datasets.load_from_disk(str(folder))
        else:
            # not the bare name of a folder: "parquet" and "csv" are names of loaders
            path = str(folder.absolute()) if folder.is_dir() else name.path
            loaded = datasets.load_dataset(path, name.config or None)
    except Exception as error:
        raise NotFoundError(
            f"the dataset {source!r} could not be loaded ({type(error).__name__}:"
            f" {one_line(error)}). Check its name on huggingface.co and the network; a private"
            " dataset needs: hf auth login."
        ) from error
    return _split(source, name, loaded)


def _split(source: str, name: HubName, loaded: Any) -> Any:
    """The split that is named, or the only one."""
    if not hasattr(loaded, "keys"):
        if name.split:
            raise NotFoundError(f"the dataset {source!r} has no splits; leave out #{name.split}.")
        return loaded
    splits = list(loaded.keys())
    if not name.split and len(splits) == 1:
        return loaded[splits[0]]
    if name.split not in splits:
        state = f"no split {name.split!r}" if name.split else f"{len(splits)} splits"
        raise NotFoundError(
            f"the dataset {source!r} has {state}; it has {', '.join(map(str, splits))}. Write"
            f" {source.partition('#')[0]}#{splits[0]}; several may be given as several sources."
        )
    return loaded[name.split]
