"""Which images are measured on, in which views, and how they are made ready for the network."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from dinov2_noise import data
from dinov2_noise.curriculum.sections import MonitorConfig
from dinov2_noise.data.pairs import find_twin
from dinov2_noise.decoding import load_rgb
from dinov2_noise.errors import ConfigError, DinoNoiseError, MetadataError, MissingFolderError, PairError
from dinov2_noise.noise import parse

Picture = Image.Image | NDArray[Any]
View = Callable[[int], Picture]
"""From an image's index to 8-bit RGB, or of a data set of full depth to (H, W, 3) in [0, 1]."""

_MEAN = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)  # ImageNet's, as DINOv2 shows all images
_DEVIATION = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
_RESIZED = 256 / 224


@dataclass(frozen=True)
class ImageSet:
    """Some images of a data set.

    Attributes:
        indices: of the images. views: by name, ``noisy``, ``clean``, ``denoised``; all of the same images.
        labels: (n,) int64 from 0; None without labels.
    """

    indices: Sequence[int]
    views: Mapping[str, View]
    labels: Tensor | None = field(default=None)

    def __len__(self) -> int:
        return len(self.indices)


def training_images(dataset: str, n_images: int) -> ImageSet:
    """Evenly spread images of the training set ``dataset``, without labels, in all views that there are.

    ``noisy`` is what the view of that name shows in training, of fresh noise as in the first epoch; ``denoised`` is
    there with ``denoised=``; ``clean`` where the noise is made on the fly.
    """
    images = data.make(dataset, knows_epoch=True)
    count = min(n_images, len(images))  # type: ignore[arg-type]  # ours all have a length
    return ImageSet(_spread(len(images), count), _views(images))  # type: ignore[arg-type]


def labelled_images(config: MonitorConfig) -> tuple[ImageSet, ImageSet] | None:
    """The images of ``monitor.train`` and ``monitor.val``; None where the config names none.

    Raises:
        ConfigError: a data set cannot be opened, has no labels, lacks some, or there are fewer images than neighbours.
        MetadataError: the two have other classes, or there are fewer than 2.
        MissingFolderError, PairError: there are no clean twins.
    """
    if not config.train:
        return None
    train, train_ids = _labelled(config, "train", config.n_train)
    val, val_ids = _labelled(config, "val", config.n_val)
    unknown = sorted({*val_ids} - {*train_ids})
    if unknown:
        raise MetadataError(
            f"monitor.val has {len(unknown)} classes that monitor.train lacks, such as {unknown[0]!r}: a probe cannot "
            "tell them; give data sets of the same classes"
        )
    names = sorted({*train_ids})
    if len(names) < 2:
        raise MetadataError(f"the images of monitor.train have {len(names)} class: the probes need at least 2")
    if config.knn > len(train):
        raise ConfigError(f"monitor.knn is {config.knn}: monitor.train gives {len(train)} images")
    numbers = {name: number for number, name in enumerate(names)}

    def with_labels(images: ImageSet, ids: list[str]) -> ImageSet:
        return replace(images, labels=torch.tensor([numbers[class_id] for class_id in ids]))

    return with_labels(train, train_ids), with_labels(val, val_ids)


def _labelled(config: MonitorConfig, key: str, n_images: int) -> tuple[ImageSet, list[str]]:
    """Images of one key, as many of each class as there are, and their class ids."""
    text = getattr(config, key)
    try:
        images = _open_labelled(text, config.noise)
        labels = _labels(images, text)
    except DinoNoiseError as cause:
        raise ConfigError(f"monitor.{key}: {cause}") from cause
    n_classes = len(np.unique(labels))
    if key == "train" and n_images < n_classes:
        raise ConfigError(f"monitor.n_train is {n_images}, but {text!r} has {n_classes} classes: raise it")
    indices = _balanced(labels, n_images)
    views = _views(images)
    if config.clean:
        views["clean"] = partial(_clean_twin, Path(config.clean).expanduser(), images)
        _check_clean(Path(config.clean).expanduser(), images, indices)
    find: Callable[[int], str] = getattr(images, "find_class_id", str)
    return ImageSet(indices, views), [find(int(labels[index])) for index in indices]


def _open_labelled(text: str, noise: str) -> Any:
    spec = data.parse_dataset_string(text)
    data.refuse_fresh(spec)
    if noise and spec.noise is not None:
        raise ConfigError(f"{text!r} has a noise of its own, and monitor.noise is {noise}: give one of them")
    if noise:
        spec = replace(spec, noise=parse(noise))
    return data.DATASETS[spec.name].factory(spec, None, None)


def _labels(images: Any, text: str) -> NDArray[Any]:
    targets: NDArray[Any] | None = images.get_targets() if hasattr(images, "get_targets") else None
    if targets is None:
        raise MetadataError(_no_labels(images, text))
    return targets


def _balanced(labels: NDArray[Any], n_images: int) -> list[int]:
    """Places of as many images of each class, or where there are more classes one image of evenly spread ones."""
    by_class = np.argsort(labels, kind="stable")
    places = np.split(by_class, np.unique(labels[by_class], return_index=True)[1][1:])
    places = [places[number] for number in _spread(len(places), min(n_images, len(places)))]
    indices: list[int] = []
    for number, own in enumerate(places):
        share = n_images // len(places) + (number < n_images % len(places))
        indices += own[_spread(len(own), min(share, len(own)))].tolist()
    return indices


def _no_labels(images: Any, text: str) -> str:
    unlabelled = [index for index in range(len(images)) if images.get_target(index) is None]
    if not 0 < len(unlabelled) < len(images):
        return f"{text!r} has no labels: give labelled images, or leave monitor.train and monitor.val out"
    return (
        f"{len(unlabelled)} of {len(images)} images of {text!r} have no label, the first is "
        f"{images.relative_path(unlabelled[0])}: label them, or take them out"
    )


def _views(images: Any) -> dict[str, View]:
    spec = getattr(images, "spec", None)
    views: dict[str, View] = {"noisy": partial(_read, images, "noisy")}
    if spec is not None and spec.noise is not None:
        clean = data.DATASETS[spec.name].factory(replace(spec, noise=None, denoised=None), None, None)
        views["clean"] = partial(_read, clean, "noisy")
    if spec is not None and spec.denoised is not None:
        views["denoised"] = partial(_read, images, "denoised")
    return views


def _read(images: Any, view: str, index: int) -> Picture:
    of_first_epoch = {"epoch": 0} if view == "noisy" and getattr(images, "wants_epoch", False) else {}
    name = f"{view}_pixels" if getattr(images, "full_depth", False) else view
    found: Picture = getattr(images, name)(index, **of_first_epoch)
    return found


def _clean_twin(folder: Path, images: Any, index: int) -> Picture:
    path = images.relative_path(index)
    twin = find_twin(folder, path)
    if twin is None:
        raise PairError(f"monitor.clean: {folder} has no image {path}, under any image suffix")
    return load_rgb(folder / twin)


def _check_clean(folder: Path, images: Any, indices: Iterable[int]) -> None:
    if not folder.is_dir():
        raise MissingFolderError(f"monitor.clean: {folder} does not exist: check the path")
    missing = [path for path in map(images.relative_path, indices) if find_twin(folder, path) is None]
    if missing:
        raise PairError(
            f"monitor.clean: {len(missing)} images have no clean twin of the same relative path under {folder}, the "
            f"first is {missing[0]}"
        )


def _spread(total: int, count: int) -> list[int]:
    """``count`` of ``total`` places, each in the middle of its equal share."""
    return [(2 * number + 1) * total // (2 * count) for number in range(count)]


def prepare(view: View, indices: Sequence[int], side_px: int, workers: int = 1) -> Tensor:
    """Images as they are kept in memory: (n, 3, side_px, side_px), uint8, or float32 in [0, 1] of full depth.

    The shorter side becomes 8/7 of ``side_px`` (bicubic), then the centre is cut out, as DINOv2's evaluations do with
    256 and 224.

    Raises:
        ImageError: one cannot be read; the message names it.
    """
    with ThreadPoolExecutor(max(workers, 1)) as pool:
        found = list(pool.map(lambda index: _square(view(index), side_px), indices))
    return torch.stack(found) if found else torch.empty(0, 3, side_px, side_px, dtype=torch.uint8)


def normalised(images: Tensor) -> Tensor:
    """What the network is given, for images of `prepare`: float32."""
    values = images.float() / 255 if images.dtype == torch.uint8 else images
    return (values - _MEAN.to(values.device)) / _DEVIATION.to(values.device)


def _square(picture: Picture, side_px: int) -> Tensor:
    if isinstance(picture, Image.Image):
        return torch.from_numpy(np.array(_cropped(picture.convert("RGB"), side_px))).permute(2, 0, 1).contiguous()
    planes = [Image.fromarray(np.ascontiguousarray(picture[:, :, channel], np.float32)) for channel in range(3)]
    squares = torch.stack([torch.from_numpy(np.array(_cropped(plane, side_px))) for plane in planes])
    return squares.clamp(0, 1)  # as of 8 bits: bicubic shoots over black and white


def _cropped(image: Image.Image, side_px: int) -> Image.Image:
    width, height = image.size
    short = round(side_px * _RESIZED)
    size = (short, int(short * height / width)) if width <= height else (int(short * width / height), short)
    left, top = round((size[0] - side_px) / 2), round((size[1] - side_px) / 2)
    resized = image if size == image.size else image.resize(size, Image.Resampling.BICUBIC)
    return resized.crop((left, top, left + side_px, top + side_px))
