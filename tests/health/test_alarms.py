"""When a measurement becomes a warning."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dinov2_noise.health.alarms import IN_A_ROW, Alarms
from dinov2_noise.health.signs import Signs

HEALTHY = Signs(
    feature_std=0.05,
    rankme=40.0,
    distinct_cls=1.0,
    prototype_entropy=0.7,
    assignment_entropy=0.4,
    anchor_gap=0.2,
    n_tokens=64,
    n_dims=192,
    n_prototypes=512,
)


def warnings(alarms: Alarms, *measurements: Signs, first: int = 1000) -> list[str]:
    return [text for number, signs in enumerate(measurements) for text in alarms.check(first + 100 * number, signs)]


@pytest.mark.parametrize(
    ("name", "bad", "said"),
    [
        ("feature_std", 0.1 / 192**0.5 - 1e-6, "evenly spread tokens have 0.072"),
        ("rankme", 1.99, "1.99 of at most 64"),
        ("distinct_cls", 0.49, "only 49% of the images"),
        ("prototype_entropy", 0.11, "of 512 prototypes"),  # 512 ** 0.11 = 1.99
        ("assignment_entropy", 0.995, "99.50% of ln 512"),
    ],
)
def test_each_sign_warns_once(name: str, bad: float, said: str) -> None:
    measured = replace(HEALTHY, **{name: bad})
    found = warnings(Alarms(quiet_before=0), *[measured] * (3 * IN_A_ROW))
    assert len(found) == 1
    assert said in found[0]
    assert f"iteration {1000 + 100 * (IN_A_ROW - 1)}" in found[0]
    assert "To try:" in found[0]


def test_health_is_silent() -> None:
    assert warnings(Alarms(quiet_before=0), *[HEALTHY] * 10) == []


def test_single_batches_may_be_odd() -> None:
    bad = replace(HEALTHY, rankme=1.0)
    assert warnings(Alarms(quiet_before=0), *[bad, bad, HEALTHY] * 4) == []


def test_no_warning_during_warm_up() -> None:
    bad = replace(HEALTHY, feature_std=0.0)
    alarms = Alarms(quiet_before=2000)
    assert warnings(alarms, *[bad] * 10) == [], "iterations 1000 to 1900"
    assert len(warnings(alarms, *[bad] * IN_A_ROW, first=2000)) == 1


def test_the_rank_of_two_images_says_nothing() -> None:
    assert warnings(Alarms(quiet_before=0), *[replace(HEALTHY, rankme=1.5, n_tokens=2)] * 10) == []
    assert len(warnings(Alarms(quiet_before=0), *[replace(HEALTHY, rankme=1.5, n_tokens=4)] * 10)) == 1
