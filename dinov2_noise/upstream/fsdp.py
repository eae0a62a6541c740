"""``dinov2.fsdp``: sharding on today's PyTorch and on a CPU, and checkpoints that do not depend on the number of
processes.

Replaced: `get_fsdp_wrapper` (on a CPU), `free_if_fsdp` (its attributes were renamed in torch 2.1) and
`FSDPCheckpointer` (one file for all ranks, written under a temporary name; upstream's rank files, which fail on one
GPU, are read). Read against lines 21-87 and 90-154.
"""

from __future__ import annotations

import re
import warnings
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
from dinov2_noise.upstream import rng, runtime
from dinov2_noise.upstream.checkpoint_checks import (
    global_batch,
    require_same_batch,
    require_same_model,
    require_same_start,
)
from dinov2_noise.upstream.checkpoint_files import (
    LAST,
    found_by_first_rank,
    on_first_rank,
    read_checkpoint,
    remove_leftovers,
    set_aside,
    waiting_group,
    way_out,
    write_checkpoint,
)
from dinov2_noise.upstream.rank_files import is_rank_file, plain_name, read_rank_files
from dinov2_noise.upstream.signatures import expect_signature
from dinov2_noise.upstream.trial_save import trial_save


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

    def named_groups(self) -> list[dict[str, Any]]:
        """The parameter groups, with names in place of parameters."""
        names = {id(parameter): plain_name(name) for name, parameter in self.model.named_parameters()}
        return [
            group | {"params": [names[id(parameter)] for parameter in group["params"]]}
            for group in self.optimizer.param_groups
        ]


def _replace_checkpointer(module: Any) -> None:
    expect_signature(module.FSDPCheckpointer, "save", lambda self, name, **kwargs: None)

    class FSDPCheckpointer(_OneFile, module.FSDPCheckpointer):  # type: ignore[misc]
        """Upstream's checkpointer, writing one file for all ranks; it reads that and upstream's own."""

    module.FSDPCheckpointer = FSDPCheckpointer


class _OneFile(Checkpointer):  # type: ignore[misc]
    """One file ``<name>.pth`` with model and optimizer in full, and ``last_checkpoint`` naming the newest.

    Entries: ``model``, ``optimizer`` and ``fp16_scaler`` (name → full tensors), ``iteration`` (the last one done),
    ``global_batch`` (images per step), ``n_images`` (of the data set), ``rng`` (see `upstream.rng`); the last three are
    None without a curriculum.
    """

    _source = ""
    _planned: int | None = None  # where the config expects training to go on; see `require_same_start`

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
        waiting_group()  # here, where all ranks still are together

    def save(self, name: str, **extra: Any) -> None:
        if not self.save_dir or not self.save_to_disk:
            return
        _apply_pending_center_updates(self.model)
        data: dict[str, Any] = {"model": self._whole_model(), "global_batch": global_batch()}
        data.update({key: part.state_dict() for key, part in self.checkpointables.items()})
        run = runtime.current()
        data |= {"rng": None, "n_images": None} if run is None else {"rng": rng.gather(), "n_images": run.n_images}
        path = Path(self.save_dir) / f"{name}.pth"
        with on_first_rank(f"checkpoint {path} could not be written, earlier ones are intact. {_TO_GO_ON}") as first:
            if first:
                write_checkpoint(data | extra, path)
                self.logger.info("Saved checkpoint %s", path)

    def resume_or_load(self, path: str, *, resume: bool = True) -> dict[str, Any]:
        run = runtime.current() if "optimizer" in self.checkpointables else None
        newest = found_by_first_rank(self.get_checkpoint_file) if resume else ""
        if run is not None and re.fullmatch(r"model_\d+\.pth", Path(newest).name):
            self._planned = run.first_iteration
        loaded: dict[str, Any] = self.load(newest) if newest else self.load(path, checkpointables=[])
        if run is None or not (self.save_dir and self.save_to_disk):
            return loaded
        folder = Path(self.save_dir)
        with on_first_rank(f"what earlier runs left in {folder} cannot be put away") as is_first:
            if is_first:
                remove_leftovers(folder)
        first_iteration = loaded.get("iteration", -1) + 1
        if run.health.trial_save and first_iteration < run.curriculum.total_iterations:
            trial_save(folder, self._whole_model(), run, first_iteration)
        if not resume:
            with on_first_rank(f"what earlier runs left in {folder} cannot be put away") as is_first:
                if is_first:
                    set_aside(folder)
        return loaded

    def load(self, path: str, checkpointables: list[str] | None = None) -> dict[str, Any]:
        self._source = path
        if path and "://" not in path and not Path(path).is_file():
            self._load_file(path)  # says what is missing
        loaded: dict[str, Any] = Checkpointer.load(self, path, checkpointables)
        run = runtime.current()
        if run is not None and path and checkpointables is None:
            run.saved_n_images = loaded.pop("n_images", None)
            run.pending_rng = rng.plan(loaded.pop("rng", None), run, loaded.get("iteration", -1) + 1)
        return loaded

    def _load_file(self, f: str) -> dict[str, Any]:
        content: dict[str, Any] = {}
        problem = None
        try:
            content = self._read(f)
        except Exception as cause:
            problem = cause
        require_same_start(f, content.get("iteration", -1), self._planned, problem)
        return content

    def _read(self, f: str) -> dict[str, Any]:
        if not is_rank_file(f):
            return read_checkpoint(Path(f))
        self.logger.info("%s: upstream's files, one per rank, are read as one; saved is one for all ranks", f)
        box: list[Any] = [{name: tuple(value.shape) for name, value in self._whole_model().items()}]
        dist.broadcast_object_list(box, src=0)  # moved to the CPU from GPUs, the whole model is on rank 0 only
        optimizer = self.checkpointables.get("optimizer")
        return read_rank_files(f, box[0], None if optimizer is None else optimizer.named_groups())

    def _load_model(self, checkpoint: dict[str, Any]) -> None:
        weights = checkpoint.pop("model")
        require_same_model(weights, self._whole_model(), self._source)
        if "optimizer" in self.checkpointables:  # evaluation makes no steps
            require_same_batch(checkpoint.get("global_batch"), self._source)
        set_model_state_dict(self.model, weights, options=_whole())

    def _whole_model(self) -> dict[str, Any]:
        with warnings.catch_warnings():
            # One process shards nothing, so that the state is whole anyway: no news, at every save.
            warnings.filterwarnings("ignore", message="When using ``NO_SHARD``")
            weights: dict[str, Any] = get_model_state_dict(self.model, options=_whole())
        return weights

    def has_checkpoint(self) -> bool:
        return self._tag() is not None

    def get_checkpoint_file(self) -> str:
        tag = self._tag()
        if tag is None:
            return ""
        name = tag.read_text(encoding="utf-8").strip()
        if not name:
            raise CheckpointError(f"{tag} names no checkpoint. {way_out(tag)}")
        return str(tag.with_name(name))

    def _tag(self) -> Path | None:
        """The file that names the newest checkpoint: ours, else upstream's."""
        tags = [Path(self.save_dir) / name for name in (LAST, f"{LAST}.rank_0")]
        return next((tag for tag in tags if tag.is_file()), None)


_TO_GO_ON = "Make room and start the same command again (without --no-resume): it goes on from there. The system says"


def _apply_pending_center_updates(model: nn.Module) -> None:
    """Losses apply the last step's center update at the next one; a checkpoint without it would resume differently."""
    for part in model.modules():
        apply: Any = getattr(part, "apply_center_update", None)
        if apply is not None:
            apply()
