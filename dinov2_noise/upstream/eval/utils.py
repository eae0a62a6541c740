"""``dinov2.eval.utils``: evaluation over gloo.

Replaced, on a CPU and while the module is imported: ``torch.inference_mode`` by ``torch.no_grad``, for the functions
decorated with it. Gloo's threads write into gathered tensors outside of inference mode, which older versions of torch
(2.4) refuse. The numbers are the same. Read against lines 51 and 114.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from unittest import mock

import torch


@contextmanager
def surround() -> Iterator[None]:
    """Lend the module ``no_grad`` under the name it decorates its functions with."""
    if torch.cuda.is_available():
        yield
        return
    with mock.patch.object(torch, "inference_mode", torch.no_grad):
        yield


def attach(module: ModuleType) -> None:
    """Nothing is left to replace once the module is imported."""
