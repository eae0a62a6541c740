"""Recipe steps that call `evaluate linear` and `evaluate knn`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from dinov2_noise.evaluation.records import Record
from dinov2_noise.recipes.own_probe_steps import LogisticStep, OwnKnnStep
from dinov2_noise.recipes.plan import Plan
from dinov2_noise.recipes.results import record_path, save_record

Make = Callable[..., Plan]
RECIPE = """
steps:
  run: {kind: train, config: nct_laptop, output: OUT, dataset: "ImageNet:split=TRAIN:root=noisy"}
  linear: {kind: evaluate-linear, of: run, arm: nct, root: noisy, output: OUT/probes, blocks: 4, workers: 2}
  knn: {kind: evaluate-knn, of: run, root: noisy, output: OUT/probes, k: [10, 20], noise: gauss50, needs: [linear]}
"""
TEACHER = "OUT/eval/training_399/teacher_checkpoint.pth"
MODEL = ["--config-file", "OUT/config.yaml", "--weights", TEACHER]
IMAGES = ["--train", "ImageNet:split=TRAIN:root=noisy", "--val", "ImageNet:split=VAL:root=noisy"]


def test_their_commands(make: Make) -> None:
    plan = make(RECIPE)
    shared = [*MODEL, *IMAGES, "--output", "OUT/probes", "--arm"]
    linear = ["nct", "--noise", "clean", "--workers", "2", "--blocks", "4"]
    assert plan.command("linear") == ["dinov2-noise", "evaluate", "linear", *shared, *linear]
    assert plan.command("knn") == [
        *("dinov2-noise", "evaluate", "knn", *shared),
        *("run", "--noise", "gauss50", "--k", "10,20"),
    ]


def test_their_records_stay_where_the_command_writes_them(make: Make) -> None:
    plan = make(RECIPE)
    linear, knn = plan.step("linear"), plan.step("knn")
    assert isinstance(linear, LogisticStep)
    assert isinstance(knn, OwnKnnStep)
    assert record_path(plan, "linear") == Path("OUT/probes/records/nct-logistic_top1-clean.json")
    assert linear.writes() == [record_path(plan, "linear")]
    assert record_path(plan, "knn") == knn.results == Path("OUT/probes/records/run-knn_top1-gauss50.json")
    assert plan.needs["knn"] == ["linear", "run"] or plan.needs["knn"] == ["run", "linear"]


def test_a_record_of_its_own_is_not_written_again(make: Make, tmp_path: Path) -> None:
    plan = make(RECIPE.replace("OUT", str(tmp_path / "out")))
    step = plan.step("linear")
    assert isinstance(step, LogisticStep)
    Record("nct", "logistic_top1", 0.5, 10, 0, "images").save(step.results)
    before = step.results.stat().st_mtime_ns
    save_record(plan, "linear", step)
    assert step.results.stat().st_mtime_ns == before
    assert not (plan.recipe.workdir / "records").exists()


def test_settings_that_change_nothing_do_not_count(make: Make) -> None:
    fast, slow = make(RECIPE).step("linear"), make(RECIPE.replace(", workers: 2", ", workers: 9")).step("linear")
    assert fast.identity() == slow.identity()
    assert fast.identity() != make(RECIPE.replace("blocks: 4", "blocks: 1")).step("linear").identity()
