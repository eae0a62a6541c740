"""The anchor as it enters upstream's training step: loss and gradient against a slow reference, per option."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers import SmallSet, run_python

pytestmark = pytest.mark.upstream

SCRIPT = Path(__file__).with_name("anchor_in_training.py")


@pytest.mark.parametrize(
    ("centering", "heads", "ibot_head"),
    [
        ("centering", "ema", "shared"),
        ("sinkhorn_knopp", "ema", "shared"),
        ("centering", "frozen", "shared"),
        ("sinkhorn_knopp", "frozen", "separate"),
    ],
)
def test_loss_and_gradient(small_set: SmallSet, tmp_path: Path, centering: str, heads: str, ibot_head: str) -> None:
    done = run_python(str(SCRIPT), small_set.pair(), str(tmp_path), centering, heads, ibot_head)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.strip().splitlines()[-1])
    assert found["loss"] == pytest.approx(found["expected"], rel=1e-5)
    assert found["expected"] > 0.1
    assert found["gradient_error"] < 1e-4
