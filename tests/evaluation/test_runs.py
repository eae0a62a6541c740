"""Which files of a run folder are taken, and what is said where they are missing."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dinov2_noise.errors import CheckpointError, MissingFolderError
from dinov2_noise.evaluation.runs import last_iteration, open_run

BACKBONE = {"backbone.patch_embed.proj.weight": torch.zeros(2, 3, 4, 4), "backbone.cls_token": torch.zeros(1, 1, 2)}


def teacher(root: Path, name: str, state: dict[str, torch.Tensor] | None = None) -> Path:
    path = root / "eval" / name / "teacher_checkpoint.pth"
    path.parent.mkdir(parents=True)
    torch.save({"teacher": BACKBONE if state is None else state}, path)
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.yaml").write_text("student: {arch: vit_tiny}\n", encoding="utf-8")
    return folder


def test_the_latest_teacher_is_taken_by_number_not_by_name(root: Path) -> None:
    for name in ("training_999", "manual_5000", "training_1999", "training_99"):
        teacher(root, name)
    run = open_run(root)
    assert (run.path, run.config_file) == (root, root / "config.yaml")
    assert run.weights == root / "eval" / "training_1999" / "teacher_checkpoint.pth"
    assert (run.iteration, run.iterations_done) == (1999, 2000)


def test_a_teacher_written_by_hand_is_taken_where_there_is_no_other(root: Path) -> None:
    teacher(root, "manual_0")
    run = open_run(root)
    assert (run.weights.parent.name, run.iteration, run.iterations_done) == ("manual_0", 0, 0)


@pytest.mark.parametrize("is_file", [True, False])
def test_one_teacher_can_be_named(root: Path, is_file: bool) -> None:
    first = teacher(root, "training_99")
    teacher(root, "training_199")
    run = open_run(first if is_file else first.parent)
    assert (run.path, run.weights, run.iteration) == (root, first, 99)


def test_the_run_folder_may_be_the_working_folder(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    teacher(root, "training_99")
    monkeypatch.chdir(root / "eval" / "training_99")
    assert open_run(Path("teacher_checkpoint.pth")).config_file.resolve() == root / "config.yaml"
    assert open_run(Path("../..")).iteration == 99


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(MissingFolderError, match="nowhere does not exist: give the folder that a training wrote"):
        open_run(tmp_path / "nowhere")


def test_an_empty_folder_and_one_without_config(tmp_path: Path) -> None:
    with pytest.raises(MissingFolderError, match="is empty"):
        open_run(tmp_path)
    (tmp_path / "notes.txt").touch()
    with pytest.raises(MissingFolderError, match=r"holds no config\.yaml"):
        open_run(tmp_path)
    with pytest.raises(MissingFolderError, match="is not the teacher of a run"):
        open_run(tmp_path / "notes.txt")


def test_a_half_finished_run_tells_how_far_it_is(root: Path) -> None:
    with pytest.raises(CheckpointError, match="it has not done any step yet") as error:
        open_run(root)
    assert "--eval-only" not in str(error.value)
    (root / "training_metrics.json").write_text('{"iteration": 0}\n{"iteration": 120}\n{"iterat', encoding="utf-8")
    (root / "model_0000119.pth").touch()
    assert last_iteration(root) == 120
    with pytest.raises(CheckpointError, match=r"it has reached iteration 120.* --eval-only"):
        open_run(root)


def test_a_checkpoint_without_backbone_is_refused(root: Path) -> None:
    teacher(root, "training_99", {"dino_head.mlp.0.weight": torch.zeros(2, 2)})
    with pytest.raises(CheckpointError, match=r"hold no backbone .*dino_head"):
        open_run(root)
