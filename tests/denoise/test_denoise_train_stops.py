"""Runs that are interrupted, killed or diverge, and very small ones."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import clean_environment
from PIL import Image, ImageFilter

from dinov2_noise.denoise import train_denoiser
from dinov2_noise.denoise.images import read_rgb
from dinov2_noise.denoise.interrupt import Deferred
from dinov2_noise.errors import CheckpointError, DinoNoiseError, DivergedError
from dinov2_noise.files import read_manifest
from neighbor2neighbor import Trainer, load_checkpoint

QUICK: dict[str, Any] = {
    "batch_size": 2,
    "crop_px": 64,
    "n_feature": 4,
    "device": "cpu",
    "sample_every": 0,
    "progress": False,
}
FOUR = {f"{name}.png": (64, 70) for name in "abcd"}
Make = Callable[..., Path]


def weights_of(path: Path) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in load_checkpoint(path).parameters()])


@pytest.mark.parametrize(
    ("number", "leaves", "status"), [(signal.SIGINT, KeyboardInterrupt, None), (signal.SIGTERM, SystemExit, 143)]
)
def test_signal_within_a_step_saves_the_finished_one(
    make_images: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str],
    number: int, leaves: type[BaseException], status: int | None,
) -> None:  # fmt: skip
    """It comes while the log's line over steps 4 to 6 is half full, and the mean of the weights on its way."""
    noisy = make_images(tmp_path / "noisy", FOUR)
    monkeypatch.setattr("dinov2_noise.denoise.monitor._LOG_LINES", 3)
    monkeypatch.setattr("dinov2_noise.denoise.train._SNAPSHOTS", 1)
    monkeypatch.setattr("dinov2_noise.denoise.train.CACHE_BYTES", 0)
    settings = {**QUICK, "steps": 9, "ema": 0.9}
    train_denoiser(noisy, tmp_path / "whole", **settings)
    reads = iter(range(1000))

    def read(path: Path, *_: object) -> torch.Tensor:
        if next(reads) == 4 + 2 * 4 + 1:  # the check for correlation reads all four, each step reads two
            signal.raise_signal(number)
        return read_rgb(path)

    before = signal.getsignal(number)
    with monkeypatch.context() as patch:
        patch.setattr("dinov2_noise.denoise.images.read_rgb", read)
        with pytest.raises(leaves) as caught:
            train_denoiser(noisy, tmp_path / "out", **settings)
    assert status is None or caught.value.args == (status,)
    assert signal.getsignal(number) == before
    assert "the step is finished and saved first" in capfd.readouterr().err
    assert not read_manifest(tmp_path / "out")["complete"]
    state = torch.load(tmp_path / "out" / ".snapshot.pth", weights_only=True)
    assert state["step"] == 5
    assert len(state["pending"]) == 2
    continued = train_denoiser(noisy, tmp_path / "out", **settings)
    assert "continuing after step 5 of 9" in capfd.readouterr().err
    assert torch.equal(weights_of(continued), weights_of(tmp_path / "whole" / "denoiser.pth"))
    assert (tmp_path / "out" / "loss.jsonl").read_text() == (tmp_path / "whole" / "loss.jsonl").read_text()
    assert not (tmp_path / "out" / ".snapshot.pth").exists()


def test_second_signal_acts_at_once_and_foreign_handlers_stay() -> None:
    with Deferred() as signals:
        signal.raise_signal(signal.SIGINT)
        assert signals.received == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    seen: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: seen.append(number))
    try:
        with Deferred() as signals:
            signal.raise_signal(signal.SIGTERM)
        assert seen == [signal.SIGTERM]
        assert signals.received is None
    finally:
        signal.signal(signal.SIGTERM, before)


def test_ctrl_c_in_a_terminal_reaches_the_loader_too(make_images: Make, tmp_path: Path) -> None:
    make_images(tmp_path / "noisy", FOUR)
    status, errors = _run_until(tmp_path, 5, signal.SIGINT)
    assert status == 130, errors
    assert "Traceback" not in errors
    assert "interrupted: start the same command again to continue" in errors
    assert _snapshot_step(tmp_path / "out") == _logged(tmp_path / "out")


@pytest.mark.slow
def test_killed_run_loses_at_most_2_percent(make_images: Make, tmp_path: Path) -> None:
    make_images(tmp_path / "noisy", FOUR)
    assert _run_until(tmp_path, 50, signal.SIGKILL)[0] == -signal.SIGKILL
    first = _snapshot_step(tmp_path / "out")
    assert 0 <= _logged(tmp_path / "out") - first <= 8
    assert f"continuing after step {first} of 400" in _run_until(tmp_path, 150, signal.SIGKILL)[1]
    assert 0 <= _logged(tmp_path / "out") - _snapshot_step(tmp_path / "out") <= 8


def _run_until(folder: Path, at_least: int, number: int) -> tuple[int, str]:
    """Send a signal to all processes of a training of 400 steps when it has logged some: its status and stderr."""
    command = [sys.executable, "-m", "dinov2_noise", "denoise", "train", "noisy", "out", "--steps", "400"]
    command += ["--batch-size", "2", "--crop", "64", "--n-feature", "4", "--device", "cpu", "--workers", "1"]
    with subprocess.Popen(
        command, cwd=folder, env=clean_environment(), stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        deadline = time.monotonic() + 120
        while _logged(folder / "out") < at_least and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        os.killpg(process.pid, number)
        _, errors = process.communicate(timeout=60)
        return process.returncode, errors


def _logged(output: Path) -> int:
    """Lines of the log, one per step here."""
    return (output / "loss.jsonl").read_text().count("\n") if (output / "loss.jsonl").is_file() else 0


def _snapshot_step(output: Path) -> int:
    return int(torch.load(output / ".snapshot.pth", weights_only=True)["step"])


def test_slow_run_saves_by_the_clock_and_does_not_continue_with_another_crop(
    make_images: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noisy = make_images(tmp_path / "noisy", {"a.png": (128, 128), "b.png": (128, 130)})
    monkeypatch.setattr("dinov2_noise.denoise.train._SNAPSHOTS", 1)
    monkeypatch.setattr("dinov2_noise.denoise.train._SNAPSHOT_S", -1.0)
    take_step = Trainer._take_step
    settings = {**QUICK, "steps": 3, "crop_px": 128}
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_take_step", lambda self, batch: 1 / 0 if self.step == 2 else take_step(self, batch))
        with pytest.raises(ZeroDivisionError):
            train_denoiser(noisy, tmp_path / "out", **settings)
    assert _snapshot_step(tmp_path / "out") == 2
    make_images(noisy, {"b.png": (64, 64)})
    with pytest.raises(CheckpointError, match="crops were 128 px and are 64 px now"):
        train_denoiser(noisy, tmp_path / "out", **settings)


def test_full_disk_says_what_to_do_and_the_run_continues(make_images: Make, tmp_path: Path) -> None:
    noisy = make_images(tmp_path / "noisy", {"a.png": (64, 64)})
    settings = {**QUICK, "steps": 3}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))  # less than a snapshot
    try:
        with pytest.raises(DinoNoiseError, match=r"cannot write to .*out; is the disk full\? Make room and give the"):
            train_denoiser(noisy, tmp_path / "out", **settings)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert {path.name for path in (tmp_path / "out").glob(".*")} == {".lock"}  # no snapshot, nor a part of one
    train_denoiser(noisy, tmp_path / "out", **settings)
    assert _logged(tmp_path / "out") == 3


def test_infinite_loss_names_step_rate_and_images_and_keeps_the_snapshot(
    make_images: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The weights are finite still, and too large for the next pass."""
    noisy = make_images(tmp_path / "noisy", {f"{number}.png": (64, 64) for number in range(10)})
    with pytest.raises(DivergedError) as caught:
        train_denoiser(noisy, tmp_path / "out", **QUICK, steps=20, learning_rate=1e30)
    text = str(caught.value)
    assert "at step 2 of 20 (learning rate 1e+30)" in text
    assert "Images of the batch of step 2:" in text
    assert "Lower --lr and train into another folder; or, if something is wrong with these images" in text
    state = torch.load(tmp_path / "out" / ".snapshot.pth", weights_only=True)
    assert state["step"] == 1
    assert all(bool(torch.isfinite(weights).all()) for weights in state["model"].values())
    assert not (tmp_path / "out" / "denoiser.pth").exists()
    # The images are those that the second step reads.
    read: list[str] = []
    monkeypatch.setattr("dinov2_noise.denoise.train.CACHE_BYTES", 0)
    monkeypatch.setattr(
        "dinov2_noise.denoise.images.read_rgb", lambda path, *_: read.append(str(path)) or read_rgb(path)
    )
    with pytest.raises(DivergedError):
        train_denoiser(noisy, tmp_path / "out", **QUICK, steps=20, learning_rate=1e30)
    named = [line.strip() for line in text.splitlines() if line.startswith("  ")]
    assert sorted(named) == sorted(set(read))


def test_broken_weights_stop_before_they_are_saved(
    make_images: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As an overflow in the backward pass leaves them, while the loss is finite."""
    noisy = make_images(tmp_path / "noisy", {f"{number}.png": (64, 64) for number in range(20)})
    take_step = Trainer._take_step

    def overflow(self: Trainer, batch: torch.Tensor) -> Any:
        record = take_step(self, batch)
        if self.step == 3:
            with torch.no_grad():
                self.model.enc_conv0.bias[0] = torch.inf
        return record

    monkeypatch.setattr(Trainer, "_take_step", overflow)
    settings = {**QUICK, "batch_size": 12, "steps": 20}
    with pytest.raises(
        DivergedError, match=r"weights are not finite after step 3 of 20 \(learning rate 0\.0003\)"
    ) as one:
        train_denoiser(noisy, tmp_path / "out", **settings)
    assert "Images of the batch of step 3:" in str(one.value)
    assert "… and 4 more" in str(one.value)
    assert _snapshot_step(tmp_path / "out") == 2
    # Where no snapshot is due after step 3, the loss of step 4 shows it, and step 3 is still the one at fault.
    monkeypatch.setattr("dinov2_noise.denoise.train._SNAPSHOTS", 10)
    with pytest.raises(DivergedError, match=r"the loss is (inf|nan) at step 4 of 20") as two:
        train_denoiser(noisy, tmp_path / "other", **settings)
    assert str(one.value).splitlines()[1:-1] == str(two.value).splitlines()[1:-1]
    assert _snapshot_step(tmp_path / "other") == 2


def test_exploding_loss_is_no_error(make_images: Make, tmp_path: Path) -> None:
    noisy = make_images(tmp_path / "noisy", FOUR)
    train_denoiser(noisy, tmp_path / "out", **QUICK, steps=4, learning_rate=0.3)
    losses = [json.loads(line)["loss"] for line in (tmp_path / "out" / "loss.jsonl").read_text().splitlines()]
    assert max(losses) > 1000 * losses[0]


@pytest.mark.parametrize(("images", "epochs", "steps"), [(1, 2, 2), (3, 2, 2), (5, 2, 2)])
def test_few_images_and_batches_that_do_not_divide_them(
    make_images: Make, tmp_path: Path, images: int, epochs: int, steps: int
) -> None:
    noisy = make_images(tmp_path / "noisy", {f"{number}.png": (64, 64) for number in range(images)})
    train_denoiser(noisy, tmp_path / "out", **{**QUICK, "batch_size": 4}, epochs=epochs)
    assert _logged(tmp_path / "out") == steps
    assert read_manifest(tmp_path / "out")["images"] == images


@pytest.mark.parametrize(("blur_px", "stride", "warned"), [(0, 1, False), (1, 1, True)])
def test_correlated_noise_is_warned_of_before_the_first_step(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], blur_px: float, stride: int, warned: bool
) -> None:
    (tmp_path / "noisy").mkdir()
    for number in range(4):
        noise = np.random.default_rng(number).normal(128, 30, (128, 128, 3)).clip(0, 255).astype(np.uint8)
        image = Image.fromarray(noise).filter(ImageFilter.GaussianBlur(blur_px))
        image.save(tmp_path / "noisy" / f"{number}.png")
    train_denoiser(tmp_path / "noisy", tmp_path / "out", **QUICK, steps=1, stride=stride)
    assert ("warning: the noise is correlated between pixels" in capsys.readouterr().err) is warned
