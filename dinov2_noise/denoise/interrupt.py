"""Leaving a long computation between two steps, not within one."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import AbstractContextManager
from types import FrameType
from typing import Any

_HINT = b"\ninterrupted: the step is finished and saved first; once more to leave at once\n"
# Only where nobody else has taken them over: submitit, for one, has its own ways with SIGTERM.
_USUAL = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}


class Deferred(AbstractContextManager["Deferred"]):
    """In the block, the first Ctrl-C or SIGTERM waits until `leave` is called; a second one acts as usual.

    Outside of the main thread, which alone gets signals, this does nothing.

    Attributes:
        received: the signal that waits, or None.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._before: dict[int, Any] = {}
        self._pid = os.getpid()

    def __enter__(self) -> Deferred:
        if threading.current_thread() is threading.main_thread():
            for number, usual in _USUAL.items():
                if signal.getsignal(number) == usual:
                    self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def leave(self) -> None:
        """Do what the signal asked for, if one came.

        Raises:
            KeyboardInterrupt: SIGINT. SystemExit: SIGTERM; the status is 143.
        """
        if self.received == signal.SIGINT:
            raise KeyboardInterrupt
        if self.received is not None:
            raise SystemExit(128 + self.received)

    def _receive(self, number: int, _frame: FrameType | None) -> None:
        self.received = number
        self._restore()
        if os.getpid() == self._pid:  # forked loader processes have this handler too
            os.write(2, _HINT)

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()
