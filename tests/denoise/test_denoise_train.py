"""``denoise train``: which images are used, what is written, continuing, refusing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image

from dinov2_noise.denoise import train_denoiser
from dinov2_noise.denoise.images import open_source
from dinov2_noise.denoise.selection import fitting_crop_px, select_images
from dinov2_noise.errors import (
    CheckpointError,
    ConfigError,
    DinoNoiseError,
    ImageError,
    MissingFolderError,
    OutputFolderError,
)
from dinov2_noise.files import read_manifest
from neighbor2neighbor import Trainer, load_checkpoint

QUICK: dict[str, Any] = {
    "steps": 3,
    "batch_size": 2,
    "crop_px": 64,
    "n_feature": 4,
    "residual": True,
    "device": "cpu",
    "progress": False,
}
FOUR = {f"{name}.png": (64, 70) for name in "abcd"}
Make = Callable[..., Path]


def weights_of(path: Path) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in load_checkpoint(path).parameters()])


def test_weights_config_log_and_manifest_are_written(make_images: Make, tmp_path: Path) -> None:
    weights = train_denoiser(make_images(tmp_path / "noisy", FOUR), tmp_path / "out", **QUICK)
    assert weights == tmp_path / "out" / "denoiser.pth"
    assert load_checkpoint(weights).residual
    config = OmegaConf.load(tmp_path / "out" / "config.yaml")
    assert (config.steps, config.n_feature, config.images) == (3, 4, 4)
    assert list(config.milestones) == [0.2, 0.4, 0.6, 0.8]
    lines = [json.loads(line) for line in (tmp_path / "out" / "loss.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3]
    assert all(np.isfinite(line["loss"]) for line in lines)
    manifest = read_manifest(tmp_path / "out")
    assert manifest["complete"]
    assert manifest["images"] == 4
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"denoiser.pth", "config.yaml", "loss.jsonl", "manifest.json", "samples", "tensorboard"}


def test_same_seed_same_weights(make_images: Make, tmp_path: Path) -> None:
    noisy = make_images(tmp_path / "noisy", FOUR)
    first, again, other = (
        weights_of(train_denoiser(noisy, tmp_path / name, **QUICK, seed=seed))
        for name, seed in (("first", 0), ("again", 0), ("other", 1))
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_only_the_train_folder_is_read(make_images: Make, tmp_path: Path) -> None:
    noisy = make_images(tmp_path / "noisy", {f"train/x/{name}": size for name, size in FOUR.items()})
    expected = weights_of(train_denoiser(noisy / "train", tmp_path / "direct", **QUICK))
    (noisy / "val").mkdir()
    (noisy / "val" / "broken.png").write_text("not an image")
    assert torch.equal(expected, weights_of(train_denoiser(noisy, tmp_path / "whole", **QUICK)))


def test_interrupted_run_continues_to_the_same_weights_and_log(
    make_images: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    noisy = make_images(tmp_path / "noisy", FOUR)
    expected = weights_of(train_denoiser(noisy, tmp_path / "whole", **QUICK))
    take_step = Trainer._take_step

    def interrupt(self: Trainer, batch: torch.Tensor) -> Any:
        if self.step == 2:
            raise KeyboardInterrupt
        return take_step(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_take_step", interrupt)
        with pytest.raises(KeyboardInterrupt):
            train_denoiser(noisy, tmp_path / "out", **QUICK)
    assert not read_manifest(tmp_path / "out")["complete"]
    assert not (tmp_path / "out" / "denoiser.pth").exists()
    with (tmp_path / "out" / "loss.jsonl").open("a") as log:
        log.write('{"step": 3, "cut')  # a line cut short by a crash
    assert torch.equal(expected, weights_of(train_denoiser(noisy, tmp_path / "out", **QUICK)))
    assert "continuing after step 2 of 3" in capsys.readouterr().err
    assert (tmp_path / "out" / "loss.jsonl").read_text() == (tmp_path / "whole" / "loss.jsonl").read_text()


def test_snapshot_of_other_images_is_refused(
    make_images: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noisy = make_images(tmp_path / "noisy", FOUR)
    with monkeypatch.context() as patch:
        patch.setattr("dinov2_noise.denoise.train.save_checkpoint", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            train_denoiser(noisy, tmp_path / "out", **QUICK)
    make_images(noisy, {"e.png": (64, 64)})
    with pytest.raises(CheckpointError, match="no longer those it was trained on; delete that file"):
        train_denoiser(noisy, tmp_path / "out", **QUICK)


def test_complete_run_returns_at_once_and_other_parameters_are_refused(
    make_images: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    noisy = make_images(tmp_path / "noisy", FOUR)
    weights = train_denoiser(noisy, tmp_path / "out", **QUICK)
    written = weights.stat().st_mtime_ns
    assert train_denoiser(noisy, tmp_path / "out", **QUICK) == weights
    assert weights.stat().st_mtime_ns == written
    assert "is complete; nothing to do" in capsys.readouterr().err
    with pytest.raises(OutputFolderError, match=r"learning_rate: there 0\.0003, now 0\.001"):
        train_denoiser(noisy, tmp_path / "out", **QUICK, learning_rate=1e-3)


def test_smaller_images_make_smaller_crops_with_a_message(
    make_images: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    noisy = make_images(tmp_path / "noisy", {"a.png": (200, 300), "b.png": (140, 400)})
    train_denoiser(noisy, tmp_path / "out", **{**QUICK, "steps": 1, "crop_px": 256})
    assert "smallest side of all images is 140 px, so crops are 128 px instead of 256 px" in capsys.readouterr().err
    assert OmegaConf.load(tmp_path / "out" / "config.yaml").crop_px == 256
    assert read_manifest(tmp_path / "out")["parameters"]["crop_px"] == 256
    assert read_manifest(tmp_path / "out")["crop_px_used"] == 128
    assert [fitting_crop_px(256, side) for side in (64, 127, 128, 255, 256, 999)] == [64, 64, 128, 192, 256, 256]


def test_images_under_64_px_are_named(make_images: Make, tmp_path: Path) -> None:
    noisy = make_images(tmp_path / "noisy", {"a.png": (64, 64), "sub/small.png": (80, 63)})
    with pytest.raises(ImageError, match=r"small\.png: it is 63x80 px, and both sides must be at least 64 px"):
        train_denoiser(noisy, tmp_path / "out", **QUICK)
    train_denoiser(noisy, tmp_path / "chosen", **QUICK, side_range_px=(64, 512))


def test_selection_per_class_is_drawn_by_seed(make_images: Make, tmp_path: Path) -> None:
    sizes = {f"{folder}/{number}.png": (64, 64 + number) for folder in "pq" for number in range(8)}
    noisy = make_images(tmp_path / "noisy", {**sizes, "q/big.png": (64, 600)})

    def select(seed: int) -> list[str]:
        source = open_source(noisy)
        indices, _ = select_images(source, images_per_class=3, side_range_px=(64, 512), seed=seed)
        return [source.names[index] for index in indices]

    chosen = select(0)
    assert [name[0] for name in chosen] == ["p"] * 3 + ["q"] * 3
    assert chosen == select(0)
    assert any(select(seed) != chosen for seed in range(1, 5))
    everything, smallest_px = select_images(open_source(noisy), images_per_class=None, side_range_px=None, seed=0)
    assert len(everything) == 17
    assert smallest_px == 64
    with pytest.raises(MissingFolderError, match="both sides in 65 to 70 px"):
        select_images(open_source(noisy), images_per_class=None, side_range_px=(65, 70), seed=0)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_truncated_image_stops_with_its_name(make_images: Make, tmp_path: Path, num_workers: int) -> None:
    noisy = make_images(tmp_path / "noisy", {"a.png": (64, 64)})
    content = (noisy / "a.png").read_bytes()
    (noisy / "a.png").write_bytes(content[: len(content) // 2])
    with pytest.raises(
        DinoNoiseError, match=r"^cannot use image .*a\.png: image file is truncated.*\nReplace it .* it continues"
    ):
        train_denoiser(noisy, tmp_path / "out", **QUICK, num_workers=num_workers)


def test_divergence_names_the_way_out(make_images: Make, tmp_path: Path) -> None:
    noisy = make_images(tmp_path / "noisy", FOUR)
    with pytest.raises(DinoNoiseError, match="lower the learning rate"):
        train_denoiser(noisy, tmp_path / "out", **QUICK, learning_rate=1e30)


def test_bad_settings_are_config_errors(make_images: Make, tmp_path: Path) -> None:
    noisy = make_images(tmp_path / "noisy", {"a.png": (64, 64)})
    with pytest.raises(ConfigError, match="multiple of 64"):
        train_denoiser(noisy, tmp_path / "out", crop_px=100)
    with pytest.raises(ConfigError, match="per_class"):
        train_denoiser(noisy, tmp_path / "out", **QUICK, images_per_class=0)
    with pytest.raises(ConfigError, match="device 'tpu9' is unknown"):
        train_denoiser(noisy, tmp_path / "other", **{**QUICK, "device": "tpu9"})
    with pytest.raises(MissingFolderError, match="does not exist"):
        train_denoiser(tmp_path / "absent", tmp_path / "third", **QUICK)


def test_gray_images_are_read_as_rgb(tmp_path: Path) -> None:
    (tmp_path / "noisy").mkdir()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)).save(
        tmp_path / "noisy" / "g.png"
    )
    weights = train_denoiser(tmp_path / "noisy", tmp_path / "out", **{**QUICK, "steps": 1})
    first_layer = torch.load(weights, weights_only=True)["model"]["enc_conv0.weight"]
    assert first_layer.shape[1] == 3
