"""Train the three arms of docs/fastdinov2.md and draw its pictures: plain, curriculum, curriculum and noise patches.

Usage: python docs/figures/fastdinov2.py IMAGES WORK (IMAGES: train/<class>/… and val/<class>/…, with metadata from
`dinov2-noise index`). About 12 minutes of one core for the plain arm and 7 for each of the others; two cores are used.
Finished arms in WORK are measured and drawn as they are. The published pictures show 2,000 + 500 photographs of 10
ImageNet classes, 224 px each.
"""

from __future__ import annotations

import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from dinov2.data.transforms import make_normalize_transform
from matplotlib.figure import Figure
from omegaconf import OmegaConf
from PIL import Image
from skimage import data as skimage_data
from torchvision import transforms

from dinov2_noise import data
from dinov2_noise.configs import read
from dinov2_noise.launch import run, train_command
from dinov2_noise.report.figures import COLOURS, FAINT, INK, LINE_STYLES, MARKERS, contact_sheet, figure_as_png
from dinov2_noise.upstream.backbone import build_backbone
from dinov2_noise.upstream.estimate import cost_of, load
from dinov2_noise.upstream.preview import crops
from dinov2_noise.upstream.probing.model import load_backbone_for_evaluation
from dinov2_noise.upstream.probing.neighbours import Neighbours

IMG = Path(__file__).parent.parent / "img"
FULL, LOW = {"global_crops_size": 96, "local_crops_size": 48}, {"global_crops_size": 48, "local_crops_size": 32}
EPOCHS, LOW_EPOCHS, EPOCH_LENGTH = 12, 9, 11
PATCH = {"gaussian_patch": {"max_sigma": 0.5}}
LOW_STAGE = {"name": "low resolution", "epochs": LOW_EPOCHS, "view": "noisy", "schedule_epochs": EPOCHS, "crops": LOW}
FULL_STAGE = {
    "name": "full resolution",
    "epochs": EPOCHS - LOW_EPOCHS,
    "view": "noisy",
    "restart": True,
    "overrides": {"optim": {"warmup_epochs": 1}},
}
ARMS: dict[str, list[dict[str, Any]]] = {
    "plain DINOv2": [{"name": "full resolution", "epochs": EPOCHS, "view": "noisy"}],
    "curriculum": [LOW_STAGE, FULL_STAGE],
    "curriculum and patches": [LOW_STAGE, FULL_STAGE | PATCH],
}
TURNS = (("plain DINOv2",), ("curriculum", "curriculum and patches"))  # what one core does, one after the other
PHOTOGRAPHS = {"astronaut": 404, "chelsea": 1210, "coffee": 7}  # of scikit-image, in this order; number of the draw
VALIDATION = {"clean": "", "gauss50": ":noise=gauss50", "gauss100": ":noise=gauss100", "gauss255": ":noise=gauss255"}


def folder(work: Path, arm: str) -> Path:
    return work / arm.replace(" ", "-")


def write_config(images: Path, work: Path, arm: str, kind: str = "ImageNet:split=TRAIN") -> Path:
    """The recipe of ``nct_laptop``, which learns within minutes, with other crops, length and stages."""
    own = {
        "train": {
            "dataset_path": f"{kind}:root={images}",
            "OFFICIAL_EPOCH_LENGTH": EPOCH_LENGTH,
            "num_workers": 0,
        },
        "crops": FULL,
        "optim": {"epochs": EPOCHS},
        "evaluation": {"eval_period_iterations": EPOCHS * EPOCH_LENGTH},
        "health": {"trial_save": False},
        "curriculum": {"stages": ARMS[arm]},
    }
    path = folder(work, arm).with_suffix(".yaml")
    OmegaConf.save(OmegaConf.merge(OmegaConf.create(read("nct_laptop")), own), path)
    return path


def train(images: Path, work: Path) -> None:
    def one_after_the_other(arms: tuple[str, ...]) -> None:
        for arm in arms:
            config, output = write_config(images, work, arm), folder(work, arm)
            if not (output / "model_final.pth").exists():
                environment = os.environ | {"OMP_NUM_THREADS": "1"}
                run(train_command(str(config), output), environment=environment, log=output.with_suffix(".txt"))

    with ThreadPoolExecutor(max_workers=2) as pool:
        list(pool.map(one_after_the_other, TURNS))


def features(images: Path, network: torch.nn.Module, split: str, noise: str) -> tuple[torch.Tensor, torch.Tensor]:
    """[CLS, mean patch] (N, 2 D) and class (N,) of all images at the size of the global crops."""
    shape = {"size": [FULL["global_crops_size"]] * 2, "interpolation": transforms.InterpolationMode.BICUBIC}
    transform = transforms.Compose([transforms.Resize(**shape), transforms.ToTensor(), make_normalize_transform()])
    dataset: Any = data.make(f"ImageNet:split={split}:root={images}{noise}", transform, None)
    rows, labels = [], []
    with torch.inference_mode():
        for pixels, label in torch.utils.data.DataLoader(dataset, batch_size=100):
            tokens = network(pixels, is_training=True)
            rows.append(torch.cat([tokens["x_norm_clstoken"], tokens["x_norm_patchtokens"].mean(1)], dim=1))
            labels.append(torch.as_tensor(label).long())
    return torch.cat(rows), torch.cat(labels)


def linear_predictions(train: torch.Tensor, labels: torch.Tensor, val: torch.Tensor) -> torch.Tensor:
    """Classes that a logistic regression predicts, on standardised features, weight decay 1e-2."""
    mean, std = train.mean(0), train.std(0) + 1e-6
    layer = torch.nn.Linear(train.shape[1], int(labels.max()) + 1)
    torch.nn.init.zeros_(layer.weight)
    torch.nn.init.zeros_(layer.bias)
    optimizer = torch.optim.LBFGS(layer.parameters(), max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        value = torch.nn.functional.cross_entropy(layer((train - mean) / std), labels)
        value = value + 1e-2 * layer.weight.square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    with torch.no_grad():
        return layer((val - mean) / std).argmax(1)


def measure(images: Path, work: Path) -> dict[str, dict[str, list[float]]]:
    """Network → validation images → accuracies of k-NN and logistic regression, trained on clean training images."""
    path = work / "accuracies.json"
    if path.exists():
        found: dict[str, dict[str, list[float]]] = json.loads(path.read_text())
        return found
    torch.manual_seed(0)
    config = write_config(images, work, "plain DINOv2")
    networks: dict[str, torch.nn.Module] = {"random network": build_backbone(str(config)).eval()}
    for arm in ARMS:
        weights = folder(work, arm) / "eval" / f"training_{EPOCHS * EPOCH_LENGTH - 1}" / "teacher_checkpoint.pth"
        networks[arm] = load_backbone_for_evaluation(config, weights)
    found = {}
    for name, network in networks.items():
        train, labels = features(images, network, "TRAIN", "")
        voters = Neighbours(torch.nn.functional.normalize(train, dim=1), labels, [20])
        found[name] = {}
        for kind, noise in VALIDATION.items():
            val, truth = features(images, network, "VAL", noise)
            predictions = [voters.predict(val)[20], linear_predictions(train.clone(), labels, val.clone())]
            found[name][kind] = [float((predicted == truth).float().mean()) for predicted in predictions]
    path.write_text(json.dumps(found))
    return found


def losses(work: Path, arm: str) -> tuple[Any, Any, int | None]:
    """TFLOPs spent and total loss, entry by entry, and the first entry of the second stage."""
    cost = cost_of(load(str(folder(work, arm).with_suffix(".yaml"))))
    lengths = [stage.n_iterations for stage in cost.stages]
    per_step = np.repeat([stage.flops.total * cost.batch_size / 1e12 for stage in cost.stages], lengths)
    lines = (folder(work, arm) / "training_metrics.json").read_text().splitlines()
    entries = [json.loads(line) for line in lines]
    iterations = [entry["iteration"] for entry in entries]
    first = next((n for n, iteration in enumerate(iterations) if iteration >= lengths[0]), None)
    return np.cumsum(per_step)[iterations], np.array([entry["total_loss"] for entry in entries]), first


def draw_losses(work: Path) -> None:
    def draw(figure: Figure) -> None:
        panel = figure.subplots()
        for number, arm in enumerate(ARMS):
            spent, values, switch = losses(work, arm)
            style = {"color": COLOURS[number], "linestyle": LINE_STYLES[number], "linewidth": 2}
            panel.plot(spent, values, label=arm, **style)
            panel.plot(spent[-1:], values[-1:], "o", color=COLOURS[number])
            if switch is not None and number == 1:
                panel.axvline(spent[switch - 1], color=INK, linewidth=1, linestyle=(0, (4, 3)))
                panel.annotate(
                    "switch to full crops",
                    (spent[switch - 1], 1),
                    xycoords=("data", "axes fraction"),
                    xytext=(5, -12),
                    textcoords="offset points",
                )
        panel.set(xlabel="arithmetic spent, TFLOPs (counted)", ylabel="total loss", xlim=(0, None))
        panel.legend(frameon=False)

    (IMG / "fastdinov2-losses.png").write_bytes(figure_as_png(draw, 1800, 900, layout="constrained"))


def draw_accuracies(found: dict[str, dict[str, list[float]]], n_images: int) -> None:
    def draw(figure: Figure) -> None:
        for column, (panel, probe) in enumerate(
            zip(figure.subplots(1, 2, sharey=True), ("k-NN, k = 20", "logistic regression"), strict=True)
        ):
            for number, (name, values) in enumerate(found.items()):
                shares = np.array([values[kind][column] for kind in VALIDATION])
                error = 1.96 * np.sqrt(shares * (1 - shares) / n_images)
                places = np.arange(len(VALIDATION)) + 0.14 * (number - 1.5)
                colour = COLOURS[(number - 1) % len(COLOURS)] if number else FAINT
                panel.errorbar(places, 100 * shares, 100 * error, fmt=MARKERS[number], color=colour, label=name)
            panel.axhline(10, color=FAINT, linewidth=1, linestyle=(0, (1, 2)))
            panel.set_title(probe, loc="left")
            panel.set_xticks(range(len(VALIDATION)), VALIDATION)
        first = figure.axes[0]
        first.set_ylim(0, 45)
        first.annotate("chance", (0, 10), xytext=(0, 3), textcoords="offset points", ha="center", color=FAINT)
        first.set_ylabel("top-1, %, with 95 % interval")
        figure.legend(*first.get_legend_handles_labels(), loc="outside upper left", ncols=4, frameon=False)

    (IMG / "fastdinov2-accuracy.png").write_bytes(figure_as_png(draw, 1800, 900, layout="constrained"))


def draw_sheet(work: Path) -> None:
    """What the student sees of free photographs: the same draws in either stage."""
    photographs = work / "photographs"
    photographs.mkdir(exist_ok=True)
    for name in PHOTOGRAPHS:
        Image.fromarray(getattr(skimage_data, name)()).save(photographs / f"{name}.png")
    sheet = work / "sheet"
    sheet.mkdir(exist_ok=True)
    config = write_config(photographs, sheet, "curriculum and patches", kind="ImageFolder")
    rows = []
    for index, (name, number) in enumerate(PHOTOGRAPHS.items()):
        row = [Image.open(photographs / f"{name}.png").resize((FULL["global_crops_size"],) * 2)]
        for stage in (0, 1):
            seen = crops(config, index=index, stage=stage, number=number)
            row += [*seen["global_crops"], seen["local_crops"][0]]
        rows.append(row)
    columns = ["image"]
    for stage, sizes in (("stage 1", LOW), ("stage 2", FULL)):
        sides = [sizes["global_crops_size"]] * 2 + [sizes["local_crops_size"]]
        columns += [f"{stage}\n{side} px" for side in sides]
    (IMG / "fastdinov2-crops.png").write_bytes(contact_sheet(columns, rows, [*PHOTOGRAPHS]))


if __name__ == "__main__":
    image_folder, work_folder = (Path(argument).absolute() for argument in sys.argv[1:])
    work_folder.mkdir(parents=True, exist_ok=True)
    train(image_folder, work_folder)
    accuracies = measure(image_folder, work_folder)
    for network, values in accuracies.items():
        print(f"{network:24}", {kind: [round(100 * value, 1) for value in pair] for kind, pair in values.items()})
    for arm_name in ARMS:
        times = [
            json.loads(line)["iter_time"] for line in (folder(work_folder, arm_name) / "training_metrics.json").open()
        ]
        print(
            f"{arm_name:24} {losses(work_folder, arm_name)[0][-1]:.1f} TFLOPs, median {np.median(times):.1f} s per step"
        )
    draw_losses(work_folder)
    draw_accuracies(accuracies, n_images=500)
    draw_sheet(work_folder)
