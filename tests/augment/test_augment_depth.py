"""Arrays of more than 8 bits: the draws of pictures, and nothing rounded."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch
from augment_chains import MEAN, STD, geometry, levels, photograph
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import DataLoader
from torchvision import transforms

from dinov2_noise.augment.chains import read
from dinov2_noise.augment.fast import FastCrops
from dinov2_noise.augment.patches import BlurPatch, GaussianPatch, Patch
from dinov2_noise.augment.views import StagedViews, Views, load_views
from dinov2_noise.curriculum.config import AnchorConfig, CurriculumConfig, StageConfig
from dinov2_noise.curriculum.frequency import GaussianPatchConfig, LowPassConfig
from dinov2_noise.curriculum.sampler import CurriculumSampler, Draw
from dinov2_noise.curriculum.stages import Curriculum, build
from dinov2_noise.errors import PairError

SIDE, IMAGES, BATCH = 96, 5, 4


class Frames:
    """16-bit ramps, as arrays or as pictures; a picklable dataset with crops that change no colour."""

    def __init__(self, *, full_depth: bool, twin_px: int = SIDE) -> None:
        self.full_depth, self.twin_px = full_depth, twin_px
        self.views = StagedViews(curriculum(), seed=5)
        plain = transforms.Compose([transforms.ToTensor(), transforms.Normalize(MEAN, STD)])
        draws = read(geometry(48, (0.4, 1.0)), plain)
        self.crops = FastCrops([draws, draws], read(geometry(24, (0.1, 0.4)), plain), 2)

    def noisy_pixels(self, index: int, epoch: int | None = None, /) -> NDArray[np.float32]:
        ramp = 0.4 + 0.1 * np.arange(SIDE * SIDE, dtype=np.float32).reshape(SIDE, SIDE, 1) / SIDE**2
        return np.repeat(ramp + 0.01 * index, 3, axis=2)

    def denoised_pixels(self, index: int, /) -> NDArray[np.float32]:
        return 1 - self.noisy_pixels(index)[: self.twin_px]

    def noisy(self, index: int, /) -> Image.Image:
        return picture(self.noisy_pixels(index))

    def denoised(self, index: int, /) -> Image.Image:
        return picture(self.denoised_pixels(index))

    def transform(self, views: Views) -> Mapping[str, Any]:
        return self.crops(views.main, views.twin)

    def __getitem__(self, draw: Draw) -> Mapping[str, Any]:
        return self.views(self, draw)

    def __len__(self) -> int:
        return IMAGES


def picture(pixels: NDArray[np.float32]) -> Image.Image:
    return Image.fromarray(np.rint(255 * pixels).astype(np.uint8))


def curriculum() -> Curriculum:
    stages = (
        StageConfig("denoised", 1, "denoised", low_pass=LowPassConfig((0.2, 0.4), "gaussian")),
        StageConfig("noisy", 2, "noisy", restart=True, anchor=AnchorConfig(1.0)),
        StageConfig("patched", 1, "noisy", restart=True, gaussian_patch=GaussianPatchConfig((0.2, 0.2))),
    )
    return build(CurriculumConfig(stages), epoch_length_iterations=2)


def batches(workers: int, *, full_depth: bool) -> list[dict[str, Any]]:
    sampler = CurriculumSampler(IMAGES, BATCH, curriculum(), seed=3)
    loader = DataLoader(Frames(full_depth=full_depth), BATCH, sampler=sampler, num_workers=workers)
    return list(islice(loader, 8))


@pytest.mark.parametrize("patch", [GaussianPatch(0.3), BlurPatch(4.0)], ids=["noise", "blur"])
def test_a_patch_is_that_of_a_picture_within_rounding(patch: Patch) -> None:
    image = photograph("chelsea", 70, 50)
    deep, n_changed = (np.asarray(image) / 255).astype(np.float32), 0
    for seed in range(5):
        own, others = np.random.default_rng(seed), np.random.default_rng(seed)
        before = deep.copy()
        found, expected = patch.apply(deep, own), np.asarray(patch.apply(image, others))
        assert isinstance(found, np.ndarray)
        assert found.dtype == np.float32
        assert 0 <= found.min() <= found.max() <= 1
        assert np.abs(255 * found - expected).max() <= 0.501
        assert own.random() == others.random(), "the same numbers were asked for"
        np.testing.assert_array_equal(deep, before)
        changed = np.abs(255 * found - np.rint(255 * found)) > 0.01
        top, left, side, _ = patch.draw(50, 70, np.random.default_rng(seed))
        n_changed += changed.sum()
        changed[top : top + side, left : left + side] = False
        assert not changed.any(), "outside of the square nothing changes"
    assert n_changed > 1000


def test_crops_are_those_of_8_bits_and_have_more_levels() -> None:
    deep, shallow = batches(0, full_depth=True), batches(0, full_depth=False)
    for one, other in zip(deep, shallow, strict=True):
        assert one.keys() == other.keys()
        for name in ("global_crops", "local_crops", "global_crops_anchor"):
            for mine, theirs in zip(one.get(name, []), other.get(name, []), strict=True):
                # Halves of a level each: of the image, of the resized part, and of patches.
                assert np.abs(levels(mine[0]) - levels(theirs[0])).max() < 1.6
    crop = levels(deep[3]["global_crops"][0][0])[0]
    assert len(np.unique(crop.round(3))) > 1000
    assert len(np.unique(levels(shallow[3]["global_crops"][0][0])[0].round(3))) < 40


def test_workers_and_pickling_change_nothing() -> None:
    for one, other in zip(batches(0, full_depth=True), batches(2, full_depth=True), strict=True):
        for name in ("global_crops", "local_crops"):
            assert all(torch.equal(a, b) for a, b in zip(one[name], other[name], strict=True))
    assert pickle.loads(pickle.dumps(Frames(full_depth=True))).full_depth


def test_a_tensor_with_the_channels_first_is_the_array() -> None:
    frames = Frames(full_depth=True)
    pixels = frames.noisy_pixels(0)
    found = []
    for image in (pixels, torch.from_numpy(pixels.transpose(2, 0, 1).copy())):
        torch.manual_seed(0)
        found.append(frames.crops(image)["global_crops"])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_twins_of_another_size_are_refused() -> None:
    with pytest.raises(PairError, match=r"96x96 px.*96x90 px"):
        load_views(Frames(full_depth=True, twin_px=90), 0, "noisy", needs_twin=True)
