"""Tasks that wait for others, over processes; failures and deaths end all of them."""

from __future__ import annotations

import os
import time
from functools import partial
from pathlib import Path

import pytest

from dinov2_noise.errors import DinoNoiseError
from dinov2_noise.toy.parallel import Task, run_tasks


@pytest.mark.parametrize("processes", [1, 2])
def test_a_task_comes_after_what_it_needs(tmp_path: Path, processes: int) -> None:
    tasks = [
        Task("make", partial(Path.touch, tmp_path / "a")),
        Task("other", partial(Path.touch, tmp_path / "other")),
        Task("rename", partial(os.rename, tmp_path / "a", tmp_path / "b"), needs=["make", "long done"]),
        Task("again", partial(os.rename, tmp_path / "b", tmp_path / "c"), needs=["rename"]),
    ]
    names = [*run_tasks(tasks, processes)]
    assert sorted(names) == ["again", "make", "other", "rename"]
    assert names.index("make") < names.index("rename") < names.index("again")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c", "other"]


def test_a_failure_ends_the_others_at_once(tmp_path: Path) -> None:
    tasks = [
        Task("endless", partial(time.sleep, 3600)),
        Task("fails", partial(os.rename, tmp_path / "absent", tmp_path / "b")),
    ]
    with pytest.raises(FileNotFoundError, match="absent"):
        list(run_tasks(tasks, 2))


def test_a_killed_process_is_one_error() -> None:
    tasks = [Task("dies", partial(os._exit, 9)), Task("works", partial(time.sleep, 0))]
    with pytest.raises(DinoNoiseError, match=r"a worker process was killed, .*fewer processes"):
        list(run_tasks(tasks, 2))


def test_nothing_to_do() -> None:
    assert list(run_tasks([], 4)) == []
