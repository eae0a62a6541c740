"""Monitoring inside upstream's training: it changes nothing, tells what is there, and goes on after an interruption."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import SmallSet, run_python
from omegaconf import OmegaConf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from dinov2_noise.curriculum.sections import MonitorConfig
from dinov2_noise.monitor import read_log
from dinov2_noise.monitor.images import ImageSet, labelled_images, normalised, prepare, training_images
from dinov2_noise.monitor.values import Features, probe_values, unlabelled_values

pytestmark = pytest.mark.upstream

SCRIPT = Path(__file__).with_name("monitored_in_training.py")
PROBES = ("knn_top1/noisy", "linear_top1/noisy", "knn_top1/clean", "linear_top1/clean")
UNLABELLED = ("rank_me/noisy", "uniformity/noisy", "rank_me/denoised", "uniformity/denoised", "twin_agreement")


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("monitored")


@pytest.fixture(scope="module")
def found(small_set: SmallSet, output: Path) -> dict[str, Any]:
    folders = [str(folder) for folder in (small_set.noisy, small_set.clean, small_set.denoised, output)]
    done = run_python(str(SCRIPT), *folders, path=(SCRIPT.parent.parent,))
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    (output / "log.txt").write_text(done.stdout)
    results: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return results


def without_times(run: Path) -> list[dict[str, Any]]:
    lines = (run / "training_metrics.json").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if not k.endswith("_time")} for line in lines]


def without_seconds(run: Path) -> list[tuple[int, str, Any, Any]]:
    return [(m.iteration, m.stage, m.values, m.n_images) for m in read_log(run / "monitor.jsonl")]


def curves(run: Path) -> dict[str, dict[int, float]]:
    events = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    return {tag: {event.step: event.value for event in events.Scalars(tag)} for tag in events.Tags()["scalars"]}


def test_a_run_is_the_same_to_the_bit(found: dict[str, Any], output: Path) -> None:
    assert found["on"] == found["off"]
    assert found["on"]["modes"] == [True, False, False], "student in training, teacher not, and without gradients"
    assert without_times(output / "on") == without_times(output / "off")
    teachers = [
        torch.load(output / run / "eval" / "training_5" / "teacher_checkpoint.pth", weights_only=True)["teacher"]
        for run in ("on", "off")
    ]
    assert teachers[0].keys() == teachers[1].keys()
    assert all(torch.equal(teachers[0][name], teachers[1][name]) for name in teachers[0])
    for name in ("monitor.jsonl", "tensorboard"):
        assert (output / "on" / name).exists()
        assert not (output / "off" / name).exists()


def test_what_is_measured(found: dict[str, Any], output: Path) -> None:
    measured = read_log(output / "on" / "monitor.jsonl")
    assert [(m.iteration, m.stage) for m in measured] == [
        (2, "denoised"),
        (5, "noisy"),
        (8, "noisy"),
        (9, "noisy"),
    ], "every 3 iterations, and at the last"
    for m in measured:
        assert {*m.values} == {*PROBES, *UNLABELLED}
        assert m.n_images == {"unlabelled": 7, "train": 15, "val": 10}
        assert all(0 <= m.values[name] <= 1 for name in (*PROBES, "twin_agreement"))
        assert all(1 <= m.values[name] <= 7 for name in ("rank_me/noisy", "rank_me/denoised"))
        assert all(-8 <= m.values[name] < 0 for name in ("uniformity/noisy", "uniformity/denoised"))
        assert m.seconds >= 0
    assert len({m.values["rank_me/noisy"] for m in measured}) == 4, "the teacher moves"


def of_saved_teacher(run: Path, iteration: int, sets: Mapping[str, ImageSet], side_px: int) -> dict[str, Any]:
    """Features by set and view, image by image, of the backbone in the checkpoint of an iteration."""
    from dinov2_noise.upstream.probing.model import load_backbone_for_evaluation

    weights = run / "eval" / f"training_{iteration}" / "teacher_checkpoint.pth"
    model: Any = load_backbone_for_evaluation(run / "config.yaml", weights)
    found: dict[str, Any] = {}
    for name, images in sets.items():
        for view, read in images.views.items():
            pictures = normalised(prepare(read, images.indices, side_px))
            with torch.no_grad():
                tokens = [model.forward_features(picture[None]) for picture in pictures]
            cls = torch.cat([token["x_norm_clstoken"] for token in tokens])
            patch = torch.cat([token["x_norm_patchtokens"].mean(dim=1) for token in tokens])
            found.setdefault(name, {})[view] = Features(cls, patch)
    return found


def test_the_values_are_those_of_the_saved_teacher(
    found: dict[str, Any], small_set: SmallSet, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dinov2.models import vision_transformer
    from short_vit import vit_short

    monkeypatch.setattr(vision_transformer, "vit_short", vit_short, raising=False)
    images = training_images(small_set.pair(), 7)
    features = of_saved_teacher(output / "on", 5, {"unlabelled": images}, side_px=32)
    expected = unlabelled_values(features["unlabelled"], k=3)
    (measured,) = [m for m in read_log(output / "on" / "monitor.jsonl") if m.iteration == 5]
    assert {*expected} == {*UNLABELLED}
    for name, value in expected.items():
        assert measured.values[name] == pytest.approx(value, rel=1e-4), name


def test_an_interrupted_run_has_each_line_and_point_once(found: dict[str, Any], output: Path) -> None:
    assert without_seconds(output / "interrupted") == without_seconds(output / "on")
    whole, continued = curves(output / "on"), curves(output / "interrupted")
    assert whole.keys() == continued.keys()
    for tag in whole:
        assert list(continued[tag]) == sorted({*continued[tag]}), tag
        if tag.startswith("monitor/"):
            assert continued[tag] == whole[tag]


def test_curves(found: dict[str, Any], output: Path) -> None:
    shown, logged = curves(output / "on"), without_times(output / "on")
    assert [entry["iteration"] for entry in logged] == [0, 9]
    for name in ("total_loss", "dino_local_crops_loss", "koleo_loss", "ibot_loss"):
        assert shown[f"loss/{name}"] == pytest.approx({e["iteration"]: e[name] for e in logged}, rel=1e-6)
    last = next(line for line in (output / "log.txt").read_text().splitlines() if "it 10/10 | loss" in line)
    at_end = float(last.split(" | lr ")[1].split(" | ")[0])
    assert shown["schedule/lr"][9] == pytest.approx(at_end, rel=0.05), "of the step, not the median of 20"
    assert at_end < logged[-1]["lr"] / 2
    assert {"schedule/wd", "speed/iter_time", "speed/images_per_s", "health/rankme"} < {*shown}
    assert shown["stage"] == {0: 0.0, 9: 1.0}
    for name in (*PROBES, *UNLABELLED):
        values = {m.iteration: m.values[name] for m in read_log(output / "on" / "monitor.jsonl")}
        assert shown[f"monitor/{name}"] == pytest.approx(values, rel=1e-6)
    events = EventAccumulator(str(output / "on" / "tensorboard"))
    events.Reload()
    texts = [(e.step, e.tensor_proto.string_val[0].decode()) for e in events.Tensors("stage/name/text_summary")]
    assert texts == [(0, "denoised (1/2): view denoised"), (4, "noisy (2/2): view noisy")]


def test_lines_for_people(found: dict[str, Any], output: Path) -> None:
    lines = [line.split("] ", 1)[1] for line in (output / "log.txt").read_text().splitlines() if "img/s" in line]
    starts = [" | ".join(line.split(" | ")[:2]) for line in lines[:3]]
    assert starts == [
        "denoised 1/2 | epoch 2.0/5 it 4/10",
        "noisy 2/2 | epoch 4.0/5 it 8/10",
        "noisy 2/2 | epoch 5.0/5 it 10/10",
    ]
    assert all(len(line) <= 160 for line in lines)
    assert all(" local " in line and " lr " in line and "-bound" in line for line in lines)
    assert lines[2].endswith("0s left")
    measured = [line for line in (output / "log.txt").read_text().splitlines() if "measured at iteration 5" in line]
    assert "stage 'noisy': knn_top1 noisy " in measured[0]


def test_a_measurement_beyond_the_budget_is_left_out_and_the_last_made(found: dict[str, Any], output: Path) -> None:
    slow = without_seconds(output / "slow")
    whole = {entry[0]: entry for entry in without_seconds(output / "on")}
    assert [entry[0] for entry in slow] == [2, 9], "the first, whose length nobody knows, and the last"
    assert [whole[entry[0]] for entry in slow] == slow, "the same images and values"
    told = [line for line in (output / "log.txt").read_text().splitlines() if "not measured" in line]
    assert len(told) == 1
    assert "not measured at iteration 5, nor until " in told[0]
    assert "monitor.max_time_share, 0.5 (docs/monitoring.md)" in told[0]


def test_nothing_to_measure_and_nothing_to_show(found: dict[str, Any], output: Path) -> None:
    assert {path.name for path in (output / "plain").iterdir()} & {"monitor.jsonl", "tensorboard"} == set()
    assert without_times(output / "plain") == without_times(output / "off")


def test_two_processes_measure_what_one_would(small_set: SmallSet, tmp_path: Path) -> None:
    """Sets of odd sizes, dealt to two processes; compared with the teacher that they saved."""
    strings = {key: f"ImageNet:split={key.upper()}:root={small_set.clean}" for key in ("train", "val")}
    content = {
        "train": {"batch_size_per_gpu": 2, "num_workers": 0, "OFFICIAL_EPOCH_LENGTH": 2},
        "student": {"arch": "vit_tiny", "patch_size": 16, "drop_path_rate": 0.0, "layerscale": 1.0},
        "dino": {"head_n_prototypes": 32, "head_hidden_dim": 32, "head_bottleneck_dim": 16},
        "optim": {"epochs": 1, "warmup_epochs": 0},
        "teacher": {"warmup_teacher_temp_epochs": 1},
        "crops": {"global_crops_size": 32, "local_crops_size": 16, "local_crops_number": 2},
        "evaluation": {"eval_period_iterations": 2},
        "health": {"trial_save": False},
        "curriculum": {"stages": [{"name": "noisy", "epochs": 1, "view": "noisy"}]},
        "monitor": {**strings, "noise": "gauss100", "n_train": 15, "n_val": 9, "n_images": 7, "knn": 3, "image_px": 48},
    }
    OmegaConf.save(OmegaConf.create(content), tmp_path / "config.yaml")
    done = run_python(
        *("-m", "dinov2_noise", "train", str(tmp_path / "config.yaml"), "--output", str(tmp_path / "run")),
        *("--gpus", "2", f"train.dataset_path={small_set.pair()}"),
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    assert len(list((tmp_path / "run" / "tensorboard").iterdir())) == 1, "of the first process alone"
    (measured,) = read_log(tmp_path / "run" / "monitor.jsonl")
    assert measured.n_images == {"unlabelled": 7, "train": 15, "val": 9}

    config = MonitorConfig(**strings, noise="gauss100", n_train=15, n_val=9)
    labelled = labelled_images(config)
    assert labelled is not None
    train, val = labelled
    sets = {"unlabelled": training_images(small_set.pair(), 7), "train": train, "val": val}
    features = of_saved_teacher(tmp_path / "run", 1, sets, side_px=48)
    assert train.labels is not None
    assert val.labels is not None
    expected = probe_values(features["train"], train.labels, features["val"], val.labels, k=3)
    expected |= unlabelled_values(features["unlabelled"], k=3)
    assert {*measured.values} == {*expected} == {*PROBES, *UNLABELLED}
    for name, value in expected.items():
        assert measured.values[name] == pytest.approx(value, rel=1e-4), name
