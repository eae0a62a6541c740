"""The section monitor: its values reach the run, and what is wrong with it is found before anything is written."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import SmallSet
from omegaconf import OmegaConf

from dinov2_noise.configs import shipped
from dinov2_noise.curriculum.sections import MonitorConfig, parse_monitor
from dinov2_noise.errors import ConfigError, DinoNoiseError
from dinov2_noise.monitor import sinks
from dinov2_noise.upstream import runtime

pytestmark = pytest.mark.upstream


@pytest.fixture(autouse=True)
def _no_run_left() -> Iterator[None]:
    yield
    runtime.start(None)


def merged(folder: Path, small_set: SmallSet, *options: str, **sections: Any) -> runtime.Run:
    from dinov2.utils.config import get_cfg_from_args

    path = folder / "config.yaml"
    OmegaConf.save(OmegaConf.merge(OmegaConf.load(shipped()["nct"]), sections), path)
    opts = [f"train.dataset_path={small_set.pair()}", *options]
    arguments = {"config_file": str(path), "output_dir": str(folder / "out"), "opts": opts}
    get_cfg_from_args(argparse.Namespace(**arguments, eval_only=False, no_resume=False))
    run = runtime.current()
    assert run is not None
    return run


def labelled(small_set: SmallSet) -> list[str]:
    return [f"monitor.{key}=ImageNet:split={key.upper()}:root={small_set.noisy}" for key in ("train", "val")]


def test_defaults_and_values_reach_the_run(small_set: SmallSet, tmp_path: Path) -> None:
    assert merged(tmp_path, small_set).monitor == MonitorConfig() == parse_monitor(None)
    found = merged(tmp_path, small_set, *labelled(small_set), monitor={"knn": 3, "max_time_share": 0.1}).monitor
    assert (found.knn, found.max_time_share, found.n_train) == (3, 0.1, 1000)
    assert found.val == f"ImageNet:split=VAL:root={small_set.noisy}"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["monitor.kn=3"], r"unknown key monitor\.kn: did you mean 'knn'\? valid keys of monitor are enabled, train,"),
        (["monitor.knn=0"], r"monitor\.knn is 0: it must be at least 1"),
        (["monitor.n_train=1"], r"monitor\.n_train is 1: it must be at least 2"),
        (["monitor.n_images=-1"], r"monitor\.n_images is -1"),
        (["monitor.line_period_iterations=-5"], r"monitor\.line_period_iterations is -5"),
        (
            ["monitor.max_time_share=0"],
            r"monitor\.max_time_share is 0\.0: it must be above 0 and at most 1 \(no limit\)",
        ),
        (["monitor.max_time_share=2"], r"monitor\.max_time_share is 2"),
        (["monitor.image_px=100"], r"monitor\.image_px is 100, not a multiple of student\.patch_size, 16"),
        (["monitor.enabled=perhaps"], r"monitor\.enabled must be true or false, not 'perhaps'"),
        (["monitor.train=ImageFolder:root=x"], r"monitor\.train is given and monitor\.val is not"),
        (["monitor.val=ImageFolder:root=x"], r"monitor\.val is given and monitor\.train is not"),
        (["monitor.noise=gauss50"], r"monitor\.noise belongs to labelled images: give monitor\.train and monitor\.val"),
        (["curriculum=null", "monitor.knn=3"], r"the sections step, health and monitor need a curriculum"),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, small_set: SmallSet, options: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        merged(tmp_path, small_set, *options)
    assert not (tmp_path / "out").exists()


def test_noise_and_clean_contradict_each_other(small_set: SmallSet, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"monitor\.noise says .* are clean, monitor\.clean that they are noisy"):
        merged(tmp_path, small_set, *labelled(small_set), "monitor.noise=gauss50", "monitor.clean=x")


def test_images_and_packages_are_looked_for_first(
    small_set: SmallSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    strings = labelled(small_set)
    gone = [strings[0], f"monitor.val=ImageNet:split=VAL:root={tmp_path / 'gone'}"]
    with pytest.raises(DinoNoiseError, match=r"monitor\.val: dataset root .*gone does not exist"):
        merged(tmp_path, small_set, *gone, "monitor.knn=3")
    with pytest.raises(ConfigError, match=r"monitor\.knn is 30: monitor\.train gives 20 images"):
        merged(tmp_path, small_set, *strings, "monitor.knn=30")
    monkeypatch.setattr(sinks, "find_spec", lambda name: None if name == "wandb" else name)
    with pytest.raises(
        ConfigError, match=r"monitor\.wandb needs the package wandb.*pip install 'dinov2-noise\[wandb\]'"
    ):
        merged(tmp_path, small_set, "monitor.wandb=noise")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("off", ["monitor.enabled=false", "evaluation.eval_period_iterations=0"])
def test_where_nothing_is_measured_nothing_is_asked_for(small_set: SmallSet, tmp_path: Path, off: str) -> None:
    gone = [f"monitor.{key}=ImageFolder:root={tmp_path / 'gone'}" for key in ("train", "val")]
    merged(tmp_path, small_set, *gone, off)
