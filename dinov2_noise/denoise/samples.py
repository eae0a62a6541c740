"""Grids of noisy and denoised crops, to look at while a denoiser is trained."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from dinov2_noise.denoise.images import Chosen
from dinov2_noise.denoise.validation import Denoise, Validation, psnr_db

ROWS = 4
MAX_SIDE_PX = 256
_MIN_CELL_PX = 192  # smaller crops are magnified
_MARGIN_PX, _LINE_PX, _FONT_PX = 8, 22, 15
_PAPER, _INK = (255, 255, 255), (25, 25, 25)


class Sample(NamedTuple):
    """A crop, uint8 ``(3, s, s)``, and its clean version where there is one."""

    name: str
    noisy: Tensor
    clean: Tensor | None = None


def choose_samples(images: Chosen, validation: Validation | None, multiple_px: int) -> list[Sample]:
    """Centres of a few images, evenly spaced: of the validation images where there are some, else of the training's.

    Args:
        images: the training images.
        validation: None: no clean image is opened.
        multiple_px: of which sides are a multiple, so that the network sees no padding.
    """
    if validation is None:
        positions = _spread(len(images))
        noisy = [(images.names[position], images.read(position), None) for position in positions]
        return [_centre(Sample(*row), multiple_px) for row in noisy]
    pairs = [(validation.names[index], *validation.pair(index)) for index in _spread(len(validation))]
    return [_centre(Sample(*pair), multiple_px) for pair in pairs]


def draw_samples(samples: Sequence[Sample], denoise: Denoise, title: str) -> Image.Image:
    """A picture with a row per sample and the columns noisy, denoised and, where there is one, clean."""
    rows = [_cells(sample, denoise) for sample in samples]
    cell_px = max(_MIN_CELL_PX, *(sample.noisy.shape[-1] for sample in samples))
    columns = max(map(len, rows))
    width = _MARGIN_PX + columns * (cell_px + _MARGIN_PX)
    height = _LINE_PX + len(rows) * (2 * _LINE_PX + cell_px) + _MARGIN_PX
    picture = Image.new("RGB", (width, height), _PAPER)
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(_FONT_PX)
    draw.text((_MARGIN_PX, 3), title, _INK, font)
    for number, (sample, cells) in enumerate(zip(samples, rows, strict=True)):
        top = _LINE_PX + number * (2 * _LINE_PX + cell_px)
        draw.text((_MARGIN_PX, top + 3), _fitting(sample.name, width - 2 * _MARGIN_PX, font), _INK, font)
        for column, (label, image) in enumerate(cells):
            left = _MARGIN_PX + column * (cell_px + _MARGIN_PX)
            draw.text((left, top + _LINE_PX), label, _INK, font)
            picture.paste(_enlarged(image, cell_px), (left, top + 2 * _LINE_PX - 2))
    return picture


def _cells(sample: Sample, denoise: Denoise) -> list[tuple[str, Tensor]]:
    denoised = denoise(sample.noisy)
    if sample.clean is None:
        return [("noisy", sample.noisy), ("denoised", denoised)]
    labels = [
        f"{name}  {psnr_db(image, sample.clean):.1f} dB"
        for name, image in (("noisy", sample.noisy), ("denoised", denoised))
    ]
    return [(labels[0], sample.noisy), (labels[1], denoised), ("clean", sample.clean)]


def _spread(count: int) -> list[int]:
    """Up to `ROWS` numbers below ``count``, evenly spaced."""
    rows = min(ROWS, count)
    return [count * (2 * row + 1) // (2 * rows) for row in range(rows)]


def _centre(sample: Sample, multiple_px: int) -> Sample:
    side = min(MAX_SIDE_PX, *sample.noisy.shape[-2:])
    side = side // multiple_px * multiple_px or side
    top, left = ((length - side) // 2 for length in sample.noisy.shape[-2:])
    noisy, clean = (
        None if image is None else image[:, top : top + side, left : left + side].contiguous()
        for image in (sample.noisy, sample.clean)
    )
    assert noisy is not None
    return Sample(sample.name, noisy, clean)


def _enlarged(image: Tensor, cell_px: int) -> Image.Image:
    """By a whole factor, so that pixels stay pixels."""
    picture = Image.fromarray(np.ascontiguousarray(image.permute(1, 2, 0).numpy()))
    factor = max(1, cell_px // picture.width)
    return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)


def _fitting(name: str, width_px: int, font: ImageFont.ImageFont | ImageFont.FreeTypeFont) -> str:
    """``name``, or as much of its end as fits."""
    if font.getlength(name) <= width_px:
        return name
    name = PurePosixPath(name).name
    while name and font.getlength("…" + name) > width_px:
        name = name[1:]
    return "…" + name
