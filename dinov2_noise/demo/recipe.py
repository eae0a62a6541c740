"""The demo's recipe, read from ``recipe.yaml`` and turned into one upstream config per arm."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from dinov2_noise.configs import GUARD

RECIPE = Path(__file__).with_name("recipe.yaml")


@dataclass(frozen=True)
class Arm:
    """One of the compared pretrainings.

    Attributes:
        name: folder name.
        title: as people read it.
        evaluated_on: ``noisy`` or ``denoised``, the images its features are probed on.
        stages: the ``curriculum.stages`` of its config.
    """

    name: str
    title: str
    evaluated_on: str
    stages: list[dict[str, Any]]

    @property
    def switch_epochs(self) -> list[tuple[int, str]]:
        """(epoch, name) at which each stage but the first begins."""
        switches, epoch = [], 0
        for stage in self.stages:
            if epoch:
                switches.append((epoch, str(stage["name"])))
            epoch += int(stage["epochs"])
        return switches


def run_folder(output: Path, name: str) -> Path:
    """Where arm ``name`` trains: apart from the image folders, two of which have names of arms."""
    return output / "runs" / name


@dataclass(frozen=True)
class Recipe:
    """The parsed file; ``content`` holds it as OmegaConf reads it."""

    content: DictConfig

    @classmethod
    def load(cls, path: Path = RECIPE) -> Recipe:
        content = OmegaConf.load(path)
        assert isinstance(content, DictConfig)
        return cls(content)

    @property
    def arms(self) -> list[Arm]:
        arms = OmegaConf.to_container(self.content.arms)
        assert isinstance(arms, dict)
        return [Arm(str(name), **arm) for name, arm in arms.items()]

    @property
    def iterations(self) -> int:
        """Optimizer steps of each arm."""
        return int(self.content.training.optim.epochs) * int(self.content.training.train.OFFICIAL_EPOCH_LENGTH)

    @property
    def measure_period(self) -> int:
        """Iterations after which each arm is measured: a fifth of them, or all; the last one is measured always."""
        fifth, rest = divmod(self.iterations, 5)
        return self.iterations if rest else fifth

    def write_config(self, arm: Arm, dataset: str, path: Path) -> None:
        """The arm's config for upstream's ``train.py``: the shared part, its curriculum, and the guard of shipped
        configs.
        """
        config = OmegaConf.merge(
            self.content.training,
            {
                "train": {"dataset_path": dataset},
                "optim": {"scaling_rule": f"${{{GUARD}:sqrt_wrt_1024}}"},
                "evaluation": {"eval_period_iterations": self.measure_period},
                "monitor": {"max_time_share": 1.0},  # all points in every demo: 6 % of the time
                "curriculum": {"stages": arm.stages},
            },
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(config, path)
