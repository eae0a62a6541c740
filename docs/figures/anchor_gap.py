"""Train the arms of docs/img/anchor-gap.png and draw it: how far the student's tokens drift from the frozen teacher's.

Usage: python docs/figures/anchor_gap.py DEMO_OUTPUT WORK (DEMO_OUTPUT: a folder that `make demo` has filled). About 10
minutes on one CPU core. All arms go on from one denoised stage, with the same seed.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from matplotlib import pyplot as plt
from omegaconf import OmegaConf

from dinov2_noise.demo.recipe import Arm, Recipe
from dinov2_noise.launch import run, train_command
from dinov2_noise.report.figures import COLOURS, FAINT, LINE_STYLES

OUTPUT = Path(__file__).parent.parent / "img" / "anchor-gap.png"
SWITCH_EPOCHS, PERIOD = 12, 5
# Weight 0 measures the gap and pulls nothing: NC.
ARMS: dict[str, dict[str, Any]] = {
    "NC (no anchor)": {"anchor": {"weight": 0.0}},
    "NCT, weight 1": {"anchor": {"weight": 1.0}},
    "NCT, weight 4": {"anchor": {"weight": 4.0}},
    "teacher_view: denoised": {"anchor": {"weight": 0.0}, "teacher_view": "denoised"},
}


def train(demo: Path, work: Path) -> None:
    recipe = Recipe.load()
    dataset = f"ImageNet:split=TRAIN:root={demo / 'noisy'}:denoised={demo / 'denoised'}"
    first: Path | None = None
    for number, stage in enumerate(ARMS.values()):
        folder = work / f"arm-{number}"
        noisy = {"name": "noisy", "epochs": 20 - SWITCH_EPOCHS, "view": "noisy", "restart": True, **stage}
        denoised = {"name": "denoised", "epochs": SWITCH_EPOCHS, "view": "denoised", "schedule_epochs": 20}
        recipe.write_config(Arm("arm", "arm", "noisy", [denoised, noisy]), dataset, work / f"arm-{number}.yaml")
        content = OmegaConf.load(work / f"arm-{number}.yaml")
        OmegaConf.save(OmegaConf.merge(content, {"health": {"period_iterations": PERIOD}}), work / f"arm-{number}.yaml")
        if first is not None and not folder.exists():
            folder.mkdir()
            at_switch = f"model_{SWITCH_EPOCHS * 10 - 1:07d}.pth"
            shutil.copy(first / at_switch, folder)
            (folder / "last_checkpoint").write_text(at_switch)
        if not (folder / "model_final.pth").exists():
            environment = os.environ | {"OMP_NUM_THREADS": "1"}
            run(
                train_command(str(work / f"arm-{number}.yaml"), folder),
                environment=environment,
                log=work / f"{number}.txt",
            )
        first = first or folder


def gaps(folder: Path) -> tuple[list[int], list[float]]:
    lines = [json.loads(line) for line in (folder / "health.jsonl").read_text().splitlines()]
    found = {line["iteration"]: line["anchor_gap"] for line in lines if line.get("anchor_gap") is not None}
    return list(found), list(found.values())


def draw(work: Path) -> None:
    figure, axes = plt.subplots(figsize=(8, 4), layout="constrained")
    for number, label in enumerate(ARMS):
        iterations, values = gaps(work / f"arm-{number}")
        axes.plot(iterations, values, LINE_STYLES[number], color=COLOURS[number], label=label, lw=2)
    axes.axvline(SWITCH_EPOCHS * 10, color=FAINT, lw=1)
    axes.set(xlabel="iteration", ylabel="anchor gap: 1 - cosine", ylim=(0, None))
    axes.set_title("Student's CLS token of a noisy crop against the frozen teacher's of its twin", fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(OUTPUT, dpi=160)


if __name__ == "__main__":
    demo_output, work_folder = (Path(argument) for argument in sys.argv[1:])
    work_folder.mkdir(parents=True, exist_ok=True)
    train(demo_output, work_folder)
    draw(work_folder)
