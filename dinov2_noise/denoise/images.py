"""Noisy images by number, from a folder or a dataset string, as ``neighbor2neighbor`` trains on them.

Names, sizes and classes are known without decoding a pixel. Sources pickle, for the loader's worker processes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from dinov2_noise.data import DATASETS, PairedImages, parse_dataset_string, refuse_fresh
from dinov2_noise.decoding import DTYPE_RANGE, ValueRange, image_size, load_rgb
from dinov2_noise.denoise.skipping import Skipped
from dinov2_noise.errors import DatasetStringError, ImageError, MissingFolderError
from dinov2_noise.files import MANIFEST_NAME, list_images, read_manifest, source_identity
from dinov2_noise.noise.folder import output_name

CACHE_BYTES = 2**30


def read_rgb(path: Path, values: ValueRange = DTYPE_RANGE) -> Tensor:
    """An image as uint8 ``(3, H, W)``; ``values``: which stored ones become 0 and 255.

    Raises:
        ImageError: it cannot be decoded, or its values need another range.
    """
    return torch.from_numpy(np.array(load_rgb(path, values))).permute(2, 0, 1)


class Source(Protocol):
    """Noisy images in the order of their names."""

    @property
    def label(self) -> str:
        """The folder or the dataset string, for messages and records; `open_source` takes it back."""
        ...

    @property
    def names(self) -> Sequence[str]:
        """Relative paths."""
        ...

    @property
    def root(self) -> Path:
        """The folder below which images are looked for."""
        ...

    @property
    def values(self) -> ValueRange:
        """Which stored values are black and white."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Tensor:
        """Noisy image number ``index``, uint8 ``(3, H, W)``."""
        ...

    def path(self, index: int) -> Path:
        """The file it comes from."""
        ...

    def size(self, index: int) -> tuple[int, int]:
        """(width, height) in pixels, from the file's header."""
        ...

    def group(self, index: int) -> str | int:
        """What a number of images per class counts: the class, or the folder where there are no classes."""
        ...

    def identity(self) -> dict[str, Any]:
        """What tells these images from others, for manifests."""
        ...


class ImageFiles:
    """The images of a folder, decoded when asked for; ``values``: which stored ones are black and white."""

    def __init__(
        self,
        root: Path,
        names: Sequence[str],
        identity: dict[str, Any] | None = None,
        values: ValueRange = DTYPE_RANGE,
    ) -> None:
        self.root = root
        self.names = tuple(names)
        self.values = values
        self._identity = identity or {}

    @property
    def label(self) -> str:
        return str(self.root.resolve())

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int, /) -> Tensor:
        return read_rgb(self.path(index), self.values)

    def path(self, index: int) -> Path:
        return self.root / self.names[index]

    def size(self, index: int) -> tuple[int, int]:
        return image_size(self.path(index))

    def group(self, index: int) -> str:
        return str(PurePosixPath(self.names[index]).parent)

    def identity(self) -> dict[str, Any]:
        return {"noisy": self.label, **self._identity, **self.values.parameter()}


class DatasetImages:
    """The noisy view of a dataset; the order is that of the folder which ``add-noise`` would write."""

    def __init__(self, text: str, dataset: PairedImages) -> None:
        self.label = text
        self.dataset = dataset
        paths = [dataset.relative_path(index) for index in range(len(dataset))]
        self._order = sorted(range(len(paths)), key=lambda index: output_name(paths[index]))
        self.names = tuple(paths[index] for index in self._order)

    @property
    def values(self) -> ValueRange:
        return self.dataset.spec.values

    @property
    def root(self) -> Path:
        spec = self.dataset.spec
        return spec.root if spec.split is None else spec.root / spec.split.lower()

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int, /) -> Tensor:
        return torch.from_numpy(np.array(self.dataset.noisy(self._order[index]))).permute(2, 0, 1)

    def path(self, index: int) -> Path:
        return self.dataset.spec.root / self.names[index]

    def size(self, index: int) -> tuple[int, int]:
        spec = self.dataset.spec
        if spec.corruption is not None and spec.corruption_size is not None:
            return spec.corruption_size, spec.corruption_size  # the centre crop made before corrupting
        return self.dataset._size(self._order[index])

    def group(self, index: int) -> str | int:
        target = self.dataset.get_target(self._order[index])
        return str(PurePosixPath(self.names[index]).parent) if target is None else target

    def identity(self) -> dict[str, Any]:
        spec = self.dataset.spec
        return {"noisy": self.label, **source_identity(spec.root), **spec.chosen_by()}


class Chosen:
    """Some images of a source, at ``indices``; the first that fit into ``cache_bytes`` stay decoded in memory.

    Training reads each image once per pass in random order, so that what is kept must not give way to what comes: the
    share of decoding that is saved is then the share of images that fit. Each worker process has a cache of its own.

    Args:
        source: the images.
        indices: of those that are chosen.
        cache_bytes: for decoded images.
        skipped: where images that cannot be read are noted; in the place of such a one stands the next that can be.
            None: it is an error.
    """

    def __init__(
        self, source: Source, indices: Sequence[int], cache_bytes: int = 0, skipped: Skipped | None = None
    ) -> None:
        self.source = source
        self.indices = tuple(indices)
        self.cache_bytes = cache_bytes
        self.skipped = skipped
        self._kept: dict[int, Tensor] = {}
        self._room = cache_bytes

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kept": {}, "_room": self.cache_bytes}

    @property
    def names(self) -> list[str]:
        return [self.source.names[index] for index in self.indices]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, position: int, /) -> Tensor:
        image = self._kept.get(position)
        if image is None:
            image = self.read(position)
            if image.nbytes <= self._room:
                self._room -= image.nbytes
                self._kept[position] = image
        return image

    def read(self, position: int) -> Tensor:
        """Image number ``position`` from its file.

        Raises:
            ImageError: it cannot be read, and it is one more than may be left out.
        """
        for following in range(len(self)):
            try:
                return self.source[self.indices[(position + following) % len(self)]]
            except ImageError as failure:
                if self.skipped is None:
                    raise
                self.skipped.add(failure)
        raise ImageError(self.path(position), "no image can be read")

    def path(self, position: int) -> Path:
        return self.source.path(self.indices[position])


def open_source(noisy: Path | str, values: ValueRange = DTYPE_RANGE) -> Source:
    """The noisy images of a folder, or of a dataset string where no such path exists.

    Args:
        noisy: a folder, of which only ``train`` is used where it has one; or ``ImageNet:split=TRAIN:root=…`` with or
            without ``noise=``. A ``denoised=`` in it is passed over: that folder is neither needed nor read.
        values: which values of a folder's images are black and white; a dataset string says it itself.

    Raises:
        MissingFolderError: neither, or there are no images.
        DatasetStringError, MetadataError, NoiseNameError: the string, or the metadata it needs, are wrong; its noise is
            a new one each epoch; or ``values`` are given beside it.
    """
    text, folder = str(noisy), Path(noisy).resolve()  # as it is recorded, wherever a run is continued from
    if folder.is_dir():
        root = folder / "train" if (folder / "train").is_dir() else folder
        return ImageFiles(root, list_images(root, what="noisy folder"), source_identity(folder), values)
    if not folder.exists() and text.partition(":")[0] in DATASETS and ":" in text:
        if values != DTYPE_RANGE:
            raise DatasetStringError(
                f"--range {values.name} is for folders: in a dataset string write {text}:range={values.token}"
            )
        return _open_dataset(text)
    kinds = ", ".join(f"{name}:…" for name in sorted(DATASETS))
    raise MissingFolderError(
        f"noisy folder {text} {'is a file' if folder.exists() else 'does not exist'}, and it is no dataset string "
        f"({kinds}) either: check the path"
    )


def unfinished(source: Source) -> str | None:
    """What to tell where the command that wrote these images has not finished; None if all is well."""
    for folder in (source.root, source.root.parent):
        manifest = read_manifest(folder) if (folder / MANIFEST_NAME).is_file() else {}
        if manifest.get("complete") is False:
            return (
                f"{folder} is not complete, so images are missing: `dinov2-noise {manifest.get('command')}` has not "
                "finished there, or could not read some"
            )
    return None


def _open_dataset(text: str) -> DatasetImages:
    refuse_fresh(parse_dataset_string(text))
    text = _with_absolute_paths(text)
    spec = replace(parse_dataset_string(text), denoised=None)
    dataset = DATASETS[spec.name].factory(spec, None, None)
    if not isinstance(dataset, PairedImages):
        raise DatasetStringError(
            f"{spec.name} in {text!r} is a {type(dataset).__name__}, from which no noisy images can be had: derive it "
            "from dinov2_noise.data.PairedImages"
        )
    return DatasetImages(text, dataset)


def _with_absolute_paths(text: str) -> str:
    """The string without ``denoised=``, and the same from whichever folder it is used."""
    name, *tokens = text.split(":")
    return ":".join([name, *map(_absolute, (token for token in tokens if not token.startswith("denoised=")))])


def _absolute(token: str) -> str:
    key, _, value = token.partition("=")
    is_path = key in ("root", "extra", "list") or (key == "subset" and Path(value).expanduser().is_file())
    return f"{key}={Path(value).expanduser().resolve()}" if is_path else token
