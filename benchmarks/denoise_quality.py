"""How good the denoiser is: PSNR and SSIM on unseen photographs, beside the noisy input and library denoisers.

For each noise: a noisy 8-bit copy of the training photographs (`add_noise`), training on the noisy copy alone for a
fixed number of steps (`train_denoiser`), denoising of the noisy test photographs (`apply_denoiser`); the same test
photographs through the denoisers of library_denoisers.py, which are tuned on clean and noisy training photographs. The
clean test photographs serve for measuring only. Scores are means over images, by scikit-image on 8-bit colour images:
PSNR in dB over all pixels and channels, SSIM as by Wang et al. (TIP 2004: Gaussian window, sigma 1.5). A second table
scores the same outputs after undoing what clipping does to the mean (`denoise apply --debias`), all by the same curve.

Usage: python benchmarks/denoise_quality.py TRAIN TEST OUT [--noises gauss25,shot3] [--steps 1500] [--quick] [...]
TRAIN and TEST are folders of clean photographs (published: the 24 Kodak images). OUT receives all images and weights,
`quality.json` and `quality.jpg`, a grid of pictures. An interrupted run continues. The training runs on a GPU when
there is one. Needs the extra `demo`.
"""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import skimage
import torch
from library_denoisers import Image8, LibraryDenoiser, installed, noise_level, tune
from PIL import Image
from quality_grid import draw_grid
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from dinov2_noise.decoding import load_rgb
from dinov2_noise.denoise import apply_denoiser, train_denoiser
from dinov2_noise.denoise.debias import Debias
from dinov2_noise.files import atomic_path, list_images, write_json
from dinov2_noise.noise import add_noise, parse
from neighbor2neighbor import to_uint8

NOISES = "gauss25,gauss50,gauss100,gauss255,shot3,speckle1.0"
NOISY, OURS = "noisy", "ours"
TUNING_IMAGES, TUNING_PX = 4, 128  # the libraries' settings: evenly spaced training photographs, centre crops


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("train", type=Path, help="folder of clean training photographs")
    parser.add_argument("test", type=Path, help="folder of clean test photographs")
    parser.add_argument("output", type=Path)
    parser.add_argument("--noises", default=NOISES, help=f"default {NOISES}")
    parser.add_argument("--steps", type=int, default=1500, help="optimizer steps per noise")
    parser.add_argument("--n-feature", type=int, default=24)
    parser.add_argument("--crop", type=int, default=128, help="px")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--ema", type=float, default=0.995, help="decay of the mean of the weights")
    parser.add_argument("--residual", default="gauss25,gauss50", help="noises of which the network is residual")
    parser.add_argument("--train-images", type=int, default=2000, help="evenly spaced ones of the training folder")
    parser.add_argument("--test-crop", type=int, help="score the centre square of so many px; default: whole images")
    parser.add_argument("--crop-of", type=int, default=0, help="the test image that the picture grid shows")
    parser.add_argument("--crop-at", type=int, nargs=2, metavar=("X", "Y"), help="where its crop is cut")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--quick", action="store_true", help="gauss50 only, a small network, 300 steps, 128 px")
    chosen = parser.parse_args()
    if chosen.quick:
        chosen.noises, chosen.steps, chosen.test_crop, chosen.train_images = "gauss50", 300, 128, 200
        chosen.n_feature, chosen.crop = 16, 64
    return chosen


def prepare(source: Path, destination: Path, *, limit: int | None = None, crop_px: int | None = None) -> list[str]:
    """Evenly spaced images of a folder as links, or their centre squares as PNG; names in the destination."""
    names = list_images(source, what="folder of clean photographs")
    step = max(1, len(names) / limit) if limit else 1
    chosen = [names[int(i * step)] for i in range(int(len(names) / step))]
    for name in chosen:
        target = destination / name if crop_px is None else (destination / name).with_suffix(".png")
        if target.exists():
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        if crop_px is None:
            target.symlink_to((source / name).resolve())
        else:
            save(target, centre(np.array(load_rgb(source / name)), crop_px))
    return list_images(destination, what="prepared folder")


def centre(image: Image8, side_px: int) -> Image8:
    top, left = (max(0, (side - side_px) // 2) for side in image.shape[:2])
    return image[top : top + side_px, left : left + side_px]


def save(path: Path, image: Image8) -> None:
    with atomic_path(path) as temporary:
        Image.fromarray(image).save(temporary)


def read(folder: Path, name: str) -> Image8:
    """An image of a folder, or the PNG made of it."""
    path = folder / name
    return np.array(load_rgb(path if path.exists() else path.with_suffix(".png")))


def denoise_ours(chosen: argparse.Namespace, noise: str) -> None:
    work = chosen.output / noise
    for part in ("train", "test"):
        add_noise(chosen.output / f"clean-{part}", work / f"noisy-{part}", noise=noise)
    weights = train_denoiser(
        work / "noisy-train",
        work / "weights",
        steps=chosen.steps,
        n_feature=chosen.n_feature,
        crop_px=chosen.crop,
        batch_size=chosen.batch,
        learning_rate=chosen.lr,
        ema=chosen.ema,
        residual=noise in chosen.residual.split(","),
        device=chosen.device,
    )
    apply_denoiser(work / "noisy-test", work / OURS, weights=weights, device=chosen.device)


def tuning_pairs(chosen: argparse.Namespace, noise: str) -> list[tuple[Image8, Image8]]:
    """Clean and noisy centre crops of training photographs."""
    clean, noisy = chosen.output / "clean-train", chosen.output / noise / "noisy-train"
    names = list_images(clean, what="training photographs")
    spaced = [names[i * len(names) // TUNING_IMAGES] for i in range(min(TUNING_IMAGES, len(names)))]
    return [(centre(read(clean, name), TUNING_PX), centre(read(noisy, name), TUNING_PX)) for name in spaced]


def denoise_theirs(chosen: argparse.Namespace, noise: str, denoiser: LibraryDenoiser, names: Sequence[str]) -> float:
    """Denoise the test images that are still missing; the strength on the [0, 1] scale."""
    work = chosen.output / noise
    record = work / f"{denoiser.name}.json"
    if not record.is_file():
        write_json(record, {"strength": tune(denoiser, tuning_pairs(chosen, noise))})
    strength = float(json.loads(record.read_text())["strength"])
    for name in names:
        target = (work / denoiser.name / name).with_suffix(".png")
        if not target.exists():
            save(target, denoiser(read(work / "noisy-test", name), strength))
    return strength


def corrected(debias: Debias | None, image: Image8) -> Image8:
    return image if debias is None else to_uint8(debias(torch.from_numpy(image).double() / 255)).numpy()


def score(clean: Path, denoised: Path, names: Sequence[str], debias: Debias | None = None) -> dict[str, float]:
    """Mean PSNR and SSIM of a folder's images, where asked for after undoing what clipping does to the mean."""
    ssim: Callable[..., Any] = partial(
        structural_similarity, channel_axis=-1, data_range=255, gaussian_weights=True, use_sample_covariance=False
    )
    pairs = [(read(clean, name), corrected(debias, read(denoised, name))) for name in names]
    return {
        "psnr_db": float(np.mean([peak_signal_noise_ratio(x, y, data_range=255) for x, y in pairs])),
        "ssim": float(np.mean([ssim(x, y) for x, y in pairs])),
    }


def measure(chosen: argparse.Namespace, noise: str, names: Sequence[str]) -> dict[str, Any]:
    """Everything about one noise: scores by denoiser, the noise level and the libraries' strengths."""
    denoise_ours(chosen, noise)
    strengths = {each.name: denoise_theirs(chosen, noise, each, names) for each in installed()}
    clean, work = chosen.output / "clean-test", chosen.output / noise
    folders = {NOISY: work / "noisy-test", OURS: work / OURS} | {name: work / name for name in strengths}
    debias = Debias(parse(noise))
    return {
        "scores": {name: score(clean, folder, names) for name, folder in folders.items()},
        "debiased": {name: score(clean, folder, names, debias) for name, folder in folders.items() if name != NOISY},
        "noise_level_255": 255 * noise_level(tuning_pairs(chosen, noise)),
        "strengths_255": {name: 255 * strength for name, strength in strengths.items()},
    }


def table(results: dict[str, Any], key: str) -> str:
    """PSNR / SSIM, a row per noise, as Markdown."""
    columns = list(next(iter(results.values()))[key])
    lines = [f"| {key} | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for noise, result in results.items():
        cells = [f"{s['psnr_db']:.2f} / {s['ssim']:.3f}" for s in result[key].values()]
        lines.append(f"| {noise} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    chosen = options()
    prepare(chosen.train, chosen.output / "clean-train", limit=chosen.train_images)
    names = prepare(chosen.test, chosen.output / "clean-test", crop_px=chosen.test_crop)
    results: dict[str, Any] = {}
    for noise in chosen.noises.split(","):
        results[noise] = measure(chosen, noise, names)
        print(table(results, "scores"), table(results, "debiased"), sep="\n\n", flush=True)
        record = {
            "settings": {name: str(value) for name, value in vars(chosen).items()},
            "library_denoisers": {each.name: each.settings for each in installed()},
            "test_images": len(names),
            "versions": {"torch": torch.__version__, "scikit-image": skimage.__version__, "numpy": np.__version__},
            "machine": platform.machine(),
            "results": results,
        }
        write_json(chosen.output / "quality.json", record)
    shown = names[chosen.crop_of]
    draw_grid(chosen.output, results, shown, chosen.crop_at, chosen.output / "quality.jpg")


if __name__ == "__main__":
    main()
