"""What is done to labelled images on the fly before they are evaluated: nothing, a noise, or a corruption."""

from __future__ import annotations

from dataclasses import dataclass

from dinov2_noise import data
from dinov2_noise.errors import ConfigError
from dinov2_noise.evaluation.label_sources import LabelSet, Source
from dinov2_noise.evaluation.label_task import Task
from dinov2_noise.noise import DEFAULT_SEED, parse
from dinov2_noise.noise.corruptions import parse_corruption

CLEAN, SAME = "clean", "same"


@dataclass(frozen=True)
class Noises:
    """Which noises, and which one the training images get.

    Attributes:
        names: of validation images: ``clean``, noises and corruptions such as ``fog/3``. train: ``same``, or one such
            name for all. seed: base seed.
    """

    names: tuple[str, ...]
    train: str = SAME
    seed: int = DEFAULT_SEED

    @classmethod
    def parse(cls, names: str, train: str = SAME, seed: int = DEFAULT_SEED) -> Noises:
        """From names separated by commas.

        Raises:
            NoiseNameError: one is no noise and no corruption. ConfigError: none is there, or one twice.
        """
        given = tuple(name.strip() for name in names.split(",") if name.strip())
        if not given or len(set(given)) < len(given):
            raise ConfigError(f"--noise {names!r}: different names separated by commas, such as clean,gauss100")
        for name in (*given, *([] if train == SAME else [train])):
            _key(name)
        return cls(given, train, seed)

    def check(self, source: Source) -> None:
        """Check that images which are noisy already get no second noise.

        Raises:
            ConfigError: they would.
        """
        if source.dataset is None or {*self.names, self.train} <= {CLEAN, SAME}:
            return
        spec = data.parse_dataset_string(source.dataset)
        if spec.noise is not None or spec.corruption is not None:
            raise ConfigError(
                f"{source.dataset!r} has a noise or corruption of its own: take it out and name it with --noise, or "
                "leave --noise out"
            )

    def train_name(self, name: str) -> str:
        """What the training images get where those of the validation get ``name``."""
        return name if self.train == SAME else self.train

    def datasets(self, task: Task, name: str) -> tuple[str, str]:
        """Dataset strings of training and validation images for the noise ``name`` of the latter.

        Where different images of both have the same path, those of the validation are drawn with the next seed: equal
        noise on two images makes them alike.
        """
        val_seed = self.seed + task.shared_paths()
        return _with(task.train, self.train_name(name), self.seed), _with(task.val, name, val_seed)


def file_name(name: str) -> str:
    """A noise's name as part of a file's."""
    return name.replace("/", "-")


def _with(part: LabelSet, name: str, seed: int) -> str:
    key = _key(name)
    return f"{part.dataset}:{key}={name},seed={seed}" if key else part.dataset


def _key(name: str) -> str:
    """Of the dataset string."""
    if name == CLEAN:
        return ""
    if "/" in name:
        parse_corruption(name)
        return "corruption"
    parse(name)
    return "noise"
