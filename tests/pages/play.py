"""Run a page's own command lines, in their order, in a folder with small data."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from helpers import clean_environment

from pages.blocks import ROOT, Command, commands
from pages.material import Material

# What makes a training small, whatever the page's budget: appended, for the last of equal options counts.
TINY_MODEL = (
    "student.arch=vit_tiny student.patch_size=16 student.layerscale=1.0 student.drop_path_rate=0 "
    "dino.head_n_prototypes=32 dino.head_hidden_dim=32 dino.head_bottleneck_dim=16 "
    "crops.global_crops_size=32 crops.local_crops_size=16 crops.local_crops_number=2 "
    "train.batch_size_per_gpu=4 train.num_workers=1 train.OFFICIAL_EPOCH_LENGTH=1"
)
# Two stages of two iterations each.
TINY_RUN = (
    f"{TINY_MODEL} optim.epochs=4 optim.warmup_epochs=1 teacher.warmup_teacher_temp_epochs=1 "
    "evaluation.eval_period_iterations=4 curriculum.stages.0.epochs=2 curriculum.stages.0.schedule_epochs=4 "
    "curriculum.stages.1.epochs=2"
)
# The presets for one GPU split the batch, and warm up for longer than two iterations in the second stage.
TINY_24GB = (
    "step.micro_batches=2 curriculum.stages.1.overrides.optim.warmup_epochs=1 "
    "curriculum.stages.1.overrides.teacher.warmup_teacher_temp_epochs=1"
)
TINY_DENOISER = "--steps 2 --n-feature 4 --crop 64 --batch-size 2 --sample-every 0 --workers 0"
SHRINK = {
    "dinov2-noise denoise train": TINY_DENOISER,
    "dinov2-noise train": TINY_RUN,
    # Processes of their own import torch again.
    "dinov2-noise check": "--workers 1",
    "dinov2-noise add-noise": "--workers 1",
    "dinov2-noise corrupt": "--workers 1",
}


def _nothing(folder: Path, material: Material) -> None:
    pass


@dataclass(frozen=True)
class Scenario:
    """How a page's commands are run: in one shell, in their order.

    Attributes:
        page: path in the repository.
        prepare: fills the folder in which the commands run.
        prepare_dear: likewise, beside it, where the long commands run: it may use the training.
        replace: text in commands → what stands for it here: paths, numbers of GPUs, budgets. ``$TOP`` is the folder.
        before: text of a command, its last line break included → what is done before it: variants share a folder.
        more: text of a command → options at its end, beside those of `SHRINK`.
        dear: commands that hold one of these texts take long and are run by ``make test-slow`` only, as trainings are.
        leaves: files and folders that must be there in the end; ``dear_leaves`` with the long commands.
        prints: what must be printed; ``dear_prints`` likewise.
    """

    page: str
    prepare: Callable[[Path, Material], object] = _nothing
    prepare_dear: Callable[[Path, Material], object] = _nothing
    replace: Mapping[str, str] = field(default_factory=dict)
    before: Mapping[str, str] = field(default_factory=dict)
    more: Mapping[str, str] = field(default_factory=dict)
    dear: tuple[str, ...] = ()
    leaves: Sequence[str] = ()
    dear_leaves: Sequence[str] = ()
    prints: Sequence[str] = ()
    dear_prints: Sequence[str] = ()

    def commands(self, *, dear: bool) -> list[Command]:
        """Those that are not marked; with ``dear`` all of them, otherwise the quick ones. An estimate is made once."""
        able = [command for command in commands(ROOT / self.page) if not command.needs]
        estimates = {command.text: command for command in reversed(able) if "--estimate" in command.text}
        once = [command for command in able if estimates.get(command.text, command) is command]
        return [command for command in once if dear or not self.is_dear(command)]

    def is_dear(self, command: Command) -> bool:
        if "dinov2-noise train " in command.text and "--estimate" not in command.text:
            return True
        return any(text in f"{command.text}\n" for text in self.dear)


def script(scenario: Scenario, *, dear: bool) -> str:
    """The bash script of a scenario: its commands, each after a line that tells its place."""
    lines = ["set -euo pipefail"]
    for command in scenario.commands(dear=dear):
        lines.append(f"echo '==> {command.place}'")
        lines += [text for part, text in scenario.before.items() if part in f"{command.text}\n"]
        more = [text for part, text in scenario.more.items() if part in f"{command.text}\n"]
        text = _with_options(command.text, more)
        for old, new in scenario.replace.items():
            text = text.replace(old, new)
        lines.append(text)
    return "\n".join(lines) + "\n"


def _with_options(text: str, more: list[str]) -> str:
    """A command with what makes it small at its end."""
    joined = text.replace("\\\n", " ").strip()
    for start, addition in SHRINK.items():
        if joined.startswith(start) and "--estimate" not in joined:
            more = [addition, *more]
    return " ".join([joined, *more]) if more else text


def play(scenario: Scenario, folder: Path, material: Material, warm: Path, *, dear: bool, timeout_s: int) -> str:
    """Run the scenario; returns what its commands printed.

    Raises:
        AssertionError: a command failed, or left nothing.
    """
    if not scenario.commands(dear=dear):
        return ""
    scenario.prepare(folder, material)
    if dear:
        scenario.prepare_dear(folder, material)
    environment = clean_environment()
    environment["PATH"] = os.pathsep.join([str(warm), str(Path(sys.executable).parent), environment["PATH"]])
    environment |= {"COLUMNS": "200", "HOME": str(folder), "TOP": str(folder)}
    done = subprocess.run(
        ["bash", "-c", script(scenario, dear=dear)],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    for name in [*scenario.leaves, *(scenario.dear_leaves if dear else ())]:
        assert list(folder.glob(name)), f"{scenario.page}: no {name} in the end\n{done.stdout[-2000:]}"
    for text in [*scenario.prints, *(scenario.dear_prints if dear else ())]:
        assert text in done.stdout, done.stdout[-4000:]
    return done.stdout
