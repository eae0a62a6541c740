"""Where curves go: packages that are missing, names of curves, and what Weights & Biases is told."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from dinov2_noise.curriculum.sections import MonitorConfig
from dinov2_noise.errors import ConfigError
from dinov2_noise.monitor import sinks

BOTH = MonitorConfig(wandb="noise")


class Package:
    """In the place of wandb: what it is told."""

    def __init__(self) -> None:
        self.begun: list[dict[str, Any]] = []
        self.told: list[tuple[str, Any, int | None]] = []

    def init(self, **options: Any) -> Any:
        random.seed()  # as the real one may
        self.begun.append(options)
        return SimpleNamespace(
            id=options["id"] or "abc123",
            log=lambda values, step: self.told.append(("log", values, step)),
            finish=lambda: self.told.append(("finish", None, None)),
        )


@contextmanager
def seeded() -> Iterator[None]:
    state = random.getstate()
    try:
        yield
    finally:
        random.setstate(state)


@pytest.mark.parametrize("package", ["tensorboard", "wandb"])
def test_a_missing_package_is_one_error(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    present = {"tensorboard", "wandb"} - {package}
    monkeypatch.setattr(sinks, "find_spec", lambda name: name if name in present else None)
    with pytest.raises(ConfigError, match=rf"monitor\.{package} needs the package {package}.*pip install '.*{package}"):
        sinks.require_packages(BOTH)
    sinks.require_packages(MonitorConfig(tensorboard=package != "tensorboard", wandb=""))


def test_names_of_curves() -> None:
    found = sinks.curve_names({"total_loss": 1.0, "lr": 2.0, "iter_time": 3.0, "rankme": 4.0, "skipped_steps": 5.0})
    assert found == {
        "loss/total_loss": 1.0,
        "schedule/lr": 2.0,
        "speed/iter_time": 3.0,
        "health/rankme": 4.0,
        "health/skipped_steps": 5.0,
    }


def test_both_get_the_same_and_a_continued_run_is_the_same_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = Package()
    monkeypatch.setitem(sys.modules, "wandb", package)
    random.seed(0)
    expected = random.Random(0).random()
    for first in (0, 3):
        opened = sinks.open_sinks(BOTH, tmp_path, first, lambda: {"optim": {"lr": 1}}, seeded)
        for sink in opened:
            sink.add(first, {"monitor/knn_top1/clean": 0.5 + first})
            sink.add_text(first, "stage/name", "noisy (2/2): view noisy")
            sink.flush()
            sink.close()
    assert random.random() == expected, "random generators are left alone"
    same = {"project": "noise", "name": tmp_path.name, "dir": str(tmp_path), "resume": "allow"}
    assert package.begun == [
        same | {"id": None, "config": {"optim": {"lr": 1}}},
        same | {"id": "abc123", "config": {"optim": {"lr": 1}}},
    ]
    text = {"stage/name": "noisy (2/2): view noisy"}
    assert package.told == [
        ("log", {"monitor/knn_top1/clean": 0.5}, 0),
        ("log", text, 0),
        ("finish", None, None),
        ("log", {"monitor/knn_top1/clean": 3.5}, 3),
        ("log", text, 3),
        ("finish", None, None),
    ]
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("monitor/knn_top1/clean")] == [(0, 0.5), (3, 3.5)]


def test_weights_and_biases_that_do_not_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def init(**_: Any) -> Any:
        raise ValueError("no API key configured")

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init))
    only = MonitorConfig(tensorboard=False, wandb="noise")
    with pytest.raises(
        ConfigError, match=r"project 'noise' \(no API key configured\): try `wandb login`, or set WANDB_"
    ):
        sinks.open_sinks(only, tmp_path, 0, dict, nullcontext)


def test_begun_anew_is_another_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = Package()
    monkeypatch.setitem(sys.modules, "wandb", package)
    only = MonitorConfig(tensorboard=False, wandb="noise")
    for _ in range(2):
        sinks.open_sinks(only, tmp_path, 0, dict, nullcontext)
    assert [options["id"] for options in package.begun] == [None, None]


def test_nothing_wanted_nothing_opened(tmp_path: Path) -> None:
    off = MonitorConfig(tensorboard=False)
    assert sinks.open_sinks(off, tmp_path, 0, dict, nullcontext) == []
    assert list(tmp_path.iterdir()) == []
