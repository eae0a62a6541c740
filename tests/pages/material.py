"""One small data set and one small training for all pages, made once per session."""

from __future__ import annotations

import os
import shutil
from functools import cached_property
from pathlib import Path

import numpy as np
from helpers import run_python
from instrument_files import write_dicom, write_fits
from PIL import Image, ImageFilter
from scipy.ndimage import gaussian_filter

from dinov2_noise import patching
from dinov2_noise.data import build_index
from dinov2_noise.demo.cells import write_cells
from dinov2_noise.denoise import train_denoiser
from dinov2_noise.denoise.settings import as_arguments, merge_settings
from dinov2_noise.files import list_images
from dinov2_noise.noise import add_noise


class Material:
    """Folders to copy from; each is made when a page first asks for it.

    The images are 64-px cells of photographs in the scikit-image wheel: 12 classes of 4 for training and 2 to validate.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @cached_property
    def clean(self) -> Path:
        write_cells(self.folder / "clean", train_grid=(2, 2), val_grid=(2, 1))
        return self.folder / "clean"

    @cached_property
    def noisy(self) -> Path:
        add_noise(self.clean, self.folder / "noisy", noise="gauss100", workers=1, progress=False)
        return self.folder / "noisy"

    @cached_property
    def denoised(self) -> Path:
        """The noisy images, blurred: no denoiser needs to be trained for it."""
        for name in list_images(self.noisy):
            target = self.folder / "denoised" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            Image.open(self.noisy / name).filter(ImageFilter.GaussianBlur(2)).save(target)
        return self.folder / "denoised"

    @cached_property
    def denoiser(self) -> Path:
        """A folder with ``denoiser.pth``, of two optimizer steps."""
        size = {"steps": 2, "n_feature": 4, "crop": 64, "batch_size": 2, "sample_every": 0, "workers": 0}
        settings = as_arguments(merge_settings(None, size))
        train_denoiser(str(self.noisy), self.folder / "denoiser", progress=False, **settings)
        return self.folder / "denoiser"

    @cached_property
    def run(self) -> Path:
        """A finished training of two stages, four iterations in all: ``eval/training_3/teacher_checkpoint.pth``."""
        from pages.play import TINY_RUN

        output = self.folder / "run"
        dataset = f"ImageFolder:root={self.noisy}/train:denoised={self.denoised}/train"
        arguments = ["-m", "dinov2_noise", "train", "nct_laptop", "--output", str(output)]
        done = run_python(*arguments, f"train.dataset_path={dataset}", *TINY_RUN.split())
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return output


def copy(source: Path, target: Path, *, indexed: bool = False) -> Path:
    """A copy of a folder; with its metadata beside it where ``indexed``."""
    shutil.copytree(source, target)
    if indexed:
        build_index(target, progress=False)
    return target


def copy_run(material: Material, target: Path, checkpoint: str = "training_3") -> Path:
    """A copy of the run whose last checkpoint has another iteration's name, that of a page.

    Checkpoints, 100 MB each, are not copied but linked: nothing changes one in its place.
    """
    shutil.copytree(material.run, target, copy_function=_link_checkpoint)
    if checkpoint != "training_3":
        (target / "eval" / "training_3").rename(target / "eval" / checkpoint)
    return target


def _link_checkpoint(source: str, target: str) -> object:
    return os.link(source, target) if source.endswith(".pth") else shutil.copy2(source, target)


def upstream_checkout(target: Path) -> Path:
    """A folder with an unpatched copy of the package dinov2, as a clone of it is."""
    source = patching.importable_init()
    assert source is not None
    shutil.copytree(source.parent, target / "dinov2", ignore=shutil.ignore_patterns("__pycache__"))
    patching.reverse(target / "dinov2" / "__init__.py")
    return target


def star_frames(target: Path, *, count: int = 6, side_px: int = 128, blur_px: float = 0.0) -> Path:
    """16-bit FITS frames: a sky of 760 with Gaussian noise of 20, and stars; blurred, their noise is correlated."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:side_px, :side_px]
    for number in range(count):
        frame = 760 + 20 * rng.normal(size=(side_px, side_px))
        for _ in range(20):
            row, column, flux = rng.uniform(0, side_px), rng.uniform(0, side_px), rng.exponential(3000)
            frame += flux * np.exp(-((y - row) ** 2 + (x - column) ** 2) / 8)
        path = target / f"night{number % 2}" / f"frame{number:03d}.fits"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_fits(path, np.clip(gaussian_filter(frame, blur_px), 0, 65535).astype(np.uint16))
    return target


def ct_slices(target: Path, *, count: int = 4, side_px: int = 96) -> Path:
    """DICOM slices in Hounsfield units: a body of 40 in air of -1000, noise of 30."""
    rng = np.random.default_rng(1)
    y, x = np.mgrid[:side_px, :side_px] / side_px - 0.5
    target.mkdir(parents=True)
    for number in range(count):
        body = np.where(x**2 + y**2 < 0.16, 40 + 100 * np.sin(9 * x + number), -1000)
        values = (body + 30 * rng.normal(size=body.shape) + 1024).clip(0).astype(np.uint16)
        write_dicom(target / f"slice{number}.dcm", values, bits=12, RescaleIntercept=-1024, RescaleSlope=1)
    return target
