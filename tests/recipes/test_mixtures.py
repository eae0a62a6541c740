"""What a step left is neither mixed with what comes of other inputs, nor taken away while it is being written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from helpers import SmallSet

from dinov2_noise.errors import BusyError, OutputFolderError
from dinov2_noise.recipes.execute import execute
from dinov2_noise.recipes.ledger import StepRecord
from dinov2_noise.recipes.plan import DONE, Plan
from dinov2_noise.recipes.run import force, run_local
from dinov2_noise.writing import locked

Make = Callable[..., Plan]


def test_force_leaves_a_step_that_runs_alone(make: Make, tmp_path: Path) -> None:
    plan = make("steps: {n: {kind: noise, source: s, output: '${workdir}/n', noise: gauss50}}")
    (tmp_path / "w" / "n").mkdir()
    with (
        locked(plan.record_path("n").with_suffix(".lock"), "n"),
        pytest.raises(BusyError, match="step n is being run by another process"),
    ):
        force(plan, ["n"])
    assert (tmp_path / "w" / "n").exists()


def test_folders_of_ours_are_not_of_two_inputs(make: Make, small_set: SmallSet, tmp_path: Path) -> None:
    text = f"""
steps:
  clean: {{kind: command, run: [cp, -rT, "{small_set.clean}", "${{workdir}}/clean"], outputs: ["${{workdir}}/clean"]}}
  noise: {{kind: noise, source: "${{workdir}}/clean", output: "${{workdir}}/n", noise: gauss50, workers: 1}}
  use: {{kind: command, run: ["true"], inputs: ["${{workdir}}/n"]}}
"""
    plan = make(text)
    run_local(plan, plan.order)
    # Of no consequence: the folder is complete, and nothing of it is done again.
    done = plan.record("noise")
    assert done is not None
    replace(done, state="failed").save(plan.record_path("noise"))
    run_local(plan, plan.order[:2])
    assert plan.status("use").state == DONE
    # The manifest will be the same, the pixels are others.
    image, other = [path for path in (tmp_path / "w" / "clean" / "train").rglob("*.*") if path.is_file()][:2]
    image.write_bytes(other.read_bytes())
    with pytest.raises(OutputFolderError, match=r"w/n was made from other inputs: clean .*Add --force noise"):
        run_local(plan, plan.order)
    force(plan, ["noise"])
    run_local(plan, plan.order[:2])
    assert str(plan.status("use")) == "changed: noise came out differently"


def test_a_probe_goes_on_only_from_its_own_heads(make: Make, tmp_path: Path) -> None:
    text = """
variables: {epochs: 10}
steps:
  run: {kind: train, config: nct_laptop, output: "${workdir}/run", dataset: "ImageFolder:root=n:denoised=d"}
  probe: {kind: linear, of: run, output: "${workdir}/probe", root: A, epochs: "${epochs}"}
"""
    plan = make(text)
    for path in plan.step("run").writes():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "w" / "run" / "config.yaml").touch()
    record = StepRecord("done", [], plan.step("run").identity(), plan.inputs("run"), [], "t", "id")
    record.save(plan.record_path("run"))
    checkpoint = tmp_path / "w" / "probe" / "last_checkpoint"
    checkpoint.parent.mkdir()
    (tmp_path / "w" / "logs" / "probe.log").mkdir(parents=True)  # so that no probe is started
    for epochs, kept in (("10", True), ("5", False)):
        settings = plan.step("probe").identity()
        replace(record, state="running", settings=settings, inputs=plan.inputs("probe")).save(plan.record_path("probe"))
        checkpoint.touch()
        with pytest.raises(IsADirectoryError):
            execute(make(text, f"epochs={epochs}"), "probe")
        assert checkpoint.exists() == kept
