"""``dinov2.fsdp``: sharding on today's PyTorch and on a CPU, and checkpoints that do not depend on the number of
processes.

Replaced: `get_fsdp_wrapper` (on a CPU), `free_if_fsdp` (its attributes were renamed in torch 2.1) and
`FSDPCheckpointer` (one file for all ranks, written under a temporary name; upstream's rank files fail on one GPU).
Read against lines 21-87 and 90-154.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial, wraps
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from fvcore.common.checkpoint import Checkpointer
from iopath.common.file_io import PathManager
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)

from dinov2_noise.errors import CheckpointError
from dinov2_noise.files import atomic_path
from dinov2_noise.upstream import runtime
from dinov2_noise.upstream.signatures import expect_signature


def attach(module: Any) -> None:
    _replace_wrapper(module)
    _replace_free(module)
    _replace_checkpointer(module)


def _replace_wrapper(module: Any) -> None:
    original = expect_signature(module, "get_fsdp_wrapper", lambda model_cfg, modules_to_wrap=None: None)

    @wraps(original)
    def get_fsdp_wrapper(model_cfg: Any, modules_to_wrap: Any = frozenset()) -> Callable[[nn.Module], Any]:
        wrapper = original(model_cfg, modules_to_wrap=modules_to_wrap)
        if torch.cuda.is_available():
            return wrapper  # type: ignore[no-any-return]
        on_cpu = partial(wrapper, device_id=torch.device("cpu"), sync_module_states=False)

        def wrap(network: nn.Module) -> Any:
            _broadcast_from_first_rank(network)
            return on_cpu(network)

        return wrap

    module.get_fsdp_wrapper = get_fsdp_wrapper


def _broadcast_from_first_rank(network: nn.Module) -> None:
    """What ``sync_module_states`` does on GPUs: every rank starts with rank 0's weights (upstream seeds ranks
    differently).
    """
    with torch.no_grad():
        for tensor in [*network.parameters(), *network.buffers()]:
            dist.broadcast(tensor, src=0)


def _replace_free(module: Any) -> None:
    expect_signature(module, "free_if_fsdp", lambda x: None)

    def free_if_fsdp(x: Any) -> None:
        if module.is_sharded_fsdp(x) and x._handle is not None:
            module._reshard(x, x._handle, True)

    module.free_if_fsdp = free_if_fsdp


class _ReadOnlyPathManager(PathManager):  # type: ignore[misc]
    """Of all ranks, only the first may delete old checkpoints."""

    def rm(self, path: str) -> None:
        return


def _whole() -> StateDictOptions:
    """Unsharded state; moved to the CPU from GPUs only (moving what is there already crashes FSDP)."""
    return StateDictOptions(full_state_dict=True, cpu_offload=torch.cuda.is_available())


def _plain(value: Any) -> Any:
    """NumPy scalars (upstream's schedules put them into the optimizer) as Python numbers, which `torch.load` trusts."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, dict):
        return {key: _plain(child) for key, child in value.items()}
    if isinstance(value, list):
        return [_plain(child) for child in value]
    return value


class _FullOptimizer:
    """An optimizer whose state dict is whole on rank 0, keyed by parameter name, and can be loaded on any number of
    ranks.
    """

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        self.model, self.optimizer = model, optimizer

    def state_dict(self) -> dict[str, Any]:
        state: dict[str, Any] = _plain(get_optimizer_state_dict(self.model, self.optimizer, options=_whole()))
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        set_optimizer_state_dict(self.model, self.optimizer, state, options=_whole())


def _replace_checkpointer(module: Any) -> None:
    expect_signature(module.FSDPCheckpointer, "save", lambda self, name, **kwargs: None)

    class FSDPCheckpointer(_OneFile, module.FSDPCheckpointer):  # type: ignore[misc]
        """Upstream's checkpointer, writing and reading one file for all ranks."""

    module.FSDPCheckpointer = FSDPCheckpointer


class _OneFile(Checkpointer):  # type: ignore[misc]
    """One file ``<name>.pth`` with model and optimizer in full, and ``last_checkpoint`` naming the newest."""

    def __init__(
        self, model: nn.Module, save_dir: str = "", *, optimizer: torch.optim.Optimizer | None = None, **options: Any
    ) -> None:
        if optimizer is not None:
            options["optimizer"] = _FullOptimizer(model, optimizer)
            if getattr(model, "fp16_scaler", None) is not None:
                options["fp16_scaler"] = model.fp16_scaler
        super().__init__(model, save_dir, **options)
        run = runtime.current()
        if run is not None and optimizer is not None:
            run.optimizer = optimizer
        if dist.get_rank() != 0:
            self.path_manager = _ReadOnlyPathManager()

    def save(self, name: str, **extra: Any) -> None:
        if not self.save_dir or not self.save_to_disk:
            return
        _apply_pending_center_updates(self.model)
        data = {"model": get_model_state_dict(self.model, options=_whole()), "global_batch": _global_batch()}
        data.update({key: part.state_dict() for key, part in self.checkpointables.items()})
        if dist.get_rank() == 0:
            _write(data | extra, Path(self.save_dir) / f"{name}.pth")
            self.logger.info("Saved checkpoint %s", os.path.join(self.save_dir, f"{name}.pth"))
        dist.barrier()

    def load(self, path: str, checkpointables: list[str] | None = None) -> dict[str, Any]:
        loaded: dict[str, Any] = Checkpointer.load(self, path, checkpointables)
        return loaded

    def _load_model(self, checkpoint: dict[str, Any]) -> None:
        weights = checkpoint.pop("model")
        _require_same_model(weights, get_model_state_dict(self.model, options=_whole()))
        _require_same_batch(checkpoint.get("global_batch"))
        set_model_state_dict(self.model, weights, options=_whole())

    has_checkpoint = Checkpointer.has_checkpoint
    get_checkpoint_file = Checkpointer.get_checkpoint_file


def _apply_pending_center_updates(model: nn.Module) -> None:
    """Losses apply the last step's center update at the next one; a checkpoint without it would resume differently."""
    for part in model.modules():
        apply: Any = getattr(part, "apply_center_update", None)
        if apply is not None:
            apply()


def _write(data: dict[str, Any], path: Path) -> None:
    """Checkpoint first, then the file that names it: an interruption leaves the previous pair."""
    with atomic_path(path) as temporary:
        torch.save(data, temporary)
    with atomic_path(path.with_name("last_checkpoint")) as temporary:
        temporary.write_text(path.name)


def _require_same_model(weights: dict[str, Any], model: dict[str, Any]) -> None:
    """fvcore would skip what does not fit and train on.

    Raises:
        CheckpointError: names or shapes differ; the first five are named. On all ranks, or on none.
    """
    # Moved to the CPU from GPUs, the whole model is on rank 0 only: its verdict counts.
    verdict = [_differences(weights, model) if dist.get_rank() == 0 else None]
    dist.broadcast_object_list(verdict, src=0)
    differing = verdict[0]
    if differing:
        rows = "".join(f"\n  {row}" for row in differing[:5])
        raise CheckpointError(
            f"the checkpoint belongs to another architecture or config; {len(differing)} entries differ:{rows}\n"
            "Resume with the config.yaml saved beside it, or train into a new --output-dir."
        )


def _differences(weights: dict[str, Any], model: dict[str, Any]) -> list[str]:
    differing = [f"{name}: missing in the checkpoint" for name in model if name not in weights]
    differing += [f"{name}: not in the model" for name in weights if name not in model]
    differing += [
        f"{name}: shape {tuple(weights[name].shape)}, the model has {tuple(tensor.shape)}"
        for name, tensor in model.items()
        if name in weights and tuple(weights[name].shape) != tuple(tensor.shape)
    ]
    return differing


def _global_batch() -> int | None:
    """Images per step over all ranks, of a run with a curriculum."""
    run = runtime.current()
    return None if run is None else int(run.cfg.train.batch_size_per_gpu) * dist.get_world_size()


def _require_same_batch(saved: int | None) -> None:
    """Another number of processes is welcome as long as a step stays the same step.

    Raises:
        CheckpointError: the checkpoint was made with another number of images per step.
    """
    now = _global_batch()
    if saved is not None and now is not None and saved != now:
        raise CheckpointError(
            f"the checkpoint was made with {saved} images per step, this run has {now} on {dist.get_world_size()} "
            f"processes: set train.batch_size_per_gpu={saved / dist.get_world_size():g}, or choose another --output-dir"
        )
