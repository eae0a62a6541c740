"""mCE and its relatives on hand-made cases."""

from __future__ import annotations

import pytest

from dinov2_noise.evaluation.corruption_scores import ALEXNET_CLEAN_ERROR, ALEXNET_ERROR, score
from dinov2_noise.noise.corruptions import CORRUPTIONS, SEVERITIES

# A severity profile with mean 0 over the five, so that the mean over severities is the published one.
_PROFILE = dict(zip(SEVERITIES, (-0.06, -0.03, 0.0, 0.03, 0.06), strict=True))


def _alexnet() -> dict[tuple[str, int], float]:
    return {(name, s): error + _PROFILE[s] for name, error in ALEXNET_ERROR.items() for s in SEVERITIES}


def test_alexnet_itself_has_100() -> None:
    scores = score(_alexnet(), ALEXNET_CLEAN_ERROR)
    assert scores.mce == pytest.approx(100, abs=1e-9)
    assert scores.relative_mce == pytest.approx(100, abs=1e-9)
    assert scores.ce_of == pytest.approx(dict.fromkeys(CORRUPTIONS, 100.0))
    assert scores.mean_error == pytest.approx(0.788993, abs=1e-6)  # the mean of the 15 published numbers
    assert scores.error_at[5] - scores.error_at[1] == pytest.approx(0.12)


def test_the_published_table_names_the_fifteen() -> None:
    assert tuple(ALEXNET_ERROR) == CORRUPTIONS


def test_mce_is_the_mean_of_ratios_not_the_ratio_of_means() -> None:
    errors = {(name, s): 0.5 for name in CORRUPTIONS for s in SEVERITIES}
    scores = score(errors, 0.2)
    assert scores.mce == pytest.approx(100 * sum(0.5 / alexnet for alexnet in ALEXNET_ERROR.values()) / 15)
    assert scores.mce == pytest.approx(64.67, abs=0.005)
    assert scores.mean_error == pytest.approx(0.5)
    brightness = 100 * (0.5 - 0.2) / (0.564592 - 0.435)
    assert scores.relative_ce_of["brightness"] == pytest.approx(brightness)


def test_a_model_that_loses_nothing_has_relative_mce_0_and_one_that_gains_less() -> None:
    flat = {(name, s): 0.3 for name in CORRUPTIONS for s in SEVERITIES}
    assert score(flat, 0.3).relative_mce == pytest.approx(0)
    worse_on_clean = score(flat, 0.4).relative_mce
    assert worse_on_clean is not None
    assert worse_on_clean < 0


def test_corruptions_beyond_the_fifteen_are_listed_and_do_not_count() -> None:
    errors = {**_alexnet(), **{("saturate", s): 1.0 for s in SEVERITIES}}
    scores = score(errors, ALEXNET_CLEAN_ERROR)
    assert scores.mce == pytest.approx(100)
    assert scores.error_of["saturate"] == 1
    assert "saturate" not in scores.ce_of


def test_a_missing_severity_leaves_no_mce() -> None:
    errors = _alexnet()
    del errors["fog", 4]
    scores = score(errors, ALEXNET_CLEAN_ERROR)
    assert (scores.mce, scores.relative_mce, scores.mean_error) == (None, None, None)
    assert set(scores.error_at) == {1, 2, 3, 5}
    assert "fog" not in scores.error_of
    assert scores.ce_of["snow"] == pytest.approx(100)


def test_without_clean_images_there_are_no_relative_scores() -> None:
    scores = score(_alexnet(), None)
    assert scores.mce == pytest.approx(100)
    assert scores.relative_mce is None
    assert scores.relative_ce_of == {}


@pytest.mark.parametrize(("errors", "clean"), [({("fog", 6): 0.5}, 0.1), ({("fog", 1): 50.0}, 0.1), ({}, 43.5)])
def test_percentages_and_other_severities_are_refused(errors: dict[tuple[str, int], float], clean: float) -> None:
    with pytest.raises(ValueError, match="not"):
        score(errors, clean)
