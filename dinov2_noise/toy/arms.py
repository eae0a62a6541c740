"""The toy's arms: what each is pretrained on, for how long, and what it is probed on.

Source: "Ditch the Denoiser", arXiv 2505.12191, toy experiment: 50 epochs in all, of which a curriculum's first stage
takes 30, Adam 1e-4, batch 256, probe of 50 epochs, on 60,000 digits (235 steps an epoch). Its arms are ``noisy``,
``clean-to-noisy`` and ``clean`` (probed on clean digits); the others are ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dinov2_noise.errors import ConfigError
from dinov2_noise.toy.train import Optimization

PUBLISHED_STEPS_PER_EPOCH = 235
PUBLISHED_LEARNING_RATE = 1e-4
BATCH_SIZE = 256
EPOCHS, SWITCH_EPOCH, PROBE_EPOCHS = 50, 30, 50
NOISE_SEED = 42
"""Of the realisation that test digits have, and training digits where it is fixed: the same for all seeds and arms."""

METRIC = "linear_top1"


@dataclass(frozen=True)
class Arm:
    """One way of pretraining.

    Attributes:
        name: for records.
        title: for people.
        views: what its stages see; none: the network as it is initialised.
        probed_on: digits that the probe learns from and is measured on.
    """

    name: str
    title: str
    views: tuple[str, ...]
    probed_on: tuple[str, ...] = ("noisy",)


_ALL = (
    Arm("random", "random network", ()),
    Arm("noisy", "noisy only", ("noisy",)),
    Arm("clean", "clean only", ("clean",), ("noisy", "clean")),
    Arm("clean-to-noisy", "clean → noisy", ("clean", "noisy")),
    Arm("denoised-to-noisy", "denoised → noisy", ("denoised", "noisy")),
    Arm("denoiser-kept", "denoiser kept", ("denoised",), ("denoised",)),
)
ARMS = {arm.name: arm for arm in _ALL}


@dataclass(frozen=True)
class Settings:
    """What decides the numbers, beside the digits and the seed.

    Attributes:
        noise_std: of the Gaussian noise, on the [0, 1] scale.
        noise_draws: ``fresh``: new for each view and step, as in the toy's public code; ``fixed``: one realisation for
            each digit, as in the paper's large experiments.
        speed_up: the published number of steps is divided and the learning rate multiplied by this.
        denoiser_steps: of Neighbor2Neighbor.

    Raises:
        ConfigError: a value is out of range.
    """

    noise_std: float = 0.4
    noise_draws: str = "fresh"
    speed_up: float = 10.0
    denoiser_steps: int = 400

    def __post_init__(self) -> None:
        if not 0 < self.noise_std < 10:
            raise ConfigError(
                f"--noise-std must lie between 0 and 10 (1 is the range of the digits), got {self.noise_std}"
            )
        if self.noise_draws not in ("fresh", "fixed"):
            raise ConfigError(f"--noise-draws must be fresh or fixed, got {self.noise_draws!r}")
        if not 1 <= self.speed_up <= 1000 or self.denoiser_steps < 1:
            raise ConfigError(
                "--speed-up must lie between 1 and 1000 and --denoiser-steps be at least 1, got "
                f"{self.speed_up} and {self.denoiser_steps}"
            )

    @property
    def optimization(self) -> Optimization:
        return Optimization(PUBLISHED_LEARNING_RATE * self.speed_up, BATCH_SIZE)

    def steps(self, epochs: int) -> int:
        """Optimizer steps in place of so many published epochs."""
        return max(1, round(epochs * PUBLISHED_STEPS_PER_EPOCH / self.speed_up))


def record_path(output: Path, arm: str, kind: str, seed: int) -> Path:
    """The record of an arm and seed on one kind of digits."""
    return output / "records" / f"{arm}-{METRIC}-{kind}-seed{seed}.json"


def record_paths(output: Path, arm: str, seed: int) -> list[Path]:
    """The records of an arm and seed, one for each kind of digits it is probed on."""
    return [record_path(output, arm, kind, seed) for kind in ARMS[arm].probed_on]
