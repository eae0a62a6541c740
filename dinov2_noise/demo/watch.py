"""Progress of trainings that run in processes of their own, read from the metrics upstream appends every ten
iterations.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from dinov2_noise.demo.recipe import Arm
from dinov2_noise.evaluation.upstream_results import read_training

_PERIOD_S = 1.0


@contextmanager
def watch_training(output: Path, arms: Sequence[Arm], iterations: int) -> Iterator[None]:
    """Show a bar per arm while the block runs."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("steps"),
        TimeRemainingColumn(),
    )
    stop = threading.Event()
    with Progress(*columns, console=Console(stderr=True)) as progress:
        tasks = {arm.name: progress.add_task(arm.title, total=iterations) for arm in arms}

        def poll() -> None:
            while not stop.wait(_PERIOD_S):
                for name, task in tasks.items():
                    progress.update(task, completed=_steps_done(output / name / "training_metrics.json"))

        thread = threading.Thread(target=poll, daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()


def _steps_done(metrics: Path) -> int:
    if not metrics.exists() or metrics.stat().st_size == 0:
        return 0
    return int(read_training(metrics)[-1]["iteration"]) + 1
