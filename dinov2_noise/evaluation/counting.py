"""Data sets through one set of loader workers, one after the other, and how many images of each are told right.

Workers make the images (decoding, noise, corruption, resizing) while the model computes; they are started once for all
data sets, so that 100 small ones cost little more than one large one.
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate

from dinov2_noise import data
from dinov2_noise.errors import DinoNoiseError, MetadataError
from dinov2_noise.progress import track

Predict = Callable[[Tensor], Mapping[str, Tensor]]
_Place = tuple[int, int]  # data set, image


@dataclass
class Count:
    """One data set.

    Attributes:
        right: images told right, per kind of prediction. waiting_s: time without images to compute on. computing_s:
        time of the predictions.
    """

    n_images: int = 0
    right: dict[str, int] = field(default_factory=dict)
    waiting_s: float = 0.0
    computing_s: float = 0.0

    def add(self, predicted: Mapping[str, Tensor], targets: Tensor) -> None:
        self.n_images += len(targets)
        for kind, classes in predicted.items():
            self.right[kind] = self.right.get(kind, 0) + int((classes.cpu() == targets).sum())


@dataclass(frozen=True)
class LoaderSettings:
    """How images reach the model. ``transform`` must be picklable; ``workers`` 0 loads in this process."""

    transform: Callable[[Any], Tensor]
    batch_size: int = 128
    workers: int = 4
    pin: bool = False


@dataclass(frozen=True)
class Batch:
    """Images (B, 3, H, W) of data set ``dataset``, their classes (B,), and the time it took to get them."""

    dataset: int
    images: Tensor
    targets: Tensor
    waiting_s: float


def labels_of(dataset: Any, name: str) -> Tensor:
    """Classes (N,) of a labelled data set.

    Raises:
        MetadataError: it has no labels.
    """
    targets = dataset.get_targets()
    if targets is None:
        raise MetadataError(
            f"the images of {name} have no labels, which an accuracy needs: use ImageNet:split=VAL:… "
            "or ImageFolder:root=…:labels=folders"
        )
    return torch.as_tensor(targets.astype("int64"))


def n_classes_of(dataset: Any, name: str) -> int:
    """Classes of a labelled data set: as many as its metadata name, if it has such; images of the last may be missing.

    Raises:
        MetadataError: it has no labels.
    """
    used = int(labels_of(dataset, name).max()) + 1
    return max(used, getattr(dataset, "n_classes", None) or 0)


def count(
    names: Sequence[str], predict: Predict, settings: LoaderSettings, *, description: str
) -> Iterator[tuple[int, Count]]:
    """Yield (position in ``names``, count) of each dataset string, in order, as soon as it is complete.

    Raises:
        DinoNoiseError: a string cannot be parsed, folders or labels are missing, or an image cannot be read.
    """
    stream = batches(names, settings, description=description)
    return _counts(stream, predict)


def _counts(stream: Iterator[Batch], predict: Predict) -> Iterator[tuple[int, Count]]:
    current, found = None, Count()
    for batch in stream:
        if batch.dataset != current:
            if current is not None:
                yield current, found
            current, found = batch.dataset, Count()
        start = time.perf_counter()
        found.add(predict(batch.images), batch.targets)
        found.waiting_s += batch.waiting_s
        found.computing_s += time.perf_counter() - start
    if current is not None:
        yield current, found


def batches(names: Sequence[str], settings: LoaderSettings, *, description: str) -> Iterator[Batch]:
    """Batches of all data sets in order; none mixes two. Workers start at once, before anything is iterated."""
    datasets = [data.make(name, settings.transform) for name in names]
    for name, dataset in zip(names, datasets, strict=True):
        labels_of(dataset, name)
    sampler = _InOrder([len(dataset) for dataset in datasets], settings.batch_size)  # type: ignore[arg-type]
    loader: DataLoader[Any] = DataLoader(
        _Joined(datasets),
        batch_sampler=sampler,
        num_workers=settings.workers,
        pin_memory=settings.pin,
        collate_fn=_collate,
        worker_init_fn=ignore_interrupts if settings.workers else None,
    )
    # The workers must be there before a progress bar starts its thread: forking a process with threads is unsafe.
    return _loaded(iter(loader), sum(map(len, datasets)), description)  # type: ignore[arg-type]


def _n_images(loaded: Any) -> int:
    return 0 if isinstance(loaded, DinoNoiseError) else len(loaded[1])


def _loaded(loader: Iterator[Any], total: int, description: str) -> Iterator[Batch]:
    start = time.perf_counter()
    for loaded in track(until_a_worker_dies(loader), total=total, description=description, size=_n_images):
        if isinstance(loaded, DinoNoiseError):
            raise loaded
        dataset, images, targets = loaded
        yield Batch(dataset, images, targets, time.perf_counter() - start)
        start = time.perf_counter()


def until_a_worker_dies(loader: Iterator[Any]) -> Iterator[Any]:
    """What a loader yields; a worker that was killed becomes an error that says what to do."""
    try:
        yield from loader
    except RuntimeError as cause:
        if "DataLoader worker" not in str(cause):
            raise
        raise DinoNoiseError(
            f"a process that loads images has ended ({str(cause).splitlines()[0]}): most often memory is full, or, in "
            "a container, shared memory (--shm-size); use fewer --workers or a smaller --batch-size"
        ) from cause


class _Joined(Dataset[Any]):
    """Items of several data sets, by (data set, image); a failure is handed on as an item."""

    def __init__(self, datasets: Sequence[Any]) -> None:
        self._datasets = datasets

    def __getitem__(self, place: _Place) -> Any:
        try:
            return place[0], *self._datasets[place[0]][place[1]]
        except DinoNoiseError as error:
            return error  # raised in a worker it would lose its type


class _InOrder(Sampler[list[_Place]]):
    def __init__(self, lengths: Sequence[int], batch_size: int) -> None:
        self._lengths, self._batch_size = lengths, batch_size

    def __len__(self) -> int:
        return sum(math.ceil(length / self._batch_size) for length in self._lengths)

    def __iter__(self) -> Iterator[list[_Place]]:
        for dataset, length in enumerate(self._lengths):
            for first in range(0, length, self._batch_size):
                yield [(dataset, index) for index in range(first, min(first + self._batch_size, length))]


def _collate(items: Sequence[Any]) -> Any:
    for item in items:
        if isinstance(item, DinoNoiseError):
            return item
    images, targets = default_collate([(image, target) for _, image, target in items])
    return items[0][0], images, targets


def ignore_interrupts(_worker: int) -> None:
    """What a loader's worker begins with."""
    # Ctrl-C reaches all processes of a terminal; the parent alone acts on it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
