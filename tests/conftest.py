"""Fixtures shared by all tests."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dinov2_noise import patching

_LAUNCHER_VARIABLES = ("MASTER_", "RANK", "WORLD_SIZE", "LOCAL_", "SLURM_", "SUBMITIT_")


def clean_environment(*python_path: Path) -> dict[str, str]:
    """This process's environment without a launcher's variables, one thread, ``python_path`` first."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(_LAUNCHER_VARIABLES)}
    paths = [str(path) for path in python_path] + environment.get("PYTHONPATH", "").split(os.pathsep)
    return environment | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(path for path in paths if path)}


def run_python(*arguments: str, path: tuple[Path, ...] = (), cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """``python <arguments>`` in a fresh process; output is captured, the status is not checked."""
    return subprocess.run(
        [sys.executable, *arguments],
        env=clean_environment(*path),
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of upstream's own code need a patched dinov2; `make test` provides one."""
    missing = importlib.util.find_spec("dinov2") is None
    for item in items:
        if "upstream" in item.keywords and missing:
            item.add_marker(pytest.mark.skip(reason="dinov2 is not installed: run `make test`"))


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
def small_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Root with 5 classes x 4 training and 2 validation images of 48 px, and its metadata beside it (``<root>-extra``)."""
    from dinov2_noise.data import build_index

    root = tmp_path_factory.mktemp("data") / "small"
    rng = np.random.default_rng(0)
    for split, count in (("train", 4), ("val", 2)):
        for label in range(5):
            for number in range(count):
                path = root / split / f"class{label}" / f"class{label}_{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                base = np.full((48, 48, 3), 50 * label, dtype=np.uint8)
                noise = rng.integers(0, 56, size=base.shape, dtype=np.uint8)
                Image.fromarray(base + noise).save(path)
    build_index(root)
    return root
