"""Recipes: one YAML file per experiment, from noise to evaluation, run step by step on this machine or by SLURM."""

from dinov2_noise.recipes.recipe import Recipe, load_recipe

__all__ = ["Recipe", "load_recipe"]
