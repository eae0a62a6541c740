"""Items of any data set through loader workers, batch by batch, with progress; the first that fails ends it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from torch.utils.data import DataLoader, Dataset

from dinov2_noise.errors import DinoNoiseError
from dinov2_noise.evaluation.counting import ignore_interrupts, until_a_worker_dies
from dinov2_noise.progress import track


class Items(Protocol):
    """What is read by number; picklable, for workers however they start."""

    def __getitem__(self, index: int, /) -> Any: ...


def stream(items: Items, batches: Sequence[Sequence[int]], *, workers: int, description: str) -> Iterator[list[Any]]:
    """Yield the items of each batch, in order. Workers start at once, before anything is iterated.

    Args:
        items: where they come from.
        batches: their numbers.
        workers: processes; 0 reads in this one.
        description: for the progress bar.

    Raises:
        DinoNoiseError: an item cannot be made, or a worker was killed.
    """
    loader: DataLoader[Any] = DataLoader(
        _Guarded(items),
        batch_sampler=[list(batch) for batch in batches],
        num_workers=min(workers, len(batches)),
        collate_fn=_as_they_are,
        worker_init_fn=ignore_interrupts if workers and batches else None,
    )
    return _checked(iter(loader), sum(map(len, batches)), description)


def _checked(loader: Iterator[Any], total: int, description: str) -> Iterator[list[Any]]:
    if not total:
        return
    for loaded in track(until_a_worker_dies(loader), total=total, description=description, size=len):
        for item in loaded:
            if isinstance(item, DinoNoiseError):
                raise item
        yield loaded


class _Guarded(Dataset[Any]):
    def __init__(self, items: Items) -> None:
        self._items = items

    def __getitem__(self, index: int) -> Any:
        try:
            return self._items[index]
        except DinoNoiseError as error:
            return error  # raised in a worker it would lose its type


def _as_they_are(items: list[Any]) -> list[Any]:
    return items
