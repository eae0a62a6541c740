"""The picture of denoise_quality.py: rows are noises, columns clean, noisy and the denoisers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from skimage.metrics import peak_signal_noise_ratio

from dinov2_noise.decoding import load_rgb
from dinov2_noise.files import atomic_path

MAX_CROP_PX, GAP_PX, TITLE_PX, LABEL_PX, TEXT_PX = 160, 6, 26, 96, 15
QUALITY = 55  # noise does not compress; the picture is to stay below 300 kB
TITLES = {"clean-test": "clean"}


def draw_grid(
    output: Path, results: Mapping[str, Any], name: str, corner: Sequence[int] | None, destination: Path
) -> None:
    """Draw one crop of one test image for all noises and denoisers, each with its PSNR over the crop.

    Args:
        output: folder of denoise_quality.py.
        results: its results, by noise.
        name: the test image.
        corner: left and top of the crop in px; default: the centre.
        destination: JPEG file.
    """
    columns = ["clean-test", *next(iter(results.values()))["scores"]]
    crop_px = min(MAX_CROP_PX, *load_rgb(_file(output, "clean-test", name)).size)
    side = crop_px + GAP_PX
    size = (LABEL_PX + side * len(columns), TITLE_PX + side * len(results))
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(TEXT_PX)
    clean = _crop(_file(output, "clean-test", name), corner, crop_px)
    for x, column in enumerate(columns):
        centre = LABEL_PX + x * side + crop_px / 2
        draw.text((centre, TITLE_PX / 2), TITLES.get(column, column), "black", font, anchor="mm")
        for y, noise in enumerate(results):
            place = (LABEL_PX + x * side, TITLE_PX + y * side)
            folder = {"clean-test": column, "noisy": f"{noise}/noisy-test"}.get(column, f"{noise}/{column}")
            cell = _crop(_file(output, folder, name), corner, crop_px)
            sheet.paste(cell, place)
            if column != "clean-test":
                _stamp(draw, (place[0], place[1] + crop_px), _psnr_db(clean, cell), font)
    for y, noise in enumerate(results):
        draw.text((LABEL_PX - 8, TITLE_PX + y * side + crop_px / 2), noise, "black", font, anchor="rm")
    with atomic_path(destination) as temporary:
        sheet.save(temporary, quality=QUALITY, subsampling=0)


def _file(output: Path, folder: str, name: str) -> Path:
    path = output / folder / name
    return path if path.exists() else path.with_suffix(".png")


def _crop(path: Path, corner: Sequence[int] | None, side_px: int) -> Image.Image:
    image = load_rgb(path)
    left, top = corner or [(side - side_px) // 2 for side in image.size]
    return image.crop((left, top, left + side_px, top + side_px))


def _psnr_db(clean: Image.Image, other: Image.Image) -> float:
    return float(peak_signal_noise_ratio(np.asarray(clean), np.asarray(other), data_range=255))


def _stamp(draw: ImageDraw.ImageDraw, corner: tuple[int, int], psnr_db: float, font: Any) -> None:
    """Write into the lower left corner of a cell, which lies at ``corner``."""
    text, (left, bottom) = f"{psnr_db:.1f} dB", corner
    width = draw.textlength(text, font)
    draw.rectangle((left, bottom - 20, left + width + 8, bottom - 1), fill="black")
    draw.text((left + 4, bottom - 10), text, "white", font, anchor="lm")
