"""What tests of using a run share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tiny_run import picture, write_run


@pytest.fixture(scope="session")
def _short_network() -> Iterator[None]:
    """`vit_short`, found by upstream under that name."""
    from dinov2.models import vision_transformer
    from short_vit import vit_short

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vision_transformer, "vit_short", vit_short, raising=False)
        yield


@pytest.fixture(scope="session")
def make_run(_short_network: None, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`tiny_run.write_run` into a new folder called ``tiny``."""

    def make(*arguments: Any, **student: Any) -> Path:
        return write_run(tmp_path_factory.mktemp("runs") / "tiny", *arguments, **student)

    return make


@pytest.fixture(scope="session")
def run(make_run: Callable[..., Path]) -> Path:
    """The plainest run."""
    return make_run()


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of 7 pictures in two class folders, of several sizes and formats."""
    root = tmp_path_factory.mktemp("pictures")
    for number, size in enumerate([(80, 64), (64, 96), (50, 50), (64, 64), (100, 70), (300, 280), (57, 200)]):
        path = root / ("cats" if number < 4 else "dogs") / f"{number}.{'png' if number % 2 else 'jpg'}"
        path.parent.mkdir(exist_ok=True)
        picture(size, number).save(path)
    return root
