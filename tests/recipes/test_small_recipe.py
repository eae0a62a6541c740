"""`configs/small.yaml` to its end: on this machine, and as SLURM jobs whose training has two tasks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from helpers import run_python

from dinov2_noise.recipes import load_recipe
from dinov2_noise.recipes.plan import DONE, Plan
from dinov2_noise.recipes.run import run_local
from dinov2_noise.recipes.slurm import submit

pytestmark = [pytest.mark.upstream, pytest.mark.slow]
SMALL = Path(__file__).parents[2] / "configs" / "small.yaml"


def _result(workdir: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((workdir / "records" / "nct-knn.json").read_text())
    return content


def test_from_photographs_to_a_result_and_once_more(tmp_path: Path) -> None:
    arguments = ("-m", "dinov2_noise", "run", str(SMALL), "--workdir", "w")
    done = run_python(*arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    record = _result(tmp_path / "w")
    assert (record["arm"], record["metric"], record["n_images"], record["details"]["k"]) == ("nct", "knn_top1", 48, 5)
    assert record["value"] > 1 / 12, "chance"
    again = run_python(*arguments, cwd=tmp_path)
    assert again.stdout.count("done before") == 7


def test_as_slurm_jobs_with_two_tasks(tmp_path: Path, slurm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    recipe = tmp_path / "two.yaml"
    recipe.write_text(f"inherit: {SMALL}\nsteps: {{nct: {{gpus: 2}}, nct-knn: {{gpus: 2}}}}\n")
    plan = Plan(load_recipe(recipe, workdir=tmp_path / "w"))
    run_local(plan, plan.order[:-2])
    jobs = submit(plan, plan.order)
    assert list(jobs) == ["nct", "nct-knn"]
    assert slurm.job(jobs["nct"])["ntasks-per-node"] == "2"
    for name in jobs:
        assert slurm.run(jobs[name], tmp_path) == 0, (tmp_path / "w" / "logs" / f"{name}.log").read_text()[-3000:]
        assert plan.status(name).state == DONE
    log = (tmp_path / "w" / "nct" / "logs" / "log.txt").read_text()
    assert "batch_size_per_gpu: 8" in log
    assert (tmp_path / "w" / "logs" / "nct.1.log").exists(), "the second task's output"
    entry = json.loads((tmp_path / "w" / "nct" / "training_metrics.json").read_text().splitlines()[0])
    assert entry["current_batch_size"] == 8
    assert _result(tmp_path / "w")["n_images"] == 48
