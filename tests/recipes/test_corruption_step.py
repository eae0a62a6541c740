"""The step `corruptions`: what it needs, the command it becomes, the record it leaves."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf

from dinov2_noise.errors import ConfigError, DinoNoiseError
from dinov2_noise.evaluate_cli import evaluate_app
from dinov2_noise.evaluation.corruption_cells import CellResult
from dinov2_noise.evaluation.corruption_summary import Summary
from dinov2_noise.recipes.corruption_step import CorruptionsStep
from dinov2_noise.recipes.plan import Plan
from dinov2_noise.recipes.results import record_path, save_record

Make = Callable[..., Plan]
RECIPE = """
variables: {more: "{}"}
steps:
  robust: {kind: corruptions, of: nct, classifiers: heads, output: "${workdir}/robust", root: clean, severities: [1, 5],
    noises: [gauss100], knn: [20], workers: 2, geometry: official, allow_missing: true}
  alone: {kind: corruptions, of: nct, output: "${workdir}/alone", root: clean, noises: [], corruptions: "fog,snow"}
  stored: {kind: corruptions, of: nct, classifiers: kept/linear, output: "${workdir}/s", root: clean, imagenet_c: c}
  heads: {kind: linear, of: nct, output: "${workdir}/heads", root: clean}
  nct: {kind: train, config: in100-nct-gauss255, output: "${workdir}/nct"}
"""


def test_needs_and_commands(make: Make, tmp_path: Path) -> None:
    plan = make(RECIPE)
    w = tmp_path / "w"
    assert set(plan.needs["robust"]) == {"nct", "heads"}
    assert plan.needs["alone"] == plan.needs["stored"] == ["nct"]
    teacher = w / "nct/eval/training_249999/teacher_checkpoint.pth"
    start = [
        "dinov2-noise",
        "evaluate",
        "corruptions",
        "--config-file",
        f"{w}/nct/config.yaml",
        "--weights",
        f"{teacher}",
    ]
    start += ["--val-dataset", "ImageNet:split=VAL:root=clean"]
    train = ["--train-dataset", "ImageNet:split=TRAIN:root=clean"]
    assert plan.command("robust") == [
        *start,
        *("--classifiers", f"{w}/heads", *train, "--output", f"{w}/robust", "--name", "nct", "--corruptions", "all"),
        *("--knn", "20", "--severities", "1,5", "--noises", "gauss100"),
        *("--geometry", "official", "--allow-missing", "--workers", "2"),
    ]
    assert plan.command("alone")[9:] == [
        *(*train, "--output", f"{w}/alone", "--name", "nct", "--corruptions", "fog,snow", "--noises", "none")
    ]
    assert plan.command("stored")[9:11] == ["--classifiers", "kept/linear"]
    assert plan.command("stored")[-2:] == ["--imagenet-c", "c"]


def test_every_option_of_its_commands_exists(make: Make) -> None:
    plan = make(RECIPE)
    (command,) = [c for c in evaluate_app.registered_commands if c.callback and c.callback.__name__ == "corruptions"]
    assert command.callback is not None
    known = {f"--{name.replace('_', '-')}" for name in command.callback.__annotations__}
    for name in ("robust", "alone", "stored"):
        assert {word for word in plan.command(name) if word.startswith("--")} <= known


def test_settings_without_influence_do_not_count(make: Make) -> None:
    identity = make(RECIPE).step("robust").identity()
    assert "workers" not in identity
    assert identity["severities"] == [1, 5]


def test_classifiers_must_be_a_linear_step(make: Make) -> None:
    with pytest.raises(ConfigError, match=r"steps\.robust\.classifiers: nct is not a linear step"):
        make(RECIPE.replace("classifiers: heads", "classifiers: nct"))


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("imagenet_c: c", "imagenet_c: c, seed: 3", "size and seed are for images that are made"),
        ("classifiers: heads,", "classifiers: heads, linear_options: --epochs 1,", "linear_options is for heads"),
    ],
)
def test_settings_without_effect_are_refused(make: Make, old: str, new: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        make(RECIPE.replace(old, new))


@pytest.fixture
def measured(make: Make, tmp_path: Path) -> Plan:
    """A plan whose step `robust` has left its summary."""
    plan, w = make(RECIPE), tmp_path / "w"
    (w / "nct").mkdir(parents=True)
    OmegaConf.save(OmegaConf.create({"train": {"seed": 4}}), w / "nct/config.yaml")
    cells = {
        name: CellResult(name, f"D:{name}", {}, 50, {"linear": right, "knn20": 10}, 0.0, 0.0, {})
        for name, right in {"clean": 40, "gauss100": 20, "fog/1": 30, "fog/5": 10}.items()
    }
    Summary("nct", {}, cells, n_classes=12, missing=["snow/1"]).save(w / "robust")
    return plan


def test_the_record_holds_mean_accuracy_and_scores(
    measured: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("clean-extra").mkdir()
    np.save("clean-extra/entries-VAL.npy", np.zeros(50))
    step = measured.step("robust")
    assert isinstance(step, CorruptionsStep)
    save_record(measured, "robust", step)
    record = json.loads(record_path(measured, "robust").read_text())
    assert (record["arm"], record["metric"], record["seed"]) == ("nct", "corruptions_linear_top1", 4)
    assert record["value"] == pytest.approx(0.4)
    assert record["details"]["averaged over"] == "2 cells of 1 corruptions"
    assert record["details"]["missing"] == ["snow/1"]
    assert record["details"]["per_cent"]["linear"]["clean"] == pytest.approx(80)
    assert record["details"]["per_cent"]["linear"]["mCE"] is None


def test_a_summary_without_corruptions_is_no_result(measured: Plan, tmp_path: Path) -> None:
    step = measured.step("robust")
    assert isinstance(step, CorruptionsStep)
    cell = CellResult("clean", "D", {}, 50, {"linear": 40}, 0.0, 0.0, {})
    Summary("nct", {}, {"clean": cell}, n_classes=12).save(tmp_path / "w/robust")
    with pytest.raises(DinoNoiseError, match="no corruption"):
        save_record(measured, "robust", step)
