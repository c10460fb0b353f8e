"""The log of finished parts."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from irdistill.errors import InputError
from irdistill.runs.manifest import JOURNAL, PartEntry, part_name
from irdistill.storage.files import explain_os_errors, write_text


class Journal:
    """The log of finished parts: one JSON line each, appended after the part is in place.

    It is fsynced at most once a second. A kill loses no line. A power cut may lose the lines of
    parts that were finished within a second of each other; these parts are written again. The
    journal also takes what differs between two executions of one job (seconds, host), and lines
    about its starts and ends (`irdistill.storage.json_lines.write_event`).

    Args:
        folder: the run's folder.
        ending: of the names of the part files.
    """

    def __init__(self, folder: Path, ending: str = ".parquet") -> None:
        self.path, self._ending = folder / JOURNAL, ending
        self._synced = -math.inf

    def read(self, repair: bool = True) -> dict[int, tuple[PartEntry, dict[str, float]]]:
        """Entries by part number; a line that a kill cut short is dropped.

        Args:
            repair: also remove such a line from the file; only for the process that writes the run.
        """
        entries: dict[int, tuple[PartEntry, dict[str, float]]] = {}
        if not self.path.is_file():
            return entries
        good = []
        lines = self.path.read_text(encoding="utf-8", errors="replace").split("\n")
        for line in lines:
            try:
                data = json.loads(line)
                entry = PartEntry.read(data["part"])
                usage = {
                    str(key): value
                    for key, value in data["usage"].items()
                    if isinstance(value, int | float)
                }
                check_part(entry, self._ending)
            except (ValueError, RecursionError, LookupError, TypeError, AttributeError):
                if _is_event(line):
                    good.append(line)
                continue
            entries[entry.number] = (entry, usage)
            good.append(line)
        if lines[-1] and repair:
            write_text(self.path, "".join(f"{line}\n" for line in good))
        return entries

    def append(
        self, entry: PartEntry, usage: Mapping[str, float], notes: Mapping[str, Any]
    ) -> None:
        """Record one finished part."""
        line = json.dumps(
            {"part": asdict(entry), "usage": dict(usage), **notes}, ensure_ascii=False
        )
        with explain_os_errors(self.path), open(self.path, "a", encoding="utf-8") as stream:
            stream.write(line + "\n")
            stream.flush()
            if time.monotonic() - self._synced >= 1.0:
                os.fsync(stream.fileno())
                self._synced = time.monotonic()


def _is_event(line: str) -> bool:
    """Whether a line records a start or an end of the job."""
    try:
        return "event" in dict(json.loads(line))
    except (ValueError, RecursionError, TypeError):
        return False


def check_part(entry: PartEntry, ending: str = ".parquet") -> None:
    """Check that an entry names the file of its part."""
    if type(entry.number) is not int or entry.name != part_name(entry.number, ending):
        raise InputError(
            f"a part has the number {entry.number!r} and the file {entry.name!r}, which is not a"
            " part's name."
        )
