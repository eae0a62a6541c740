"""``step.compile`` changes how blocks are computed, not what: losses, gradients and checkpoint names."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers import run_python


@pytest.mark.slow  # compiling takes about a minute on one core
@pytest.mark.upstream
def test_compiled_blocks_compute_the_same() -> None:
    done = run_python(str(Path(__file__).with_name("compiled_in_training.py")))
    assert done.returncode == 0, done.stderr[-3000:]
    plain, compiled = json.loads(done.stdout.strip().splitlines()[-1])
    assert (plain["n_compiled"], compiled["n_compiled"]) == (0, 3 * 12), "student, teacher and frozen teacher"
    for found, expected in zip(compiled["losses"], plain["losses"], strict=True):
        assert found == pytest.approx(expected, rel=1e-4)
    assert compiled["norms"] == pytest.approx(plain["norms"], rel=1e-3)
    assert len(plain["losses"][1]) == len(plain["losses"][0]) + 3
    assert compiled["names"] == plain["names"]
