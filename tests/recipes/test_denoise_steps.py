"""Steps that train a denoiser and apply it: their commands, several processes, records of earlier versions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dinov2_noise.errors import ConfigError
from dinov2_noise.files import list_images, read_manifest
from dinov2_noise.recipes.plan import DONE, Plan
from dinov2_noise.recipes.run import show_plan
from dinov2_noise.recipes.slurm import submit

Make = Callable[..., Plan]
SETTINGS = """
steps:
  w:
    kind: denoise-train
    noisy: n
    output: w
    steps: 9
    batch_size: 8
    stride: 2
    ema: 0.99
    precision: bf16
    per_class: 100
    gpus: 4
  d:
    kind: denoise-apply
    noisy: n
    output: d
    weights: w/denoiser.pth
    padding: square
    max_pixels: 1000000
    precision: bf16
    debias: auto
    gpus: 2
  other:
    kind: denoise-apply
    noisy: n
    output: other
    model: my.module:make
    model_option: [sigma=0.1, "name=a b"]
"""
SMALL = """
steps:
  w:
    kind: denoise-train
    noisy: ${workdir}/noisy
    output: ${workdir}/weights
    steps: 2
    batch_size: 2
    crop: 64
    n_feature: 4
    gpus: 2
    cpus: 1
  d:
    kind: denoise-apply
    noisy: ${workdir}/noisy
    output: ${workdir}/denoised
    weights: ${workdir}/weights/denoiser.pth
    gpus: 2
    cpus: 1
"""


def test_settings_become_options(make: Make) -> None:
    plan = make(SETTINGS)
    assert plan.command("w") == [
        *("dinov2-noise", "denoise", "train", "n", "w", "--steps", "9", "--batch-size", "8", "--stride", "2"),
        *("--ema", "0.99", "--precision", "bf16", "--per-class", "100", "--gpus", "4"),
    ]
    assert plan.command("d") == [
        *("dinov2-noise", "denoise", "apply", "n", "d", "--weights", "w/denoiser.pth", "--padding", "square"),
        *("--max-pixels", "1000000", "--precision", "bf16", "--debias", "auto", "--gpus", "2"),
    ]
    assert plan.command("other") == [
        *("dinov2-noise", "denoise", "apply", "n", "other", "--model", "my.module:make"),
        *("--model-option", "sigma=0.1", "--model-option", "name=a b"),
    ]
    assert "--gpus" not in plan.command("w", 1), "a task of srun has its launcher"
    assert plan.needs["d"] == ["w"]


def test_ranges_and_bad_images(make: Make) -> None:
    text = "steps: {n: {kind: noise, source: c, output: n, noise: gauss50, range: asinh, format: webp, skip_bad: 2}, "
    text += "w: {kind: denoise-train, noisy: n, output: w, range: 'fixed:0,4095', skip_bad: 3}, "
    text += "d: {kind: denoise-apply, noisy: n, output: d, weights: w/denoiser.pth, range: asinh, skip_bad: 1}}"
    plan = make(text)
    assert plan.command("n")[-6:] == ["--format", "webp", "--range", "asinh", "--skip-bad", "2"]
    assert plan.command("w")[5:] == ["--range", "fixed:0,4095", "--skip-bad", "3"]
    assert plan.command("d")[-4:] == ["--range", "asinh", "--skip-bad", "1"]
    assert "skip_bad" not in plan.step("w").identity()
    assert plan.step("w").identity()["range"] == "fixed:0,4095"


def test_what_a_dataset_string_reads_is_an_input(make: Make, tmp_path: Path) -> None:
    text = "steps: {{n: {{kind: noise, source: c, output: n, noise: gauss50}}, w: {{kind: denoise-train, noisy: {}, "
    text += "output: w}}}}"
    noisy = "'ImageNet:split=TRAIN:root=n:extra=e:denoised=/nowhere'"
    plan = make(text.format(noisy))
    assert plan.step("w").reads() == [Path("n"), Path("e")]
    assert plan.needs["w"] == ["n"]
    for wrong, message in (
        ("'Imagenet:split=TRAIN:root=n'", "steps.w.noisy: unknown dataset 'Imagenet'"),
        ("'ImageFolder:root=n:noise=gauss50,mode=fresh'", "steps.w.noisy: .*fresh noise needs the epoch"),
    ):
        with pytest.raises(ConfigError, match=message):
            make(text.format(wrong))


def test_several_machines_are_for_slurm(make: Make, slurm: Any, capsys: pytest.CaptureFixture[str]) -> None:
    plan = make(SETTINGS.replace("gpus: 4", "gpus: 4\n    nodes: 2"))
    show_plan(plan, ["w"])
    assert "# runs as 2 nodes of 4 processes each, under --slurm only" in capsys.readouterr().out
    submit(plan, ["w"])
    job = slurm.job("101")
    assert (job["nodes"], job["ntasks-per-node"], job["gpus-per-node"]) == ("2", "4", "4")


def test_settings_that_contradict_each_other(make: Make) -> None:
    for text, message in (
        (SETTINGS.replace("batch_size: 8", "batch_size: 6"), "steps.w.batch_size: 6 images cannot be shared out"),
        (SETTINGS.replace("per_class: 100", "per_class: 100\n    images_per_class: 100"), "same setting: leave one"),
        (SETTINGS.replace("model: my.module:make", "seed: 1"), "unknown key steps.other.seed"),
        (SETTINGS.replace("    model: my.module:make\n", ""), "steps.other: give either weights or model"),
    ):
        with pytest.raises(ConfigError, match=message):
            make(text)


def test_old_name_of_the_selection_is_the_same_setting(make: Make) -> None:
    old = make(SETTINGS.replace("per_class", "images_per_class"))
    assert "--images-per-class" in old.command("w")
    assert old.step("w").identity() == make(SETTINGS).step("w").identity()
    assert old.step("w").identity()["images_per_class"] == 100


def test_records_of_earlier_versions_stay_valid(make: Make) -> None:
    """New settings at their defaults read as if they had always been there."""
    plan = make("steps: {d: {kind: denoise-apply, noisy: n, output: d, weights: w}}")
    identity = plan.step("d").identity()
    assert {key: value for key, value in identity.items() if value is not None} == {
        "noisy": "n",
        "output": "d",
        "weights": "w",
    }


@pytest.fixture
def small(make: Make, tmp_path: Path) -> Plan:
    rng = np.random.default_rng(0)
    (tmp_path / "w" / "noisy").mkdir(parents=True)
    for number in range(4):
        image = Image.fromarray(rng.integers(0, 256, size=(64, 64, 3), dtype=np.uint8))
        image.save(tmp_path / "w" / "noisy" / f"{number}.png")
    return make(SMALL)


@pytest.mark.slow
def test_tasks_of_a_job_train_and_denoise_together(small: Plan, slurm: Any, tmp_path: Path) -> None:
    submit(small, small.order)
    assert slurm.job("101")["ntasks-per-node"] == "2"
    for job in ("101", "102"):
        assert slurm.run(job, tmp_path) == 0, [*map(Path.read_text, (tmp_path / "w" / "logs").glob("*"))]
    assert [status.state for status in small.survey().values()] == [DONE, DONE]
    assert list_images(tmp_path / "w" / "denoised") == [f"{number}.png" for number in range(4)]
    assert read_manifest(tmp_path / "w" / "denoised")["complete"]
    assert (tmp_path / "w" / "logs" / "w.1.log").is_file()
