"""Progress of long commands: count, rate and time left, in a terminal or in a log file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

T = TypeVar("T")


def track(items: Iterable[T], *, total: int, description: str) -> Iterator[T]:
    """Yield ``items`` while a bar on standard error shows how far they are."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task_id = progress.add_task(description, total=total, rate="")
        for item in items:
            yield item
            progress.advance(task_id)
            speed = progress.tasks[0].speed
            progress.update(task_id, rate=f"{speed:.1f}/s" if speed else "")
