"""``dinov2.utils.utils``: staged schedules, and weights that must fit.

Replaced: `CosineScheduler` (with a curriculum its values come from `dinov2_noise.curriculum`; without one it is
upstream's) and `load_pretrained_weights` (upstream loads with ``strict=False``: a checkpoint of another architecture
would leave a random network). Read against lines 22-37 and 66-95.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import wraps
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dinov2_noise.errors import CheckpointError
from dinov2_noise.upstream import runtime
from dinov2_noise.upstream.signatures import expect_signature


def attach(module: Any) -> None:
    _stage_schedules(module)
    _check_weights(module)


def _stage_schedules(module: Any) -> None:
    expect_signature(
        module.CosineScheduler,
        "__init__",
        lambda self, base_value, final_value, total_iters, warmup_iters=0, start_warmup_value=0, freeze_iters=0: None,
    )

    class CosineScheduler(module.CosineScheduler):  # type: ignore[misc]
        """Upstream's schedule; staged when the run has a curriculum."""

        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            run = runtime.current()
            if run is not None:
                self.schedule = run.next_schedule(options)
                self.total_iters = len(self.schedule)

    module.CosineScheduler = CosineScheduler


def _check_weights(module: Any) -> None:
    original = expect_signature(
        module, "load_pretrained_weights", lambda model, pretrained_weights, checkpoint_key: None
    )

    @wraps(original)
    def load_pretrained_weights(model: nn.Module, pretrained_weights: str, checkpoint_key: str | None) -> None:
        if "://" not in str(pretrained_weights):
            require_fit(model, read_weights(pretrained_weights, checkpoint_key), pretrained_weights)
        original(model, pretrained_weights, checkpoint_key)

    module.load_pretrained_weights = load_pretrained_weights


def read_weights(path: str, *keys: str | None) -> dict[str, Tensor]:
    """The backbone's state dict in a checkpoint file, prefixes removed as upstream removes them.

    ``keys``: entries of the file that may hold it, the first one found counts; without any the file itself does.

    Raises:
        CheckpointError: the file is missing or not a checkpoint.
    """
    if not Path(path).is_file():
        raise CheckpointError(f"weights {path!r} not found: check the path given as --pretrained-weights")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as cause:
        raise CheckpointError(f"weights {path!r} cannot be read ({cause}): is the file complete?") from cause
    for key in keys:
        if isinstance(content, Mapping) and key is not None and key in content:
            content = content[key]
            break
    if not isinstance(content, Mapping):
        raise CheckpointError(f"weights {path!r} hold no state dict")
    return {name.replace("module.", "").replace("backbone.", ""): value for name, value in content.items()}


def require_fit(model: nn.Module, weights: Mapping[str, Any], source: str) -> None:
    """Check that ``weights`` hold every parameter of ``model`` in its shape; others (heads) may be there.

    Raises:
        CheckpointError: they do not; the first five differences are named.
    """
    differences = []
    for name, parameter in model.state_dict().items():
        if name not in weights:
            differences.append(f"{name}: missing")
        elif tuple(weights[name].shape) != tuple(parameter.shape):
            differences.append(f"{name}: shape {tuple(weights[name].shape)}, the model needs {tuple(parameter.shape)}")
    if differences:
        rows = "".join(f"\n  {row}" for row in differences[:5])
        raise CheckpointError(
            f"weights {source!r} belong to another architecture than the config's: {len(differences)} of "
            f"{len(model.state_dict())} entries do not fit:{rows}\n"
            "Use the config.yaml saved beside the run that made them (student.arch, student.patch_size, "
            "crops.global_crops_size, "
            "student.block_chunks)."
        )
