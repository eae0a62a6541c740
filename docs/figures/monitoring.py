"""Draws docs/img/monitoring.png: what is measured while the demo's NCT arm trains, shortened, from a real run.

DEMO is the folder of a finished `dinov2-noise demo`, whose images are taken; the run goes to FOLDER and takes about
two minutes on an idle core. A finished run there is drawn as it is.
Usage: python docs/figures/monitoring.py DEMO FOLDER
"""

from __future__ import annotations

import argparse
from itertools import pairwise
from pathlib import Path

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from dinov2_noise.demo.recipe import Arm, Recipe
from dinov2_noise.launch import run, train_command
from dinov2_noise.monitor import Measurement, read_log
from dinov2_noise.monitor.log import LOG_NAME
from dinov2_noise.report.figures import COLOURS, DPI, FAINT, STYLE

PICTURE = Path(__file__).parent.parent / "img" / "monitoring.png"
PERIOD_ITERATIONS = 10
EPOCHS = (5, 3)
"""Of the denoised and the noisy stage, 10 iterations each; the demo has 12 and 8."""
# Title, and the curves: measure, legend.
PANELS: list[tuple[str, list[tuple[str, str]]]] = [
    ("knn_top1", [("knn_top1/clean", "clean"), ("knn_top1/noisy", "noisy")]),
    ("linear_top1", [("linear_top1/clean", "clean"), ("linear_top1/noisy", "noisy")]),
    ("twin_agreement", [("twin_agreement", "twins")]),
    ("rank_me", [("rank_me/denoised", "denoised"), ("rank_me/noisy", "noisy")]),
    ("uniformity (lower: more even)", [("uniformity/denoised", "denoised"), ("uniformity/noisy", "noisy")]),
]
STYLES = {
    "clean": (COLOURS[0], "-"),
    "noisy": (COLOURS[1], "--"),
    "denoised": (COLOURS[2], "-."),
    "twins": (FAINT, "-"),
}


def arm() -> Arm:
    """The demo's NCT."""
    return next(found for found in Recipe.load().arms if found.name == "nct")


def train(demo: Path, folder: Path) -> None:
    """The run, unless it is finished."""
    if (folder / "model_final.pth").is_file():
        return
    dataset = f"ImageNet:split=TRAIN:root={demo / 'noisy'}:denoised={demo / 'denoised'}"
    config = folder.with_name(f"{folder.name}.yaml")
    Recipe.load().write_config(arm(), dataset, config)
    options = [
        f"evaluation.eval_period_iterations={PERIOD_ITERATIONS}",
        f"monitor.train=ImageNet:split=TRAIN:root={demo / 'noisy'}",
        f"monitor.val=ImageNet:split=VAL:root={demo / 'noisy'}",
        f"monitor.clean={demo / 'clean'}",
        *("monitor.n_train=144", "monitor.n_images=150", "monitor.max_time_share=1"),
        "monitor.line_period_iterations=20",
        f"optim.epochs={sum(EPOCHS)}",
        *(f"curriculum.stages.{number}.epochs={epochs}" for number, epochs in enumerate(EPOCHS)),
        f"curriculum.stages.0.schedule_epochs={sum(EPOCHS)}",
    ]
    run(train_command(str(config), folder, options), log=folder.with_name(f"{folder.name}.txt"))


def draw(folder: Path, picture: Path) -> None:
    """One panel per measure, a line where the stage changes."""
    measured = read_log(folder / LOG_NAME)
    with rc_context(STYLE):
        figure = Figure(figsize=(10, 5.6), dpi=DPI, layout="constrained")
        FigureCanvasAgg(figure)
        panels = figure.subplots(2, 3).flat
        for axes, (title, curves) in zip(panels, PANELS, strict=False):
            draw_panel(axes, title, curves, measured)
        figure.axes[-1].axis("off")
        handles = {
            label: handle
            for axes in figure.axes
            for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
        }
        figure.axes[-1].legend(handles.values(), handles.keys(), loc="center", frameon=False, title="images")
        figure.savefig(picture)


def draw_panel(axes: Axes, title: str, curves: list[tuple[str, str]], measured: list[Measurement]) -> None:
    iterations = [entry.iteration + 1 for entry in measured]
    for name, label in curves:
        colour, style = STYLES[label]
        legend = "noisy against denoised twins" if label == "twins" else label
        axes.plot(iterations, [entry.values[name] for entry in measured], color=colour, linestyle=style, label=legend)
    for before, after in pairwise(measured):
        if before.stage != after.stage:
            axes.axvline(before.iteration + 1, color=FAINT, linewidth=1, linestyle=":", label="switch to noisy images")
    axes.set(title=title, xlabel="iteration")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("demo", type=Path, help="of a finished demo")
    parser.add_argument("folder", type=Path, help="for the run")
    options = parser.parse_args()
    train(options.demo.absolute(), options.folder.absolute())
    draw(options.folder.absolute(), PICTURE)
    print(PICTURE)


if __name__ == "__main__":
    main()
