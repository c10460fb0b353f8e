"""The command line: one command a verb. Nothing but argument handling lives here."""

from __future__ import annotations

from irdistill.cli.entry_point import main

__all__ = ["main"]
