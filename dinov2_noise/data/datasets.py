"""What the datasets behind dataset strings have in common: what DINOv2's scripts need, and the pair of images.

A pair is (noisy, denoised). ``dataset[i]`` is (transform(noisy image), target), with DINOv2's own ``ImageNet`` as the
model: without ``noise=`` and ``denoised=`` it gives the same pixels and targets. Where the curriculum's sampler yields
draws (index, stage, …) instead of indices, the attribute ``view_loader`` makes the sample; it must be picklable, as the
dataset is.
"""

from __future__ import annotations

import operator
from abc import abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol, SupportsIndex

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import Dataset

from dinov2_noise.data.pairs import PairedSource, check_pairs, check_range, find_stem, is_vouched_for, stem_of
from dinov2_noise.data.strings import DatasetSpec, Transform, refuse_fresh
from dinov2_noise.decoding import image_size, load_pixels, load_rgb, to_float32, to_uint8
from dinov2_noise.errors import DatasetStringError, MissingFolderError, PairError, PluginError
from dinov2_noise.noise import noisy_float64, noisy_uint8
from dinov2_noise.noise.corruptions import Corruption, corrupted_uint8, standard_crop


class DrawLike(Protocol):
    """What a curriculum's sampler yields: an image's index, and more that only the view loader reads."""

    @property
    def index(self) -> Any: ...


ViewLoader = Callable[[PairedSource, Any], Any]


class PairedImages(Dataset[tuple[Any, Any]]):
    """Common part of the datasets: reading, on-the-fly noise, twins. Subclasses say which paths and targets there are.

    Args:
        spec: where the images are; see :class:`DatasetSpec`.
        transform: from an RGB PIL image, or of full depth from a tensor (3, H, W) float32 in [0, 1], to what a sample
            holds.
        target_transform: from a target (int, or None where there are no labels) to what a sample holds.

    Raises:
        MissingFolderError: ``spec.root`` or ``spec.denoised`` does not exist or holds no images.
        MetadataError: metadata are missing.
        PairError: images have no denoised twin, or the twins were made with other values for black and white.
    """

    view_loader: ViewLoader | None = None

    def __init__(
        self, spec: DatasetSpec, transform: Transform | None = None, target_transform: Transform | None = None
    ) -> None:
        self.spec = spec
        self.transform = transform
        self.target_transform = target_transform
        if not spec.root.is_dir():
            raise MissingFolderError(f"dataset root {spec.root} {_fault(spec)}")
        self._open()
        if spec.denoised is not None:
            self._check_twins(spec.denoised)

    @abstractmethod
    def _open(self) -> None:
        """Check early what would otherwise fail at the first image."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def _listed_path(self, index: int) -> str:
        """Relative path as listed; the file may have another suffix."""

    def _pixels(self, index: int) -> NDArray[Any]:
        """The stored image: (H, W, 3), uint8, or float64 in [0, 1] where the file has more than 8 bits."""
        return load_pixels(self.spec.root / self.relative_path(index), self.spec.values)

    def _size(self, index: int) -> tuple[int, int]:
        """(width, height) in px of the stored image; cheap."""
        return image_size(self.spec.root / self.relative_path(index))

    @abstractmethod
    def relative_path(self, index: int) -> str:
        """Path of the image file below the root, with ``/`` between folders; the seed of its noise comes from it."""

    @abstractmethod
    def get_target(self, index: int) -> int | None:
        """Class index, or None without labels."""

    def __getitem__(self, item: SupportsIndex | DrawLike) -> tuple[Any, Any]:
        """(sample, target) of an index, or of a curriculum's draw.

        The target of an image without label is -1, unless ``target_transform`` makes something of None.

        Raises:
            ImageError, MetadataError, PairError: the image or its twin cannot be read; the message names the file.
            PluginError: a draw came, but no ``view_loader`` is set.
        """
        if isinstance(item, SupportsIndex):
            index = operator.index(item)
            return self._transformed(index), self._final_target(index)
        if self.view_loader is None:
            raise PluginError(
                f"the sampler yields {type(item).__name__}, but this dataset has no view_loader: "
                "the curriculum's sampler is attached and its loader is not"
            )
        return self.view_loader(self, item), self._final_target(operator.index(item.index))

    def _transformed(self, index: int) -> Any:
        image = self.noisy_pixels(index) if self.full_depth else self.noisy(index)
        if self.transform is None:
            return image
        if isinstance(image, np.ndarray):  # as torchvision's transforms take it
            return self.transform(torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))))
        return self.transform(image)

    @property
    def full_depth(self) -> bool:
        """Whether samples are made of `noisy_pixels` and `denoised_pixels`, not of 8-bit pictures."""
        return self.spec.full_depth

    @property
    def wants_epoch(self) -> bool:
        """Whether `noisy` needs to be told the epoch: its noise is a new one each time."""
        return self.spec.noise is not None and self.spec.noise_mode == "fresh"

    def noisy(self, index: int, epoch: int | None = None) -> Image.Image:
        """The image below the root in 8-bit RGB, with the noise of the spec, if any, then its corruption.

        Each equals, pixel by pixel, that of a folder written by ``dinov2-noise add-noise`` or ``corrupt`` from the
        same root; fresh noise has no such folder.

        Args:
            index: of the image.
            epoch: how often the whole set has been drawn before; only fresh noise depends on it.

        Raises:
            DatasetStringError: the noise is fresh, and there is no ``epoch``.
        """
        spec, pixels = self.spec, self._pixels(index)
        if spec.noise is not None:
            pixels = noisy_uint8(pixels, spec.noise, **self._realisation(index, epoch))
        elif pixels.dtype != np.uint8:
            pixels = to_uint8(pixels)
        image = Image.fromarray(pixels)
        return image if spec.corruption is None else self._corrupted(image, self.relative_path(index), spec.corruption)

    def noisy_pixels(self, index: int, epoch: int | None = None) -> NDArray[np.float32]:
        """`noisy` at the file's depth, without the corruption: (H, W, 3) in [0, 1], rounded nowhere.

        The noise is that of `noisy`, before its values are cut to 8 bits: ``floor(255 y)`` of these are those.

        Args:
            index, epoch: as for `noisy`.

        Raises:
            DatasetStringError: as for `noisy`.
        """
        pixels = self._pixels(index)
        if self.spec.noise is not None:
            pixels = noisy_float64(pixels, self.spec.noise, **self._realisation(index, epoch))
        return to_float32(pixels)

    def _realisation(self, index: int, epoch: int | None) -> dict[str, Any]:
        """Which noise image ``index`` gets."""
        if epoch is None:
            refuse_fresh(self.spec)
        return {
            "relative_path": self.relative_path(index),
            "base_seed": self.spec.noise_seed,
            "epoch": epoch if self.wants_epoch else None,
        }

    def _corrupted(self, image: Image.Image, path: str, corruption: Corruption) -> Image.Image:
        size, seed = self.spec.corruption_size, self.spec.corruption_seed
        pixels = np.asarray(image if size is None else standard_crop(image, size))
        return Image.fromarray(corrupted_uint8(pixels, corruption, relative_path=path, base_seed=seed))

    def denoised(self, index: int) -> Image.Image:
        """The twin of image ``index``: same relative path below the denoised root, any image suffix, ``.png`` first.

        Raises:
            DatasetStringError: the dataset string has no ``denoised=``.
            PairError: there is no twin, or the two sizes differ.
        """
        twin = self._twin(index)
        image = load_rgb(twin)
        self._check_twin_size(index, twin, image.size)
        return image

    def denoised_pixels(self, index: int) -> NDArray[np.float32]:
        """`denoised` at the depth of the twin's file: (H, W, 3) in [0, 1]. ``denoise apply`` writes 8 bits.

        Raises:
            DatasetStringError, PairError: as for `denoised`.
        """
        twin = self._twin(index)
        pixels = to_float32(load_pixels(twin))
        self._check_twin_size(index, twin, (pixels.shape[1], pixels.shape[0]))
        return pixels

    def _twin(self, index: int) -> Path:
        root = self.spec.denoised
        if root is None:
            raise DatasetStringError(
                f"a denoised view was asked for, but the dataset of {self.spec.root} has no denoised root: "
                "add denoised=FOLDER to its dataset string"
            )
        noisy_path = self.relative_path(index)
        twin = find_stem(root, stem_of(noisy_path))
        if twin is None:
            raise PairError.missing(root, [noisy_path], len(self))
        return root / twin

    def _check_twin_size(self, index: int, twin: Path, size: tuple[int, int]) -> None:
        noisy_size = self._size(index)
        if size != noisy_size:
            raise PairError(
                f"sizes of a pair differ: {self.spec.root / self.relative_path(index)} is {_by(noisy_size)} px, "
                f"{twin} is {_by(size)} px: make the denoised folder from this very noisy folder"
            )

    def get_image_data(self, index: int) -> bytes:
        """The bytes of the file below the root: as stored, without on-the-fly noise or corruption."""
        return (self.spec.root / self.relative_path(index)).read_bytes()

    def _final_target(self, index: int) -> Any:
        target = self.get_target(index)
        if self.target_transform is not None:
            return self.target_transform(target)
        return -1 if target is None else target

    def _listed_paths(self) -> Iterator[str]:
        return (self._listed_path(index) for index in range(len(self)))

    def _check_twins(self, denoised: Path) -> None:
        check_range(self.spec.values, denoised, self.spec.root)
        if not is_vouched_for(denoised, self.spec.root, len(self), self._listed_path):
            check_pairs(self._listed_paths(), denoised, count=len(self))


def _fault(spec: DatasetSpec) -> str:
    if not spec.root.exists():
        return "does not exist: check the path"
    listed = f"; of a list of images, root=FOLDER:list={spec.root}" if spec.root.suffix == ".txt" else ""
    return f"is a file: give a folder{listed}"


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"
