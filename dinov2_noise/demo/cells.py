"""The demo's data set: 64-px cells cut from photographs inside the scikit-image wheel; the class of a cell is its
picture.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from dinov2_noise.errors import MissingFolderError
from dinov2_noise.files import OutputFolder, atomic_path

CELL_PX = 64
# Colour photographs and gray textures. Mean colour alone tells many apart: the report quotes that floor.
PICTURES = (
    "astronaut.png",
    "brick.png",
    "camera.png",
    "chelsea.png",
    "coffee.png",
    "grass.png",
    "gravel.png",
    "hubble_deep_field.jpg",
    "ihc.png",
    "motorcycle_left.png",
    "retina.jpg",
    "rocket.jpg",
)


def photographs() -> dict[str, Image.Image]:
    """Class name → RGB photograph.

    Raises:
        MissingFolderError: scikit-image is not installed, or ships other files.
    """
    try:
        import skimage
    except ImportError as cause:
        raise MissingFolderError(
            "the demo's photographs come with scikit-image: pip install 'dinov2-noise[demo]'"
        ) from cause
    folder = Path(skimage.__file__).parent / "data"
    missing = [name for name in PICTURES if not (folder / name).is_file()]
    if missing:
        raise MissingFolderError(f"the installed scikit-image lacks the photographs {', '.join(missing)} in {folder}")
    return {Path(name).stem: Image.open(folder / name).convert("RGB") for name in PICTURES}


def starts(length_px: int, count: int) -> list[int]:
    """``count`` evenly spread starts of cells along ``length_px`` pixels."""
    return [int(position) for position in np.linspace(0, length_px - CELL_PX, count)]


def split_columns(width_px: int, val_share: float) -> tuple[tuple[int, int], tuple[int, int]]:
    """(first, last) pixel columns of the training and of the validation part; they do not overlap."""
    border = round(width_px * (1 - val_share))
    return (0, border), (border, width_px)


def cut(picture: Image.Image, columns: tuple[int, int], grid: tuple[int, int]) -> list[Image.Image]:
    """``grid`` = (rows, columns) cells of 64 px, evenly spread over the given columns of the picture."""
    left, right = columns
    return [
        picture.crop((x, y, x + CELL_PX, y + CELL_PX))
        for y in starts(picture.height, grid[0])
        for x in (left + start for start in starts(right - left, grid[1]))
    ]


def write_cells(destination: Path, *, train_grid: tuple[int, int], val_grid: tuple[int, int]) -> int:
    """Write ``train/<class>/…png``, ``val/<class>/…png`` and ``labels.txt``; returns the number of cells.

    The left 70 % of each picture are for training, the right 30 % for validation.
    """
    pictures = photographs()
    output = OutputFolder(destination, "demo cells", {"pictures": list(pictures), "train": train_grid, "val": val_grid})
    output.open()
    with atomic_path(destination / "labels.txt") as temporary:
        temporary.write_text("".join(f"{name},{name}\n" for name in sorted(pictures)), encoding="utf-8")
    count = 0
    for name, picture in pictures.items():
        train_columns, val_columns = split_columns(picture.width, val_share=0.3)
        for split, columns, grid in (("train", train_columns, train_grid), ("val", val_columns, val_grid)):
            for number, cell in enumerate(cut(picture, columns, grid)):
                with atomic_path(destination / split / name / f"{name}_{number}.png") as temporary:
                    cell.save(temporary)
                count += 1
    output.close(images=count)
    return count
