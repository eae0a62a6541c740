"""``dinov2-noise run``: from the options of the command line to a local run, a SLURM submission or a mere plan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dinov2_noise.errors import ConfigError
from dinov2_noise.recipes.plan import Plan
from dinov2_noise.recipes.recipe import load_recipe
from dinov2_noise.recipes.run import force, run_local, show_plan


@dataclass(frozen=True)
class Request:
    """Options of ``dinov2-noise run``; ``slurm_options`` are ``key=value``, the others names of steps."""

    dry_run: bool = False
    slurm: bool = False
    slurm_options: Sequence[str] = ()
    only: Sequence[str] = ()
    start: str | None = None
    force: Sequence[str] = ()


def run_recipe(path: Path, overrides: Sequence[str], workdir: Path | None, request: Request) -> None:
    """Read the recipe at ``path`` and do what ``request`` asks for.

    Raises:
        ConfigError: the recipe, a variable or an option is wrong.
        LaunchError: a step failed, or there is no SLURM.
    """
    plan = Plan(load_recipe(path, overrides, workdir=workdir))
    if request.only and request.start:
        raise ConfigError("--only and --from exclude each other")
    if request.slurm_options and not request.slurm:
        raise ConfigError("--slurm-option is for --slurm")
    names = plan.select(only=request.only, start=request.start)
    if request.dry_run:
        show_plan(plan, names)
        return
    force(plan, request.force)
    if request.slurm:
        from dinov2_noise.recipes.slurm import submit  # submitit takes a while to import

        submit(plan, names, request.slurm_options)
        return
    run_local(plan, names)
