"""Progress of trainings in processes of their own, read from the metrics upstream appends every ten iterations."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from dinov2_noise.demo.recipe import Arm, run_folder
from dinov2_noise.errors import DinoNoiseError
from dinov2_noise.evaluation.upstream_results import read_training

_BAR_PERIOD_S = 1.0
_LINE_PERIOD_S = 30.0


@contextmanager
def watch_training(output: Path, arms: Sequence[Arm], iterations: int) -> Iterator[None]:
    """Show how far each arm is while the block runs: bars in a terminal, a line now and then in a log."""
    console = Console(stderr=True, highlight=False)
    stop = threading.Event()
    watch = _bars if console.is_terminal else _lines
    thread = threading.Thread(target=watch, args=(console, stop, output, arms, iterations), daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _bars(console: Console, stop: threading.Event, output: Path, arms: Sequence[Arm], iterations: int) -> None:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("steps"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        tasks = {arm.name: progress.add_task(arm.title, total=iterations) for arm in arms}
        while True:
            stopped = stop.wait(_BAR_PERIOD_S)
            for name, task in tasks.items():
                progress.update(task, completed=_steps_done(output, name))
            if stopped:
                return


def _lines(console: Console, stop: threading.Event, output: Path, arms: Sequence[Arm], iterations: int) -> None:
    while not stop.wait(_LINE_PERIOD_S):
        console.print(", ".join(f"{arm.name} {_steps_done(output, arm.name)}/{iterations}" for arm in arms), "steps")


def _steps_done(output: Path, name: str) -> int:
    metrics = run_folder(output, name) / "training_metrics.json"
    if not metrics.exists() or metrics.stat().st_size == 0:
        return 0
    try:
        return int(read_training(metrics)[-1]["iteration"]) + 1
    except DinoNoiseError:  # a line is being written just now
        return 0
