"""TensorBoard's event files, for every command that trains."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dinov2_noise.errors import WriteError


class Curves:
    """TensorBoard's event files, where the package is there; points after ``step`` in older files do not count.

    A thread of TensorBoard's writes them; what stops it (a full disk) is raised by the next call here.
    """

    def __init__(self, folder: Path, step: int) -> None:
        self._writer: Any = None
        try:
            from torch.utils.tensorboard.writer import SummaryWriter
        except ImportError:
            text = "dinov2-noise: no TensorBoard curves, for lack of the package: pip install tensorboard"
            print(text, file=sys.stderr)
            return
        self._folder, self._hook = folder, threading.excepthook
        threading.excepthook = self._pass_over
        try:
            with self._telling():
                self._writer = SummaryWriter(str(folder), purge_step=step + 1)
        except WriteError:
            threading.excepthook = self._hook
            raise

    def add(self, step: int, values: Mapping[str, float]) -> None:
        if self._writer is not None:
            with self._telling():
                for name, value in values.items():
                    self._writer.add_scalar(name, value, step)

    def add_image(self, step: int, name: str, image: Image.Image) -> None:
        if self._writer is not None:
            with self._telling():
                self._writer.add_image(name, np.asarray(image), step, dataformats="HWC")

    def add_text(self, step: int, name: str, text: str) -> None:
        if self._writer is not None:
            with self._telling():
                self._writer.add_text(name, text, step)

    def flush(self) -> None:
        if self._writer is not None:
            with self._telling():
                self._writer.flush()

    def close(self) -> None:
        if self._writer is not None:
            threading.excepthook = self._hook
            with self._telling():
                self._writer.close()

    @contextmanager
    def _telling(self) -> Iterator[None]:
        try:
            yield
        except OSError as cause:
            raise WriteError(self._folder, cause) from cause

    def _pass_over(self, failed: threading.ExceptHookArgs) -> None:
        """No traceback of TensorBoard's thread: its error comes again, as ours."""
        if not (isinstance(failed.exc_value, OSError) and type(failed.thread).__module__.startswith("tensorboard.")):
            self._hook(failed)
