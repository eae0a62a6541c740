"""Draw docs/img/dense.jpg: what a linear classifier on patch tokens says of planted textures, clean and noisy.

Usage: python docs/figures/dense.py RUN, the folder of a run, such as demo-output/runs/nct
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.colors import ListedColormap
from matplotlib.patches import Patch
from numpy.typing import NDArray
from PIL import Image

from dinov2_noise.evaluation.dense_masks import find_labelled, read_mask
from dinov2_noise.evaluation.runs import open_run
from dinov2_noise.noise import noisy_uint8, parse
from dinov2_noise.upstream.probing.dense import DenseProbe, DenseRequest

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT.parent / "tests"))
from texture_set import TEXTURES, VOID, write_texture_set  # noqa: E402

OUTPUT = ROOT / "img" / "dense.jpg"
NOISES = (None, "gauss50", "gauss100")
SHOWN = (0, 2, 4, 5)
SIDE_PX, SIZE_PX = 256, 256
COLOURS = ("#c1121f", "#588157", "#1d6fa5")


def main() -> None:
    run = open_run(Path(sys.argv[1]))
    with tempfile.TemporaryDirectory() as folder:
        textures = write_texture_set(Path(folder), side_px=SIDE_PX)
        train, val = (
            find_labelled(textures.root / split / "images", textures.root / split / "masks")
            for split in ("train", "val")
        )
        probe = DenseProbe(DenseRequest(run.config_file, run.weights, train, val, len(TEXTURES), size_px=SIZE_PX))
        columns: list[tuple[str, dict[int, NDArray[Any]], bool]] = []
        masks = {index: read_mask(val[index].mask) for index in SHOWN}
        columns.append(("truth", masks, True))
        for noise in NOISES:
            told: dict[int, NDArray[Any]] = {}
            result = probe.measure(noise, noise, told.__setitem__)
            seen = {}
            for index in SHOWN:
                pixels = np.asarray(Image.open(val[index].image).convert("RGB"))
                seen[index] = (
                    pixels
                    if noise is None
                    else noisy_uint8(pixels, parse(noise), relative_path=val[index].relative_path)
                )
            columns.append((noise or "clean", seen, False))
            score = result.scores["tokens"]
            columns.append((f"told, mIoU {100 * score.miou:.0f} %", {index: told[index] for index in SHOWN}, True))
    draw(columns)


def draw(columns: list[tuple[str, dict[int, NDArray[Any]], bool]]) -> None:
    """One row per image; classes in colours, pixels without class white."""
    size = (len(columns) * 1.5, len(SHOWN) * 1.5 + 0.8)
    figure, axes = plt.subplots(len(SHOWN), len(columns), figsize=size, layout="constrained")
    palette = ListedColormap([*COLOURS, "#ffffff"])
    for column, (title, pictures, are_classes) in enumerate(columns):
        axes[0, column].set_title(title, fontsize=9)
        for row, index in enumerate(SHOWN):
            place = axes[row, column]
            place.axis("off")
            picture = pictures[index]
            if are_classes:
                shown = np.where(picture == VOID, len(TEXTURES), picture)
                place.imshow(shown, cmap=palette, vmin=0, vmax=len(TEXTURES), interpolation="nearest")
            else:
                place.imshow(picture)
    handles = [Patch(color=colour, label=name) for colour, name in zip(COLOURS, TEXTURES, strict=True)]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False, fontsize=9)
    figure.savefig(OUTPUT, dpi=90, pil_kwargs={"quality": 85})


if __name__ == "__main__":
    main()
