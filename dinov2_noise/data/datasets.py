"""The datasets behind dataset strings: what DINOv2's scripts need of one, plus the pair (noisy, denoised) per image.

``dataset[i]`` is (transform(noisy image), target), with DINOv2's own ``ImageNet`` as the model: without ``noise=`` and
``denoised=`` it gives the same pixels and targets. Where the curriculum's sampler yields draws (index, stage, …)
instead of indices, the attribute ``view_loader`` makes the sample; it must be picklable, as the dataset is.
"""

from __future__ import annotations

import operator
from abc import abstractmethod
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, SupportsIndex

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import Dataset

from dinov2_noise.data.index import UNLABELLED, decode_path, default_extra, encode_paths
from dinov2_noise.data.pairs import PairedSource, check_pairs, find_stem, find_twin, stem_of
from dinov2_noise.data.strings import DatasetSpec, Transform, register_dataset
from dinov2_noise.decoding import image_size, load_rgb
from dinov2_noise.errors import DatasetStringError, MetadataError, MissingFolderError, PairError, PluginError
from dinov2_noise.files import list_images
from dinov2_noise.noise import noisy_uint8
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
        transform: from an RGB PIL image to what a sample holds.
        target_transform: from a target (int, or None where there are no labels) to what a sample holds.

    Raises:
        MissingFolderError: ``spec.root`` or ``spec.denoised`` does not exist or holds no images.
        MetadataError: metadata are missing.
        PairError: images have no denoised twin.
    """

    view_loader: ViewLoader | None = None

    def __init__(
        self, spec: DatasetSpec, transform: Transform | None = None, target_transform: Transform | None = None
    ) -> None:
        self.spec = spec
        self.transform = transform
        self.target_transform = target_transform
        if not spec.root.is_dir():
            raise MissingFolderError(f"dataset root {spec.root} does not exist: check the path")
        self._open()
        if spec.denoised is not None:
            check_pairs(self._listed_paths(), spec.denoised)

    @abstractmethod
    def _open(self) -> None:
        """Check early what would otherwise fail at the first image."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def _listed_path(self, index: int) -> str:
        """Relative path as listed; the file may have another suffix."""

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
            image = self.noisy(index)
            return image if self.transform is None else self.transform(image), self._final_target(index)
        if self.view_loader is None:
            raise PluginError(
                f"the sampler yields {type(item).__name__}, but this dataset has no view_loader: "
                "the curriculum's sampler is attached and its loader is not"
            )
        return self.view_loader(self, item), self._final_target(operator.index(item.index))

    def noisy(self, index: int) -> Image.Image:
        """The image below the root in 8-bit RGB, with the noise of the spec, if any, then its corruption.

        Each equals, pixel by pixel, that of a folder written by ``dinov2-noise add-noise`` or ``corrupt`` from the
        same root.
        """
        spec, path = self.spec, self.relative_path(index)
        image = load_rgb(spec.root / path)
        if spec.noise is not None:
            pixels = noisy_uint8(np.asarray(image), spec.noise, relative_path=path, base_seed=spec.noise_seed)
            image = Image.fromarray(pixels)
        return image if spec.corruption is None else self._corrupted(image, path, spec.corruption)

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
        image, noisy_size = load_rgb(root / twin), image_size(self.spec.root / noisy_path)
        if image.size != noisy_size:
            raise PairError(
                f"sizes of a pair differ: {self.spec.root / noisy_path} is {_by(noisy_size)} px, "
                f"{root / twin} is {_by(image.size)} px: make the denoised folder from this very noisy folder"
            )
        return image

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


class NoisyImageNet(PairedImages):
    """``ImageNet:split=…:root=…[:extra=…]``: labelled images, any suffix and number, with the metadata of ``index``.

    Metadata written by DINOv2 itself work too (its file names are then assumed), and metadata of a clean root serve its
    noisy copies: where the listed file does not exist, one of the same stem is read. Arrays are memory-mapped at first
    use and never pickled.
    """

    def _open(self) -> None:
        folder = self.spec.root / self._split.lower()
        if not folder.is_dir():
            raise MissingFolderError(f"dataset root {self.spec.root} has no folder {folder.name}: check root and split")
        path = self._metadata_path("entries")
        if not path.is_file():
            raise MetadataError(f"metadata {path} are missing: {self._advice}")

    def __len__(self) -> int:
        return len(self._entries)

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key not in ("_entries", "_paths")}

    def get_target(self, index: int) -> int | None:
        class_index = int(self._entries[index]["class_index"])
        return None if class_index == UNLABELLED else class_index

    def get_targets(self) -> NDArray[np.uint32] | None:
        """(n,) class indices of all images, or None for a split without labels."""
        targets = np.array(self._entries["class_index"])
        return None if (targets == UNLABELLED).any() else targets

    def relative_path(self, index: int) -> str:
        listed = self._listed_path(index)
        found = find_twin(self.spec.root, listed)
        if found is None:
            raise MetadataError(
                f"{self.spec.root / listed} (image {index} of {self._metadata_path('entries')}) does not exist under "
                "any image suffix: images were moved or removed since, or the metadata belong to another root; "
                f"{self._advice} again"
            )
        return found

    def _listed_path(self, index: int) -> str:
        if self._paths is not None:
            return decode_path(self._paths[index])
        entry = self._entries[index]
        return _imagenet_path(self._split, str(entry["class_id"]), int(entry["actual_index"]))

    @cached_property
    def _entries(self) -> NDArray[np.void]:
        return self._map("entries")

    @cached_property
    def _paths(self) -> NDArray[np.bytes_] | None:
        if not self._metadata_path("paths").is_file():
            return None
        paths = self._map("paths")
        if len(paths) != len(self._entries):
            raise MetadataError(
                f"{self._metadata_path('paths')} lists {len(paths)} images, {self._metadata_path('entries')} "
                f"{len(self._entries)}: {self._advice} again"
            )
        return paths

    def _map(self, kind: str) -> NDArray[Any]:
        path = self._metadata_path(kind)
        try:
            array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as cause:
            raise MetadataError(f"cannot read metadata {path} ({cause}): {self._advice}") from cause
        return array

    def _metadata_path(self, kind: str) -> Path:
        extra = default_extra(self.spec.root) if self.spec.extra is None else self.spec.extra
        return extra / f"{kind}-{self._split}.npy"

    @property
    def _split(self) -> str:
        if self.spec.split is None:
            raise DatasetStringError(f"split missing for {self.spec.name}:root={self.spec.root}: add split=TRAIN")
        return self.spec.split

    @property
    def _advice(self) -> str:
        option = "" if self.spec.extra is None else f" --extra {self.spec.extra}"
        return f"run `dinov2-noise index {self.spec.root}{option}`"


class NoisyImageFolder(PairedImages):
    """``ImageFolder:root=…``: all images of a folder tree, in the order of their paths; no labels, no metadata.

    ``get_target`` is None; for what a sample then holds see :meth:`PairedImages.__getitem__`.
    """

    def _open(self) -> None:
        self._paths = encode_paths(list_images(self.spec.root, what="dataset root"))

    def __len__(self) -> int:
        return len(self._paths)

    def get_target(self, index: int) -> None:
        return None

    def get_targets(self) -> None:
        """There are no labels."""
        return

    def relative_path(self, index: int) -> str:
        return self._listed_path(index)

    def _listed_path(self, index: int) -> str:
        return decode_path(self._paths[index])


def _imagenet_path(split: str, class_id: str, actual_index: int) -> str:
    """Where ImageNet-1k as distributed keeps an image; all that metadata written by DINOv2 itself tell of a path."""
    if split == "TRAIN":
        return f"train/{class_id}/{class_id}_{actual_index}.JPEG"
    folder = f"{split.lower()}/{class_id}" if split == "VAL" else split.lower()
    return f"{folder}/ILSVRC2012_{split.lower()}_{actual_index:08d}.JPEG"


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


register_dataset("ImageNet", NoisyImageNet, required=("split", "root"))
register_dataset("ImageFolder", NoisyImageFolder, keys=("root", "denoised", "noise", "corruption"))
