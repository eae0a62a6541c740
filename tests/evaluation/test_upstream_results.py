"""Readers of upstream's result files, on text as upstream's own code writes it."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from dinov2_noise.errors import CheckpointError, MissingFolderError
from dinov2_noise.evaluation.upstream_results import read_knn, read_linear, read_training

KNN = """\
{"('full', 10) Top 1": 12.5}
{"('full', 10) Top 5": 50.0}
{"('full', 20) Top 1": 13.0}
{"('full', 20) Top 5": 51.0}
{"('full', 10) Top 1": 45.10000050067902}
{"('full', 10) Top 5": 90.0}
{"('5 per class', 5) Top 1": 30.0}
"""

LINEAR = """\
iter: 9
{"best_classifier": {"name": "classifier_1_blocks_avgpool_False_lr_0_00063", "accuracy": 0.25}}

iter: 20
{"best_classifier": {"name": "classifier_4_blocks_avgpool_True_lr_0_00125", "accuracy": 0.3460000157356262}}

"""

TRAINING = """\
{"iteration": 0, "iter_time": 1.2, "data_time": 0.1, "lr": 0.001, "total_loss": 9.5}
{"iteration": 10, "iter_time": 1.0, "data_time": 0.1, "lr": 0.001, "total_loss": 9.25}
{"iteration": 20, "iter_time": 1.0, "data_time": 0.1, "lr": 0.001, "total_loss": NaN}
{"iteration": 10, "iter_time": 1.1, "data_time": 0.1, "lr": 0.001, "total_loss": 9.0, "anchor_dino_local_loss": 3.5}
{"iteration": 15, "iter_time": 1.1, "data_time": 0.1, "lr": 0.001, "total_loss": 8.5}
"""


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "results.json"
    path.write_text(text, encoding="utf-8")
    return path


def test_knn_takes_the_last_top_1_of_each_k_as_a_proportion(tmp_path: Path) -> None:
    assert read_knn(written(tmp_path, KNN)) == pytest.approx({10: 0.4510000050067902, 20: 0.13})


def test_knn_accepts_a_hundred_per_cent_in_single_precision(tmp_path: Path) -> None:
    assert read_knn(written(tmp_path, """{"('full', 10) Top 1": 100.00000149011612}""")) == {10: 1.0}


def test_linear_takes_the_last_entry(tmp_path: Path) -> None:
    name, accuracy = read_linear(written(tmp_path, LINEAR))
    assert name == "classifier_4_blocks_avgpool_True_lr_0_00125"
    assert accuracy == pytest.approx(0.346, abs=1e-6)


def test_linear_where_nothing_was_right(tmp_path: Path) -> None:
    text = 'iter: 9\n{"best_classifier": {"name": "", "accuracy": 0}}\n\n'  # upstream's start values
    assert read_linear(written(tmp_path, text)) == ("", 0.0)


def test_training_keeps_the_last_line_of_an_iteration_in_order(tmp_path: Path) -> None:
    entries = read_training(written(tmp_path, TRAINING))
    assert [entry["iteration"] for entry in entries] == [0, 10, 15, 20]
    assert [entry["total_loss"] for entry in entries[:3]] == [9.5, 9.0, 8.5]
    assert entries[1]["anchor_dino_local_loss"] == 3.5
    assert "anchor_dino_local_loss" not in entries[0]
    assert math.isnan(entries[3]["total_loss"])


def test_training_that_still_runs_has_a_line_half_written(tmp_path: Path) -> None:
    for text in (TRAINING + '{"iteration": 30, "iter_t', TRAINING[:-1]):
        entries = read_training(written(tmp_path, text))
        assert [entry["iteration"] for entry in entries] == [0, 10, 15, 20]
        assert entries[2]["total_loss"] == 8.5


@pytest.mark.parametrize("read", [read_knn, read_linear, read_training])
def test_a_missing_or_empty_file_is_named(read, tmp_path: Path) -> None:
    with pytest.raises(MissingFolderError, match=r"absent\.json"):
        read(tmp_path / "absent.json")
    with pytest.raises(CheckpointError, match=r"results\.json"):
        read(written(tmp_path, "\n"))
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(CheckpointError, match=r"binary\.json"):
        read(tmp_path / "binary.json")


@pytest.mark.parametrize(
    ("read", "text"),
    [
        (read_knn, KNN + "{\"('full', 10) To"),
        (read_knn, KNN + "[1, 2]\n"),
        (read_knn, KNN + "{\"('full', 10) Top 1\": 101.0}"),
        (read_knn, KNN + "{\"('full', 10) Top 1\": NaN}"),
        (read_knn, KNN + "{\"('full', 10) Top 1\": null}"),
        (read_linear, LINEAR + '{"best_classifier": 0.5}\n'),
        (read_linear, LINEAR + '{"best_classifier": {"name": "classifier_1", "accuracy": 34.6}}\n'),
        (read_linear, LINEAR + "iter: x\n"),
        (read_training, TRAINING + '{"iteration": 30, "iter_t{"iteration": 30, "iter_time": 1.0}\n'),
        (read_training, TRAINING + '{"total_loss": 1.0}\n'),
    ],
)
def test_a_garbled_line_is_named_with_its_number(read, text: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=rf"results\.json line {len(text.splitlines())}\b"):
        read(written(tmp_path, text))
