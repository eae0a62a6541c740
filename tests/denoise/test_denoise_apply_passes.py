"""``denoise apply``: padding, batches, tiles, precision, memory, correction."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from dinov2_noise.denoise import apply_denoiser
from dinov2_noise.denoise.debias import Debias
from dinov2_noise.errors import ConfigError, DinoNoiseError
from dinov2_noise.files import read_manifest
from dinov2_noise.noise import add_noise, parse
from neighbor2neighbor import UNet, load_checkpoint, save_checkpoint, to_uint8

QUIET: dict[str, Any] = {"device": "cpu", "progress": False}
Make = Callable[..., Path]


class Watching(nn.Module):
    """The identity; remembers the shapes it saw, and has memory for so many pixels only."""

    def __init__(self, most_pixels: float = np.inf, error: Exception | None = None) -> None:
        super().__init__()
        self.seen: list[tuple[int, ...]] = []
        self.most_pixels = most_pixels
        self.error = error

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.shape[0] * x.shape[2] * x.shape[3] > self.most_pixels:
            assert self.error is not None
            raise self.error
        self.seen.append(tuple(x.shape))
        return x


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    model = UNet(n_feature=8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        model.nin_c.weight /= 8  # brings the untrained network's output near [0, 1], so that few values are clipped
        model.nin_c.bias += 0.5
    save_checkpoint(tmp_path / "w.pth", model)
    return tmp_path / "w.pth"


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path)).astype(int)


def published_rule(model: nn.Module, noisy: np.ndarray) -> np.ndarray:
    """The published rule in double precision, before truncation: pad to a square, run, crop, clip, scale, add 0.5."""
    height, width, _ = noisy.shape
    side = -(-max(height, width) // 32) * 32
    padded = np.pad(noisy, ((0, side - height), (0, side - width), (0, 0)), mode="reflect") / 255
    with torch.no_grad():
        output = model.double()(torch.from_numpy(padded.transpose(2, 0, 1)[None]))
    cut = output[0].numpy().transpose(1, 2, 0)[:height, :width]
    return np.clip(np.clip(cut, 0, 1) * 255 + 0.5, 0, 255)


@pytest.mark.parametrize(("height", "width"), [(50, 75), (120, 30), (64, 64), (3, 40)])
def test_square_padding_is_the_published_rule(
    make_images: Make, weights: Path, tmp_path: Path, height: int, width: int
) -> None:
    noisy = make_images(tmp_path / "noisy", {"a.png": (height, width)})
    apply_denoiser(noisy, tmp_path / "out", weights=weights, padding="square", **QUIET)
    expected = published_rule(load_checkpoint(weights), np.asarray(Image.open(noisy / "a.png")))
    found = pixels(tmp_path / "out" / "a.png")
    # Single precision may decide the other way only where a value lies on the edge between two levels.
    clear = np.abs(expected - np.round(expected)) > 1e-3
    assert clear.mean() > 0.99
    assert np.array_equal(found[clear], expected.astype(np.uint8)[clear])
    assert found.std() > 8
    assert read_manifest(tmp_path / "out")["parameters"]["padding"] == "square"
    if height != width:
        apply_denoiser(noisy, tmp_path / "sides", weights=weights, **QUIET)
        assert not np.array_equal(pixels(tmp_path / "sides" / "a.png"), found)
        assert "padding" not in read_manifest(tmp_path / "sides")["parameters"]


def test_images_of_equal_padded_size_share_a_batch(make_images: Make, tmp_path: Path) -> None:
    sizes = [(33, 64), (40, 50), (64, 100), (60, 97)]  # the first two become 64 x 64, the others 64 x 128
    noisy = make_images(tmp_path / "noisy", {f"{number:03}.png": sizes[number % 4] for number in range(256)})
    model = Watching()
    apply_denoiser(noisy, tmp_path / "out", model=model, batch_size=3, **QUIET)
    probed, seen = model.seen[:2], model.seen[2:]
    assert probed == [(1, 3, 64, 64)] * 2
    assert seen == [(3, 3, 64, 64), (1, 3, 64, 64), (3, 3, 64, 128), (1, 3, 64, 128)] * 32  # windows of 8 images
    for name in ("000.png", "137.png", "254.png"):
        assert np.array_equal(pixels(tmp_path / "out" / name), pixels(noisy / name))


def test_tiles_differ_little_from_the_whole_and_show_no_seam(trained: Any, tmp_path: Path) -> None:
    source = trained.noisy / "val"
    apply_denoiser(source, tmp_path / "whole", weights=trained.weights, **QUIET)
    apply_denoiser(source, tmp_path / "tiled", weights=trained.weights, max_pixels=192**2, **QUIET)
    whole, tiled = pixels(tmp_path / "whole" / "chelsea.png"), pixels(tmp_path / "tiled" / "chelsea.png")
    assert whole.shape == (300, 451, 3)
    difference = np.abs(tiled - whole)
    assert 0 < difference.max() <= 3
    assert (difference > 1).mean() < 1e-3
    # Tiles begin at 96, 192, …: a seam would be a column, within the blend, with larger steps than in the whole image.
    excess = np.abs(np.diff(tiled, axis=1)).mean(axis=(0, 2)) - np.abs(np.diff(whole, axis=1)).mean(axis=(0, 2))
    assert np.abs(excess).max() < 0.05


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: 12"),
        MemoryError(),
    ],
    ids=["gpu", "cpu", "python"],
)
def test_out_of_memory_goes_on_with_less_and_says_so_once(
    make_images: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str], error: Exception
) -> None:
    noisy = make_images(tmp_path / "noisy", {f"{number:03}.png": (30, 60) for number in range(64)})
    make_images(noisy, {"z/1.png": (200, 300), "z/2.png": (200, 300)})  # padded: 224 x 320
    model = Watching(40_000, error)
    apply_denoiser(noisy, tmp_path / "out", model=model, batch_size=2, **QUIET)
    for name in ("000.png", "z/1.png", "z/2.png"):
        assert np.array_equal(pixels(tmp_path / "out" / name), pixels(noisy / name))
    assert max(batch * height * width for batch, _, height, width in model.seen) <= 40_000
    said = capsys.readouterr().err
    assert said.count("did not fit into memory") == 1
    assert "--max-pixels 36864" in said
    assert "1.png" in said
    manifest = read_manifest(tmp_path / "out")
    assert (manifest["complete"], manifest["max_pixels"]) == (True, 36_864)
    assert "max_pixels" not in manifest["parameters"]


def test_an_image_of_which_not_even_a_tile_fits_is_named(make_images: Make, tmp_path: Path) -> None:
    noisy = make_images(tmp_path / "noisy", {"a.png": (200, 300)})
    model = Watching(10_000, MemoryError("no more"))
    with pytest.raises(DinoNoiseError, match=r"a\.png: out of memory even for 36864 pixels at a time \(no more\)"):
        apply_denoiser(noisy, tmp_path / "out", model=model, **QUIET)


def test_half_precision_is_close_and_another_result(make_images: Make, weights: Path, tmp_path: Path) -> None:
    noisy = make_images(tmp_path / "noisy", {"a.png": (64, 64)})
    apply_denoiser(noisy, tmp_path / "out", weights=weights, **QUIET)
    expected = pixels(tmp_path / "out" / "a.png")
    for precision, tolerance in (("bf16", 8), ("fp16", 2)):
        apply_denoiser(noisy, tmp_path / precision, weights=weights, precision=precision, **QUIET)
        difference = np.abs(pixels(tmp_path / precision / "a.png") - expected)
        assert 0 < difference.max() <= tolerance, precision
        assert read_manifest(tmp_path / precision)["parameters"]["precision"] == precision


def test_correction_comes_between_network_and_rounding(make_images: Make, tmp_path: Path) -> None:
    clean = make_images(tmp_path / "clean", {"a.png": (40, 50)})
    add_noise(clean, tmp_path / "noisy", noise="gauss255", workers=1, progress=False)
    levels = torch.from_numpy(np.array(Image.open(tmp_path / "noisy" / "a.png"))) / 255
    expected = to_uint8(Debias(parse("gauss255"))(levels)).numpy()
    for spec in ("gauss255", "auto"):
        apply_denoiser(tmp_path / "noisy", tmp_path / spec, model=Watching(), debias=spec, **QUIET)
        assert np.array_equal(pixels(tmp_path / spec / "a.png"), expected)
        assert read_manifest(tmp_path / spec)["parameters"]["debias"] == "gauss255"


def test_wrong_settings_are_refused_before_anything_is_written(make_images: Make, tmp_path: Path) -> None:
    noisy = make_images(tmp_path / "noisy", {"a.png": (64, 64)})
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"padding": "round"}, "padding 'round' is unknown: use sides, square"),
        ({"precision": "int8"}, "precision 'int8' is unknown: use fp32, bf16, fp16"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"max_pixels": 36_863}, r"max_pixels must be at least 36864 \(the smallest tile\), got 36863"),
        ({"shard": (3, 2)}, r"shard 3 of 2 does not exist"),
    ]
    for settings, message in wrong:
        with pytest.raises(ConfigError, match=message):
            apply_denoiser(noisy, tmp_path / "out", model=Watching(), **settings, **QUIET)
    assert not (tmp_path / "out").exists()
