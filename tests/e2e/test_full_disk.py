"""A disk that is full in the middle of a command: one error that names the file, nothing half-written, and on it goes.

The disk is a small one in memory; mounting it takes the rights of an administrator. Elsewhere a limit on the size of
files stands for it, which the system reports in the same way.
"""

from __future__ import annotations

import resource
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import mounted
from PIL import Image

from dinov2_noise.data import build_index
from dinov2_noise.denoise import apply_denoiser, train_denoiser
from dinov2_noise.denoise.monitor import Curves
from dinov2_noise.errors import DinoNoiseError, WriteError
from dinov2_noise.files import MANIFEST_NAME, list_images, read_manifest
from dinov2_noise.noise import add_noise
from dinov2_noise.noise.corruptions import Corruption, corrupt_folder
from neighbor2neighbor import UNet, save_checkpoint

IMAGES, SIDE_PX = 40, 96  # of 27 kB each as noisy PNG
TRAINING: dict[str, Any] = {"steps": 4, "batch_size": 2, "crop_px": 64, "n_feature": 16, "device": "cpu"}
Command = Callable[[Path, Path], object]


def _apply(source: Path, out: Path) -> None:
    weights = source.with_name("weights.pth")
    if not weights.exists():
        with torch.random.fork_rng():
            torch.manual_seed(0)  # 948 kB of output; other weights give even images that the small disk can hold
            save_checkpoint(weights, UNet(n_feature=4))
    apply_denoiser(source, out, weights=weights, batch_size=8, device="cpu", progress=False)


COMMANDS: dict[str, Command] = {
    "add-noise": lambda source, out: add_noise(source, out, noise="gauss100", workers=1, progress=False),
    "add-noise with workers": lambda source, out: add_noise(source, out, noise="gauss100", workers=2, progress=False),
    "corrupt": lambda source, out: corrupt_folder(source, out, [Corruption("contrast", 1)], workers=1, progress=False),
    "denoise apply": _apply,
    "denoise train": lambda source, out: train_denoiser(source, out, **TRAINING, sample_every=2, progress=False),
}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("disk") / "source"
    rng = np.random.default_rng(0)
    for number in range(IMAGES):
        path = root / "train" / f"n{number % 2}" / f"n{number % 2}_{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (SIDE_PX, SIDE_PX, 3), dtype=np.uint8)).save(path)
    return root


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 500 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    with mounted("-t", "tmpfs", "-o", "size=500k", "tmpfs", folder):
        yield folder


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and "tensorboard" not in path.parts)
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def assert_nothing_half_written(out: Path) -> None:
    for path in out.rglob("*.png"):
        with Image.open(path) as image:
            image.load()
    assert not list(out.rglob(".*.partial*"))
    assert read_manifest(out)["complete"] is False


@pytest.mark.parametrize("name", COMMANDS)
def test_a_full_disk_and_on_it_goes(
    source: Path, disk: Path, tmp_path: Path, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    run, out = COMMANDS[name], disk / "out"
    run(source, tmp_path / "whole")
    capfd.readouterr()
    with pytest.raises(DinoNoiseError) as caught:
        run(source, out)
    text = str(caught.value)
    assert str(out) in text
    assert "Make room" in text
    assert "Traceback" not in capfd.readouterr().err
    assert_nothing_half_written(out)
    subprocess.run(["mount", "-o", "remount,size=100m", str(disk)], check=True)
    run(source, out)
    assert contents(out) == contents(tmp_path / "whole")


def test_metadata_on_a_full_disk(source: Path, disk: Path, tmp_path: Path) -> None:
    build_index(source, tmp_path / "whole", progress=False)
    filling = disk / "filling"
    filling.write_bytes(b"0" * (500 * 1024 - 8 * 1024))
    with pytest.raises(WriteError, match=r"cannot write .*disk/extra/.*: No space left on device\. Make room on its"):
        build_index(source, disk / "extra", progress=False)
    assert not list((disk / "extra").glob(".*.partial*"))
    filling.unlink()
    build_index(source, disk / "extra", progress=False)
    found, expected = contents(disk / "extra"), contents(tmp_path / "whole")
    assert {name: found[name] for name in found if name.endswith(".npy")} == {
        name: expected[name] for name in expected if name.endswith(".npy")
    }


@pytest.mark.parametrize("name", ["add-noise", "corrupt"])
def test_a_file_that_is_too_large_for_its_disk(source: Path, tmp_path: Path, name: str) -> None:
    """Also where mounting is not allowed."""
    out = tmp_path / "out"
    (tmp_path / "large").mkdir()
    rng = np.random.default_rng(1)
    for number, side_px in enumerate((64, 400)):
        Image.fromarray(rng.integers(0, 256, (side_px, side_px, 3), dtype=np.uint8)).save(
            tmp_path / "large" / f"{number}.png"
        )
    run: Command = COMMANDS[name]
    if name == "corrupt":
        run = lambda source, out: corrupt_folder(  # noqa: E731
            source, out, [Corruption("impulse_noise", 5)], size_px=None, workers=1, progress=False
        )
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(WriteError, match=r"cannot write .*1\.png: File too large\. Make room on its disk and run"):
            run(tmp_path / "large", out)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert_nothing_half_written(out)
    assert len(list_images(out)) == 1
    run(tmp_path / "large", out)
    assert read_manifest(out)["complete"]


def test_the_thread_that_writes_curves_is_heard_and_does_not_hang(
    disk: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    hook = threading.excepthook
    curves = Curves(disk / "tensorboard", 0)
    (disk / "filling").write_bytes(b"0" * (490 * 1024))
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8))

    def fill() -> None:
        for step in range(20):
            curves.add_image(step, "samples", picture)
            curves.flush()

    with pytest.raises(WriteError, match=r"cannot write .*tensorboard: .*No space left on device"):
        fill()
    with pytest.raises(WriteError, match="No space left"):
        curves.close()
    assert threading.excepthook is hook
    assert "Traceback" not in capfd.readouterr().err


def test_curves_that_cannot_be_begun_leave_the_threads_of_others_alone(tmp_path: Path) -> None:
    hook = threading.excepthook
    (tmp_path / "file").touch()
    with pytest.raises(WriteError, match=r"cannot write .*file/tensorboard: .*A part of this path is a file"):
        Curves(tmp_path / "file" / "tensorboard", 0)
    assert threading.excepthook is hook


def test_the_manifest_names_itself(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(WriteError, match=rf"cannot write .*file/out/{MANIFEST_NAME}: Not a directory\. A part of this"):
        add_noise_into(tmp_path / "file" / "out", tmp_path)


def add_noise_into(out: Path, root: Path) -> None:
    (root / "one").mkdir()
    Image.new("RGB", (8, 8)).save(root / "one" / "a.png")
    add_noise(root / "one", out, noise="gauss50", workers=1, progress=False)
