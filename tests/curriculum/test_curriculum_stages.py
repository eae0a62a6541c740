"""The stage is a pure function of the iteration."""

from __future__ import annotations

import math
import pickle

import pytest

from dinov2_noise.curriculum.config import AnchorConfig, CurriculumConfig, StageConfig, ViewShares
from dinov2_noise.curriculum.stages import Curriculum, Stage, build


def four_stages() -> Curriculum:
    config = CurriculumConfig(
        stages=(
            StageConfig("a", 1, "denoised"),
            StageConfig("b", 2, "noisy"),
            StageConfig("c", 1, "noisy", restart=True, anchor=AnchorConfig(1.0)),
            StageConfig("d", 1, "noisy", restart=True),
        )
    )
    return build(config, epoch_length_iterations=10)


def test_every_iteration_has_the_stage_a_slow_reference_finds() -> None:
    curriculum = four_stages()
    expected = ["a"] * 10 + ["b"] * 20 + ["c"] * 10 + ["d"] * 10
    assert [curriculum.stage_at(iteration).name for iteration in range(50)] == expected
    assert curriculum.total_iterations == 50


def test_past_the_end_is_the_last_stage_and_before_the_beginning_an_error() -> None:
    assert four_stages().stage_at(10**9).name == "d"
    with pytest.raises(ValueError, match="iteration -1 is negative"):
        four_stages().stage_at(-1)


def test_segments_begin_at_the_first_stage_and_at_restarts() -> None:
    assert [[stage.name for stage in segment] for segment in four_stages().segments] == [["a", "b"], ["c"], ["d"]]


def test_twins_and_denoised_images_are_needed_only_where_something_uses_them() -> None:
    curriculum = four_stages()
    assert [stage.needs_twin for stage in curriculum.stages] == [False, False, True, False]
    assert curriculum.needs_denoised
    noisy_only = build(CurriculumConfig((StageConfig("n", 1, "noisy"),)), 1)
    assert not noisy_only.needs_denoised
    anchored = CurriculumConfig((StageConfig("n", 1, "noisy"), StageConfig("m", 1, "noisy", anchor=AnchorConfig(1.0))))
    assert build(anchored, 1).needs_denoised


def test_a_curriculum_survives_pickling_also_after_use() -> None:
    curriculum = four_stages()
    curriculum.stage_at(3)
    copy = pickle.loads(pickle.dumps(curriculum))
    assert copy == curriculum
    assert copy.stage_at(30).name == "c"


def test_gaps_and_empty_curricula_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one stage"):
        Curriculum((), 10)
    with pytest.raises(ValueError, match="does not follow"):
        Curriculum((Stage(0, "a", 5, 10, (1.0, 1.0), "noisy", None, False),), 10)
    with pytest.raises(ValueError, match="OFFICIAL_EPOCH_LENGTH is 0"):
        build(CurriculumConfig((StageConfig("n", 1, "noisy"),)), 0)


def test_a_mixed_view_is_a_ramp_over_the_stage() -> None:
    mixed = StageConfig("m", 2, ViewShares(noisy=(0.2, 1.0), denoised=(0.8, 0.0)))
    curriculum = build(CurriculumConfig((StageConfig("d", 1, "denoised"), mixed, StageConfig("n", 1, "noisy"))), 3)
    shares = [curriculum.stage_at(iteration).noisy_share_at(iteration) for iteration in range(12)]
    assert shares == pytest.approx([0, 0, 0, 0.2, 0.36, 0.52, 0.68, 0.84, 1, 1, 1, 1], abs=1e-12)
    assert [stage.view for stage in curriculum.stages] == ["denoised", "mixed", "noisy"]
    assert curriculum.needs_denoised
    assert not curriculum.stages[1].needs_twin


def test_the_anchors_weight_is_constant_or_follows_its_schedule() -> None:
    def weights(anchor: AnchorConfig | None) -> list[float]:
        stages = (StageConfig("a", 1, "denoised"), StageConfig("b", 1, "noisy", anchor=anchor))
        stage = build(CurriculumConfig(stages), 5).stages[1]
        return [stage.anchor_weight_at(iteration) for iteration in range(5, 10)]

    assert weights(None) == [0.0] * 5
    assert weights(AnchorConfig(1.6)) == [1.6] * 5
    assert weights(AnchorConfig(2.0, final_weight=0.0, weight_schedule="linear")) == [2.0, 1.5, 1.0, 0.5, 0.0]
    expected = [1 + math.cos(math.pi * step / 4) for step in range(5)]
    assert weights(AnchorConfig(2.0, final_weight=0.0)) == pytest.approx(expected, abs=1e-12)


def test_the_teacher_may_see_the_denoised_twins() -> None:
    stage = build(CurriculumConfig((StageConfig("n", 1, "noisy", teacher_view="denoised"),)), 1).stages[0]
    assert (stage.view, stage.needs_twin, stage.anchor) == ("noisy", True, None)


def test_which_stages_freeze_a_teacher_and_who_uses_it() -> None:
    own, file, other = AnchorConfig(1.0), AnchorConfig(1.0, teacher="a.pth"), AnchorConfig(1.0, teacher="b.pth")
    anchors = [None, own, own, None, own, file, file, other]
    stages = [StageConfig(f"s{index}", 1, "noisy", anchor=anchor) for index, anchor in enumerate(anchors)]
    curriculum = build(CurriculumConfig(tuple(stages)), 1)
    freezing = curriculum.freezing_stages
    assert [stage.index for stage in freezing] == [1, 4, 5, 7]
    assert [[stage.index for stage in curriculum.anchored_to(one)] for one in freezing] == [[1, 2], [4], [5, 6], [7]]
