"""The sampler: disjoint ranks, exact resume, every image once per pass, the stage in each draw."""

from __future__ import annotations

import time
from itertools import islice

import pytest
import torch

from dinov2_noise.curriculum.config import CurriculumConfig, StageConfig, ViewShares
from dinov2_noise.curriculum.sampler import CurriculumSampler, Draw
from dinov2_noise.curriculum.stages import Curriculum, build

SAMPLES = 23


def curriculum() -> Curriculum:
    return build(CurriculumConfig((StageConfig("a", 1, "denoised"), StageConfig("b", 2, "noisy"))), 5)


def draws(
    n_iterations: int, *, batch_size: int = 4, start: int = 0, rank: int = 0, world: int = 1, seed: int = 7
) -> list[Draw]:
    sampler = CurriculumSampler(SAMPLES, batch_size, curriculum(), seed, start, rank, world)
    return list(islice(sampler, n_iterations * batch_size))


def test_every_image_comes_once_per_pass_and_passes_differ() -> None:
    indices = [draw.index for draw in draws(3 * SAMPLES, batch_size=1)]
    passes = [indices[first : first + SAMPLES] for first in range(0, 3 * SAMPLES, SAMPLES)]
    assert all(sorted(one) == list(range(SAMPLES)) for one in passes)
    assert passes[0] != passes[1] != passes[2] != passes[0]


def test_numbers_count_and_the_stage_is_that_of_the_iteration() -> None:
    drawn = draws(15)
    assert [draw.number for draw in drawn] == list(range(60))
    assert [draw.stage for draw in drawn] == [0] * 20 + [1] * 40
    assert [draw.iteration for draw in drawn] == [number // 4 for number in range(60)]


def test_the_epoch_counts_passes_over_the_data_whatever_the_ranks() -> None:
    assert [draw.epoch for draw in draws(15)] == [number // SAMPLES for number in range(60)]
    second = draws(15, rank=1, world=2, start=3)
    assert [draw.epoch for draw in second] == [draw.number // SAMPLES for draw in second]


@pytest.mark.parametrize("world", [2, 3])
def test_ranks_together_draw_what_one_rank_with_the_joint_batch_draws(world: int) -> None:
    # 12 iterations of 4 * world draws: batches straddle passes over 23 images
    per_rank = [draws(12, rank=rank, world=world) for rank in range(world)]
    joint = draws(12, batch_size=4 * world)
    for iteration in range(12):
        together = [draw for rank in per_rank for draw in rank[4 * iteration : 4 * iteration + 4]]
        assert together == joint[4 * world * iteration : 4 * world * (iteration + 1)]
    assert len({draw.number for rank in per_rank for draw in rank}) == 12 * 4 * world


@pytest.mark.parametrize("start", [1, 5, 6, 14])
def test_resuming_is_continuing(start: int) -> None:
    assert draws(20, rank=1, world=2)[4 * start :] == draws(20 - start, start=start, rank=1, world=2)


def test_a_batch_larger_than_the_data_set_works() -> None:
    indices = [draw.index for draw in draws(1, batch_size=2 * SAMPLES)]
    assert sorted(indices) == sorted(2 * list(range(SAMPLES)))


def test_a_mixed_stage_draws_its_share_of_noisy_images_whatever_the_ranks() -> None:
    stages = (StageConfig("a", 1, "denoised"), StageConfig("b", 1, ViewShares((0.2, 1.0), (0.8, 0.0))))
    mixed = build(CurriculumConfig(stages), 50)

    def drawn(batch_size: int, rank: int = 0, world: int = 1, start: int = 0) -> list[Draw]:
        sampler = CurriculumSampler(SAMPLES, batch_size, mixed, 7, start, rank, world)
        return list(islice(sampler, (100 - start) * batch_size))

    is_noisy = [draw.view == "noisy" for draw in drawn(400)]
    shares = [sum(is_noisy[400 * i : 400 * (i + 1)]) / 400 for i in range(100)]
    assert shares[:50] == [0.0] * 50
    expected = [0.2 + 0.8 * step / 49 for step in range(50)]
    # 400 fair draws per iteration: standard error at most 0.025
    assert max(abs(a - b) for a, b in zip(shares[50:], expected, strict=True)) < 0.1
    assert sum(shares[50:]) / 50 == pytest.approx(0.6, abs=0.01)
    assert shares[99] == 1.0
    one, two = drawn(6), [drawn(3, rank, 2) for rank in range(2)]
    assert one == [draw for i in range(100) for rank in two for draw in rank[3 * i : 3 * i + 3]]
    assert drawn(6, start=60) == one[360:]


def test_the_order_is_the_seeds_and_leaves_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    assert draws(10) == draws(10)
    assert [draw.index for draw in draws(10)] != [draw.index for draw in draws(10, seed=8)]
    assert torch.equal(torch.get_rng_state(), before)


def test_first_images_are_uniform_over_seeds() -> None:
    counts = torch.zeros(SAMPLES)
    for seed in range(4600):
        counts[draws(1, batch_size=1, seed=seed)[0].index] += 1
    chi_square = ((counts - 200) ** 2 / 200).sum()
    assert chi_square < 48.3  # 22 degrees of freedom: exceeded by chance once in a thousand; the seeds are fixed


def test_imagenet_1k_is_shuffled_in_well_under_a_second() -> None:
    sampler = CurriculumSampler(1_281_167, 512, curriculum(), seed=0)
    start = time.perf_counter()
    first = list(islice(sampler, 512))
    assert time.perf_counter() - start < 2.0
    assert len({draw.index for draw in first}) == 512


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"sample_count": 0}, "sample_count is 0"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"start_iteration": -1}, "start_iteration is -1"),
        ({"rank": 2, "world_size": 2}, "rank is 2: with world_size 2"),
    ],
)
def test_numbers_out_of_range_are_refused(changed: dict[str, int], message: str) -> None:
    arguments = {"sample_count": 5, "batch_size": 1, "seed": 0} | changed
    with pytest.raises(ValueError, match=message):
        CurriculumSampler(curriculum=curriculum(), **arguments)
