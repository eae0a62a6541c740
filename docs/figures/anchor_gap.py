"""Train the arms of docs/img/anchor-gap.png and draw it: how far the student's tokens drift from the frozen teacher's.

Usage: python docs/figures/anchor_gap.py DEMO_OUTPUT WORK (DEMO_OUTPUT: a folder that `make demo` has filled). About 10
minutes on two CPU cores. The curves are means over the last WINDOW iterations, measured in each.
"""

from __future__ import annotations

import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from omegaconf import OmegaConf

from dinov2_noise.demo.recipe import Arm, Recipe
from dinov2_noise.launch import run, train_command
from dinov2_noise.report.figures import COLOURS, LINE_STYLES

OUTPUT = Path(__file__).parent.parent / "img" / "anchor-gap.png"
SWITCH_EPOCHS, NOISY_EPOCHS, WINDOW = 12, 20, 25
# Weight 0 measures the gap and pulls nothing: NC.
ARMS: dict[str, dict[str, Any]] = {
    "NC (no anchor)": {"anchor": {"weight": 0.0}},
    "NCT, weight 1": {"anchor": {"weight": 1.0}},
    "NCT, weight 4": {"anchor": {"weight": 4.0}},
    "teacher_view: denoised": {"anchor": {"weight": 0.0}, "teacher_view": "denoised"},
}


def train(demo: Path, work: Path) -> None:
    with ThreadPoolExecutor(max_workers=2) as pool:
        list(pool.map(lambda number: train_arm(demo, work, number), range(len(ARMS))))


def train_arm(demo: Path, work: Path, number: int) -> None:
    """All arms begin with the same denoised stage, step by step the same."""
    recipe, path = Recipe.load(), work / f"arm-{number}.yaml"
    dataset = f"ImageNet:split=TRAIN:root={demo / 'noisy'}:denoised={demo / 'denoised'}"
    denoised = {"name": "denoised", "epochs": SWITCH_EPOCHS, "view": "denoised", "schedule_epochs": 20}
    noisy = {"name": "noisy", "epochs": NOISY_EPOCHS, "view": "noisy", "restart": True, **list(ARMS.values())[number]}
    recipe.write_config(Arm("arm", "arm", "noisy", [denoised, noisy]), dataset, path)
    own = {"optim": {"epochs": SWITCH_EPOCHS + NOISY_EPOCHS}, "health": {"period_iterations": 1}}
    OmegaConf.save(OmegaConf.merge(OmegaConf.load(path), own), path)
    folder = work / f"arm-{number}"
    if not (folder / "model_final.pth").exists():
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        run(train_command(str(path), folder), environment=environment, log=work / f"{number}.txt")


def gaps(folder: Path) -> tuple[Any, Any]:
    lines = [json.loads(line) for line in (folder / "health.jsonl").read_text().splitlines()]
    found = {line["iteration"]: line["anchor_gap"] for line in lines if line.get("anchor_gap") is not None}
    kernel = np.ones(WINDOW) / WINDOW
    return np.array(list(found))[WINDOW - 1 :], np.convolve(list(found.values()), kernel, mode="valid")


def draw(work: Path) -> None:
    figure, axes = plt.subplots(figsize=(8, 4), layout="constrained")
    for number, label in enumerate(ARMS):
        iterations, values = gaps(work / f"arm-{number}")
        axes.plot(iterations, values, LINE_STYLES[number], color=COLOURS[number], label=label, lw=2)
    axes.set(xlabel="iteration", ylabel="anchor gap: 1 - cosine", ylim=(0, None))
    axes.set_title("Student's CLS token of a noisy crop against the frozen teacher's of its twin", fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    axes.set_xlim(SWITCH_EPOCHS * 10, None)
    figure.savefig(OUTPUT, dpi=160)


if __name__ == "__main__":
    demo_output, work_folder = (Path(argument) for argument in sys.argv[1:])
    work_folder.mkdir(parents=True, exist_ok=True)
    train(demo_output, work_folder)
    draw(work_folder)
