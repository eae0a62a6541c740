"""Jobs that wait for others, over processes that take no time to leave."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass

from dinov2_noise.errors import DinoNoiseError


@dataclass(frozen=True)
class Task:
    """A picklable function and the names of the tasks that come before it, as far as they are given."""

    name: str
    work: Callable[[], None]
    needs: Collection[str] = ()


def run_tasks(tasks: Sequence[Task], processes: int) -> Iterator[str]:
    """Yield the name of each task as it ends.

    Args:
        tasks: a task stands after those it needs; earlier ones are begun first.
        processes: 1 works in this process.

    Raises:
        DinoNoiseError: a process was killed. Whatever a task raises, too; those at work are stopped then.
    """
    if min(processes, len(tasks)) <= 1:
        for task in tasks:
            task.work()
            yield task.name
        return
    with _pool(min(processes, len(tasks))) as pool:
        waiting, running = list(tasks), dict[Future[None], str]()
        while waiting or running:
            unfinished = {*(task.name for task in waiting), *running.values()}
            ready = [task for task in waiting if unfinished.isdisjoint(task.needs)]
            running |= {pool.submit(task.work): task.name for task in ready}
            waiting = [task for task in waiting if task not in ready]
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                future.result()
                yield running.pop(future)


@contextmanager
def _pool(processes: int) -> Iterator[ProcessPoolExecutor]:
    """Processes that are ended when the block is left by an exception."""
    others = {*multiprocessing.active_children()}
    # Not forked: a process that has computed with several threads cannot be.
    pool = ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"), initializer=_prepare_process)
    try:
        yield pool
    except BrokenProcessPool as cause:
        raise DinoNoiseError(
            "a worker process was killed, most often for lack of memory: run the same command with fewer processes "
            "(finished runs are kept)"
        ) from cause
    except BaseException:
        for process in {*multiprocessing.active_children()} - others:
            process.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _prepare_process() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes of a terminal; the parent acts on it
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:  # one that is killed says no farewell
        parent.join()
        os._exit(1)
