"""Upstream's own loader, augmentation and collate with a curriculum: what reaches the workers, what twins share."""

from __future__ import annotations

import itertools
import pickle
import random
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import SmallSet
from omegaconf import OmegaConf
from PIL import Image

from dinov2_noise.augment.views import Views
from dinov2_noise.curriculum.config import parse_curriculum
from dinov2_noise.curriculum.stages import build
from dinov2_noise.data import build_index
from dinov2_noise.errors import ConfigError
from dinov2_noise.upstream import runtime

pytestmark = pytest.mark.upstream

STAGES = [
    {"name": "denoised", "epochs": 2, "view": "denoised"},
    {"name": "noisy", "epochs": 2, "view": "noisy", "restart": True, "anchor": {"weight": 1.0}},
]


@pytest.fixture
def run() -> Iterator[runtime.Run]:
    """A run of 2 + 2 epochs of 3 iterations with batches of 4."""
    config = parse_curriculum({"stages": STAGES}, total_epochs=4)
    from dinov2.configs import dinov2_default_config

    own = {"train": {"batch_size_per_gpu": 4, "seed": 0, "OFFICIAL_EPOCH_LENGTH": 3}, "optim": {"epochs": 4}}
    cfg = OmegaConf.merge(dinov2_default_config, own)
    started = runtime.Run(cfg, config, build(config, epoch_length_iterations=3))
    runtime.start(started)
    yield started
    runtime.start(None)


@pytest.fixture(scope="module")
def black_and_white(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A pair of roots that no augmentation confuses: noisy images are all white, denoised ones all black."""
    root = tmp_path_factory.mktemp("black-and-white")
    for name, value in (("noisy", 255), ("denoised", 0)):
        for number in range(8):
            path = root / name / "train" / "n0" / f"n0_{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (40, 40), (value, value, value)).save(path)
    build_index(root / "noisy", progress=False)
    return f"ImageNet:split=TRAIN:root={root / 'noisy'}:denoised={root / 'denoised'}"


def _transform() -> Any:
    from dinov2.data.augmentations import DataAugmentationDINO

    return DataAugmentationDINO((0.32, 1.0), (0.05, 0.32), 2, global_crops_size=32, local_crops_size=16)


def _loader(dataset_str: str, num_workers: int, start_iteration: int = 0) -> Any:
    """As upstream's `do_train` builds it."""
    from dinov2.data import MaskingGenerator, SamplerType, collate_data_and_cast, make_data_loader, make_dataset

    collate = partial(
        collate_data_and_cast,
        mask_ratio_tuple=(0.1, 0.5),
        mask_probability=0.5,
        n_tokens=4,
        mask_generator=MaskingGenerator(input_size=(2, 2), max_num_patches=2),
        dtype=torch.float32,
    )
    dataset = make_dataset(dataset_str=dataset_str, transform=_transform(), target_transform=lambda _: ())
    return make_data_loader(
        dataset=dataset,
        batch_size=4,
        num_workers=num_workers,
        shuffle=True,
        seed=start_iteration,
        sampler_type=SamplerType.SHARDED_INFINITE,
        drop_last=True,
        collate_fn=collate,
    )


@pytest.mark.filterwarnings("ignore:'pin_memory' argument:UserWarning")
def test_the_view_changes_at_the_switch_in_two_workers(run: runtime.Run, black_and_white: str) -> None:
    batches = list(itertools.islice(_loader(black_and_white, num_workers=2), 12))
    assert [batch["stage"] for batch in batches] == [0] * 6 + [1] * 6
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    black = -mean / std
    for batch in batches[:6]:
        for crops in (batch["collated_global_crops"], batch["collated_local_crops"]):
            torch.testing.assert_close(crops.mean((0, 2, 3)), black, rtol=0, atol=1e-3)
        assert "collated_global_crops_anchor" not in batch
    for batch in batches[6:]:
        # The first global crop of each of the four images: only the second ones may be solarised, that is inverted.
        student, twin = batch["collated_global_crops"][:4], batch["collated_global_crops_anchor"][:4]
        torch.testing.assert_close(twin.mean((0, 2, 3)), black, rtol=0, atol=1e-3)
        assert bool((student.mean((1, 2, 3)) > 0.5).all()), "white, dimmed by at most 0.6 * 0.6"


@pytest.mark.filterwarnings("ignore:'pin_memory' argument:UserWarning")
def test_batches_do_not_depend_on_the_number_of_workers_nor_on_resuming(run: runtime.Run, small_set: SmallSet) -> None:
    reference = list(itertools.islice(_loader(small_set.pair(), 0), 8))
    for workers, start in ((2, 0), (1, 5)):
        found = itertools.islice(_loader(small_set.pair(), workers, start), 8 - start)
        for expected, batch in zip(reference[start:], found, strict=True):
            assert expected.keys() == batch.keys()
            for key, value in expected.items():
                same = torch.equal(value, batch[key]) if isinstance(value, torch.Tensor) else value == batch[key]
                assert same, (workers, start, key)


def test_twin_sees_the_same_view(small_set: SmallSet) -> None:
    """Given the same image twice, the anchor's crops are the student's, bit by bit."""
    image = Image.open(small_set.clean / "train" / "n0" / "n0_0.JPEG").convert("RGB")
    transform = _transform()
    for seed in range(20):
        torch.manual_seed(seed)
        sample = transform(Views(image, image.copy()))
        for ours, theirs in zip(sample["global_crops_anchor"], sample["global_crops"], strict=True):
            assert torch.equal(ours, theirs)


def test_twin_costs_the_student_no_random_draw(small_set: SmallSet) -> None:
    """With or without twin, and as a plain image, the student's crops and the generator afterwards are upstream's."""
    image = Image.open(small_set.clean / "train" / "n1" / "n1_0.JPEG").convert("RGB")
    outcomes = []
    for given in (image, Views(image, None), Views(image, Image.new("RGB", image.size))):
        torch.manual_seed(3)
        random.seed(3)
        sample = _transform()(given)
        outcomes.append([*sample["global_crops"], *sample["local_crops"], torch.rand(1), torch.tensor(random.random())])
    for other in outcomes[1:]:
        assert all(torch.equal(a, b) for a, b in zip(outcomes[0], other, strict=True))


def test_transform_and_collate_pickle_under_upstreams_names() -> None:
    from dinov2.data import collate_data_and_cast

    assert pickle.loads(pickle.dumps(collate_data_and_cast)) is collate_data_and_cast
    again = pickle.loads(pickle.dumps(_transform()))
    assert type(again).__qualname__ == "DataAugmentationDINO"
    assert type(again).__module__ == "dinov2.data.augmentations"


def test_pair_without_denoised_folder_is_an_error(run: runtime.Run, small_set: SmallSet) -> None:
    with pytest.raises(ConfigError, match="append `:denoised=FOLDER`"):
        _loader(f"ImageNet:split=TRAIN:root={small_set.noisy}", 0)


def test_evaluation_datasets_ignore_the_curriculum(run: runtime.Run, small_set: SmallSet) -> None:
    """An evaluation may be given a training config: its datasets stay plain."""
    from dinov2.data import make_dataset

    dataset = make_dataset(
        dataset_str=f"ImageNet:split=VAL:root={small_set.clean}:noise=gauss100", transform=np.asarray
    )
    image, target = dataset[3]
    stored = Image.open(Path(small_set.noisy) / dataset.relative_path(3).replace(".JPEG", ".png"))
    assert np.array_equal(image, np.asarray(stored))
    assert target == dataset.get_targets()[3]
