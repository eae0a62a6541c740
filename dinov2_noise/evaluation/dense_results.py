"""What comes out of a dense probe: one JSON file and two records per noise, and a table."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.table import Table

from dinov2_noise.errors import CheckpointError
from dinov2_noise.evaluation.dense_masks import Labelled
from dinov2_noise.evaluation.dense_scores import DenseScore
from dinov2_noise.evaluation.records import Record, versions
from dinov2_noise.files import atomic_path, write_json

_SHADES = 8


@dataclass(frozen=True)
class ConditionResult:
    """Scores with one noise on the validation images.

    Attributes:
        noise, train_noise: of validation and training images; ``clean`` without. snr_db: mean over the validation
        images; None without noise. scores: of ``tokens`` and of ``colours``. classifiers: of both, ``l2`` and
        ``has_converged``, see `dense_linear.LinearClassifier`.
    """

    noise: str
    train_noise: str
    snr_db: float | None
    scores: Mapping[str, DenseScore]
    classifiers: Mapping[str, Mapping[str, Any]]

    @classmethod
    def load(cls, path: Path) -> ConditionResult:
        """Read what `Evaluation.save` wrote.

        Raises:
            CheckpointError: it is no such file.
        """
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            scores = {kind: _score(one) for kind, one in content["scores"].items()}
            condition = content["noise"], content["train_noise"], content["snr_db"]
            found = cls(*condition, scores, content["classifiers"])
            found.scores["tokens"], found.scores["colours"], found.classifiers["tokens"]["has_converged"]
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as cause:
            raise CheckpointError(f"{path} is no result of a dense probe ({cause!r}): delete it") from cause
        return found


def _score(content: Mapping[str, Any]) -> DenseScore:
    ends = {key: (float(content[key][0]), float(content[key][1])) for key in ("miou95", "pixel_accuracy95")}
    return DenseScore(**{**content, **ends})


@dataclass(frozen=True)
class Evaluation:
    """What all noises have in common.

    Attributes:
        arm: name of the model. dataset: name of the validation set. classes: names. seed: of the training run.
        majority: mIoU and pixel accuracy of the training masks' most common class everywhere.
        details: config, weights, settings, for the records.
    """

    arm: str
    dataset: str
    classes: Sequence[str]
    seed: int
    majority: tuple[float, float]
    details: Mapping[str, Any]

    def file(self, output: Path, noise: str) -> Path:
        """Of the result of a noise."""
        return output / "results" / f"{self.arm}-{self.dataset}-{noise}.json"

    def save(self, result: ConditionResult, output: Path) -> None:
        """Write the records, then the result, which tells that they are there."""
        tokens = result.scores["tokens"]
        for metric, value, interval, floor in (
            ("miou", tokens.miou, tokens.miou95, 0),
            ("pixel_accuracy", tokens.pixel_accuracy, tokens.pixel_accuracy95, 1),
        ):
            floors = {"majority": self.majority[floor], "colours": getattr(result.scores["colours"], metric)}
            Record(
                arm=self.arm,
                metric=f"dense_{metric}",
                value=value,
                n_images=tokens.n_images,
                seed=self.seed,
                dataset=f"{self.dataset}-{result.noise}",
                details={**self._common(result), "floors": floors},
                versions=versions(),
                interval95=interval,
            ).save(output / "records" / f"{self.arm}-dense_{metric}-{self.dataset}-{result.noise}.json")
        scores = {kind: asdict(one) for kind, one in result.scores.items()}
        majority = {"miou": self.majority[0], "pixel_accuracy": self.majority[1]}
        found = {**self._common(result), "scores": scores, "majority": majority, "versions": versions()}
        write_json(self.file(output, result.noise), found)

    def _common(self, result: ConditionResult) -> dict[str, Any]:
        return {
            "arm": self.arm,
            "set": self.dataset,
            "noise": result.noise,
            "train_noise": result.train_noise,
            "snr_db": result.snr_db,
            "classifiers": dict(result.classifiers),
            "classes": list(self.classes),
            **self.details,
        }

    def table(self, results: Sequence[ConditionResult]) -> Table:
        """mIoU and pixel accuracy with their intervals, in percent, and the floors."""
        title = f"{self.arm}, {self.dataset}: {len(self.classes)} classes, in %, [95 % over images]"
        table = Table(title=title)
        for heading in ("noise", "features", "mIoU", "pixel accuracy"):
            table.add_column(heading)
        for result in results:
            for label, features, kind in ((result.noise, self.arm, "tokens"), ("", "colours", "colours")):
                one = result.scores[kind]
                cells = (_cell(one.miou, one.miou95), _cell(one.pixel_accuracy, one.pixel_accuracy95))
                table.add_row(label, features, *cells)
        table.add_row("", "majority", *(f"{100 * value:.1f}" for value in self.majority))
        return table

    def class_table(self, results: Sequence[ConditionResult]) -> Table:
        """IoU per class and noise, in percent."""
        table = Table(title=f"{self.arm}, {self.dataset}: IoU per class, in %")
        for heading in ("class", *(result.noise for result in results)):
            table.add_column(heading)
        for number, name in enumerate(self.classes):
            values = [result.scores["tokens"].iou[number] for result in results]
            if any(value is not None for value in values):
                table.add_row(name, *("–" if value is None else f"{100 * value:.1f}" for value in values))
        return table


def _cell(value: float, interval: tuple[float, float]) -> str:
    return f"{100 * value:.1f} [{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]"


def set_identity(labelled: Sequence[Labelled]) -> dict[str, Any]:
    """Number of images, and a hash of their paths and sizes in bytes, and of the masks' content.

    A class put right in a mask hardly changes its size.
    """
    digest = hashlib.sha256()
    for one in labelled:
        digest.update(f"{one.relative_path} {one.image.stat().st_size}\n".encode("utf-8", "surrogateescape"))
        digest.update(hashlib.sha256(one.mask.read_bytes()).digest())
    return {"n_images": len(labelled), "hash": digest.hexdigest()[:16]}


def save_classes(classes: NDArray[np.integer], path: Path) -> None:
    """Write predicted classes (H, W) as a palette image, or beyond 256 of them as 16-bit gray; atomically."""
    fits = int(classes.max()) < 256
    image = Image.fromarray(classes.astype(np.uint8 if fits else np.uint16))
    if fits:
        image.putpalette(palette().ravel().tolist())
    with atomic_path(path) as temporary:
        image.save(temporary, format="PNG")


def palette() -> NDArray[np.uint8]:
    """256 colours (256, 3); neighbouring classes are far apart in hue, each round of eight is darker."""
    import colorsys

    found = []
    for number in range(256):
        place, level = number % _SHADES, number // _SHADES
        hue = (place * 3 % _SHADES + level / 32) / _SHADES
        found.append([255 * part for part in colorsys.hsv_to_rgb(hue, 0.75, 0.95 - 0.7 * level / 32)])
    colours: NDArray[np.uint8] = np.rint(np.array(found)).astype(np.uint8)
    return colours
