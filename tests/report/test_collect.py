"""What is found below a folder, and what is said of what is damaged, missing or of another version."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image
from report_files import STAGES, config, entry, record, summary, write_lines, write_records, write_run

from dinov2_noise.errors import MissingFolderError
from dinov2_noise.report.arms import arm_names
from dinov2_noise.report.collect import collect
from dinov2_noise.report.runs import StageSpan, read_run


def test_everything_below_a_folder_is_found_once(tmp_path: Path) -> None:
    run = write_run(tmp_path / "work" / "nct")
    write_records(tmp_path / "work", [record("nct", 0.5), record("noisy", 0.4)])
    summary("nct", {"clean": 80}).save(tmp_path / "work" / "nct" / "corruptions")
    found = collect([tmp_path / "work", run])
    assert [one.name for one in found.runs] == ["nct"]
    assert sorted(one.arm for _, one in found.records) == ["nct", "noisy"]
    assert [one.model for _, one in found.summaries] == ["nct"]
    assert not found.problems


def test_runs_of_one_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    for seed in (0, 1):
        write_run(tmp_path / f"seed{seed}" / "nct")
    assert [run.name for run in collect([tmp_path]).runs] == ["seed0/nct", "seed1/nct"]


def test_image_trees_and_folders_of_probes_are_not_runs(tmp_path: Path) -> None:
    write_run(tmp_path / "runs" / "nct")
    for place in ("clean/train/n1", "clean/val/n1/deeper"):
        (tmp_path / place).mkdir(parents=True)
        Image.new("RGB", (4, 4)).save(tmp_path / place / "a.png")
    write_run(tmp_path / "clean" / "train" / "n1" / "hidden")  # among images: not looked for
    (tmp_path / "probe").mkdir()
    (tmp_path / "probe" / "config.yaml").write_text("train: {}\n")
    assert [run.folder for run in collect([tmp_path]).runs] == [tmp_path / "runs" / "nct"]


def test_stages_state_and_described_run(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "nct")
    (folder / "logs").mkdir()
    log = (
        "I x] dinov2-noise: this run\n  images per step  8 = 2 processes x 4\n  precision        fp16\nI max mem: 812\n"
    )
    (folder / "logs" / "log.txt").write_text(log)
    run = read_run(folder, "nct")
    assert list(run.stages) == [
        StageSpan("denoised", 0, 30, "denoised"),
        StageSpan("noisy", 30, 20, "noisy", anchored=True),
    ]
    assert (run.total_iterations, run.last_iteration, run.state) == (50, 49, "finished")
    assert run.switches == [(30, "noisy")]
    assert (run.images_per_step, run.described["precision"], run.max_memory_mib) == (8, "fp16", 812)
    assert run.device == "GPU"
    (folder / "logs" / "log.txt").write_text("I x helpers.py:115] Training  [ 0/50]  eta: 0:00:37  lr: 0.0004\n")
    assert read_run(folder, "nct").device == "CPU"
    assert not run.problems


def test_a_half_finished_run_tells_how_far_it_is(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "nct", entries=[entry(0), entry(10)]), "nct")
    assert (run.is_finished, run.state) == (False, "unfinished: 11 of 50 iterations")
    empty = write_run(tmp_path / "begun", entries=[])
    found = collect([empty])
    assert "logged nothing yet" in found.problems[0]
    assert found.runs[0].state == "unfinished: 0 of 50 iterations"


def test_a_resumed_line_replaces_and_a_damaged_one_is_named(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "nct", entries=[entry(0), entry(10), entry(10, total_loss=5.0)])
    path = folder / "training_metrics.json"
    path.write_text(path.read_text() + '{"iteration": 20, "total_l\n' + json.dumps(entry(30)) + '\n{"iteration": 4')
    run = read_run(folder, "nct")
    assert [line["iteration"] for line in run.training] == [0, 10, 30]
    assert run.training[1]["total_loss"] == 5.0
    assert list(run.problems) == [f"{path} line 4: not an entry with an iteration, left out"]


def test_a_run_begun_anew_in_its_folder_forgets_what_was_beyond(tmp_path: Path) -> None:
    longer = [entry(iteration, total_loss=1.0) for iteration in (0, 10, 20, 30, 40, 49)]
    run = read_run(write_run(tmp_path / "nct", entries=[*longer, entry(0), entry(10), entry(20)]), "nct")
    assert [(line["iteration"], line["total_loss"]) for line in run.training] == [(0, 9.0), (10, 8.0), (20, 7.0)]
    assert run.state == "unfinished: 21 of 50 iterations"


def test_runs_that_differ_in_the_seed_alone_are_one_arm(tmp_path: Path) -> None:
    for seed in (0, 1, 10):
        write_run(tmp_path / f"gauss100-nct-{seed}", config(seed=seed))
    for seed in (0, 1):  # another length each: no seeds of one arm
        write_run(tmp_path / f"nc-{seed}", config(seed=seed, stages=STAGES[: 1 + seed]))
        write_run(tmp_path / f"seed{seed}" / "noisy", config(seed=seed))
    write_run(tmp_path / "alone-0", config(seed=0))
    runs = collect([tmp_path]).runs
    assert {run.name: run.arm for run in runs} == {
        **{f"gauss100-nct-{seed}": "gauss100-nct" for seed in (0, 1, 10)},
        **{f"seed{seed}/noisy": "noisy" for seed in (0, 1)},
        **{name: name for name in ("nc-0", "nc-1", "alone-0")},
    }
    assert arm_names(runs, 2) == "alone-0, gauss100-nct (3 runs) and 3 more"


def test_a_run_of_another_version_is_shown_as_far_as_it_is_known(tmp_path: Path) -> None:
    stages = [STAGES[0], {**STAGES[1], "wobble": 3}]
    run = read_run(write_run(tmp_path / "nct", config(stages=stages)), "nct")
    assert [stage.name for stage in run.stages] == ["denoised", "noisy"]
    assert "unknown key curriculum.stages[1].wobble" in run.problems[0]
    assert "another version" in run.problems[0]


def test_a_config_that_cannot_be_read_leaves_the_curves(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "nct")
    (folder / "config.yaml").write_text("train: [")
    found = collect([folder])
    assert len(found.runs[0].training) == 6
    assert f"cannot read {folder / 'config.yaml'}" in found.problems[0]
    (folder / "config.yaml").unlink()
    assert "config.yaml is missing" in collect([folder]).problems[0]


def test_damaged_records_and_summaries_are_named(tmp_path: Path) -> None:
    write_records(tmp_path, [record("nct", 0.5)])
    (tmp_path / "records" / "broken.json").write_text('{"arm": ')
    (tmp_path / "corruptions").mkdir()
    (tmp_path / "corruptions" / "summary.json").write_text('{"cells": {"clean"')
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "summary.json").write_text('{"epochs": 3}')
    found = collect([tmp_path])
    assert len(found.records) == 1
    assert ["broken.json" in found.problems[0], "corruptions/summary.json" in found.problems[1]] == [True, True]
    assert len(found.problems) == 2


def test_records_may_lie_in_the_given_folder_itself(tmp_path: Path) -> None:
    record("nct", 0.5).save(tmp_path / "nct-knn.json")
    (tmp_path / "settings.json").write_text("{}")
    assert [path.name for path, _ in collect([tmp_path]).records] == ["nct-knn.json"]


def test_nothing_to_show_is_one_error(tmp_path: Path) -> None:
    with pytest.raises(MissingFolderError, match="does not exist"):
        collect([tmp_path / "gone"])
    with pytest.raises(MissingFolderError, match=r"nothing to show in .*records/"):
        collect([tmp_path])
    write_lines(tmp_path / "run" / "training_metrics.json", [])
    with pytest.raises(MissingFolderError, match=r"config\.yaml is missing"):
        collect([tmp_path])
    (tmp_path / "file").write_text("")
    with pytest.raises(MissingFolderError, match="is a file"):
        collect([tmp_path / "file"])
