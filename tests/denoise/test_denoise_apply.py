"""``denoise apply``: what is written, continuing, refusing."""

from __future__ import annotations

import resource
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from dinov2_noise.denoise import apply_denoiser
from dinov2_noise.errors import CheckpointError, ConfigError, DinoNoiseError, ImageError, OutputFolderError
from dinov2_noise.files import list_images, read_manifest
from dinov2_noise.noise import add_noise
from neighbor2neighbor import UNet, denoise_image, save_checkpoint, to_uint8

QUIET: dict[str, Any] = {"device": "cpu", "progress": False}
# Sizes alternate, so that batches of equal size must be gathered from apart.
SIZES = {f"train/c{n % 2}/{n:02}.png": ((50, 75), (64, 64), (40, 100))[n % 3] for n in range(14)}
Make = Callable[..., Path]


class Identity(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


class Half(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x / 2


class Stopping(nn.Module):
    """A network that is interrupted when it is called for the n-th time."""

    def __init__(self, calls: int | None) -> None:
        super().__init__()
        self.net = UNet(n_feature=8, generator=torch.Generator().manual_seed(0))
        self.calls = calls

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.calls is not None:
            self.calls -= 1
            if self.calls == 0:
                raise KeyboardInterrupt
        output: torch.Tensor = self.net(x) / 8  # of an untrained network, brought near [0, 1]
        return output


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    model = UNet(n_feature=8, generator=torch.Generator().manual_seed(0))
    save_checkpoint(tmp_path / "w.pth", model)
    return tmp_path / "w.pth"


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in list_images(folder)}


def test_identity_keeps_pixels_names_and_labels(make_images: Make, tmp_path: Path) -> None:
    noisy = make_images(tmp_path / "noisy", {**SIZES, "val/odd name.webp": (33, 31), "val/b.bmp": (2, 3)})
    Image.open(noisy / "train/c0/00.png").save(noisy / "val" / "lossless.tiff")
    (noisy / "labels.txt").write_text("c0,first\nc1,second\n")
    assert apply_denoiser(noisy, tmp_path / "out", model=Identity(), **QUIET) == len(SIZES) + 3
    for name in list_images(noisy):
        with Image.open(noisy / name) as before, Image.open((tmp_path / "out" / name).with_suffix(".png")) as after:
            assert np.array_equal(np.asarray(before.convert("RGB")), np.asarray(after)), name
    assert (tmp_path / "out" / "labels.txt").read_text() == "c0,first\nc1,second\n"
    manifest = read_manifest(tmp_path / "out")
    assert manifest["complete"]
    assert manifest["images"] == len(SIZES) + 3
    assert manifest["parameters"]["model"].endswith("Identity")


def test_files_hold_the_rounded_output_of_the_network(make_images: Make, weights: Path, tmp_path: Path) -> None:
    noisy = make_images(tmp_path / "noisy", {"a.png": (50, 75)})
    apply_denoiser(noisy, tmp_path / "out", weights=weights, **QUIET)
    model = UNet(n_feature=8, generator=torch.Generator().manual_seed(0))
    image = torch.from_numpy(np.array(Image.open(noisy / "a.png"))).permute(2, 0, 1) / 255
    expected = to_uint8(denoise_image(model, image)).permute(1, 2, 0).numpy().astype(int)
    found = np.asarray(Image.open(tmp_path / "out" / "a.png")).astype(int)
    assert np.abs(found - expected).max() <= 1  # memory layouts may round differently
    assert (found != expected).mean() < 1e-3
    assert found.std() > 1


@pytest.mark.parametrize("batch_size", [1, 2, 3])
def test_continued_run_writes_the_same_bytes(make_images: Make, weights: Path, tmp_path: Path, batch_size: int) -> None:
    noisy = make_images(tmp_path / "noisy", SIZES)
    apply_denoiser(noisy, tmp_path / "whole", weights=weights, batch_size=batch_size, **QUIET)
    apply_denoiser(noisy, tmp_path / "again", weights=weights, batch_size=batch_size, **QUIET)
    lost = [name for number, name in enumerate(sorted(SIZES)) if number % 4 != 1]
    for name in lost:
        (tmp_path / "again" / name).unlink()
    assert apply_denoiser(noisy, tmp_path / "again", weights=weights, batch_size=batch_size, **QUIET) == len(lost)
    assert contents(tmp_path / "again") == contents(tmp_path / "whole")
    assert apply_denoiser(noisy, tmp_path / "again", weights=weights, batch_size=batch_size, **QUIET) == 0


def test_interruption_leaves_an_incomplete_folder_without_partial_files(make_images: Make, tmp_path: Path) -> None:
    noisy = make_images(tmp_path / "noisy", SIZES)
    apply_denoiser(noisy, tmp_path / "whole", model=Stopping(None), batch_size=2, **QUIET)
    with pytest.raises(KeyboardInterrupt):
        apply_denoiser(noisy, tmp_path / "out", model=Stopping(9), batch_size=2, **QUIET)
    assert not read_manifest(tmp_path / "out")["complete"]
    assert 0 < len(list_images(tmp_path / "out")) < len(SIZES)
    assert not list((tmp_path / "out").rglob(".*partial*"))
    apply_denoiser(noisy, tmp_path / "out", model=Stopping(None), batch_size=2, **QUIET)
    assert read_manifest(tmp_path / "out")["complete"]
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_a_full_disk_is_one_clear_error_and_keeps_what_is_done(make_images: Make, tmp_path: Path) -> None:
    """A limit on the size of files stands for the full disk: the system refuses to write more all the same."""
    noisy = make_images(tmp_path / "noisy", {"a.png": (64, 64), "b.png": (64, 64), "c.png": (300, 300)})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(DinoNoiseError, match=r"cannot write .*c\.png: .*finished files are kept"):
            apply_denoiser(noisy, tmp_path / "out", model=Identity(), **QUIET)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.png", "b.png", "manifest.json"]
    assert not read_manifest(tmp_path / "out")["complete"]
    assert apply_denoiser(noisy, tmp_path / "out", model=Identity(), **QUIET) == 1


def test_shards_together_write_the_bytes_of_one_run(make_images: Make, weights: Path, tmp_path: Path) -> None:
    noisy = make_images(tmp_path / "noisy", SIZES)
    apply_denoiser(noisy, tmp_path / "whole", weights=weights, batch_size=2, **QUIET)
    counts = []
    for number in (2, 3, 1):
        assert not (tmp_path / "out").exists() or not read_manifest(tmp_path / "out")["complete"]
        counts.append(
            apply_denoiser(noisy, tmp_path / "out", weights=weights, batch_size=2, shard=(number, 3), **QUIET)
        )
    assert counts == [5, 4, 5]
    assert read_manifest(tmp_path / "out")["complete"]
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_folder_of_other_weights_is_refused(make_images: Make, weights: Path, tmp_path: Path) -> None:
    noisy = make_images(tmp_path / "noisy", {"a.png": (64, 64)})
    apply_denoiser(noisy, tmp_path / "out", weights=weights, **QUIET)
    copy = tmp_path / "copy.pth"
    copy.write_bytes(weights.read_bytes())
    assert apply_denoiser(noisy, tmp_path / "out", weights=copy, **QUIET) == 0  # what counts is the content
    save_checkpoint(weights, UNet(n_feature=8, generator=torch.Generator().manual_seed(1)))
    with pytest.raises(OutputFolderError, match="weights_sha256"):
        apply_denoiser(noisy, tmp_path / "out", weights=weights, **QUIET)
    with pytest.raises(OutputFolderError, match="model"):
        apply_denoiser(noisy, tmp_path / "out", model=Identity(), **QUIET)
    apply_denoiser(noisy, tmp_path / "module", model=Identity(), **QUIET)
    with pytest.raises(OutputFolderError, match=r"Identity.*Half"):
        apply_denoiser(noisy, tmp_path / "module", model=Half(), **QUIET)


@pytest.mark.parametrize("cut", ["header", "pixels"])
def test_bad_images_are_reported_after_all_others_are_done(make_images: Make, tmp_path: Path, cut: str) -> None:
    noisy = make_images(tmp_path / "noisy", {f"{name}.png": (64, 64) for name in "abcde"})
    expected = {name for name in "ace"}
    for name in "bd":
        content = (noisy / f"{name}.png").read_bytes()
        (noisy / f"{name}.png").write_bytes(content[:10] if cut == "header" else content[: len(content) // 2])
    with pytest.raises(ImageError, match=r"b\.png: .*\(2 of 5 images failed\)\n  .*d\.png"):
        apply_denoiser(noisy, tmp_path / "out", model=Identity(), **QUIET)
    assert {path.stem for path in (tmp_path / "out").glob("*.png")} == expected
    assert not read_manifest(tmp_path / "out")["complete"]
    apply_denoiser(noisy, tmp_path / "out", model=Identity(), skip_unreadable=True, **QUIET)
    manifest = read_manifest(tmp_path / "out")
    assert manifest["complete"]
    assert [Path(path).name for path in manifest["skipped"]] == ["b.png", "d.png"]


def test_outputs_that_would_collide_are_refused(make_images: Make, tmp_path: Path) -> None:
    noisy = make_images(tmp_path / "noisy", {"a.png": (64, 64), "a.bmp": (64, 64)})
    with pytest.raises(OutputFolderError, match=r"a\.bmp and a\.png would both become a\.png"):
        apply_denoiser(noisy, tmp_path / "out", model=Identity(), **QUIET)
    with pytest.raises(OutputFolderError, match="lies in the source"):
        apply_denoiser(noisy, noisy / "denoised", model=Identity(), **QUIET)


def test_wrong_arguments_weights_and_models(make_images: Make, weights: Path, tmp_path: Path) -> None:
    noisy = make_images(tmp_path / "noisy", {"a.png": (64, 64)})
    with pytest.raises(ConfigError, match="either weights or a model"):
        apply_denoiser(noisy, tmp_path / "out", **QUIET)
    with pytest.raises(ConfigError, match="either weights or a model"):
        apply_denoiser(noisy, tmp_path / "out", weights=weights, model=Identity(), **QUIET)
    with pytest.raises(ConfigError, match="shard"):
        apply_denoiser(noisy, tmp_path / "out", model=Identity(), shard=(0, 2), **QUIET)
    with pytest.raises(CheckpointError, match=r"absent\.pth do not exist"):
        apply_denoiser(noisy, tmp_path / "out", weights=tmp_path / "absent.pth", **QUIET)
    torch.save({"fc.weight": torch.zeros(2, 2)}, tmp_path / "foreign.pth")
    with pytest.raises(CheckpointError, match="another architecture"):
        apply_denoiser(noisy, tmp_path / "out", weights=tmp_path / "foreign.pth", **QUIET)
    assert not (tmp_path / "out").exists()


def test_noisy_folder_made_anew_at_the_same_path_is_noticed(make_images: Make, weights: Path, tmp_path: Path) -> None:
    """Otherwise the twins of another noise would stay, and pretraining would pair them in silence."""
    clean = make_images(tmp_path / "clean", {"a.png": (64, 64)})
    for noise in ("gauss50", "gauss255"):
        shutil.rmtree(tmp_path / "noisy", ignore_errors=True)
        add_noise(clean, tmp_path / "noisy", noise=noise, workers=1, progress=False)
        if noise == "gauss50":
            apply_denoiser(tmp_path / "noisy", tmp_path / "denoised", weights=weights, progress=False)
    with pytest.raises(OutputFolderError, match=r"source_parameters: there .*gauss50.* now .*gauss255"):
        apply_denoiser(tmp_path / "noisy", tmp_path / "denoised", weights=weights, progress=False)


def test_a_continued_folder_is_incomplete_until_it_is_done(make_images: Make, weights: Path, tmp_path: Path) -> None:
    noisy = make_images(tmp_path / "noisy", {"a.png": (64, 64)})
    apply_denoiser(noisy, tmp_path / "denoised", weights=weights, progress=False)
    assert read_manifest(tmp_path / "denoised")["complete"] is True
    (noisy / "late.png").write_bytes(b"not an image")
    with pytest.raises(ImageError, match=r"late\.png"):
        apply_denoiser(noisy, tmp_path / "denoised", weights=weights, progress=False)
    assert read_manifest(tmp_path / "denoised")["complete"] is False


def test_a_folder_without_a_readable_image_is_an_error_even_when_such_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "noisy").mkdir()
    (tmp_path / "noisy" / "a.png").write_bytes(b"not an image")
    with pytest.raises(ImageError, match=r"a\.png"):
        apply_denoiser(tmp_path / "noisy", tmp_path / "out", model=Identity(), skip_unreadable=True, **QUIET)
    assert not read_manifest(tmp_path / "out")["complete"]
