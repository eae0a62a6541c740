"""Run the demo: noise, denoiser, denoised images, four pretrainings, probes, report. Interrupted, it continues where
it stopped.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from rich.console import Console

from dinov2_noise.data import build_index
from dinov2_noise.demo.cells import write_cells
from dinov2_noise.demo.evaluate import Probe, evaluate
from dinov2_noise.demo.recipe import Arm, Recipe, run_folder
from dinov2_noise.demo.summary import write_summary
from dinov2_noise.demo.watch import watch_training
from dinov2_noise.denoise import apply_denoiser, train_denoiser
from dinov2_noise.files import OutputFolder
from dinov2_noise.launch import run, train_command
from dinov2_noise.noise import add_noise

T = TypeVar("T")
RANDOM = Arm("random", "random network", "noisy", [])
console = Console(stderr=True, highlight=False)


def run_demo(output: Path, recipe: Recipe | None = None) -> Path:
    """Run every step that is not done yet; returns the path of the report.

    Raises:
        OutputFolderError: ``output`` holds something else, or a demo of another recipe.
    """
    demo = Demo(output, recipe or Recipe.load())
    for title, step in demo.steps():
        with _timed(title):
            step()
    report = write_summary(demo.output, demo.recipe, RANDOM)
    console.print(f"\nreport: {report}")
    return report


@contextmanager
def _timed(title: str) -> Iterator[None]:
    console.rule(f"[bold]{title}", align="left")
    start = time.monotonic()
    yield
    console.print(f"{time.monotonic() - start:.0f} s")


def one_thread_each() -> dict[str, str]:
    """Environment of processes that run side by side, one per core: threads of one would wait for the other's."""
    return os.environ | {"OMP_NUM_THREADS": "1"}


class Demo:
    """The steps and the folders they write, all below ``output``."""

    def __init__(self, output: Path, recipe: Recipe) -> None:
        self.output, self.recipe = output, recipe
        self.folder = OutputFolder(output, "demo", {"recipe": _plain(recipe)})
        self.folder.open()
        self.cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

    def steps(self) -> list[tuple[str, Callable[[], None]]]:
        """Title and function of each step, in order."""
        noise = self.recipe.content.noise
        return [
            ("1. Photographs, cut into 64-px cells", self.cut_cells),
            (f"2. Noise: {noise}, one fixed realisation per cell", self.add_noise),
            ("3. A denoiser, trained on the noisy cells alone", self.train_denoiser),
            ("4. Denoised cells", self.denoise),
            ("5. DINOv2, pretrained four ways by upstream's train.py", self.pretrain),
            ("6. k-NN and linear probes by upstream's knn.py and linear.py", self.probe),
        ]

    def cut_cells(self) -> None:
        cells = self.recipe.content.cells
        write_cells(self.output / "clean", train_grid=tuple(cells.train_grid), val_grid=tuple(cells.val_grid))

    def add_noise(self) -> None:
        add_noise(self.output / "clean", self.output / "noisy", noise=self.recipe.content.noise, progress=False)
        build_index(self.output / "noisy", progress=False)

    def train_denoiser(self) -> None:
        settings = {str(key): value for key, value in self.recipe.content.denoiser.items()}
        train_denoiser(self.output / "noisy", self.output / "denoiser", **settings)

    def denoise(self) -> None:
        weights = self.output / "denoiser" / "denoiser.pth"
        apply_denoiser(self.output / "noisy", self.output / "denoised", weights=weights)
        build_index(self.output / "denoised", progress=False)

    def pretrain(self) -> None:
        dataset = f"ImageNet:split=TRAIN:root={self.output / 'noisy'}:denoised={self.output / 'denoised'}"
        for arm in self.recipe.arms:
            self.recipe.write_config(arm, dataset, self.config(arm))
        first = self.recipe.arms[0]
        self.recipe.write_config(first, dataset, self.config(RANDOM))
        waiting = [
            arm for arm in self.recipe.arms if not (run_folder(self.output, arm.name) / "model_final.pth").exists()
        ]
        with watch_training(self.output, waiting, self.recipe.iterations):
            self._side_by_side(self._pretrain_arm, [*waiting, RANDOM])

    def _pretrain_arm(self, arm: Arm) -> None:
        # A fresh network without a step: upstream writes it out when asked to evaluate only.
        options = ["--eval-only", "--no-resume"] if arm is RANDOM else []
        command = train_command(str(self.config(arm)), run_folder(self.output, arm.name), options)
        run(command, environment=one_thread_each(), log=self.output / "logs" / f"train-{arm.name}.txt")

    def probe(self) -> None:
        probes = [Probe(arm, kind) for arm in (*self.recipe.arms, RANDOM) for kind in ("linear", "knn")]
        self._side_by_side(lambda probe: evaluate(probe, self.output, self.recipe, one_thread_each()), probes)

    def config(self, arm: Arm) -> Path:
        """The arm's config file."""
        return self.output / "configs" / f"{arm.name}.yaml"

    def _side_by_side(self, work: Callable[[T], None], items: Sequence[T]) -> None:
        with ThreadPoolExecutor(max_workers=self.cores) as pool:
            for done in [pool.submit(work, item) for item in items]:
                done.result()


def _plain(recipe: Recipe) -> object:
    from omegaconf import OmegaConf

    return OmegaConf.to_container(recipe.content)
