"""One evaluation, one record, one JSON file: the report reads nothing else."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import math
import platform
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from dinov2_noise import __version__
from dinov2_noise.errors import CheckpointError, MissingFolderError
from dinov2_noise.files import write_json

Z_95 = 1.959963984540054
"""Two-sided 95 % quantile of the standard normal distribution."""


def wilson(p: float, n: int) -> tuple[float, float]:
    """95 % interval of a proportion ``p`` of ``n``, after Wilson (1927).

    ``(p + z²/2n ± z sqrt(p (1 - p) / n + z²/4n²)) / (1 + z²/n)``: stays within [0, 1] and is honest for few images.
    """
    z2 = Z_95**2
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = Z_95 * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    return max(0.0, centre - half), min(1.0, centre + half)


@dataclass(frozen=True)
class Record:
    """A figure in [0, 1] measured on ``n_images`` images, and all that is needed to measure it again.

    Attributes:
        arm: what was evaluated, such as ``nct`` or ``random``.
        metric: ``knn_top1``, ``linear_top1``, …
        value: in [0, 1].
        n_images: number of images it was measured on, at least 1.
        seed: seed of the training run (not of the evaluation).
        dataset: the dataset string of the evaluated images.
        details: config path and hash, classifier name, k, …; anything JSON can hold.
        versions: see :func:`versions`.
        interval95: 95 % interval over images, for what is no proportion of them (mAP, mIoU, balanced accuracy, …);
            without it :meth:`interval` is Wilson's.
    """

    arm: str
    metric: str
    value: float
    n_images: int
    seed: int
    dataset: str
    details: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    interval95: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if not 0.0 <= self.value <= 1.0:  # also refuses NaN
            raise ValueError(f"value of {self.arm}/{self.metric} is {self.value}, not a proportion in [0, 1]")
        if self.n_images < 1:
            raise ValueError(f"n_images of {self.arm}/{self.metric} is {self.n_images}, not a positive number")
        if self.interval95 is not None:
            low, high = (float(end) for end in self.interval95)  # JSON made a list of it
            if not 0.0 <= low <= high <= 1.0:
                raise ValueError(f"interval95 of {self.arm}/{self.metric} is {self.interval95}, not within [0, 1]")
            object.__setattr__(self, "interval95", (low, high))

    @property
    def standard_error(self) -> float:
        """Binomial standard error, ``sqrt(p (1 - p) / n)``; zero at p = 0 and 1, where only the interval is fair."""
        return math.sqrt(self.value * (1.0 - self.value) / self.n_images)

    def interval(self) -> tuple[float, float]:
        """95 % interval over images: ``interval95`` if it was given, else `wilson` of the proportion.

        It says nothing about the spread between training runs.
        """
        return wilson(self.value, self.n_images) if self.interval95 is None else self.interval95

    def save(self, path: Path) -> None:
        """Write the record as one JSON file, atomically."""
        write_json(path, asdict(self))

    @classmethod
    def load(cls, path: Path) -> Record:
        """Read what :meth:`save` wrote.

        Raises:
            MissingFolderError: there is no such file.
            CheckpointError: it is not a record.
        """
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError as cause:
            raise MissingFolderError(f"no result record {path}: run the evaluation first") from cause
        except (OSError, ValueError) as cause:
            raise CheckpointError(f"cannot read the result record {path}: {cause}") from cause
        names = {f.name for f in fields(cls)}
        if isinstance(content, dict):
            content = {"interval95": None, **content}  # records of earlier versions lack it
        if not isinstance(content, dict) or set(content) != names:
            raise CheckpointError(f"{path} is not a result record: it must hold exactly {', '.join(sorted(names))}")
        try:
            return cls(**content)
        except (TypeError, ValueError) as cause:
            raise CheckpointError(f"result record {path}: {cause}") from cause


def versions() -> dict[str, str]:
    """Versions of all that decides a result; nothing is imported for it."""
    found = {"python": platform.python_version()}
    found |= {name: _installed(name) or "not installed" for name in ("torch", "torchvision", "numpy")}
    return found | {"dinov2-noise": __version__, "dinov2": _dinov2()}


def _installed(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _dinov2() -> str:
    """The wheel's version, or ``checkout`` with its commit if that is what `import dinov2` would find."""
    spec = importlib.util.find_spec("dinov2")
    if spec is None or spec.origin is None:
        return _installed("dinov2") or "not installed"
    init = Path(spec.origin)
    try:
        wheel = importlib.metadata.distribution("dinov2")
        if Path(str(wheel.locate_file("dinov2/__init__.py"))).resolve() == init.resolve():
            return wheel.version
    except importlib.metadata.PackageNotFoundError:
        pass
    return f"checkout {_commit(init)}".strip()


def _commit(file: Path) -> str:
    """``git describe`` of the repository that tracks ``file``; empty where none does."""
    git = ["git", "-C", str(file.parent)]
    try:
        # A folder ignored by an enclosing repository would otherwise be given that repository's commit.
        subprocess.run([*git, "ls-files", "--error-unmatch", file.name], capture_output=True, check=True)
        described = subprocess.run(
            [*git, "describe", "--always", "--dirty"], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return described.stdout.strip()
