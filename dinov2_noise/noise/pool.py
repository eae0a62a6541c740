"""One function over the images of a folder, in this process or in several; bad images are collected, not fatal."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, TypeVar

from dinov2_noise.errors import ConfigError, DinoNoiseError, ImageError
from dinov2_noise.files import OutputFolder
from dinov2_noise.progress import track

ImageJob = Callable[[str], ImageError | None]
"""Makes what belongs to one relative path; returns why the image could not be used. Picklable."""

_CHUNK_IMAGES = 16
_AHEAD = 8  # chunks given out per process: enough that none waits for one slow chunk
_KEPT = "Repair or remove them and run the same command again: finished images are kept."
_SHOWN = 20  # images left out that are named in the warning; the manifest has all

T = TypeVar("T")
R = TypeVar("R")


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
    results = stream_jobs(job, names, workers=workers, description=description, chunk_images=chunk_images)
    return [failure for failure in results if failure is not None]


def stream_jobs(
    job: Callable[[T], R],
    items: Sequence[T],
    *,
    workers: int,
    description: str | None,
    chunk_images: int = _CHUNK_IMAGES,
) -> Iterator[R]:
    """Yield what ``job`` returns for each item, in their order; arguments and errors as for `run_jobs`.

    ``job`` is pickled once per chunk: it should be small.
    """
    # A few chunks per process at least: else some would stand idle where images are few.
    chunk_images = max(1, min(chunk_images, len(items) // (4 * workers)))
    with _mapping(min(workers, len(items)), chunk_images) as mapping:
        # The processes start here, before the bar starts its thread: forking a process with threads is unsafe.
        results: Iterable[R] = mapping(job, items)
        if description is not None and items:
            results = track(results, total=len(items), description=description)
        yield from results


def failure_summary(
    failures: Sequence[ImageError], *, total: int, skip_bad: int = 0, advice: str = _KEPT
) -> ImageError:
    """One error that names the first five of ``failures`` and counts all; ``skip_bad`` may have been left out."""
    others = "".join(f"\n  {failure.path}: {failure.cause}" for failure in failures[1:5])
    more = f"\n  … and {len(failures) - 5} more" if len(failures) > 5 else ""
    way_out = f" Or leave them out with --skip-bad {len(failures)}." if len(failures) < total else ""
    allowed = f", and --skip-bad allows {skip_bad}" if skip_bad else ""
    first = failures[0]
    return ImageError(
        first.path,
        f"{first.cause} ({len(failures)} of {total} images failed{allowed}){others}{more}\n{advice}{way_out}",
    )


def check_failures(failures: Sequence[ImageError], *, total: int, skip_bad: int = 0, advice: str = _KEPT) -> list[str]:
    """Let at most ``skip_bad`` images be left out, and name them on standard error.

    Args:
        failures: why images could not be used.
        total: of all images.
        skip_bad: how many may be left out.
        advice: what to do about them.

    Returns:
        Their paths, sorted, each once; for the manifest, as ``skipped``.

    Raises:
        ImageError: more images are bad, or all are.
        ConfigError: ``skip_bad`` is negative.
    """
    require_skip_bad(skip_bad)
    causes = {failure.path: failure for failure in failures}
    if not causes:
        return []
    if len(causes) > skip_bad or len(causes) >= total:
        raise failure_summary(list(causes.values()), total=total, skip_bad=skip_bad, advice=advice)
    shown = "".join(f"\n  {path}: {failure.cause}" for path, failure in sorted(causes.items())[:_SHOWN])
    more = f"\n  … and {len(causes) - _SHOWN} more" if len(causes) > _SHOWN else ""
    print(f"warning: left out {len(causes)} of {total} images:{shown}{more}", file=sys.stderr)
    return sorted(map(str, causes))


def require_skip_bad(skip_bad: int) -> None:
    """Raise ConfigError for a negative number of images."""
    if skip_bad < 0:
        raise ConfigError(f"skip-bad must be 0 or more images, not {skip_bad}")


def complete_folder(
    output: OutputFolder,
    job: ImageJob,
    source: Path,
    *,
    missing: Sequence[str],
    failures: Sequence[ImageError],
    total: int,
    skip_bad: int,
    **facts: Any,
) -> None:
    """Complete the manifest if no more than ``skip_bad`` images are missing and all of these are bad.

    Args:
        output: the folder.
        job: makes an image, or only reads it; one that is missing and not among ``failures`` is tried, for another
            shard may have met it.
        source: folder of the images.
        missing: relative paths of the images without output, sorted.
        failures: why images could not be used, of those that this call has tried.
        total: of all images.
        skip_bad: how many may be left out, of all shards together.
        **facts: for the manifest.
    """
    if len(missing) > skip_bad:
        return
    known = {str(failure.path) for failure in failures}
    for name in missing:
        if str(source / name) not in known and job(name) is None:
            return  # what another shard has yet to make
    skipped = [str(source / name) for name in missing]
    output.close(images=total - len(skipped), **facts, **({"skipped": skipped} if skipped else {}))


class FolderJob(Protocol):
    """An `ImageJob` that makes the outputs of one folder of images."""

    @property
    def source(self) -> Path: ...
    def missing(self, names: Sequence[str], /) -> list[str]:
        """Those of ``names`` that lack an output, in order."""
        ...

    def __call__(self, relative_path: str, /) -> ImageError | None: ...


def fill_folder(
    output: OutputFolder,
    job: FolderJob,
    names: Sequence[str],
    *,
    shard: tuple[int, int],
    workers: int,
    skip_bad: int,
    description: str | None,
    chunk_images: int = _CHUNK_IMAGES,
) -> int:
    """Make what is missing in an open folder, as far as it is this shard's, and complete the manifest if that was all.

    Args:
        output: the folder.
        job: makes an image.
        names: of all images, sorted.
        shard: (i, n), i from 1: every n-th image is this call's.
        skip_bad: how many images may be left out, of all shards together.
        workers, description, chunk_images: see `run_jobs`.

    Returns:
        The number of images made.

    Raises:
        ImageError: more images than ``skip_bad`` could not be used; the manifest then stays incomplete.
    """
    missing = job.missing(names)
    if missing:
        output.reopen()
    own, (number, shards) = missing, shard
    if shards > 1:
        lacking = set(missing)
        own = [name for name in names[number - 1 :: shards] if name in lacking]
    failures = run_jobs(job, own, workers=workers, description=description, chunk_images=chunk_images)
    check_failures(failures, total=len(names), skip_bad=skip_bad)
    rest = job.missing(names)
    complete_folder(output, job, job.source, missing=rest, failures=failures, total=len(names), skip_bad=skip_bad)
    return len(own) - len(failures)


@contextmanager
def _mapping(
    workers: int, chunk_images: int
) -> Iterator[Callable[[Callable[[Any], Any], Sequence[Any]], Iterable[Any]]]:
    """``map``, or the same over processes; leaving the block early drops what has not begun."""
    if workers <= 1:
        yield map
        return
    pool = ProcessPoolExecutor(workers, initializer=_prepare_worker)
    try:
        yield partial(_map_ahead, pool, chunk_images, _AHEAD * workers)
    except BrokenProcessPool as cause:
        raise DinoNoiseError(
            "a worker process was killed, most often for lack of memory: run the same command with fewer workers "
            "(finished images are kept)"
        ) from cause
    finally:
        pool.shutdown(cancel_futures=True)


def _map_ahead(
    pool: ProcessPoolExecutor, size: int, ahead: int, job: Callable[[T], R], items: Sequence[T]
) -> Iterator[R]:
    """``pool.map`` in constant memory: that one would make a waiting task of each chunk of a million images at once.

    The first tasks are given out at the call, not at the first result.
    """
    starts = iter(range(0, len(items), size))

    def give_out(count: int) -> Iterator[Future[list[R]]]:
        return (pool.submit(_run_chunk, job, items[start : start + size]) for start in islice(starts, count))

    waiting = deque(give_out(ahead))

    def results() -> Iterator[R]:
        while waiting:
            yield from waiting.popleft().result()
            waiting.extend(give_out(1))

    return results()


def _run_chunk(job: Callable[[T], R], items: Sequence[T]) -> list[R]:
    return [job(item) for item in items]


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
