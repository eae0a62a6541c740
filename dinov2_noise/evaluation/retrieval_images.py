"""The images of a retrieval set as a network sees them: found in their folder, noisy, cropped to the query's box."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from dinov2_noise.data.pairs import find_stem
from dinov2_noise.decoding import load_pixels, to_uint8
from dinov2_noise.errors import ImageError, MetadataError
from dinov2_noise.evaluation.retrieval_truth import Box
from dinov2_noise.files import list_images
from dinov2_noise.noise import DEFAULT_SEED, NoiseModel, noisy_uint8

FOLDER = "jpg"
"""Where the official sets have their images, below the folder of the ground truth."""
_NAMED = 5

Prepare = Callable[[Any], Tensor]


@dataclass(frozen=True)
class Picture:
    """An image file. ``relative_path``: below its root; the seed of its noise comes from it. ``box``: what is shown."""

    root: Path
    relative_path: str
    box: Box | None = None

    @property
    def path(self) -> Path:
        return self.root / self.relative_path

    def crop(self, image: Image.Image) -> Image.Image:
        """What is inside the box, as far as the image goes.

        Raises:
            ImageError: nothing is.
        """
        if self.box is None:
            return image
        left, upper, right, lower = self.box
        inside = max(left, 0), max(upper, 0), min(right, image.width), min(lower, image.height)
        if inside[0] >= inside[2] or inside[1] >= inside[3]:
            raise ImageError(
                self.path,
                f"the query's box {self.box} lies outside of its {image.width}x{image.height} px: the ground truth is "
                "of images of another size; --whole-queries leaves the boxes out",
            )
        return image.crop(inside)


def find_pictures(
    names: Sequence[str], root: Path, *, boxes: Sequence[Box | None] | None = None, listed_in: str
) -> list[Picture]:
    """The files of named images, which are in ``root/jpg`` where there is one, otherwise in ``root``.

    A name may lack its suffix, or the file have another: the names of the clean set serve its noisy copies.

    Args:
        names: as in the ground truth.
        root: of the images.
        boxes: of the images; None: the whole images.
        listed_in: the ground truth, for errors.

    Raises:
        MissingFolderError: there is no such folder, or no image in it.
        MetadataError: images are missing; their number and the first five.
    """
    prefix = f"{FOLDER}/" if (root / FOLDER).is_dir() else ""
    there = list_images(root / prefix, what="image folder")
    by_stem: dict[str, list[str]] = {}
    for path in there:
        by_stem.setdefault(path.rpartition(".")[0], []).append(path)
    known = set(there)
    found = [_file(name, known, by_stem, root / prefix) for name in names]
    missing = [name for name, path in zip(names, found, strict=True) if path is None]
    if missing:
        shown = "".join(f"\n  {name}" for name in missing[:_NAMED])
        more = f"\n  … and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
        raise MetadataError(
            f"{len(missing)} of the {len(names)} images that {listed_in} names are not in {root / prefix}, whatever "
            f"their suffix:{shown}{more}\nGive the folder of this ground truth's images, unpacked in full"
        )
    places = boxes or [None] * len(names)
    return [Picture(root, prefix + path, box) for path, box in zip(found, places, strict=True) if path is not None]


def _file(name: str, known: set[str], by_stem: dict[str, list[str]], folder: Path) -> str | None:
    if name in known:
        return name
    for stem in (name, name.rpartition(".")[0]):
        paths = by_stem.get(stem, [])
        if paths:
            return paths[0] if len(paths) == 1 else find_stem(folder, stem)
    return None


class Shown(NamedTuple):
    """An image after noise: ready (3, S, S), or before denoising uint8 (H, W, 3); how noisy it is, NaN if it is not."""

    image: Tensor | NDArray[np.uint8]
    snr_db: float


@dataclass(frozen=True)
class Pictures:
    """Images by number, with their noise; for loader workers.

    Attributes:
        noise: added at the image's own resolution; None: as it is stored. seed: base seed of the noise.
        prepare: from a Pillow image to what the network takes; None: leave it to `finish`, after a denoiser.
    """

    pictures: Sequence[Picture]
    prepare: Prepare | None
    noise: NoiseModel | None = None
    seed: int = DEFAULT_SEED

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> Shown:
        picture = self.pictures[index]
        clean = load_pixels(picture.path)
        pixels: NDArray[np.uint8]
        if self.noise is None:
            pixels, ratio = (clean if clean.dtype == np.uint8 else to_uint8(clean)), math.nan
        else:
            pixels = noisy_uint8(clean, self.noise, relative_path=picture.relative_path, base_seed=self.seed)
            ratio = snr_db(clean, pixels)
        if self.prepare is None:
            return Shown(np.ascontiguousarray(pixels), ratio)
        return Shown(finish(pixels, picture, self.prepare), ratio)


def finish(pixels: NDArray[np.uint8], picture: Picture, prepare: Prepare) -> Tensor:
    """From the pixels of the whole image (H, W, 3) to what the network takes."""
    return prepare(picture.crop(Image.fromarray(pixels)))


def snr_db(clean: NDArray[Any], noisy: NDArray[np.uint8]) -> float:
    """10 log10(E[x²] / E[(y - x)²]) of an image and its noisy version after clipping; infinite where they are equal.

    Args:
        clean: (H, W, C), uint8 or in [0, 1]. noisy: the same shape.
    """
    signal = np.true_divide(clean, 255) if clean.dtype == np.uint8 else clean
    power, error = float(np.mean(signal**2)), float(np.mean((np.true_divide(noisy, 255) - signal) ** 2))
    if error == 0:
        return math.inf
    return 10 * math.log10(power / error) if power > 0 else -math.inf
