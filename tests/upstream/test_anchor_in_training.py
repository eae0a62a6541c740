"""Anchor and teacher's view as they enter upstream's training step: losses and gradient against a slow reference."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from helpers import SmallSet, run_python

pytestmark = pytest.mark.upstream

SCRIPT = Path(__file__).with_name("anchor_in_training.py")
PUBLISHED: dict[str, Any] = {
    "centering": "centering",
    "separate_head": False,
    "stage": {"anchor": {"weight": 1.6}},
    "weight": 1.6,
}


def upstream_has_registers() -> bool:
    spec = find_spec("dinov2.models.vision_transformer")
    assert spec is not None
    assert spec.origin is not None
    return "num_register_tokens" in Path(spec.origin).read_text(encoding="utf-8")


def compare(small_set: SmallSet, output: Path, case: dict[str, Any]) -> None:
    done = run_python(str(SCRIPT), small_set.pair(), str(output), json.dumps(case))
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.strip().splitlines()[-1])
    assert found["terms"] == pytest.approx(found["expected"], rel=1e-5)
    assert min(found["expected"]) > 0.02
    assert found["gradient_error"] < 1e-4


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"centering": "sinkhorn_knopp"},
        {"stage": {"anchor": {"weight": 1.6, "heads": "frozen"}}},
        {
            "centering": "sinkhorn_knopp",
            "separate_head": True,
            "stage": {"anchor": {"weight": 1.6, "heads": "frozen"}},
        },
        {
            "stage": {"anchor": {"weight": 1.6, "dino_local": 0.5, "dino_global": 0.0, "ibot": 2.0}},
            "factors": [0.5, 0.0, 2.0],
        },
        {
            "stage": {"anchor": {"weight": 2.0, "final_weight": 0.5, "weight_schedule": "linear"}},
            "weight": 1.25,  # half-way through the stage
        },
        {"stage": {"anchor": {"weight": 1.6}, "teacher_view": "denoised"}},
    ],
    ids=["published", "sinkhorn", "own-heads", "separate-ibot-head", "factors", "scheduled", "with-teacher-view"],
)
def test_anchor(small_set: SmallSet, tmp_path: Path, changed: dict[str, Any]) -> None:
    compare(small_set, tmp_path, PUBLISHED | changed)


@pytest.mark.parametrize("centering", ["centering", "sinkhorn_knopp"])
def test_the_teacher_sees_the_twins(small_set: SmallSet, tmp_path: Path, centering: str) -> None:
    compare(small_set, tmp_path, PUBLISHED | {"centering": centering, "stage": {"teacher_view": "denoised"}})


@pytest.mark.skipif(not upstream_has_registers(), reason="this version of upstream has no registers")
def test_registers_take_no_part_in_the_anchor(small_set: SmallSet, tmp_path: Path) -> None:
    compare(small_set, tmp_path, PUBLISHED | {"student": {"num_register_tokens": 3}})
