"""torchvision, as upstream's data pipeline imports it, beside a CPU-only torch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

from dinov2_noise.torchvision_ops import declare_missing_ops


@contextmanager
def surround() -> Iterator[None]:
    """Declare the operators that torchvision expects from its compiled part, where that cannot be loaded."""
    declare_missing_ops()
    yield


def attach(module: ModuleType) -> None:
    """Nothing to replace: the import itself was the problem."""
