"""The console line, the pace of a run, and the budget of time."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dinov2_noise.curriculum.config import AnchorConfig
from dinov2_noise.curriculum.frequency import Crops
from dinov2_noise.curriculum.stages import Curriculum, Stage
from dinov2_noise.monitor.budget import Budget
from dinov2_noise.monitor.console import MAX_CHARACTERS, Standing, duration, line
from dinov2_noise.monitor.pace import Pace, step_cost

LOSSES = {
    "total_loss": 22.413,
    "dino_local_crops_loss": 6.111,
    "dino_global_crops_loss": 3.204,
    "koleo_loss": -0.131,
    "ibot_loss": 0.941,
    "anchor_dino_local_crops_loss": 6.1,
    "anchor_dino_global_crops_loss": 5.25,
    "anchor_ibot_loss": 0.938,
}
NOISY = Standing("noisy", 2, 2, "noisy", 3000, 8000, 100, LOSSES, 0.000314, 512.4, 0.031, 97444.0, None)


def test_the_line_in_full() -> None:
    short = {"total_loss": 22.413, "ibot_loss": 0.941, "anchor_ibot_loss": 0.938, "extra_loss": 1.0}
    assert line(replace(NOISY, losses=short, memory_gib=18.21)) == (
        "noisy 2/2 | epoch 30.0/80 it 3000/8000 | loss 22.41: ibot 0.94 extra 1.00 anchor 0.94 | lr 3.1e-4 | 512 img/s"
        " | compute-bound, waits 3% | 27h04m left | 18.2 GiB"
    )


def test_an_anchored_stage_fits_with_all_its_terms() -> None:
    text = line(NOISY)
    assert (
        "it 3000 | loss 22.41: local 6.11 global 3.20 koleo -0.13 ibot 0.94 anchor 12.29 | lr 3.1e-4 | 512 img/s"
        in text
    )
    assert text.endswith("| compute-bound | 27h04m left")
    assert len(text) <= MAX_CHARACTERS


def test_before_speed_is_known() -> None:
    text = line(
        replace(NOISY, learning_rate=0.0, images_per_s=None, waited=None, left_s=None, losses={"total_loss": 1.0})
    )
    assert text == "noisy 2/2 | epoch 30.0/80 it 3000/8000 | loss 1.00 | lr 0.0e0"


def test_view_where_the_name_does_not_say_it_and_loader_bound() -> None:
    text = line(replace(NOISY, stage="small", view="denoised", waited=0.4, losses={"total_loss": 1}, images_per_s=2.34))
    assert text.startswith("small 2/2, denoised view | ")
    assert "2.3 img/s | loader-bound, waits 40% |" in text


@pytest.mark.parametrize("long", ["iterations", "name", "losses", "all"])
def test_never_longer_than_160(long: str) -> None:
    standing = replace(NOISY, memory_gib=139.9, left_s=8.64e6, waited=1.0)
    if long in ("iterations", "all"):
        standing = replace(standing, iteration=1_249_999, n_iterations=1_250_000, epoch_length_iterations=1250)
    if long in ("name", "all"):
        standing = replace(standing, stage="a stage with a name as long as a sentence", view="denoised")
    if long in ("losses", "all"):
        standing = replace(standing, losses={name: 1e6 * value for name, value in LOSSES.items()})
    text = line(standing)
    assert len(text) <= MAX_CHARACTERS
    assert "\n" not in text
    assert "100d00h left" in text
    assert "loss " in text
    assert "loader-bound" in text


def test_durations() -> None:
    assert [duration(s) for s in (0, 59, 60, 750, 3599.7, 97440, 172800, 273600)] == [
        *("0s", "59s", "1m00s", "12m30s", "1h00m", "27h04m", "2d00h", "3d04h")
    ]


def stages() -> Curriculum:
    small, full = Crops(112, 48, 16), Crops(224, 96, 16)
    anchor = AnchorConfig(weight=1.0)
    return Curriculum(
        (
            Stage(0, "small", 0, 10, (0.0, 0.0), "noisy", None, False, small),
            Stage(1, "full", 10, 10, (1.0, 1.0), "noisy", None, False, full),
            Stage(2, "anchored", 20, 5, (1.0, 1.0), "noisy", anchor, False, full),
        ),
        5,
    )


def test_cost_of_steps() -> None:
    small, full, anchored = stages().stages
    assert step_cost(full, 8) == pytest.approx(4 * step_cost(small, 8), rel=1e-12), "a quarter of the pixels"
    assert step_cost(anchored, 8) - step_cost(full, 8) == 2 * 224**2, "one more teacher"
    assert step_cost(full, 8) == 3 * (2 * 224**2 + 8 * 96**2) + 2 * 224**2


def test_time_left_knows_that_stages_differ() -> None:
    pace = Pace(stages(), 8, 64)
    assert pace.left_s(0) is None
    for iteration in range(2, 6):
        pace.add(iteration, 1.0 + 0.5 * (iteration % 2), 0.25)
    small, _, anchored = (step_cost(stage, 8) for stage in stages().stages)
    assert pace.left_s(5) == pytest.approx(1.25 * (4 + 10 * 4 + 5 * anchored / small))
    assert pace.take() == pytest.approx((4 * 64 / 5.0, 0.2))
    assert pace.take() == (None, None)
    for iteration in range(6, 12):
        pace.add(iteration, 9.0 if iteration < 10 else 7.0, 0.0)
    assert pace.left_s(11) == pytest.approx(7.0 * (8 + 5 * anchored / (4 * small))), "of the present stage alone"
    pace.add(24, 1.0, 0.0)
    assert pace.left_s(24) == 0


def test_budget() -> None:
    budget = Budget(0.02, spent_s=4.0)
    assert budget.allows(0.0), "the first: nobody knows how long it takes"
    budget.spend(6.0)
    assert budget.next_s() == pytest.approx((4 + 6 + 6) / 0.02)
    assert not budget.allows(799.0)
    assert budget.allows(800.0)
    budget.spend(2.0)
    assert budget.spent_s == 12
    assert not budget.allows(699.0)
    assert budget.allows(700.0), "a shorter one may come earlier"
    everything = Budget(1.0)
    everything.spend(1e9)
    assert everything.allows(0.0)


def test_the_share_is_kept_over_a_run() -> None:
    budget, now, measured = Budget(0.05), 0.0, []
    for step in range(2000):
        now += 1.0
        if step % 7 == 0 and budget.allows(now):
            budget.spend(3.0)
            now += 3.0
            measured.append(now)
        if len(measured) > 1:
            assert budget.spent_s <= 0.05 * now + 3.0
    assert budget.spent_s / now == pytest.approx(0.05, abs=0.004)
