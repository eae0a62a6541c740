"""How the commands of the pages on training and measuring are run; see `scenarios`."""

from __future__ import annotations

from pathlib import Path

import torch

from dinov2_noise.configs import read
from pages.blocks import ROOT
from pages.material import Material, copy, copy_run, upstream_checkout
from pages.play import TINY_24GB, Scenario

_FEW_CELLS = "--corruptions fog --severities 1 --noises none --workers 1"
_TINY_HEADS = "--batch-size 8 --epochs 1 --epoch-length 2 --eval-period-iterations 2 --num-workers 1"
# The stages of the `fast` configs name their own crops and warm-up.
_TINY_FAST = (
    "curriculum.stages.0.crops.global_crops_size=32 curriculum.stages.0.crops.local_crops_size=16 "
    "curriculum.stages.1.overrides.optim.warmup_epochs=1 "
)


def linear_heads(run: str, root: str) -> str:
    """Upstream's linear probe on a run, tiny, as a page presumes it."""
    data = f"--train-dataset ImageNet:split=TRAIN:root={root} --val-dataset ImageNet:split=VAL:root={root}"
    weights = f"--pretrained-weights {run}/eval/training_3/teacher_checkpoint.pth --output-dir {run}/linear"
    return f"python -m dinov2.eval.linear --config-file {run}/config.yaml {weights} {data} {_TINY_HEADS}"


def _imagenet(folder: Path, material: Material) -> None:
    copy(material.clean, folder / "imagenet")


def _indexed_and_run(folder: Path, material: Material) -> None:
    copy(material.clean, folder / "imagenet", indexed=True)
    copy_run(material, folder / "RUN")


def _demo_cells(folder: Path, material: Material) -> None:
    copy(material.clean, folder / "demo-output" / "clean")


def _robustness(folder: Path, material: Material) -> None:
    _indexed_and_run(folder, material)
    for arm in ("noisy", "nct"):
        copy_run(material, folder / "demo-output" / "runs" / arm, "training_199")


def _pretraining(folder: Path, material: Material) -> None:
    upstream_checkout(folder / "dinov2")
    copy(material.noisy, folder / "data" / "noisy")


def _recipes(folder: Path, _material: Material) -> None:
    (folder / "configs").symlink_to(ROOT / "configs")


def _pair(folder: Path, material: Material) -> None:
    copy(material.noisy, folder / "noisy")
    copy(material.denoised, folder / "noisy-denoised")


def _weights(folder: Path, _material: Material) -> None:
    """A random file in the layout of the released ViT-S/14, and the page's config for it."""
    from dinov2.models.vision_transformer import vit_small

    (folder / "vits14.yaml").write_text(
        "student: {arch: vit_small, patch_size: 14, block_chunks: 4, layerscale: 1.0}\n"
        "crops: {global_crops_size: 224}\n"
    )
    released = vit_small(patch_size=14, img_size=518, init_values=1.0, ffn_layer="mlp", block_chunks=0)
    torch.save(released.state_dict(), folder / "dinov2_vits14_pretrain.pth")


def _weights_of_a_run(folder: Path, material: Material) -> None:
    """A run under the name FILE, and a config that continues from it."""
    copy_run(material, folder / "FILE")
    noisy = copy(material.noisy, folder / "noisy", indexed=True)
    copy(material.denoised, folder / "denoised")
    dataset = f"ImageFolder:root={noisy}/train:denoised={folder}/denoised/train"
    (folder / "my.yaml").write_text(
        read("nct_laptop").replace(
            "ImageFolder:root=photos-gauss100:denoised=photos-gauss100-denoised\n  batch", f"{dataset}\n  batch"
        )
    )


TRAINING = [
    Scenario(
        "docs/fastdinov2.md",
        _imagenet,
        replace={" --gpus 8 train.": " train."},
        more={"--output OUT": _TINY_FAST},
        leaves=["imagenet-extra/entries-TRAIN.npy"],
        dear_leaves=["OUT/model_final.pth"],
        prints=["0.442", "46.3 EFLOPs", "40.2"],
    ),
    Scenario(
        "docs/frequency-filters.md",
        prepare_dear=_indexed_and_run,
        replace={"training_…": "training_3"},
        before={"evaluate fourier": linear_heads("RUN", "imagenet")},
        more={"evaluate fourier": "--grid 3 --images 6 --workers 1 --batch-size 6"},
        dear=("evaluate fourier",),
        dear_leaves=["fourier-RUN/fourier.json", "fourier-RUN/fourier-linear.png"],
    ),
    Scenario(
        "docs/pretraining.md",
        _pretraining,
        replace={"patch dinov2": "patch $TOP/dinov2", "/absolute/path/to/your/data": "$TOP/data"}
        | {" --gpus 4 train.batch_size_per_gpu=10": "", "training_249999": "training_3"},
        dear=("doctor", "dinov2-noise weights"),
        leaves=["data/noisy-denoised/val/retina/*.png"],
        dear_leaves=["dinov2/OUT/eval/training_3/teacher_checkpoint.pth"],
        prints=["nct_24gb"],
        dear_prints=["teacher checkpoint"],
    ),
    Scenario(
        "docs/recipes.md",
        _recipes,
        dear=("run configs/small.yaml\n",),
        prints=["nct-knn"],
        dear_leaves=["runs/small/records/nct-knn.json"],
        dear_prints=["done before"],
    ),
    Scenario(
        "docs/robustness.md",
        _demo_cells,
        prepare_dear=_robustness,
        replace={
            "training_…": "training_3",
            "--epoch-length 40": "--epoch-length 2",
            "--batch-size 60": f"{_FEW_CELLS}",
        }
        | {"--eval-period-iterations 40": "--eval-period-iterations 2", " --workers 1 \\\n": " \\\n"},
        before={
            "--classifiers RUN/linear": linear_heads("RUN", "imagenet"),
            "compare RUN1/": "mkdir RUN1 RUN2; cp -r RUN/corruptions RUN1; cp -r RUN/corruptions RUN2\n"
            """sed -i 's/"model": "RUN"/"model": "RUN2"/' RUN2/corruptions/summary.json""",
        },
        more={"--classifiers RUN/linear": _FEW_CELLS},
        dear=("evaluate",),
        dear_leaves=["robust/nct/summary.json", "robust/compared/compare.md", "compared/compare.md"],
    ),
    Scenario(
        "docs/small-budgets.md",
        _pair,
        more={"nct_24gb": TINY_24GB},
        dear_leaves=["OUT/model_final.pth"],
    ),
    Scenario(
        "docs/weights.md",
        _weights,
        prepare_dear=_weights_of_a_run,
        replace={
            "dinov2_vits14_pretrain.pth --config my.yaml": "dinov2_vits14_pretrain.pth --config vits14.yaml",
            "FILE …": "FILE --config-file my.yaml --output-dir knn --nb_knn 5 --batch-size 24 "
            "--train-dataset ImageNet:split=TRAIN:root=noisy --val-dataset ImageNet:split=VAL:root=noisy",
        },
        dear=("weights FILE", "dinov2.eval.knn"),
        dear_leaves=["OUT/model_final.pth", "knn/results_eval_knn.json"],
        prints=["22,056,576 in 175 entries", "174 loaded, 1 resized, 0 missing", "37 x 37 -> 16 x 16"],
    ),
]
