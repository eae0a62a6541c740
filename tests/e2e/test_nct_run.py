"""One small NCT run through upstream's unmodified ``dinov2.train.train``, with two loader workers."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import SmallSet, clean_environment, run_python
from omegaconf import OmegaConf

pytestmark = pytest.mark.upstream

SWITCH, INSIDE, ITERATIONS = 6, 12, 14  # upstream saves every three epochs: on the switch, and inside the noisy stage
CONFIG: dict[str, Any] = {
    "train": {"batch_size_per_gpu": 4, "num_workers": 2, "OFFICIAL_EPOCH_LENGTH": 2, "centering": "centering"},
    "student": {"arch": "vit_tiny", "patch_size": 16, "drop_path_rate": 0.1, "layerscale": 1.0},
    "dino": {"head_n_prototypes": 32, "head_hidden_dim": 32, "head_bottleneck_dim": 16},
    "optim": {"epochs": 7, "warmup_epochs": 1, "scaling_rule": "${run_dinov2-noise_patch_first:sqrt_wrt_1024}"},
    "teacher": {"warmup_teacher_temp_epochs": 1},
    "crops": {"global_crops_size": 64, "local_crops_size": 32, "local_crops_number": 2},
    "evaluation": {"eval_period_iterations": ITERATIONS},
    "curriculum": {
        "stages": [
            {"name": "denoised", "epochs": 3, "view": "denoised", "schedule_epochs": 7},
            {"name": "noisy", "epochs": 4, "view": "noisy", "restart": True, "anchor": {"weight": 1.0, "heads": "ema"}},
        ]
    },
}


def train(config: Path, output: Path, dataset: str, *options: str) -> str:
    """Run upstream's training script; returns its log."""
    done = run_python(
        *("-m", "dinov2.train.train", "--config-file", str(config), "--output-dir", str(output)),
        *(f"train.dataset_path={dataset}", *options),
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def train_and_kill(config: Path, output: Path, dataset: str, last: str) -> None:
    """Run upstream's training script until its newest checkpoint is ``last``, and kill it without warning."""
    command = [sys.executable, "-m", "dinov2.train.train", "--config-file", str(config), "--output-dir", str(output)]
    with (config.parent / "killed.log").open("w") as log:
        process = subprocess.Popen(
            [*command, f"train.dataset_path={dataset}"], env=clean_environment(), stdout=log, stderr=log
        )
        tag, deadline = output / "last_checkpoint", time.monotonic() + 120
        while not (tag.exists() and tag.read_text() == last):
            assert process.poll() is None, log.name
            assert time.monotonic() < deadline, log.name
            time.sleep(0.02)
        time.sleep(0.2)
        process.kill()
        assert process.wait() == -signal.SIGKILL
    assert not (output / "model_final.pth").exists()


def flat(value: Any, name: str = "") -> dict[str, Any]:
    """Nested dictionaries and lists as one, by dotted name."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if items is None:
        return {name: value}
    return {key: leaf for part, child in items for key, leaf in flat(child, f"{name}.{part}".lstrip(".")).items()}


def same(a: Any, b: Any) -> bool:
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else bool(a == b)


def metrics(output: Path) -> dict[int, dict[str, float]]:
    """Iteration → what upstream logged there, without times."""
    lines = (output / "training_metrics.json").read_text().splitlines()
    entries = [json.loads(line) for line in lines]
    return {entry["iteration"]: {k: v for k, v in entry.items() if not k.endswith("_time")} for entry in entries}


def checkpoint(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return content


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("nct") / "nct.yaml"
    OmegaConf.save(OmegaConf.create(CONFIG), path)
    return path


@pytest.fixture(scope="module")
def run(config: Path, small_set: SmallSet) -> Path:
    output = config.parent / "run"
    train(config, output, small_set.pair())
    return output


def test_anchor_terms_appear_with_the_noisy_stage(run: Path) -> None:
    before, after = metrics(run)[0], metrics(run)[ITERATIONS - 1]
    names = ("anchor_dino_local_crops_loss", "anchor_dino_global_crops_loss", "anchor_ibot_loss")
    assert not any(name in before for name in names)
    assert all(0 < after[name] < 10 for name in names)


def test_the_frozen_teacher_is_the_ema_teacher_at_the_switch(run: Path) -> None:
    at_switch, final = checkpoint(run / f"model_{SWITCH - 1:07d}.pth"), checkpoint(run / "model_final.pth")
    assert at_switch["iteration"] == SWITCH - 1
    teacher = {k: v for k, v in at_switch["model"].items() if k.startswith("teacher.backbone.")}
    assert len(teacher) > 100
    moved = 0
    for name, tensor in teacher.items():
        frozen = final["model"][name.replace("teacher.", "frozen_teacher.networks.")]
        assert torch.equal(frozen, tensor), name
        moved += int(not torch.equal(final["model"][name], tensor))
    assert moved > 100, "the EMA teacher itself went on"
    assert int(final["model"]["frozen_teacher.frozen"]) == 1
    assert int(at_switch["model"]["frozen_teacher.frozen"]) == 0


def test_the_anchor_has_centers_of_its_own(run: Path) -> None:
    final = checkpoint(run / "model_final.pth")["model"]
    for loss in ("dino_loss", "ibot_patch_loss"):
        ours, main = final[f"frozen_teacher.{loss}.center"], final[f"{loss}.center"]
        assert ours.abs().sum() > 0
        assert not torch.equal(ours, main)


def test_the_restart_begins_with_a_fresh_optimizer(run: Path) -> None:
    for name, expected in ((f"model_{SWITCH - 1:07d}.pth", SWITCH), ("model_final.pth", ITERATIONS - SWITCH)):
        state = checkpoint(run / name)["optimizer"]["state"]
        # The last layer too: frozen, it is stepped with a learning rate of 0.
        assert {int(entry["step"]) for entry in state.values()} == {expected}


def test_killed_and_resumed_equals_uninterrupted(run: Path, config: Path, small_set: SmallSet) -> None:
    """Killed after the checkpoint at the switch, where the teacher is yet to be frozen, and after the one inside the
    anchored stage; drop path, two workers, then one.
    """
    resumed = config.parent / "resumed"
    train_and_kill(config, resumed, small_set.pair(), f"model_{SWITCH - 1:07d}.pth")
    train_and_kill(config, resumed, small_set.pair(), f"model_{INSIDE - 1:07d}.pth")
    log = train(config, resumed, small_set.pair(), "train.num_workers=1")
    assert f"Starting training from iteration {INSIDE}" in log
    expected, found = (flat(checkpoint(folder / "model_final.pth")) for folder in (run, resumed))
    assert expected.keys() == found.keys()
    assert any(name.startswith("optimizer.state.") for name in expected)
    assert [name for name in expected if not same(expected[name], found[name])] == []


def test_a_complete_run_started_again_stays_as_it_is(run: Path, config: Path, small_set: SmallSet) -> None:
    before = (run / "model_final.pth").read_bytes()
    log = train(config, run, small_set.pair())
    assert f"the run is complete, {ITERATIONS} iterations: nothing is left to train" in log
    assert (run / "model_final.pth").read_bytes() == before
    assert max(metrics(run)) == ITERATIONS - 1


def test_another_config_does_not_resume_from_it(run: Path, config: Path, small_set: SmallSet) -> None:
    done = run_python(
        *("-m", "dinov2.train.train", "--config-file", str(config), "--output-dir", str(run)),
        *(f"train.dataset_path={small_set.pair()}", "student.patch_size=8"),
    )
    assert done.returncode != 0
    assert "OutputFolderError" in done.stderr
    assert "student.patch_size: there 16, now 8" in done.stderr


def test_curriculum_without_denoised_folder_is_an_error(config: Path, small_set: SmallSet, tmp_path: Path) -> None:
    dataset = f"ImageNet:split=TRAIN:root={small_set.noisy}"
    done = run_python(
        *("-m", "dinov2.train.train", "--config-file", str(config), "--output-dir", str(tmp_path / "out")),
        f"train.dataset_path={dataset}",
    )
    assert done.returncode != 0
    assert "append `:denoised=FOLDER`" in done.stderr
    assert not (tmp_path / "out").exists(), "found before anything is written"


def test_student_starts_from_weights_that_fit_only(
    run: Path, config: Path, small_set: SmallSet, tmp_path: Path
) -> None:
    weights = run / "eval" / f"training_{ITERATIONS - 1}" / "teacher_checkpoint.pth"
    options = ("--eval-only", "--no-resume", f"student.pretrained_weights={weights}")
    done = run_python(
        *("-m", "dinov2.train.train", "--config-file", str(config), "--output-dir", str(tmp_path / "good")),
        *(*options[:2], f"train.dataset_path={small_set.pair()}", options[2]),
    )
    assert done.returncode == 0, done.stderr[-2000:]
    copied = checkpoint(tmp_path / "good" / "eval" / "manual_0" / "teacher_checkpoint.pth")["teacher"]
    for name in ("backbone.norm.weight", "dino_head.last_layer.weight_v"):
        assert torch.equal(copied[name], checkpoint(weights)["teacher"][name])
    done = run_python(
        *("-m", "dinov2.train.train", "--config-file", str(config), "--output-dir", str(tmp_path / "bad")),
        *(f"train.dataset_path={small_set.pair()}", options[2], "student.patch_size=8"),
    )
    assert done.returncode != 0
    assert "belong to another architecture" in done.stderr
    assert "patch size 16 in the file, 8 in the model (student.patch_size)" in done.stderr


def test_upstreams_probes_read_the_result(run: Path, small_set: SmallSet, tmp_path: Path) -> None:
    weights = run / "eval" / f"training_{ITERATIONS - 1}" / "teacher_checkpoint.pth"
    common = ["--config-file", str(run / "config.yaml"), "--pretrained-weights", str(weights), "--batch-size", "10"]
    common += ["--train-dataset", f"ImageNet:split=TRAIN:root={small_set.noisy}"]
    # Noise on the fly: the validation images are those of the noisy folder.
    common += ["--val-dataset", f"ImageNet:split=VAL:root={small_set.clean}:noise=gauss100"]
    knn = run_python("-m", "dinov2.eval.knn", *common, "--output-dir", str(tmp_path / "knn"), "--nb_knn", "5")
    assert knn.returncode == 0, knn.stderr[-3000:]
    assert "('full', 5) Top 1" in (tmp_path / "knn" / "results_eval_knn.json").read_text()
    linear = run_python(
        *("-m", "dinov2.eval.linear", *common, "--output-dir", str(tmp_path / "linear"), "--no-resume"),
        *("--epochs", "1", "--epoch-length", "2", "--num-workers", "1", "--eval-period-iterations", "0"),
        *("--learning-rates", "0.1"),
    )
    assert linear.returncode == 0, linear.stderr[-3000:]
    assert "best_classifier" in (tmp_path / "linear" / "results_eval_linear.json").read_text()


def test_weights_of_another_architecture_are_refused(run: Path, small_set: SmallSet, tmp_path: Path) -> None:
    weights = run / "eval" / f"training_{ITERATIONS - 1}" / "teacher_checkpoint.pth"
    done = run_python(
        *("-m", "dinov2.eval.knn", "--config-file", str(run / "config.yaml"), "--pretrained-weights", str(weights)),
        *("--output-dir", str(tmp_path), "--train-dataset", f"ImageNet:split=TRAIN:root={small_set.noisy}"),
        *("--val-dataset", f"ImageNet:split=VAL:root={small_set.noisy}", "--opts", "student.arch=vit_small"),
    )
    assert done.returncode != 0
    assert "belong to another architecture" in done.stderr
    assert "width 192 in the file, 384 in the model (student.arch)" in done.stderr
