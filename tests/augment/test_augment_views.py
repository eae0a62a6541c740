"""Views of a stage, and samples that do not depend on who makes them."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from dinov2_noise.augment.replay import capture, paired
from dinov2_noise.augment.views import StagedViews, Views, load_views, sample_seed
from dinov2_noise.curriculum.config import AnchorConfig, CurriculumConfig, StageConfig
from dinov2_noise.curriculum.sampler import CurriculumSampler, Draw
from dinov2_noise.curriculum.stages import Curriculum, build
from dinov2_noise.errors import PairError

SAMPLES, BATCH = 17, 4


def curriculum() -> Curriculum:
    stages = (
        StageConfig("denoised", 1, "denoised"),
        StageConfig("noisy", 1, "noisy"),
        StageConfig("anchored", 2, "noisy", restart=True, anchor=AnchorConfig(1.0)),
    )
    return build(CurriculumConfig(stages), epoch_length_iterations=3)


class Images:
    """Denoised images are smooth and dark, noisy ones bright; ``read`` records what was asked for."""

    def __init__(self, size_px: int = 32, twin_px: int = 32) -> None:
        self.size_px, self.twin_px = size_px, twin_px
        self.read: list[str] = []

    def noisy(self, index: int, /) -> Image.Image:
        self.read.append("noisy")
        values = np.random.default_rng(index).integers(128, 256, (self.size_px, self.size_px, 3))
        return Image.fromarray(values.astype(np.uint8))

    def denoised(self, index: int, /) -> Image.Image:
        self.read.append("denoised")
        return Image.new("RGB", (self.twin_px, self.twin_px), (3 * index, 100, 50))


class Samples(Images, Dataset[Mapping[str, Any]]):
    """The dummy dataset of a loader; the twin, when there is none, is zeros, so that batches collate."""

    def __init__(self) -> None:
        super().__init__()
        self._views = StagedViews(curriculum(), seed=11)
        crop = transforms.RandomResizedCrop(12, interpolation=transforms.InterpolationMode.BICUBIC)
        self._geometry = transforms.Compose([crop, transforms.RandomHorizontalFlip(), transforms.ToTensor()])

    def transform(self, views: Views) -> Mapping[str, Any]:
        if views.twin is None:
            main = self._geometry(views.main)
            return {"main": main, "twin": torch.zeros_like(main)}
        main, twin = paired(self._geometry, views.main, views.twin)
        return {"main": main, "twin": twin}

    def __getitem__(self, draw: Draw) -> Mapping[str, Any]:
        return self._views(self, draw)


def batches(num_workers: int, n_iterations: int = 12, start: int = 0) -> list[dict[str, torch.Tensor]]:
    sampler = CurriculumSampler(SAMPLES, BATCH, curriculum(), seed=5, start_iteration=start)
    loader = DataLoader(Samples(), batch_size=BATCH, sampler=sampler, num_workers=num_workers)
    return list(islice(loader, n_iterations - start))


@pytest.mark.parametrize(
    ("stage", "read"),
    [(0, ["denoised"]), (1, ["noisy"]), (2, ["noisy", "denoised"])],
    ids=["denoised", "noisy", "anchored"],
)
def test_a_stage_reads_what_it_needs_and_nothing_else(stage: int, read: list[str]) -> None:
    source = Images()
    views = load_views(source, 7, curriculum().stages[stage].view, needs_twin=curriculum().stages[stage].needs_twin)
    assert source.read == read
    assert views.main.tobytes() == (Images().denoised(7) if stage == 0 else Images().noisy(7)).tobytes()
    assert (views.twin is not None) == (stage == 2)
    if views.twin is not None:
        assert views.twin.tobytes() == Images().denoised(7).tobytes()


def test_twins_of_different_size_are_refused() -> None:
    with pytest.raises(PairError, match=r"image 3: the noisy one is 32x32 px, its denoised twin 16x16 px"):
        load_views(Images(twin_px=16), 3, "noisy", needs_twin=True)


def test_an_unknown_view_is_refused() -> None:
    with pytest.raises(ValueError, match="view 'clean' is neither"):
        load_views(Images(), 0, "clean", needs_twin=False)


def test_the_twin_of_a_denoised_view_is_itself() -> None:
    source = Images()
    views = load_views(source, 7, "denoised", needs_twin=True)
    assert source.read == ["denoised"]
    assert views.main is views.twin


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_batches_are_bit_equal_for_any_number_of_workers() -> None:
    expected = batches(num_workers=0)
    for num_workers in (1, 2):
        for ours, reference in zip(batches(num_workers), expected, strict=True):
            assert ours.keys() == reference.keys()
            assert all(torch.equal(ours[key], reference[key]) for key in reference)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_workers_change_stage_at_the_iteration_of_the_switch() -> None:
    for iteration, batch in enumerate(batches(num_workers=2)):
        expected = curriculum().stage_at(iteration)
        assert batch["stage"].tolist() == [expected.index] * BATCH
        is_dark = bool(batch["main"][:, 1].max() <= 100 / 255 + 1e-6)
        assert is_dark == (expected.view == "denoised")
        assert bool(batch["twin"].any()) == expected.needs_twin


def test_resumed_batches_equal_the_continued_ones() -> None:
    for ours, reference in zip(batches(0, start=5), batches(0)[5:], strict=True):
        assert all(torch.equal(ours[key], reference[key]) for key in reference)


def test_an_image_is_augmented_anew_in_every_pass() -> None:
    samples = Samples()
    first, second = samples[Draw(4, 1, 4, "noisy", 1)], samples[Draw(4, 1, 4 + SAMPLES, "noisy", 5)]
    assert not torch.equal(first["main"], second["main"])
    assert torch.equal(first["main"], samples[Draw(4, 1, 4, "noisy", 1)]["main"])


def test_stage_and_number_are_added_and_the_global_generators_left_alone() -> None:
    before = capture()
    sample = Samples()[Draw(2, 2, 9, "noisy", 2)]
    assert (sample["stage"], sample["number"]) == (2, 9)
    after = capture()
    assert before.python == after.python
    assert torch.equal(before.torch, after.torch)
    assert np.array_equal(before.numpy[1], after.numpy[1])


def test_the_callable_survives_pickling() -> None:
    views = StagedViews(curriculum(), seed=3)
    copy = pickle.loads(pickle.dumps(views))
    samples = Samples()
    ours, theirs = copy(samples, Draw(1, 2, 8, "noisy", 2)), views(samples, Draw(1, 2, 8, "noisy", 2))
    assert torch.equal(ours["main"], theirs["main"])


def test_sample_seeds_are_fixed_distinct_and_well_mixed() -> None:
    assert sample_seed(0, 0) == sample_seed(0, 0)
    seeds = [sample_seed(seed, number) for seed in range(20) for number in range(500)]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)
    bits = np.array([[seed >> bit & 1 for bit in range(63)] for seed in seeds], dtype=np.float64)
    # each bit is fair (10,000 draws: standard error 0.005), also against the bit of the next number
    assert np.abs(bits.mean(axis=0) - 0.5).max() < 0.025
    assert np.abs((bits[1:] != bits[:-1]).mean(axis=0) - 0.5).max() < 0.025
    assert sample_seed(1, 0) != sample_seed(0, 1)
    assert sample_seed(0, 2**32) != sample_seed(0, 0)
