"""The watch inside upstream's training: what it shows, when it stops a run, and what it costs."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import SmallSet, run_python
from omegaconf import OmegaConf

pytestmark = pytest.mark.upstream

SCRIPT = Path(__file__).with_name("watched_in_training.py")
SIGNS = ("feature_std", "rankme", "distinct_cls", "prototype_entropy", "assignment_entropy")


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("watched")


@pytest.fixture(scope="module")
def found(small_set: SmallSet, output: Path) -> dict[str, Any]:
    done = run_python(str(SCRIPT), small_set.pair(), str(output))
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    results: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    (output / "log.txt").write_text(done.stdout)
    return results


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_no_step_waits_more_often_than_plain_dinov2(found: dict[str, Any]) -> None:
    plain = found["plain"]["waits"]
    assert plain["_local_scalar_dense"] >= len(found["plain"]["terms"]) == 4, "one per loss term"
    for kind in ("nc", "nct"):
        for name, count in found[kind]["waits"].items():
            assert count <= plain.get(name, 0), f"{kind}: {name}"
        saved = plain["_local_scalar_dense"] - found[kind]["waits"].get("_local_scalar_dense", 0)
        assert saved == 4, "our one copy is no element read"
    assert len(found["nct"]["terms"]) == 7


def test_skipped_steps_end_the_run(found: dict[str, Any]) -> None:
    message = found["skipped"]
    assert message.startswith("2 steps, then the gradient scaler left out 3 optimizer steps in a row, the last at")
    assert "iteration 2 (stage 'denoised'), 3 in all" in message
    assert "fp32 needs no gradient scaler" in message


def test_signs_in_files_and_console(found: dict[str, Any], output: Path) -> None:
    measured = _lines(output / "run" / "health.jsonl")
    assert [entry["iteration"] for entry in measured] == [0, 2, 4]
    assert [entry["stage"] for entry in measured] == ["denoised", "denoised", "noisy"]
    for entry in measured:
        assert 0.1 / math.sqrt(192) < entry["feature_std"] < 1.1 / math.sqrt(192)
        assert 1 <= entry["rankme"] <= entry["n_tokens"] == 4
        assert entry["distinct_cls"] == 1
        assert 0 <= entry["assignment_entropy"] <= entry["prototype_entropy"] <= 1
        assert (entry["n_dims"], entry["n_prototypes"]) == (192, 32)
    assert "anchor_gap" not in measured[0]
    assert 0 < measured[2]["anchor_gap"] < 1
    logged = {entry["iteration"]: entry for entry in _lines(output / "run" / "training_metrics.json")}
    for name in SIGNS:
        assert logged[0][name] == pytest.approx(measured[0][name], abs=1e-6)
        assert logged[5][name] == pytest.approx(measured[2][name], abs=1e-6), "until the next one comes"
        assert f"{name}: {measured[0][name]:.4f}  " in (output / "log.txt").read_text()
    assert "anchor_gap" not in logged[0]
    assert "skipped_steps" not in logged[5], "there is no scaler on a CPU"
    terms = sum(value for name, value in logged[0].items() if name.endswith("_loss") and name != "total_loss")
    assert logged[0]["total_loss"] == pytest.approx(terms), "signs are no loss"


def test_only_a_curriculum_is_watched(found: dict[str, Any], output: Path) -> None:
    log = (output / "log.txt").read_text()
    assert log.count("KoLeo in float32") == 4, "one line for nc, nct, skipped and run each, none for plain"
    assert not (output / "plain" / "health.jsonl").exists()


def test_a_run_that_diverges_on_two_processes(small_set: SmallSet, tmp_path: Path) -> None:
    content = {
        "train": {"batch_size_per_gpu": 2, "num_workers": 0, "OFFICIAL_EPOCH_LENGTH": 4, "centering": "centering"},
        "student": {"arch": "vit_tiny", "patch_size": 16, "drop_path_rate": 0.0, "layerscale": 1.0},
        "dino": {"head_n_prototypes": 32, "head_hidden_dim": 32, "head_bottleneck_dim": 16},
        "optim": {"epochs": 1, "warmup_epochs": 0, "base_lr": 1e7},
        "teacher": {"warmup_teacher_temp_epochs": 1},
        "crops": {"global_crops_size": 64, "local_crops_size": 32, "local_crops_number": 2},
        "curriculum": {"stages": [{"name": "noisy", "epochs": 1, "view": "noisy"}]},
        "health": {"trial_save": False},
    }
    OmegaConf.save(OmegaConf.create(content), tmp_path / "config.yaml")
    output = tmp_path / "run"
    done = run_python(
        *("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "dinov2.train.train"),
        *("--config-file", str(tmp_path / "config.yaml"), "--output-dir", str(output)),
        f"train.dataset_path={small_set.pair()}",
    )
    assert done.returncode != 0
    assert "DivergedError: the loss is not finite at iteration" in done.stderr
    assert "(stage 'noisy'): dino_local_crops_loss=nan" in done.stderr
    assert "1. the learning rate is" in done.stderr
    (measured,) = _lines(output / "health.jsonl")
    assert measured["n_tokens"] == 4, "two images of each process"
    paths = sorted((output / "bad_batch").iterdir())
    assert [path.name.rsplit("_", 1)[1] for path in paths] == ["0.pt", "1.pt"]
    drawn: list[int] = []
    for rank, path in enumerate(paths):
        assert str(path) in done.stderr
        batch = torch.load(path, weights_only=True)
        assert batch["rank"] == rank
        assert path.name == f"iteration_{batch['iteration']}_rank_{rank}.pt"
        assert batch["number"] == (batch["iteration"] * 2 + rank) * 2
        assert batch["collated_global_crops"].shape == (4, 3, 64, 64)
        assert math.isnan(batch["losses"]["dino_global_crops_loss"])
        assert all((small_set.noisy / name).is_file() for name in batch["image_paths"])
        drawn += batch["image_indices"]
    assert len(set(drawn)) == 4, "the processes of a step see different images"
