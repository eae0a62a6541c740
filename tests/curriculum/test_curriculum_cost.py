"""What a run costs, composed of its stages: sums, ratios, hours, and the text."""

from __future__ import annotations

import pytest

from dinov2_noise.curriculum.cost import Rate, RunCost, StageCost, StepFlops, describe, parse_rate
from dinov2_noise.curriculum.frequency import Crops
from dinov2_noise.errors import ConfigError

LOW, FULL = Crops(112, 48), Crops(224, 96)
SMALL_STEP = StepFlops(student=20e9, student_heads=1e9, backward=42e9, teacher=12e9)
STEP = StepFlops(student=100e9, student_heads=4e9, backward=206e9, teacher=70e9)
ANCHORED = StepFlops(student=100e9, student_heads=4e9, backward=206e9, teacher=70e9, frozen=20e9)
COST = RunCost(
    stages=[
        StageCost("low", 6, 600, LOW, 8, SMALL_STEP),
        StageCost("full", 4, 400, FULL, 8, ANCHORED),
    ],
    plain=StageCost("plain DINOv2", 10, 1000, FULL, 8, STEP),
    batch_size=4,
    processes=2,
)


def test_flops_are_those_of_all_images_over_all_processes() -> None:
    assert (SMALL_STEP.total, ANCHORED.total) == (75e9, 400e9)
    assert COST.flops_of(COST.stages[0]) == 600 * 8 * 75e9
    assert COST.flops == 600 * 8 * 75e9 + 400 * 8 * 400e9


def test_time_depends_on_the_batch_of_a_process_not_on_their_number() -> None:
    rate = Rate(1e12, "", {LOW: 5e11})
    assert COST.seconds_of(COST.stages[0], rate) == pytest.approx(600 * 4 * 75e9 / 5e11)
    assert COST.seconds_of(COST.stages[1], rate) == pytest.approx(400 * 4 * 400e9 / 1e12)


def test_text() -> None:
    blocks = describe(COST, parse_rate("40TFLOPs")).split("\n\n")
    assert blocks[0] == "images per step: 8 = 2 processes x 4"
    rows = [" ".join(line.split()) for line in blocks[1].splitlines()]
    assert rows[1] == "low 6 600 4,800 2x112 + 8x48 75.0 600 GFLOPs 0.197 360 TFLOPs 22.0%"
    assert rows[2] == "full 4 400 3,200 2x224 + 8x96 400.0 3.2 TFLOPs 1.053 1.28 PFLOPs 78.0%"
    assert rows[3] == "in all 10 1,000 8,000 0.539 1.64 PFLOPs"
    assert "low             20.00       1.00     42.00        12.00               -" in blocks[2]
    assert [line.split()[-1] for line in blocks[3].splitlines()[2:]] == ["0.118", "0.421", "0.539", "1.000"]
    assert describe(COST).count("\n\n") == 2, "no hours without a rate"


def test_a_run_without_stages_is_told_once() -> None:
    cost = RunCost([COST.plain], COST.plain, batch_size=4, processes=2)
    text = describe(cost, parse_rate("40T"))
    assert text.count("plain DINOv2") == 3, "a row in each table"
    assert text.count("in all") == 2


def test_stages_of_one_name_are_told_apart() -> None:
    twice = [StageCost("a", 6, 600, LOW, 8, SMALL_STEP), StageCost("a", 4, 400, FULL, 8, ANCHORED)]
    cost = RunCost(twice, COST.plain, batch_size=4, processes=2)
    rows = [line.split() for line in describe(cost, parse_rate("40T")).split("\n\n")[3].splitlines()[2:]]
    assert [row[-1] for row in rows] == ["0.118", "0.421", "0.539", "1.000"]


@pytest.mark.parametrize(
    ("text", "flops_per_s"),
    [("40TFLOPs", 4e13), ("40 TFLOP/s", 4e13), ("900GFLOPS", 9e11), ("0.5p", 5e14), ("3.5T", 3.5e12)],
)
def test_rates(text: str, flops_per_s: float) -> None:
    assert parse_rate(text).of(FULL) == pytest.approx(flops_per_s)


@pytest.mark.parametrize("text", ["40", "fast", "-3T", "0T", "40TB/s", "4e13"])
def test_what_is_no_rate(text: str) -> None:
    with pytest.raises(ConfigError, match="such as 40TFLOPs"):
        parse_rate(text)
