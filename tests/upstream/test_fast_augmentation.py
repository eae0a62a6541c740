"""``loader.augmentation``: which code makes the crops, and that both make the same ones."""

from __future__ import annotations

import argparse
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from augment_chains import levels, photograph
from helpers import SmallSet
from omegaconf import OmegaConf
from torchvision import transforms

from dinov2_noise.augment.replay import rng_scope
from dinov2_noise.augment.views import Views
from dinov2_noise.configs import shipped
from dinov2_noise.curriculum.sections import LoaderConfig
from dinov2_noise.errors import ConfigError, PluginError
from dinov2_noise.upstream import runtime

pytestmark = pytest.mark.upstream

CROPS = ("global_crops", "global_crops_teacher", "local_crops")
FAST = LoaderConfig("fast")


@pytest.fixture(autouse=True)
def _no_run_left() -> Iterator[None]:
    yield
    runtime.start(None)


def augmentation(loader: LoaderConfig = runtime.UPSTREAMS_LOADER, n_local: int = 8) -> Any:
    from dinov2.data.augmentations import DataAugmentationDINO

    runtime.start(None, loader)
    return DataAugmentationDINO((0.32, 1.0), (0.05, 0.32), n_local)


def upstreams(n_local: int = 8) -> Any:
    """Upstream's own class, as it is without us."""
    from dinov2.data.augmentations import DataAugmentationDINO

    return DataAugmentationDINO.__mro__[1]((0.32, 1.0), (0.05, 0.32), n_local)


def sample(transform: Any, image: Any, seed: int) -> tuple[dict[str, Any], torch.Tensor]:
    """What is made of an image, and the number that torch's generator yields next."""
    with rng_scope(seed):
        return dict(transform(image)), torch.rand(())


def merged(tmp_path: Path, small_set: SmallSet, config: Any, *options: str) -> Any:
    from dinov2.utils.config import get_cfg_from_args

    path = tmp_path / "config.yaml"
    OmegaConf.save(OmegaConf.create(config), path)
    opts = [f"train.dataset_path={small_set.pair()}", *options]
    arguments = {"config_file": str(path), "output_dir": str(tmp_path / "out"), "opts": opts}
    return get_cfg_from_args(argparse.Namespace(**arguments, eval_only=False, no_resume=False))


def test_without_our_sections_crops_are_upstreams_bit_by_bit() -> None:
    for seed in range(3):
        (ours, after), (theirs, expected) = (
            sample(t, photograph("coffee"), seed) for t in (augmentation(), upstreams())
        )
        assert ours.keys() == theirs.keys()
        for name in CROPS:
            assert all(torch.equal(a, b) for a, b in zip(ours[name], theirs[name], strict=True))
        assert torch.equal(after, expected)


def test_fast_crops_are_upstreams_within_rounding() -> None:
    """The same views, crop by crop, and the generator afterwards."""
    fast, own, means = augmentation(FAST), upstreams(), []
    for seed, name in enumerate(("astronaut", "coffee", "chelsea")):
        (ours, after), (theirs, expected) = (sample(t, photograph(name), seed) for t in (fast, own))
        assert torch.equal(after, expected)
        assert ours.keys() == theirs.keys()
        assert ours["offsets"] == ()
        for kind in CROPS:
            for mine, upstreams_ in zip(ours[kind], theirs[kind], strict=True):
                difference = np.abs(levels(mine) - levels(upstreams_))
                means.append(difference.mean())
                assert means[-1] < 0.6
                assert difference.max() < 12.01
    assert np.mean(means) < 0.1


def test_a_twin_is_upstreams_view_of_it() -> None:
    """The anchor's crops of the twin are those that upstream would make of it as the image."""
    image, twin = photograph("coffee"), photograph("chelsea")
    (ours, after), (of_twin, expected) = (
        sample(augmentation(FAST), Views(image, twin), 5),
        sample(augmentation(FAST), twin, 5),
    )
    alone, _ = sample(augmentation(FAST), Views(image, None), 5)
    assert torch.equal(after, expected)
    assert all(map(torch.equal, ours["global_crops_anchor"], of_twin["global_crops"]))
    assert all(map(torch.equal, ours["local_crops"], alone["local_crops"]))
    assert "global_crops_anchor" not in alone


def test_upstreams_ranges_are_read_not_repeated() -> None:
    """Its own `GaussianBlur` asks torchvision for the complement of ``p``: it blurs the first global crop never, the
    second nine times in ten."""
    from dinov2_noise.upstream.data.augmentations import fast_crops

    own = upstreams(n_local=3)
    crops: Any = fast_crops(own)
    shares = [next(s.p for s in reversed(d.steps) if hasattr(s, "steps")) for d in crops._global_draws]
    assert shares == pytest.approx([0.0, 0.9])
    own.global_transfo1.transforms[0].transforms[0].transforms[0].brightness = (3.0, 3.5)
    with rng_scope(0):
        drawn = dict(fast_crops(own)._global_draws[0].draw(375, 500))
    assert 3.0 <= drawn["brightness"][0] <= 3.5


def test_a_checkout_with_another_transform_is_refused() -> None:
    transform = augmentation(FAST)
    transform.local_transfo.transforms.insert(0, transforms.RandomInvert())
    with pytest.raises(PluginError, match=r"holds RandomInvert.*Set `loader: \{augmentation: upstream\}`"):
        transform(photograph("coffee"))


def test_the_choice_travels_to_workers_and_to_other_sizes() -> None:
    transform = augmentation(FAST, n_local=1)
    transform(photograph("coffee"))
    runtime.start(None)
    for other in (pickle.loads(pickle.dumps(transform)), transform.at_sizes(112, 48)):
        assert other.augmentation == "fast"
    small, _ = sample(pickle.loads(pickle.dumps(transform)).at_sizes(112, 48), photograph("coffee"), 1)
    again, _ = sample(transform.at_sizes(112, 48), photograph("coffee"), 1)
    assert [crop.shape[-1] for crop in (*small["global_crops"], *small["local_crops"])] == [112, 112, 48]
    assert torch.equal(small["global_crops"][0], again["global_crops"][0])


def test_a_curriculum_is_fast_unless_told_otherwise(tmp_path: Path, small_set: SmallSet) -> None:
    config = OmegaConf.load(shipped()["nct"])
    cfg = merged(tmp_path, small_set, config)
    assert runtime.loader() == FAST
    assert cfg.loader.augmentation == "fast", "in the saved config, for the record"
    cfg = merged(tmp_path, small_set, config, "loader.augmentation=upstream")
    assert runtime.loader() == runtime.UPSTREAMS_LOADER
    assert cfg.loader.augmentation == "upstream"


def test_a_plain_config_is_upstreams_unless_told_otherwise(tmp_path: Path, small_set: SmallSet) -> None:
    plain = {"student": {"arch": "vit_small"}}
    cfg = merged(tmp_path, small_set, plain)
    assert runtime.loader() == runtime.UPSTREAMS_LOADER
    assert "loader" not in cfg
    merged(tmp_path, small_set, plain, "loader.augmentation=fast")
    assert runtime.loader() == FAST
    assert runtime.current() is None


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("loader.augmentation=quick", r"loader\.augmentation is 'quick': valid values are fast, upstream"),
        ("loader.augmentation=upstreem", r"did you mean 'upstream'"),
        ("loader.augment=fast", r"unknown key loader\.augment: did you mean 'augmentation'"),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, small_set: SmallSet, option: str, message: str) -> None:
    for config in (OmegaConf.load(shipped()["nct"]), {}):
        with pytest.raises(ConfigError, match=message):
            merged(tmp_path, small_set, config, option)


def test_images_of_full_depth_need_the_fast_one(tmp_path: Path, small_set: SmallSet) -> None:
    """Refused before anything is written."""
    config, data = OmegaConf.load(shipped()["nct"]), f"train.dataset_path={small_set.pair()}:depth=full"
    assert merged(tmp_path, small_set, config, data).loader.augmentation == "fast"
    with pytest.raises(ConfigError, match=r"depth=full.*set `loader: \{augmentation: fast\}`"):
        merged(tmp_path, small_set, config, data, "loader.augmentation=upstream")


def test_a_run_may_go_on_with_the_other(tmp_path: Path, small_set: SmallSet) -> None:
    """Crops differ by rounding; what is learned does not."""
    config = OmegaConf.load(shipped()["nct"])
    cfg = merged(tmp_path, small_set, config)
    (tmp_path / "out").mkdir(exist_ok=True)
    OmegaConf.save(cfg, tmp_path / "out" / "config.yaml")
    (tmp_path / "out" / "last_checkpoint").write_text("model_0000009.pth")
    merged(tmp_path, small_set, config, "loader.augmentation=upstream")
    assert runtime.loader() == runtime.UPSTREAMS_LOADER
