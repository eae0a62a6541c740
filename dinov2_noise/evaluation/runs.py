"""The folder of a training run: where its config and its newest teacher are."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

from dinov2_noise import weights
from dinov2_noise.errors import CheckpointError, MissingFolderError

CONFIG, TEACHER, METRICS = "config.yaml", "teacher_checkpoint.pth", "training_metrics.json"
_FOLDER_KEYS = ("root", "denoised", "extra", "list")
_EVALUATION = re.compile(r"(training|manual)_(\d+)", re.ASCII)


@dataclass(frozen=True)
class RunFolder:
    """A run that has written a teacher.

    Attributes:
        path: the folder given to upstream's training as its output.
        config_file: the merged config that upstream wrote there.
        weights: the teacher's checkpoint, which holds a backbone.
        iteration: the number in the name of the checkpoint's folder: of ``training_<n>`` the last iteration done,
            counted from 0; of ``manual_<n>`` how many were done, 0 for a network that was never trained.
    """

    path: Path
    config_file: Path
    weights: Path
    iteration: int

    @property
    def iterations_done(self) -> int:
        """Optimizer steps behind the weights; 0 for a random network."""
        return self.iteration + self.weights.parent.name.startswith("training")


def open_run(path: Path) -> RunFolder:
    """The run at ``path``: its folder, or a ``teacher_checkpoint.pth`` inside one.

    Of a folder the teacher of the latest ``eval/training_<n>`` is taken, or of ``eval/manual_<n>`` where there is no
    other. No tensor is read.

    Raises:
        MissingFolderError: there is nothing, or no ``config.yaml``.
        CheckpointError: no teacher has been written yet (tells how far the run is), or the file holds no backbone.
    """
    if not path.exists():
        raise MissingFolderError(f"run {path} does not exist: give the folder that a training wrote (its --output)")
    evaluation = path if path.is_dir() else path.parent
    if evaluation.resolve().parent.name == "eval" and _EVALUATION.fullmatch(evaluation.resolve().name):
        root = Path(os.path.normpath(evaluation / ".." / ".."))  # also where the path is relative to somewhere within
        return _opened(root, evaluation / TEACHER if path.is_dir() else path)
    if path.is_file():
        raise MissingFolderError(
            f"{path} is not the teacher of a run, which is RUN/eval/training_<iteration>/{TEACHER}: give that file, or "
            "the folder RUN"
        )
    return _opened(path, None)


def _opened(root: Path, teacher: Path | None) -> RunFolder:
    config = root / CONFIG
    if not config.is_file():
        what = "is empty" if not any(root.iterdir()) else f"holds no {CONFIG}"
        raise MissingFolderError(f"run folder {root} {what}: give the folder that a training wrote (its --output)")
    teacher = teacher or _newest_teacher(root)
    if teacher is None or not teacher.is_file():
        raise CheckpointError(_unfinished(root))
    number = _EVALUATION.fullmatch(teacher.resolve().parent.name)
    assert number is not None
    weights.read(teacher)  # refuses a file without a backbone
    return RunFolder(root, config, teacher, int(number[2]))


def _newest_teacher(root: Path) -> Path | None:
    found = []
    for path in root.glob(f"eval/*/{TEACHER}"):
        name = _EVALUATION.fullmatch(path.parent.name)
        if name is not None:
            found.append((name[1] == "training", int(name[2]), path))
    return max(found, default=(False, 0, None))[2]


def _unfinished(root: Path) -> str:
    reached = last_iteration(root)
    how_far = "it has not done any step yet" if reached is None else f"it has reached iteration {reached}"
    text = (
        f"run {root} has written no eval/training_<iteration>/{TEACHER} yet: {how_far}. The teacher is written every "
        "evaluation.eval_period_iterations: start the training's command again, which continues it"
    )
    if next(root.glob("model_*.pth"), None) is None:
        return text
    return (
        f"{text}; or write the teacher of its last checkpoint now, with `python -m dinov2.train.train --config-file "
        f"{root / CONFIG} --output-dir {root} --eval-only`"
    )


def located(dataset: str, run_folder: Path) -> str:
    """The dataset string with relative paths that lead nowhere from here looked for in the folders above the run."""
    parts = dataset.split(":")
    for number, part in enumerate(parts):
        key, equals, value = part.partition("=")
        if equals and key in _FOLDER_KEYS and not Path(value).is_absolute() and not Path(value).exists():
            above = (parent / value for parent in run_folder.resolve().parents)
            found = next((path for path in above if path.exists()), None)
            parts[number] = part if found is None else f"{key}={found}"
    return ":".join(parts)


def last_iteration(root: Path) -> int | None:
    """The last iteration that the run's metrics tell of, counted from 0; None where there are no metrics.

    A line that was cut off, as an interruption may leave it, is passed over.
    """
    try:
        lines = (root / METRICS).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    for line in reversed(lines):
        try:
            return int(json.loads(line)["iteration"])
        except (ValueError, KeyError, TypeError):
            continue
    return None
