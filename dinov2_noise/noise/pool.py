"""One function over the images of a folder, in this process or in several; bad images are collected, not fatal."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial

from dinov2_noise.errors import ConfigError, DinoNoiseError, ImageError
from dinov2_noise.progress import track

ImageJob = Callable[[str], ImageError | None]
"""Makes what belongs to one relative path; returns why the image could not be used. Picklable."""

_CHUNK_IMAGES = 16


def worker_count(workers: int | None) -> int:
    """``workers``, by default one per core.

    Raises:
        ConfigError: fewer than one.
    """
    workers = (os.cpu_count() or 1) if workers is None else workers
    if workers < 1:
        raise ConfigError(f"workers must be at least 1, not {workers}")
    return workers


def run_jobs(
    job: ImageJob, names: Sequence[str], *, workers: int, description: str | None, chunk_images: int = _CHUNK_IMAGES
) -> list[ImageError]:
    """Call ``job`` with every name.

    Args:
        job: picklable.
        names: what it is called with.
        workers: processes.
        description: stands beside the bar on standard error; None shows no bar.
        chunk_images: how many a process takes at once, at most; these are finished before an interruption.

    Returns:
        What the calls returned, without None.

    Raises:
        DinoNoiseError: a worker process was killed.
    """
    # A few chunks per process at least: else some would stand idle where images are few.
    chunk_images = max(1, min(chunk_images, len(names) // (4 * workers)))
    with _mapping(min(workers, len(names)), chunk_images) as mapping:
        # The processes start here, before the bar starts its thread: forking a process with threads is unsafe.
        results: Iterable[ImageError | None] = mapping(job, names)
        if description is not None and names:
            results = track(results, total=len(names), description=description)
        return [failure for failure in results if failure is not None]


def failure_summary(failures: Sequence[ImageError], *, total: int) -> ImageError:
    """One error that names the first five of ``failures`` and counts all."""
    others = "".join(f"\n  {failure.path}: {failure.cause}" for failure in failures[1:5])
    more = f"\n  … and {len(failures) - 5} more" if len(failures) > 5 else ""
    first = failures[0]
    return ImageError(
        first.path,
        f"{first.cause} ({len(failures)} of {total} images failed){others}{more}\n"
        "Repair or remove them and run the same command again: finished images are kept.",
    )


@contextmanager
def _mapping(
    workers: int, chunk_images: int
) -> Iterator[Callable[[ImageJob, Sequence[str]], Iterable[ImageError | None]]]:
    """``map``, or the same over processes; leaving the block early drops what has not begun."""
    if workers <= 1:
        yield map
        return
    pool = ProcessPoolExecutor(workers, initializer=_prepare_worker)
    try:
        yield partial(pool.map, chunksize=chunk_images)
    except BrokenProcessPool as cause:
        raise DinoNoiseError(
            "a worker process was killed, most often for lack of memory: run the same command with fewer workers "
            "(finished images are kept)"
        ) from cause
    finally:
        pool.shutdown(cancel_futures=True)


def _prepare_worker() -> None:
    # Ctrl-C reaches all processes of a terminal; the parent alone acts on it, after the images at work are finished.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    # The worker of a parent that was killed would wait for work for ever.
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
