"""Progress of long commands: count, rate and time left, as a bar in a terminal and as a line now and then in a log."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

T = TypeVar("T")

LOG_PERIOD_S = 20.0


def track(
    items: Iterable[T], *, total: int, description: str, size: Callable[[T], int] = lambda item: 1
) -> Iterator[T]:
    """Yield ``items`` while standard error shows how far they are; ``total`` is the sum of their sizes."""
    console = Console(stderr=True, highlight=False)
    return (_bar if console.is_terminal else _lines)(items, total, description, size, console)


def _bar(items: Iterable[T], total: int, description: str, size: Callable[[T], int], console: Console) -> Iterator[T]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        task_id = progress.add_task(description, total=total, rate="")
        for item in items:
            yield item
            progress.advance(task_id, size(item))
            speed = progress.tasks[0].speed
            progress.update(task_id, rate=f"{speed:.1f}/s" if speed else "")


def _lines(items: Iterable[T], total: int, description: str, size: Callable[[T], int], console: Console) -> Iterator[T]:
    start = last = time.monotonic()
    done = 0
    for item in items:
        yield item
        done += size(item)
        now = time.monotonic()
        if done == total or now - last >= LOG_PERIOD_S:
            last, rate = now, done / max(now - start, 1e-9)
            console.print(f"{description}: {done}/{total}, {rate:.1f}/s, {(total - done) / rate:.0f} s left")
