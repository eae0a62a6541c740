"""From a folder of 16-bit TIFF and FITS frames to a pair of views, by the commands a reader of docs/data.md types."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from helpers import run_python
from instrument_files import write_fits
from omegaconf import OmegaConf
from PIL import Image
from typer.testing import CliRunner

from dinov2_noise.cli import app
from dinov2_noise.data import PairedImages, make
from dinov2_noise.decoding import load_pixels, parse_range
from dinov2_noise.errors import ConfigError, PairError

WHITE = 4095
RANGE = f"fixed:0,{WHITE}"
KEY = f"range={RANGE.replace(':', ',')}"
CONFIG = {
    "train": {"batch_size_per_gpu": 2, "num_workers": 2, "OFFICIAL_EPOCH_LENGTH": 1, "centering": "centering"},
    "student": {"arch": "vit_tiny", "patch_size": 16, "drop_path_rate": 0.1, "layerscale": 1.0},
    "dino": {"head_n_prototypes": 32, "head_hidden_dim": 32, "head_bottleneck_dim": 16},
    "optim": {"epochs": 3, "warmup_epochs": 1},
    "teacher": {"warmup_teacher_temp_epochs": 1},
    "crops": {"global_crops_size": 64, "local_crops_size": 32, "local_crops_number": 2},
    "curriculum": {
        "stages": [
            {"name": "denoised", "epochs": 1, "view": "denoised"},
            {
                "name": "noisy",
                "epochs": 2,
                "view": "noisy",
                "restart": True,
                "anchor": {"weight": 1.0},
                "gaussian_patch": {"max_sigma": 0.1},
            },
        ]
    },
}
TRAINING = ("--steps", "2", "--crop", "64", "--n-feature", "8", "--batch-size", "2", "--residual", "--lr", "1e-3")


@pytest.fixture
def frames(tmp_path: Path) -> Path:
    """Four frames of a 12-bit camera: a ramp with noise, as 16-bit integers, one as floats with a dead row."""
    root, rng = tmp_path / "frames", np.random.default_rng(0)
    (root / "night 1").mkdir(parents=True)
    for number in range(4):
        ramp = np.linspace(200, 3000, 64 * 80).reshape(64, 80)
        frame = np.clip(np.rint(rng.normal(ramp, 150)), 0, WHITE)
        if number < 2:
            tifffile.imwrite(root / "night 1" / f"{number}.tif", frame.astype(np.uint16))
        elif number == 2:
            write_fits(root / "night 1" / "2.fits", frame.astype(np.uint16))
        else:
            frame[5] = np.nan
            write_fits(root / "night 1" / "3.fits.gz", frame.astype(np.float32))
    return root


def _run(*arguments: object) -> str:
    done = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_from_frames_to_a_pair(frames: Path, tmp_path: Path) -> None:
    assert "all 4 images can be used" in _run("check", frames, "--range", RANGE, "--workers", "1")
    weights, denoised = tmp_path / "denoiser", tmp_path / "denoised"
    _run("denoise", "train", frames, weights, "--range", RANGE, *TRAINING)
    _run("denoise", "apply", frames, denoised, "--weights", weights / "denoiser.pth", "--range", RANGE)
    with pytest.raises(ConfigError, match=rf"range {RANGE}"):
        _run("denoise", "apply", frames, tmp_path / "other", "--weights", weights / "denoiser.pth")

    dataset = make(f"ImageFolder:root={frames}:denoised={denoised}:range={RANGE.replace(':', ',')}")
    assert isinstance(dataset, PairedImages)
    names = [dataset.relative_path(index) for index in range(len(dataset))]
    assert names == [f"night 1/{name}" for name in ("0.tif", "1.tif", "2.fits", "3.fits.gz")]
    for index, name in enumerate(names):
        deep = load_pixels(frames / name, parse_range(RANGE))
        noisy, twin = np.asarray(dataset.noisy(index)), np.asarray(dataset.denoised(index))
        np.testing.assert_array_equal(noisy, np.rint(deep * 255))
        assert noisy[0, 0, 0] < noisy[-1, -1, 0] < 220  # neither white nor black
        assert np.abs(noisy.astype(float) - twin).mean() < 20  # two steps of a residual network: nearly the identity
    assert not np.asarray(dataset.noisy(3))[5].any()
    for other in (":range=percentile,1,99", ""):
        with pytest.raises(PairError, match=f"made with {RANGE}"):
            make(f"ImageFolder:root={frames}:denoised={denoised}{other}")


def test_noise_is_added_at_full_depth(frames: Path, tmp_path: Path) -> None:
    noisy = tmp_path / "noisy"
    _run("add-noise", frames, noisy, "--noise", "gauss50", "--range", RANGE, "--workers", "1")
    dataset = make(f"ImageFolder:root={frames}:noise=gauss50:range={RANGE.replace(':', ',')}")
    stored = make(f"ImageFolder:root={noisy}")
    for index in range(4):
        np.testing.assert_array_equal(np.asarray(dataset[index][0]), np.asarray(stored[index][0]))
    clean = load_pixels(frames / "night 1" / "0.tif", parse_range(RANGE))
    noise = (np.asarray(stored[0][0]) + 0.5) / 255 - clean
    middle = (clean > 0.4) & (clean < 0.6)
    assert noise[middle].std() == pytest.approx(50 / 255, rel=0.03)


def test_twins_of_noisy_copies_belong_to_either_range(frames: Path, tmp_path: Path) -> None:
    """A copy by ``add-noise`` has 8 bits, whatever its frames had; noise on the fly starts from the frames."""
    noisy, weights, denoised = tmp_path / "noisy", tmp_path / "denoiser", tmp_path / "denoised"
    _run("add-noise", frames, noisy, "--noise", "gauss50", "--range", RANGE, "--workers", "1")
    _run("denoise", "train", noisy, weights, *TRAINING)
    _run("denoise", "apply", noisy, denoised, "--weights", weights / "denoiser.pth")
    make(f"ImageFolder:root={noisy}:denoised={denoised}")
    make(f"ImageFolder:root={frames}:noise=gauss50:denoised={denoised}:{KEY}")
    for text in (f"{noisy}:{KEY}", f"{frames}:noise=gauss50"):
        with pytest.raises(PairError, match="made with"):
            make(f"ImageFolder:root={text}:denoised={denoised}")


@pytest.mark.upstream
def test_training_at_full_depth(frames: Path, tmp_path: Path) -> None:
    """Upstream's own training script: the noisy crops have more levels than 8 bits have, the denoised ones do not."""
    for number, name in enumerate(("0.tif", "1.tif", "2.fits", "3.fits.gz")):
        twin = (tmp_path / "denoised" / "night 1" / name).with_suffix(".png")
        twin.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (80, 64), (60 + number,) * 3).save(twin)
    config, output, recorder = tmp_path / "run.yaml", tmp_path / "run", Path(__file__).with_name("recorded_training.py")
    OmegaConf.save(OmegaConf.create(CONFIG), config)
    text = f"ImageFolder:root={frames}:denoised={tmp_path}/denoised:{KEY}:depth=full"
    command = ("--config-file", str(config), "--output-dir", str(output), f"train.dataset_path={text}")
    done = run_python(str(recorder), str(tmp_path / "seen"), *command)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    rows = [json.loads(line) for line in (output / "training_metrics.json").read_text().splitlines()]
    assert np.isfinite([row["total_loss"] for row in rows]).all()
    for iteration in range(3):
        batch = torch.load(tmp_path / "seen" / f"{iteration}.pth", weights_only=True)
        n_levels = [len(torch.unique(crop[0])) for crop in batch["collated_global_crops"]]
        assert max(n_levels) == 1 if iteration == 0 else min(n_levels) > 256
        if iteration:
            assert max(len(torch.unique(crop[0])) for crop in batch["collated_global_crops_anchor"]) == 1
