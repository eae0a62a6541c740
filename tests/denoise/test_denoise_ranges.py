"""Images of more than 8 bits: one range from training to application, recorded, and refused where it is another."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from typer.testing import CliRunner

from dinov2_noise.cli import app
from dinov2_noise.decoding import parse_range
from dinov2_noise.denoise import apply_denoiser, train_denoiser
from dinov2_noise.denoise.images import open_source
from dinov2_noise.denoise.validation import Validation
from dinov2_noise.errors import ConfigError, DatasetStringError, OutputFolderError
from dinov2_noise.files import read_manifest
from neighbor2neighbor import UNet, load_checkpoint, read_notes, save_checkpoint

RANGE = parse_range("fixed:100,4000")
QUICK: dict[str, Any] = {"steps": 2, "batch_size": 2, "crop_px": 64, "n_feature": 4, "device": "cpu", "progress": False}
OPTIONS = ["--steps=2", "--batch-size=2", "--crop=64", "--n-feature=4", "--device=cpu", "--range", RANGE.name]


@pytest.fixture
def deep(tmp_path: Path) -> Path:
    """16-bit frames of which 12 bits are used."""
    (tmp_path / "deep").mkdir()
    for number in range(3):
        values = np.random.default_rng(number).integers(0, 4096, (64, 80)).astype(np.uint16)
        Image.fromarray(values).save(tmp_path / "deep" / f"{number}.png")
    return tmp_path / "deep"


@pytest.fixture
def plain(deep: Path, tmp_path: Path) -> Path:
    """What they are in that range, as 8-bit files."""
    (tmp_path / "plain").mkdir()
    for path in deep.iterdir():
        stored = np.asarray(Image.open(path)).astype(float)
        values = np.rint(np.clip((stored - 100) / 3900, 0, 1) * 255).astype(np.uint8)
        Image.fromarray(values).convert("RGB").save(tmp_path / "plain" / path.name)
    return tmp_path / "plain"


def test_deep_images_train_and_are_denoised_as_their_8_bit_versions(deep: Path, plain: Path, tmp_path: Path) -> None:
    weights = train_denoiser(deep, tmp_path / "w", **QUICK, values=RANGE, sample_every=1, validation=(deep, deep))
    other = train_denoiser(plain, tmp_path / "w8", **QUICK, sample_every=1, validation=(plain, plain))
    for one, two in zip(load_checkpoint(weights).parameters(), load_checkpoint(other).parameters(), strict=True):
        assert torch.equal(one, two)
    for name in ("loss.jsonl", "validation.jsonl", "samples/step_0000002.png"):
        assert (tmp_path / "w" / name).read_bytes() == (tmp_path / "w8" / name).read_bytes()
    assert read_manifest(tmp_path / "w")["parameters"]["range"] == RANGE.name
    assert "range" not in read_manifest(tmp_path / "w8")["parameters"]
    apply_denoiser(deep, tmp_path / "d", weights=weights, values=RANGE, device="cpu", progress=False)
    apply_denoiser(plain, tmp_path / "d8", weights=other, device="cpu", progress=False)
    for name in ("0.png", "1.png", "2.png"):
        assert (tmp_path / "d" / name).read_bytes() == (tmp_path / "d8" / name).read_bytes()
    assert read_manifest(tmp_path / "d")["parameters"]["range"] == RANGE.name
    assert "range" not in read_manifest(tmp_path / "d8")["parameters"]


def test_weights_go_with_their_range_wherever_they_are_copied(deep: Path, plain: Path, tmp_path: Path) -> None:
    weights = train_denoiser(deep, tmp_path / "w", **QUICK, values=RANGE)
    copy = Path(shutil.copy(weights, tmp_path / "copy.pth"))
    asinh = parse_range("asinh")
    for source, values in ((plain, parse_range("dtype")), (deep, asinh)):
        with pytest.raises(ConfigError) as caught:
            apply_denoiser(source, tmp_path / "out", weights=copy, values=values, progress=False)
        assert f"{copy} was trained on images read with range fixed:100,4000" in str(caught.value)
        assert f"would be read with {values.name}: add --range fixed:100,4000" in str(caught.value)
    eight = train_denoiser(plain, tmp_path / "w8", **QUICK)
    with pytest.raises(ConfigError, match="read with range dtype, and they would be read with asinh"):
        apply_denoiser(deep, tmp_path / "out", weights=eight, values=asinh, progress=False)
    assert not (tmp_path / "out").exists()
    # Of published weights, and of others' denoisers, nothing is known.
    torch.save(load_checkpoint(eight).state_dict(), tmp_path / "bare.pth")
    apply_denoiser(deep, tmp_path / "bare", weights=tmp_path / "bare.pth", values=asinh, device="cpu", progress=False)
    apply_denoiser(deep, tmp_path / "model", model=nn.Identity(), values=asinh, device="cpu", progress=False)
    with pytest.raises(OutputFolderError, match=r"range: there 'asinh:0\.1,0\.5,99\.9', now 'fixed:100,4000'"):
        apply_denoiser(deep, tmp_path / "model", model=nn.Identity(), values=RANGE, device="cpu", progress=False)


def test_a_dataset_string_brings_its_own_range(deep: Path, tmp_path: Path) -> None:
    text = f"ImageFolder:root={deep}:range={RANGE.token}"
    source = open_source(text)
    assert source.values == RANGE
    assert torch.equal(source[1], open_source(deep, RANGE)[1])
    weights = train_denoiser(text, tmp_path / "w", **QUICK)
    assert read_notes(weights) == {"range": RANGE.name}
    assert "range" not in read_manifest(tmp_path / "w")["parameters"]  # it stands in the string
    with pytest.raises(DatasetStringError, match=r"--range asinh.* is for folders: in a dataset string write .*range="):
        train_denoiser(text, tmp_path / "x", **QUICK, values=parse_range("asinh"))
    with pytest.raises(DatasetStringError, match="fresh"):
        train_denoiser(f"{text}:noise=gauss50,mode=fresh", tmp_path / "x", **QUICK)
    assert not (tmp_path / "x").exists()


def test_the_commands_and_the_config_they_leave(deep: Path, tmp_path: Path) -> None:
    def run(*words: str) -> None:
        CliRunner().invoke(app, ["denoise", *words], catch_exceptions=False, standalone_mode=False)

    run("train", str(deep), str(tmp_path / "w"), *OPTIONS)
    assert f"range: {RANGE.name}" in (tmp_path / "w" / "config.yaml").read_text()
    run("train", str(deep), str(tmp_path / "again"), "--config", str(tmp_path / "w" / "config.yaml"), "--device=cpu")
    assert (tmp_path / "again" / "denoiser.pth").read_bytes() == (tmp_path / "w" / "denoiser.pth").read_bytes()
    weights = str(tmp_path / "w" / "denoiser.pth")
    run("apply", str(deep), str(tmp_path / "d"), "--weights", weights, "--range", RANGE.name, "--device=cpu")
    assert read_manifest(tmp_path / "d")["complete"]
    with pytest.raises(ConfigError, match="unknown range 'sqrt'"):
        run("train", str(deep), str(tmp_path / "x"), "--range", "sqrt")


def test_validation_reads_both_images_in_the_range(deep: Path) -> None:
    noisy, clean = Validation(deep, deep, RANGE).pair(0)
    assert torch.equal(noisy, open_source(deep, RANGE)[0])
    assert torch.equal(noisy, clean)


def test_notes_of_a_checkpoint(tmp_path: Path) -> None:
    model = UNet(n_feature=4)
    save_checkpoint(tmp_path / "plain.pth", model)
    save_checkpoint(tmp_path / "empty.pth", model, notes={})
    assert (tmp_path / "plain.pth").read_bytes() == (tmp_path / "empty.pth").read_bytes()
    save_checkpoint(tmp_path / "noted.pth", model, notes={"range": "asinh"})
    torch.save(model.state_dict(), tmp_path / "bare.pth")
    found = [read_notes(tmp_path / f"{name}.pth") for name in ("plain", "noted", "bare")]
    assert found == [{}, {"range": "asinh"}, None]
