"""Recipes: verbs in order, each stage an artifact on disk."""

from __future__ import annotations

from irdistill.recipes.recipe import Recipe, Stage, read_recipe
from irdistill.recipes.runner import run_recipe

__all__ = ["Recipe", "Stage", "read_recipe", "run_recipe"]
