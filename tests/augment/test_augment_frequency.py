"""Samples of stages with crops, filters and patches of their own: what acts on which image, and when."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from dinov2_noise.augment.low_pass import low_pass
from dinov2_noise.augment.patches import BlurPatch, GaussianPatch
from dinov2_noise.augment.replay import paired
from dinov2_noise.augment.views import LowPass, StagedViews, Views, filter_crops, sample_seed
from dinov2_noise.curriculum.config import AnchorConfig, CurriculumConfig, StageConfig
from dinov2_noise.curriculum.frequency import (
    BlurPatchConfig,
    Crops,
    CropsConfig,
    GaussianPatchConfig,
    LowPassConfig,
)
from dinov2_noise.curriculum.sampler import CurriculumSampler, Draw
from dinov2_noise.curriculum.stages import Curriculum, build

SEED, SAMPLES, BATCH, LENGTH = 11, 17, 4, 4
PLAIN = StageConfig("plain", 1, "noisy", anchor=AnchorConfig(1.0))
FULL = Crops(32, 16, 8)


def curriculum(*stages: dict[str, Any]) -> Curriculum:
    """Stages of four iterations, all anchored so that twins are there, and a last one with nothing else."""
    configs = [StageConfig(f"s{i}", 1, "noisy", anchor=AnchorConfig(1.0), **keys) for i, keys in enumerate(stages)]
    return build(CurriculumConfig((*configs, PLAIN)), LENGTH, FULL)


class Transform:
    """Twins, a global and a local crop; whole images, for tests that look at the patches, under ``whole``."""

    def __init__(self, global_px: int = FULL.global_px, local_px: int = FULL.local_px) -> None:
        self.sizes = (global_px, local_px)
        self._global, self._local = (
            transforms.Compose([transforms.RandomResizedCrop(px), transforms.ToTensor()]) for px in self.sizes
        )

    def at_sizes(self, global_px: int, local_px: int, /) -> Transform:
        return Transform(global_px, local_px)

    def __call__(self, views: Views) -> Mapping[str, Any]:
        assert views.twin is not None
        main, twin = paired(self._global, views.main, views.twin)
        return {
            "global_crops": [main],
            "global_crops_teacher": [main],
            "global_crops_anchor": [twin],
            "local_crops": [self._local(views.main)],
            "whole": torch.from_numpy(np.array(views.main)),
            "twin": torch.from_numpy(np.array(views.twin)),
        }


class Samples(Dataset[Mapping[str, Any]]):
    """Noisy images are bright and random, denoised ones dark."""

    def __init__(self, of: Curriculum) -> None:
        self.views = StagedViews(of, SEED)
        self.transform = Transform()

    def noisy(self, index: int, /) -> Image.Image:
        return Image.fromarray(np.random.default_rng(index).integers(128, 256, (48, 40, 3)).astype(np.uint8))

    def denoised(self, index: int, /) -> Image.Image:
        return Image.new("RGB", (40, 48), (3 * index, 100, 50))

    def __getitem__(self, draw: Draw) -> Mapping[str, Any]:
        return self.views(self, draw)


def sample(of: Curriculum, iteration: int, number: int | None = None) -> Mapping[str, Any]:
    """Image 3 as sample ``number``, by default of the iteration's beginning."""
    number = BATCH * iteration if number is None else number
    return Samples(of)[Draw(3, of.stage_at(iteration).index, number, "noisy", iteration)]


def test_a_patch_is_on_the_students_image_only_and_moves_no_crop() -> None:
    patched = curriculum({"gaussian_patch": GaussianPatchConfig(0.5)})
    ours, plain = sample(patched, 1), sample(curriculum({}), 1)
    rng = np.random.default_rng(sample_seed(SEED, BATCH, stream=3))
    expected = GaussianPatch(0.5).apply(Samples(patched).noisy(3), rng)
    assert np.array_equal(ours["whole"], np.array(expected))
    changed = (ours["whole"] != plain["whole"]).any(-1).nonzero()
    top, left = changed.min(0).values
    bottom, right = changed.max(0).values
    assert not torch.equal(ours["whole"], plain["whole"])
    outside = torch.ones(48, 40, dtype=torch.bool)
    outside[top : bottom + 1, left : right + 1] = False
    assert torch.equal(ours["whole"][outside], plain["whole"][outside])
    assert torch.equal(ours["twin"], plain["twin"])
    assert torch.equal(ours["global_crops_anchor"][0], plain["global_crops_anchor"][0]), "the same crop is drawn"


def test_noise_comes_before_blur() -> None:
    both = curriculum({"gaussian_patch": GaussianPatchConfig(0.4), "blur_patch": BlurPatchConfig(3.0)})
    rng = np.random.default_rng(sample_seed(SEED, 6, stream=3))
    noise_first = BlurPatch(3.0).apply(GaussianPatch(0.4).apply(Samples(both).noisy(3), rng), rng)
    assert np.array_equal(sample(both, 1, number=6)["whole"], np.array(noise_first))


def test_a_denoised_view_is_patched_too_but_not_its_twin() -> None:
    of = curriculum({"gaussian_patch": GaussianPatchConfig(0.5)})
    found = Samples(of)[Draw(3, 0, 5, "denoised", 1)]
    dark = np.array(Samples(of).denoised(3))
    assert np.array_equal(found["twin"], dark)
    expected = GaussianPatch(0.5).apply(Image.fromarray(dark), np.random.default_rng(sample_seed(SEED, 5, stream=3)))
    assert np.array_equal(found["whole"], np.array(expected))
    assert not np.array_equal(expected, dark)


def test_the_low_pass_acts_on_every_crop_at_its_own_size() -> None:
    filtered = curriculum({"low_pass": LowPassConfig(0.1, "butterworth", 3)})
    ours, plain = sample(filtered, 2), sample(curriculum({}), 2)
    for name in ("global_crops", "global_crops_teacher", "global_crops_anchor", "local_crops"):
        expected = low_pass(plain[name][0], 0.1, "butterworth", 3)
        torch.testing.assert_close(ours[name][0], expected, rtol=0, atol=1e-6)
    assert (ours["global_crops"][0] - plain["global_crops"][0]).abs().max() > 0.1
    assert ours["global_crops_teacher"][0] is not plain["global_crops_teacher"][0]
    assert torch.equal(ours["whole"], plain["whole"])


def test_filtering_keeps_the_mean_and_what_crops_share() -> None:
    crop, other = torch.rand(3, 16, 16), torch.rand(3, 16, 16)
    given = {"global_crops": [crop, other], "global_crops_teacher": [crop, other], "offsets": ()}
    found = filter_crops(given, LowPass(0.1, "ideal", 2))
    assert found["global_crops"][0] is found["global_crops_teacher"][0]
    assert found["offsets"] == ()
    for before, after in zip(given["global_crops"], found["global_crops"], strict=True):
        torch.testing.assert_close(after.mean((1, 2)), before.mean((1, 2)))
        assert after.std() < 0.5 * before.std()


def test_a_cutoff_that_ends_at_half_a_cycle_leaves_the_last_iteration_alone() -> None:
    ramp = curriculum({"low_pass": LowPassConfig((0.1, 0.5))})
    spread = [float(sample(ramp, iteration, number=1)["global_crops"][0].std()) for iteration in range(LENGTH)]
    assert spread == sorted(spread)
    assert torch.equal(sample(ramp, 3)["global_crops"][0], sample(curriculum({}), 3)["global_crops"][0])


def test_crops_of_a_stages_own_size() -> None:
    of = curriculum({"crops": CropsConfig(24, 8)}, {"crops": CropsConfig(32, 16)}, {"crops": CropsConfig(None, 8)})
    found = [sample(of, LENGTH * stage) for stage in range(4)]
    sides = [(s["global_crops"][0].shape[-1], s["local_crops"][0].shape[-1]) for s in found]
    assert sides == [(24, 8), (32, 16), (32, 8), (32, 16)]
    assert [s.get("mask_grid") for s in found] == [3, None, 4, None]
    assert found[0]["global_crops_anchor"][0].shape[-1] == 24


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_two_workers_read_every_ramp_at_the_batchs_iteration() -> None:
    """Loaders prefetch: a worker makes the next stage's samples while this one's are trained on."""
    of = curriculum(
        {"low_pass": LowPassConfig((0.05, 0.5)), "gaussian_patch": GaussianPatchConfig((0.0, 0.5))},
        {"blur_patch": BlurPatchConfig((4.0, 0.0)), "crops": CropsConfig(16, 8)},
    )
    sampler = CurriculumSampler(SAMPLES, BATCH, of, seed=5)
    loader = DataLoader(Samples(of), batch_size=BATCH, sampler=sampler, num_workers=2, collate_fn=list)
    drawn = islice(sampler, 3 * LENGTH * BATCH)
    for iteration, batch in enumerate(islice(loader, 3 * LENGTH)):
        stage = of.stage_at(iteration)
        for found, draw in zip(batch, drawn, strict=False):
            assert (draw.iteration, draw.stage, found["number"]) == (iteration, stage.index, draw.number)
            expected = Samples(of).noisy(draw.index)
            rng = np.random.default_rng(sample_seed(SEED, draw.number, stream=3))
            for patch in stage.patches_at(iteration):
                expected = patch.apply(expected, rng)
            assert np.array_equal(found["whole"], np.array(expected))
            assert torch.equal(found["global_crops"][0], Samples(of)[draw]["global_crops"][0])
