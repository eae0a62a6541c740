"""Which steps are SLURM jobs that wait or run now."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from dinov2_noise.files import write_json
from dinov2_noise.slurm import queued_ids

if TYPE_CHECKING:
    from dinov2_noise.recipes.plan import Plan


def job_path(plan: Plan, name: str) -> Path:
    """Where the job of step ``name`` is noted: not in its record, which the job itself may be writing."""
    return plan.recipe.workdir / "steps" / f"{name}.job.json"


def note_job(plan: Plan, name: str, job_id: str) -> None:
    """Keep the id of the job that step ``name`` was submitted as."""
    write_json(job_path(plan, name), {"job_id": job_id})


def queued_jobs(plan: Plan) -> dict[str, str]:
    """Step → id of its job, of those that ``squeue`` lists; empty where there is no SLURM.

    Raises:
        LaunchError: ``squeue`` fails.
    """
    noted = {name: job_path(plan, name) for name in plan.order if job_path(plan, name).exists()}
    if not noted:
        return {}
    found = queued_ids()
    jobs = {name: str(json.loads(path.read_text(encoding="utf-8"))["job_id"]) for name, path in noted.items()}
    return {name: job_id for name, job_id in jobs.items() if job_id in found}
