"""A frozen teacher from a file, from the first stage on: continued pretraining of released weights."""

from __future__ import annotations

import json
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
from helpers import SmallSet, run_python

pytestmark = pytest.mark.upstream

SCRIPT = Path(__file__).with_name("teacher_file_in_training.py")


def run(small_set: SmallSet, output: Path, kind: str, heads: str, patch_size: int = 16) -> CompletedProcess[str]:
    case = json.dumps({"kind": kind, "heads": heads, "patch_size": patch_size})
    return run_python(str(SCRIPT), small_set.pair(), str(output), case)


def result(done: CompletedProcess[str]) -> dict[str, Any]:
    assert done.returncode == 0, done.stderr[-3000:]
    content: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return content


def test_released_weights_without_heads(small_set: SmallSet, tmp_path: Path) -> None:
    found = result(run(small_set, tmp_path, "hub", "ema"))
    assert found["compared"] > 150
    assert (found["largest"], found["heads"], found["centers_size"]) == (0, 0, 0)
    assert found["positions"] == [1, 17, 192], "the file's grid of 6 x 6 was resized to 4 x 4"


def test_a_teacher_checkpoint_with_its_own_heads(small_set: SmallSet, tmp_path: Path) -> None:
    found = result(run(small_set, tmp_path, "teacher", "frozen"))
    assert found["largest"] == 0
    assert found["heads"] == 8
    assert found["centers_size"] == 0, "the file holds none"


def test_a_full_checkpoint_gives_its_teacher_and_centers(small_set: SmallSet, tmp_path: Path) -> None:
    found = result(run(small_set, tmp_path, "full", "ema"))
    assert (found["largest"], found["centers_off"]) == (0, 0)
    assert found["centers_size"] > 0


def test_heads_that_are_not_in_the_file(small_set: SmallSet, tmp_path: Path) -> None:
    done = run(small_set, tmp_path, "hub", "frozen")
    assert done.returncode != 0
    assert "CheckpointError: anchor.heads is frozen, but" in done.stderr
    assert "holds no fitting dino_head" in done.stderr


def test_own_heads_of_a_later_stage_ask_nothing_of_the_file(small_set: SmallSet, tmp_path: Path) -> None:
    case = json.dumps({"kind": "hub", "heads": "ema", "patch_size": 16, "then_own_heads": True})
    done = run_python(str(SCRIPT), small_set.pair(), str(tmp_path), case)
    assert done.returncode == 0, done.stderr[-3000:]


def test_another_patch_size(small_set: SmallSet, tmp_path: Path) -> None:
    done = run(small_set, tmp_path, "teacher", "ema", patch_size=8)
    assert done.returncode != 0
    assert "CheckpointError" in done.stderr
    assert "patch" in done.stderr.strip().splitlines()[-1] + done.stderr[-1500:]
    assert "teacher.pth" in done.stderr
