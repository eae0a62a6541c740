"""How the commands of each page are run: what data they find, and what stands for the page's paths and budgets."""

from __future__ import annotations

import tarfile
from pathlib import Path

from pages.blocks import ROOT
from pages.material import Material, copy, ct_slices, star_frames, upstream_checkout
from pages.play import TINY_24GB, Scenario
from pages.scenarios_new import NEW
from pages.scenarios_training import TRAINING

_ONE_PROCESS = {" --gpus 8": "", " --gpus 4": ""}
_SMALL_IMAGES = {"--min-side 256": "--min-side 64"}


def _readme(folder: Path, material: Material) -> None:
    upstream_checkout(folder / "PATH_TO_DINOV2")
    copy(material.clean, folder / "data" / "imagenet")


def _checkout(folder: Path, _material: Material) -> None:
    upstream_checkout(folder / "PATH_TO_DINOV2")


def _astronomy(folder: Path, _material: Material) -> None:
    star_frames(folder / "frames")
    star_frames(folder / "drizzled", blur_px=0.6, count=8)


def _noisy(folder: Path, material: Material) -> None:
    copy(material.noisy, folder / "NOISY")
    copy(material.denoiser, folder / "OUT")


def _check(folder: Path, material: Material) -> None:
    copy(material.noisy, folder / "NOISY")
    copy(material.clean, folder / "DATA")


def _few(folder: Path, material: Material) -> None:
    copy(material.clean / "val" / "coffee", folder / "photos" / "val" / "coffee")


def _deep(folder: Path, material: Material) -> None:
    """12-bit frames, the same again as clean ones, slices, class folders, and two shards."""
    star_frames(folder / "frames")
    star_frames(folder / "clean")
    ct_slices(folder / "ct")
    copy(material.clean, folder / "photos")
    (folder / "shards").mkdir()
    for number, label in enumerate(("coffee", "retina")):
        with tarfile.open(folder / "shards" / f"{number}.tar", "w") as shard:
            for path in sorted((material.clean / "train" / label).iterdir()):
                shard.add(path, arcname=f"{label}-{path.name}")


def _clean(folder: Path, material: Material) -> None:
    copy(material.clean, folder / "CLEAN")


def _interrupted(folder: Path, material: Material) -> None:
    copy(material.clean, folder / "photos")
    (folder / "photos" / "train" / "coffee" / "broken.png").write_bytes(b"no picture")


def _large(folder: Path, material: Material) -> None:
    copy(material.clean, folder / "data" / "imagenet")
    copy(material.clean, folder / "ROOT")
    copy(material.clean, folder / "data" / "photos")
    (folder / "listing.txt").write_text(
        "".join(f"{path.relative_to(material.clean)}\n" for path in sorted(material.clean.rglob("*.png")))
    )
    (folder / "Labels.json").write_text('{"n01440764": "tench", "n01443537": "goldfish"}')
    (folder / "10percent.txt").write_text("n01440764_10026.JPEG\n")


def _loader(folder: Path, material: Material) -> None:
    (folder / "benchmarks").symlink_to(ROOT / "benchmarks")
    copy(material.clean / "val", folder / "FOLDER")


def _ct(folder: Path, _material: Material) -> None:
    ct_slices(folder / "ct")


def _own_denoiser(folder: Path, material: Material) -> None:
    from pages.blocks import blocks

    copy(material.noisy, folder / "NOISY")
    python = next(block for block in blocks(ROOT / "docs" / "other-denoisers.md") if block.language == "python")
    (folder / "my_models.py").write_text(python.text)


def _reproducing(folder: Path, material: Material) -> None:
    copy(material.clean, folder / "imagenet100")


DATA = [
    Scenario(
        "README.md",
        _readme,
        replace={"make ": f"make --dry-run -C {ROOT} ", "/absolute/path": "$TOP/data", **_SMALL_IMAGES},
        dear=("doctor",),
        leaves=["data/denoiser/denoiser.pth", "data/imagenet-gauss255-denoised/train/coffee/*.png"],
    ),
    Scenario("docs/activation.md", _checkout, replace={"doctor": "--help"}, prints=["patched"]),
    Scenario(
        "docs/install.md",
        _checkout,
        replace={"PATH_TO_DINOV2": "$TOP/PATH_TO_DINOV2"},
        dear=("doctor",),
        prints=["patch removed"],
        dear_prints=[" attached"],
    ),
    Scenario(
        "docs/astronomy.md",
        _astronomy,
        leaves=["denoised/night1/frame001.png"],
        dear_leaves=["run/eval/training_3/teacher_checkpoint.pth"],
        prints=["try `--range asinh", "correlated"],
    ),
    Scenario("docs/check.md", _check, leaves=["usable.txt", "DENOISER/denoiser.pth"], prints=["verdict         ready"]),
    Scenario(
        "docs/clipped-noise.md",
        _noisy,
        before={"--debias auto": "rm -r DENOISED", "denoise train": "rm -r OUT"},
        leaves=["DENOISED/val/retina/*.png", "OUT/denoiser.pth"],
    ),
    Scenario("docs/correlated-noise.md", _noisy, prints=["independent between pixels", "known to be gauss100"]),
    Scenario("docs/corruptions.md", _few, leaves=["photos-c/fog/3/val/coffee/*.png", "photos-c/jpeg_compression/5"]),
    Scenario(
        "docs/data.md",
        _deep,
        replace={"[--extra DIR]": "--extra DIR", "/data/shards": "shards"},
        before={
            "add-noise clean frames": "rm -r frames",
            "root=$PWD/ct": "rm -r run denoiser denoised; R='--range fixed:-1000,3000'\n"
            "dinov2-noise denoise train ct denoiser $R --steps 1 --n-feature 4 --crop 64 --sample-every 0\n"
            "dinov2-noise denoise apply ct denoised --weights denoiser/denoiser.pth $R",
            "mkdir flat": "rm -r denoised denoiser",
            "denoise apply flat": "dinov2-noise denoise train flat denoiser --steps 1 --n-feature 4 --crop 64",
        },
        more={"train nct_24gb": TINY_24GB},
        leaves=["DIR/entries-TRAIN.npy", "flat/coffee-*.png", "denoised/retina-*.png"],
        dear_leaves=["run/model_final.pth"],
    ),
    Scenario(
        "docs/demo.md",
        replace={"make ": f"make --dry-run -C {ROOT} "},
        dear=("dinov2-noise demo",),
        dear_leaves=["OUTPUT/report.html", "OUTPUT/records/*.json"],
    ),
    Scenario(
        "docs/denoiser.md",
        _clean,
        before={
            "NOISY OUT --residual": "rm -r OUT",
            "denoise train NOISY OUT\n": "rm -r OUT",
            "NOISY OUT --batch-size 8 --gpus": "rm -r OUT DENOISED",
            "denoise apply NOISY DENOISED --weights OUT/denoiser.pth": "rm -rf DENOISED",
        },
        replace={"--gpus 4": "--gpus 2 --device cpu"},
        dear=("--gpus",),
        leaves=["OUT/denoiser.pth", "DENOISED/val/retina/*.png"],
    ),
    Scenario(
        "docs/interruptions.md",
        _interrupted,
        leaves=["noisy/manifest.json"],
        prints=["broken.png"],
    ),
    Scenario(
        "docs/large-sets.md",
        _large,
        replace={"[--extra DIR] [--workers 16] [--listing FILE]": "--extra DIR --workers 16 --listing listing.txt"}
        | {"/data/": "$TOP/data/"},
        leaves=["DIR/listing.txt", "ROOT-extra/listing.txt", "in100.txt", "subset.txt", "photos.txt"],
    ),
    Scenario(
        "docs/loader.md",
        _loader,
        replace={"--size 500 375 --crops 224 96 --workers 1 2 4": "--size 64 64 --crops 32 16 --workers 1"},
        dear=("benchmarks/",),
    ),
    Scenario(
        "docs/medical.md",
        _ct,
        leaves=["usable.txt", "denoised/slice0.png"],
        dear_leaves=["run/model_final.pth"],
    ),
    Scenario(
        "docs/noise.md",
        lambda folder, material: copy(material.clean, folder / "SRC"),
        replace={
            "[--seed 42] [--workers N] [--format png|webp] [--shard i/n] [--skip-bad N] [--range …]": "--seed 42 "
            "--workers 1 --format webp --shard 1/1 --skip-bad 0 --range dtype"
        },
        leaves=["DST/val/retina/*.webp"],
        prints=["correlated"],
    ),
    Scenario("docs/other-denoisers.md", _own_denoiser, leaves=["DENOISED/val/retina/*.png"]),
    Scenario(
        "docs/reproducing.md",
        _reproducing,
        replace=_SMALL_IMAGES,
        leaves=["imagenet100-gauss255-denoised-extra/entries-VAL.npy"],
        dear_leaves=["OUT/eval/training_3/teacher_checkpoint.pth"],
        prints=["in100-nct-gauss255", "EFLOPs"],
    ),
]
SCENARIOS = [*DATA, *TRAINING, *NEW]
