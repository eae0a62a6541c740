"""Crops, masks and patches of a stage in upstream's own loader: bit by bit what upstream makes when configured so."""

from __future__ import annotations

import itertools
import logging
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import SmallSet, run_python
from omegaconf import OmegaConf
from PIL import Image
from staged_batches import BATCH, FULL, LENGTH, SCALES, SEED, SMALL, STAGES, augmentation, loader, masks, start

from dinov2_noise.augment.low_pass import low_pass
from dinov2_noise.augment.patches import GaussianPatch
from dinov2_noise.augment.replay import rng_scope
from dinov2_noise.augment.views import sample_seed
from dinov2_noise.curriculum.sections import AUGMENTATIONS
from dinov2_noise.upstream import runtime

pytestmark = [pytest.mark.upstream, pytest.mark.filterwarnings("ignore:'pin_memory' argument:UserWarning")]


@pytest.fixture
def run() -> Iterator[None]:
    start()
    yield
    runtime.start(None)


def upstreams_batch(of: Any, iteration: int, sizes: dict[str, int], image: Any) -> dict[str, Any]:
    """The batch that upstream's own classes make at these sizes, with the seeds of the same draws.

    ``image``: draw → image, before it is cropped.
    """
    from dinov2.data.collate import collate_data_and_cast

    # Its class and function as they are without us.
    transform = type(augmentation(**sizes)).__mro__[1](*SCALES, **sizes)
    collate = collate_data_and_cast.__wrapped__
    samples = []
    for draw in itertools.islice(of.sampler, iteration * BATCH, (iteration + 1) * BATCH):
        with rng_scope(sample_seed(SEED, draw.number)):
            samples.append((transform(image(draw)), ()))
    with rng_scope(sample_seed(SEED, iteration * BATCH, stream=1)):
        made: dict[str, Any] = collate(samples, (0.1, 0.5), 0.5, torch.float32, **masks(sizes["global_crops_size"]))
    return made


def assert_same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    for key, value in expected.items():
        same = torch.equal(value, found[key]) if isinstance(value, torch.Tensor) else value == found[key]
        assert same, key


def test_a_stage_of_small_crops_is_upstream_configured_with_them(run: None, small_set: SmallSet) -> None:
    of = loader(small_set.pair(), num_workers=2)
    batches = list(itertools.islice(of, 3 * LENGTH))
    for iteration in range(LENGTH):
        expected = upstreams_batch(of, iteration, SMALL, lambda draw: of.dataset.noisy(draw.index))
        assert expected["collated_masks"].shape == (2 * BATCH, 25)
        assert expected["collated_masks"].any()
        assert_same(batches[iteration], expected)


def test_a_stage_with_patches_is_upstream_given_patched_images(run: None, small_set: SmallSet) -> None:
    of = loader(small_set.pair(), num_workers=2)
    batches = list(itertools.islice(of, 3 * LENGTH))

    def patched(draw: Any) -> Image.Image:
        rng = np.random.default_rng(sample_seed(SEED, draw.number, stream=3))
        return GaussianPatch(0.5).apply(of.dataset.noisy(draw.index), rng)

    for iteration in range(2 * LENGTH, 3 * LENGTH):
        assert_same(batches[iteration], upstreams_batch(of, iteration, FULL, patched))
        plain = upstreams_batch(of, iteration, FULL, lambda draw: of.dataset.noisy(draw.index))
        assert not torch.equal(plain["collated_global_crops"], batches[iteration]["collated_global_crops"])


def test_a_low_pass_is_upstreams_crops_filtered(run: None, small_set: SmallSet) -> None:
    of = loader(small_set.pair(), num_workers=2)
    for iteration, batch in enumerate(itertools.islice(of, 2 * LENGTH)):
        if iteration < LENGTH:
            continue
        plain = upstreams_batch(of, iteration, FULL, lambda draw: of.dataset.noisy(draw.index))
        cutoff = 0.1 + 0.1 * (iteration - LENGTH)
        for name in ("collated_global_crops", "collated_local_crops"):
            torch.testing.assert_close(batch[name], low_pass(plain[name], cutoff), rtol=0, atol=1e-5)
            assert (batch[name] - plain[name]).abs().max() > 0.1
        assert torch.equal(batch["collated_masks"], plain["collated_masks"])


@pytest.mark.parametrize("augmentation_name", AUGMENTATIONS)
def test_batches_depend_neither_on_workers_nor_on_resuming(
    run: None, small_set: SmallSet, augmentation_name: str
) -> None:
    """Resumed before, at and after the iteration where the crops change."""
    start(augmentation_name)
    whole = list(itertools.islice(loader(small_set.pair(), 0), 3 * LENGTH))
    for start_iteration, workers in ((0, 2), (LENGTH - 1, 1), (LENGTH, 0)):
        resumed = loader(small_set.pair(), workers, start_iteration)
        for expected, found in zip(whole[start_iteration:], resumed, strict=False):
            assert_same(found, expected)


def test_masks_for_a_grid_are_upstreams_formula() -> None:
    from dinov2.data import MaskingGenerator

    from dinov2_noise.upstream.data.collate import masks_for

    for patch_px in (8, 14, 16):
        for grid in range(1, 33):
            expected, found = masks(grid * patch_px, patch_px), masks_for(grid, MaskingGenerator((4, 4)))
            assert found["n_tokens"] == expected["n_tokens"]
            assert vars(found["mask_generator"]) == vars(expected["mask_generator"])


def test_other_sizes_are_made_once_and_silently(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "dinov2")
    transform = augmentation(**FULL)
    assert "Using data augmentation parameters" in caplog.text, "upstream's own"
    caplog.clear()
    small = transform.at_sizes(40, 16)
    assert small is transform.at_sizes(40, 16)
    assert (small.global_crops_size, small.local_crops_size, small.local_crops_number) == (40, 16, 3)
    assert caplog.text == ""
    copy = pickle.loads(pickle.dumps(transform))
    assert copy.at_sizes(40, 16).global_crops_size == 40
    augmentation(**SMALL)
    assert "Using data augmentation parameters" in caplog.text


def test_a_preview_shows_the_stages_crops(small_set: SmallSet, tmp_path: Path) -> None:
    from dinov2_noise.upstream import preview

    train = {"dataset_path": small_set.pair(), "seed": SEED, "OFFICIAL_EPOCH_LENGTH": LENGTH}
    content = {"train": train, "optim": {"epochs": 3}, "crops": FULL, "student": {"patch_size": 8}}
    path = tmp_path / "config.yaml"
    OmegaConf.save(OmegaConf.create({**content, "curriculum": {"stages": STAGES}}), path)
    shown = [preview.crops(path, index=2, stage=stage) for stage in range(3)]
    assert [s["global_crops"][0].size for s in shown] == [(40, 40), (64, 64), (64, 64)]
    assert [s["local_crops"][0].size for s in shown] == [(16, 16), (32, 32), (32, 32)]
    ramp = [preview.crops(path, index=2, stage=1, iteration=LENGTH + i)["global_crops"][0] for i in range(LENGTH)]
    assert np.array_equal(ramp[0], shown[1]["global_crops"][0])
    roughness = [np.abs(np.diff(np.asarray(crop, float), axis=0)).mean() for crop in ramp]
    assert roughness == sorted(roughness)
    assert roughness[0] < roughness[2]


@pytest.mark.slow  # two interpreters import torch
def test_workers_started_afresh_make_the_same_crops(small_set: SmallSet) -> None:
    """As on systems without fork: dataset, transform and collate reach the worker by pickle."""
    here = Path(__file__).parent
    done = run_python(str(here / "spawned_workers.py"), small_set.pair(), path=(here.parent,))
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines()[-1] == "the same, 40 px"
