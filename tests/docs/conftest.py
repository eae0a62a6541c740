"""What all tests of the pages share."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from pages import warm
from pages.material import Material


@pytest.fixture(scope="session")
def material(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Material]:
    folder = tmp_path_factory.mktemp("material")
    yield Material(folder)
    shutil.rmtree(folder)  # the training's checkpoints


@pytest.fixture(scope="session")
def warm_command(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder for PATH with a ``dinov2-noise`` that starts at once."""
    with warm.install(tmp_path_factory.mktemp("warm")) as folder:
        yield folder
