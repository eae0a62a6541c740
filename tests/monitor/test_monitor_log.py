"""monitor.jsonl: what is written is read, a cut last line does not count, a resumed run has each line once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from dinov2_noise.errors import MissingFolderError, MonitorLogError
from dinov2_noise.monitor import Measurement, read_log
from dinov2_noise.monitor.log import append, cut

FIRST = Measurement(9, "denoised", 1.25, {"knn_top1/clean": 0.5, "twin_agreement": 0.75}, {"train": 10})


def written(folder: Path, count: int) -> Path:
    path = folder / "monitor.jsonl"
    for number in range(count):
        append(path, replace(FIRST, iteration=10 * number + 9))
    return path


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = written(tmp_path, 3)
    assert read_log(path) == [FIRST, replace(FIRST, iteration=19), replace(FIRST, iteration=29)]


def test_a_cut_last_line_does_not_count_and_another_is_an_error(tmp_path: Path) -> None:
    path = written(tmp_path, 2)
    whole = path.read_text()
    for length in range(1, len(whole) // 2 - 1):
        path.write_text(whole[: len(whole) // 2 + length])
        assert len(read_log(path)) == 1
    path.write_text(whole.rstrip("\n"))
    assert len(read_log(path)) == 2, "whole, but for its end"
    path.write_text('{"iteration": 3}\n' + whole)
    with pytest.raises(MonitorLogError, match=r"line 1 of .*monitor\.jsonl is no measurement .*'stage'.*take it out"):
        read_log(path)
    with pytest.raises(MissingFolderError, match=r"evaluation\.eval_period_iterations"):
        read_log(tmp_path / "none.jsonl")


@pytest.mark.parametrize(("first_iteration", "left"), [(0, []), (20, [9, 19]), (19, [9]), (99, [9, 19, 29])])
def test_lines_after_the_checkpoint_are_dropped(tmp_path: Path, first_iteration: int, left: list[int]) -> None:
    path = written(tmp_path, 3)
    with path.open("a") as stream:
        stream.write('{"iteration": 39, "sta')
    cut(path, first_iteration)
    assert [entry.iteration for entry in read_log(path)] == left
    append(path, replace(FIRST, iteration=100))
    assert [entry.iteration for entry in read_log(path)] == [*left, 100]
    cut(tmp_path / "none.jsonl", 3)
    assert not (tmp_path / "none.jsonl").exists()
