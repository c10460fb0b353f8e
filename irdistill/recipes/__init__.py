"""Recipes: verbs in order, each stage an artifact on disk."""

from __future__ import annotations

from typing import Any

from irdistill.recipes.recipe import Recipe, Stage, read_recipe

__all__ = ["Recipe", "Stage", "read_recipe", "run_recipe"]


def __getattr__(name: str) -> Any:
    if name == "run_recipe":  # imports all verbs
        from irdistill.recipes.runner import run_recipe

        return run_recipe
    raise AttributeError(f"module 'irdistill.recipes' has no attribute {name!r}")
