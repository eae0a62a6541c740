"""Fixtures shared by all tests."""

from __future__ import annotations

import importlib.util
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers import SmallSet
from PIL import Image, ImageFilter

from dinov2_noise import patching
from dinov2_noise.data import build_index
from dinov2_noise.files import list_images
from dinov2_noise.noise import add_noise

# What a shell starts in the background ignores Ctrl-C, and so does all that is started from there; some tests send it.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of upstream's own code need a patched dinov2; `make test` provides one.

    Their files, which hold the trainings, go first, so that no process is left alone with one of them at the end.
    """
    missing = importlib.util.find_spec("dinov2") is None
    for item in items:
        if "upstream" in item.keywords and missing:
            item.add_marker(pytest.mark.skip(reason="dinov2 is not installed: run `make test`"))
    long = {item.path for item in items if "upstream" in item.keywords}
    items.sort(key=lambda item: item.path not in long)


@pytest.fixture
def copy_of_upstream(tmp_path: Path) -> Callable[[bool], Path]:
    """A function (patched: bool) → folder with a copy of the dinov2 package, to be put first on the path."""

    def make(patched: bool) -> Path:
        source = patching.importable_init()
        assert source is not None
        root = tmp_path / f"checkout-{'patched' if patched else 'plain'}"
        shutil.copytree(source.parent, root / "dinov2", ignore=shutil.ignore_patterns("__pycache__"))
        (patching.patch if patched else patching.reverse)(root / "dinov2" / "__init__.py")
        return root

    return make


@pytest.fixture(scope="session")
def small_set(tmp_path_factory: pytest.TempPathFactory) -> SmallSet:
    """5 classes x 4 training and 2 validation JPEGs of 64 px under ImageNet's names, noisy (gauss100) and blurred
    again.
    """
    root = tmp_path_factory.mktemp("small-set")
    small = SmallSet(root / "clean", root / "noisy", root / "denoised")
    rng = np.random.default_rng(0)
    for label in range(5):
        names = [f"train/n{label}/n{label}_{number}.JPEG" for number in range(4)]
        names += [f"val/n{label}/ILSVRC2012_val_{2 * label + number:08d}.JPEG" for number in range(2)]
        for name in names:
            coarse = Image.fromarray(rng.integers(0, 256, size=(8, 8, 3), dtype=np.uint8))
            (small.clean / name).parent.mkdir(parents=True, exist_ok=True)
            coarse.resize((64, 64), Image.Resampling.BICUBIC).save(small.clean / name, quality=95)
    add_noise(small.clean, small.noisy, noise="gauss100", workers=1, progress=False)
    for name in list_images(small.noisy):
        (small.denoised / name).parent.mkdir(parents=True, exist_ok=True)
        Image.open(small.noisy / name).filter(ImageFilter.GaussianBlur(2)).save(small.denoised / name)
    for folder in (small.clean, small.noisy, small.denoised):
        build_index(folder, progress=False)
    return small
