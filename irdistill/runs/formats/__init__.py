"""Score files of other projects: read into the store and written from it."""

from __future__ import annotations

from irdistill.runs.formats.registry import FORMATS, Format
from irdistill.runs.formats.transfer import Exported, export_run, import_run

__all__ = ["FORMATS", "Exported", "Format", "export_run", "import_run"]
