"""What a training leaves to be read beside the model: the log of its steps, and a journal of its
starts and ends.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from irdistill.storage.files import write_text


def cut_log(log: Path, step: int) -> None:
    """Forget what was logged after the checkpoint; a half-written last line goes too."""
    kept = []
    if log.exists():
        for line in log.read_text(encoding="utf-8").splitlines():
            try:
                if json.loads(line)["step"] <= step:
                    kept.append(line + "\n")
            except (ValueError, RecursionError, KeyError, TypeError):
                break
    write_text(log, "".join(kept))


def journal(folder: Path, **entry: Any) -> None:
    """Add a line with the time of day; nothing reads it, so it may differ between equal
    trainings.
    """
    with open(folder / "journal.jsonl", "a", encoding="utf-8") as stream:
        stream.write(
            json.dumps({"time": datetime.now(UTC).isoformat(timespec="seconds"), **entry}) + "\n"
        )
