"""Draws docs/img/health-signs.png: the signs of collapse in a healthy and in a collapsing run, both real.

The runs differ as the picture's legend says, and are otherwise the same 120 steps on noisy cells of the demo's
photographs; about 5 minutes each on an idle core. Finished runs in FOLDER are drawn as they are.
Usage: python docs/figures/health.py FOLDER
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from omegaconf import OmegaConf

from dinov2_noise.data import build_index
from dinov2_noise.demo.cells import write_cells
from dinov2_noise.launch import run, train_command
from dinov2_noise.noise import add_noise
from dinov2_noise.report.figures import COLOURS, DPI, FAINT, STYLE

PICTURE = Path(__file__).parent.parent / "img" / "health-signs.png"
CONFIG: dict[str, Any] = {
    "train": {
        "batch_size_per_gpu": 32,
        "num_workers": 0,
        "OFFICIAL_EPOCH_LENGTH": 10,
        "centering": "sinkhorn_knopp",
        "seed": 0,
    },
    "student": {"arch": "vit_tiny", "patch_size": 16, "drop_path_rate": 0.0, "layerscale": 1.0},
    "teacher": {
        "momentum_teacher": 0.98,
        "warmup_teacher_temp": 0.05,
        "teacher_temp": 0.05,
        "warmup_teacher_temp_epochs": 1,
    },
    "dino": {"head_n_prototypes": 512, "head_hidden_dim": 512, "head_bottleneck_dim": 128},
    "optim": {
        "epochs": 12,
        "warmup_epochs": 1,
        "freeze_last_layer_epochs": 0,
        "layerwise_decay": 1.0,
        "patch_embed_lr_mult": 1.0,
    },
    "crops": {"global_crops_size": 48, "local_crops_size": 32, "local_crops_number": 2},
    "evaluation": {"eval_period_iterations": 0},
    "health": {"period_iterations": 4},
    "curriculum": {"stages": [{"name": "noisy", "epochs": 12, "view": "noisy"}]},
}
RUNS = {
    "healthy": [],
    "collapsed": ["train.centering=centering", "dino.koleo_loss_weight=0", "optim.base_lr=0.04"],
}
LABELS = {
    "healthy": "healthy (base_lr 0.004)",
    "collapsed": "collapsing (base_lr 0.04, no KoLeo, no Sinkhorn-Knopp)",
}
# Sign, title, threshold of the warning (None: depends on the number of dimensions), range of the axis.
PANELS: list[tuple[str, str, float | None, tuple[float, float]]] = [
    ("feature_std", "feature_std", None, (0, 0.08)),
    ("rankme", "rankme (at most 32 here)", 2.0, (0, 23)),
    ("distinct_cls", "distinct_cls", 0.5, (0, 1.05)),
    ("assignment_entropy", "assignment_entropy", 0.99, (0.65, 1.02)),
]


def train(folder: Path) -> None:
    """The runs that ``folder`` does not hold yet."""
    missing = [name for name in RUNS if not (folder / name / "model_final.pth").is_file()]
    if not missing:
        return
    write_cells(folder / "clean", train_grid=(6, 4), val_grid=(5, 2))
    add_noise(folder / "clean", folder / "noisy", noise="gauss100", progress=False)
    build_index(folder / "noisy", progress=False)
    OmegaConf.save(OmegaConf.create(CONFIG), folder / "config.yaml")
    for name in missing:
        options = [f"train.dataset_path=ImageNet:split=TRAIN:root={folder / 'noisy'}", *RUNS[name]]
        run(train_command(str(folder / "config.yaml"), folder / name, options), log=folder / f"{name}.txt")


def read(path: Path) -> list[dict[str, Any]]:
    """The measurements of a run, in order."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def draw(folder: Path, picture: Path) -> None:
    """One panel per sign, both runs in each."""
    runs = {name: read(folder / name / "health.jsonl") for name in RUNS}
    with rc_context(STYLE):
        figure = Figure(figsize=(9, 5.4), dpi=DPI, layout="constrained")
        FigureCanvasAgg(figure)
        for axes, (sign, title, threshold, limits) in zip(figure.subplots(2, 2).flat, PANELS, strict=True):
            for (name, entries), colour, style in zip(runs.items(), COLOURS, ("-", "--"), strict=False):
                iterations = [entry["iteration"] for entry in entries]
                values = [entry[sign] for entry in entries]
                axes.plot(iterations, values, color=colour, linestyle=style, label=LABELS[name])
            level = 0.1 / math.sqrt(runs["healthy"][0]["n_dims"]) if threshold is None else threshold
            axes.axhline(level, color=FAINT, linewidth=1, linestyle=":", label="threshold of the warning")
            axes.set(title=title, xlabel="iteration", ylim=limits)
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
        figure.savefig(picture)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="for data and runs")
    folder = parser.parse_args().folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    train(folder)
    draw(folder, PICTURE)
    print(PICTURE)


if __name__ == "__main__":
    main()
