"""Upstream's own checkpoints, one file per process, as one.

Its `FSDPCheckpointer` writes ``model_0001999.rank_0.pth``, ``….rank_1.pth``, …; each holds that process's shards. Of an
FSDP unit (a network, or a chunk of its blocks) all parameters, flattened and joined, are cut into equal shards. A file
holds them twice: as ``<unit>._flat_param``, a `ShardedTensor`, and, with ``use_orig_params``, under every parameter's
own name as the (possibly empty) flat piece that lies in the shard. Read against dinov2/fsdp lines 90-154 and PyTorch
2.4 and 2.13; PyTorch 2.0 joins parameters without a gap, later versions align them to 16 bytes.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dinov2_noise.errors import CheckpointError
from dinov2_noise.upstream.inert_reading import Inert, read_inert
from dinov2_noise.weights import Weights
from dinov2_noise.weights.names import to_upstream, unchunked

logger = logging.getLogger("dinov2")

Shapes = Mapping[str, tuple[int, ...]]

_NAME = re.compile(r"(?P<stem>.+)\.rank_\d+\.pth")
_WRAPPERS = re.compile(r"(_fsdp_wrapped_module|_fpw_module|_orig_mod)\.")
_FLAT = ("_flat_param", "flat_param")
_ALIGNMENTS = (1, 2, 4, 8)  # elements: none, or 16 bytes of float64, float32, float16
_PADDING = 42  # what FSDP fills gaps with
_CENTERS = ("dino_loss.center", "ibot_patch_loss.center")


def is_rank_file(path: Path | str) -> bool:
    """Whether ``path`` is named as one process's part of an upstream checkpoint."""
    return _NAME.fullmatch(Path(path).name) is not None


def plain_name(name: str) -> str:
    """A parameter's name without the wrappers around the network."""
    return _WRAPPERS.sub("", name)


def read_rank_files(
    path: Path | str, shapes: Shapes, groups: Sequence[Mapping[str, Any]] | None = None
) -> dict[str, Any]:
    """One whole checkpoint from the files of all ranks.

    Args:
        path: the file of any rank; the others lie beside it.
        shapes: names and shapes of the model's parameters and buffers, in the order of its state dict.
        groups: the optimizer's parameter groups with names under ``params``; None leaves the optimizer out.

    Returns:
        ``model``: name → full tensor, as far as the files hold it; ``optimizer``, keyed by name, unless it cannot be
        matched, which is logged; ``iteration`` and what else the files hold.

    Raises:
        CheckpointError: a rank's file is missing or cannot be read, or the files do not belong together.
    """
    files = _read_all(Path(path))
    models = [{plain_name(name): value for name, value in file["model"].items()} for file in files]
    whole = {key: value for key, value in files[0].items() if key not in ("model", "optimizer")}
    whole["model"] = _merge_model(models, shapes, Path(path))
    if groups is not None and all("optimizer" in file for file in files):
        try:
            whole["optimizer"] = _merge_optimizer([file["optimizer"] for file in files], shapes, groups)
        except CheckpointError as cause:
            logger.warning("dinov2-noise: the optimizer starts afresh, %s: %s", path, cause)
    return whole


def _read_all(path: Path) -> list[dict[str, Any]]:
    """The contents of all ranks' files, rank 0 first."""
    match = _NAME.fullmatch(path.name)
    if match is None:
        raise CheckpointError(f"{path} is not named as one rank's checkpoint, such as model_0001999.rank_0.pth")
    stem = match["stem"]
    first = _read_one(path)
    world_size = _world_size(first["model"]) or len(list(path.parent.glob(f"{stem}.rank_*.pth")))
    paths = [path.with_name(f"{stem}.rank_{rank}.pth") for rank in range(world_size)]
    missing = [each.name for each in paths if not each.is_file()]
    if missing:
        raise CheckpointError(
            f"checkpoint {stem} in {path.parent} was written by {world_size} processes, but {', '.join(missing)} is "
            "missing: copy it there from where it was written, or name an older checkpoint in last_checkpoint.rank_0"
        )
    files = [first if each == path else _read_one(each) for each in paths]
    if len({file.get("iteration") for file in files}) > 1:
        raise CheckpointError(f"the files {stem}.rank_*.pth in {path.parent} are of different iterations")
    return files


def _read_one(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise CheckpointError(f"checkpoint {path} does not exist")
    content = read_inert(path)
    if not isinstance(content, dict) or not isinstance(content.get("model"), dict):
        raise CheckpointError(f"{path} is not a training checkpoint: it holds no entry 'model'")
    return content


def _world_size(model: Mapping[str, Any]) -> int:
    """How many processes wrote the checkpoint; 0 when no shard tells."""
    sharded = [value for value in model.values() if isinstance(value, Inert)]
    return int(sharded[0].state[2].attribute("global_world_size")) if sharded else 0


def _merge_model(models: Sequence[Mapping[str, Any]], shapes: Shapes, path: Path) -> dict[str, Tensor]:
    flats = {
        name.rpartition(".")[0]: name for name in models[0] if name.rpartition(".")[2] in _FLAT
    }  # unit → its flat parameter
    merged = {name: value for name, value in models[0].items() if name not in shapes and name not in flats.values()}
    rest = []
    for name, shape in shapes.items():
        joined = _join([model[name] for model in models if name in model], shape)
        if joined is None:
            rest.append(name)
        else:
            merged[name] = joined
    for unit, members in _by_unit(rest, flats).items():
        flat = _merge_flat([model[flats[unit]] for model in models], f"{path}: {flats[unit]}")
        merged |= _unflatten(flat, {name: shapes[name] for name in members}, len(models), f"{path}: {flats[unit]}")
    return merged


def _join(pieces: Sequence[Tensor], shape: Sequence[int]) -> Tensor | None:
    """The whole tensor from flat pieces in the order of ranks, or from copies of the whole; None if it is neither."""
    if pieces and tuple(pieces[0].shape) == tuple(shape):
        return pieces[0].detach()
    if sum(piece.numel() for piece in pieces) != math.prod(shape):
        return None
    return torch.cat([piece.detach().flatten() for piece in pieces]).reshape(tuple(shape)) if pieces else None


def _by_unit(names: Sequence[str], units: Mapping[str, str]) -> dict[str, list[str]]:
    """Unit → those of ``names`` that its flat parameter holds: a name belongs to the innermost unit around it."""
    members: dict[str, list[str]] = {}
    for name in names:
        around = [unit for unit in units if name.startswith(f"{unit}.")]
        if around:
            members.setdefault(max(around, key=len), []).append(name)
    return members


def _merge_flat(parts: Sequence[Any], where: str) -> Tensor:
    """The flat parameter of a unit, (N,), from the ranks' `ShardedTensor`s; a plain tensor is whole already."""
    if isinstance(parts[0], Tensor):
        return parts[0].detach().flatten()
    shards = [shard for part in parts for shard in part.state[0]]
    total, pieces = int(parts[0].state[1].attribute("size")[0]), {}
    for shard in shards:
        pieces[int(shard.attribute("metadata").attribute("shard_offsets")[0])] = shard.attribute("tensor").detach()
    whole = torch.cat([piece for _, piece in sorted(pieces.items())])
    if whole.numel() != total:
        raise CheckpointError(f"{where}: the ranks' files hold {whole.numel()} of its {total} numbers")
    return whole


def _unflatten(flat: Tensor, shapes: Shapes, world_size: int, where: str) -> dict[str, Tensor]:
    """Parameters from the flat one, (N,); the gaps between them follow from N."""
    for alignment in _ALIGNMENTS:
        offsets, end, gaps = [], 0, torch.zeros(flat.numel(), dtype=torch.bool)
        for shape in shapes.values():
            start = math.ceil(end / alignment) * alignment
            gaps[end:start] = True
            offsets.append(start)
            end = start + math.prod(shape)
        gaps[end:] = True
        ends = (end,) if alignment == 1 else (end, math.ceil(end / world_size) * world_size)
        if flat.numel() in ends and bool((flat[gaps] == _PADDING).all()):
            return {
                name: flat[start : start + math.prod(shape)].reshape(tuple(shape))
                for start, (name, shape) in zip(offsets, shapes.items(), strict=True)
            }
    raise CheckpointError(
        f"{where} has {flat.numel()} numbers, which this config's network does not: resume with the config.yaml of "
        "the run that wrote it"
    )


def _merge_optimizer(
    states: Sequence[Mapping[str, Any]], shapes: Shapes, groups: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """The optimizer's state by parameter name; upstream's files number the parameters in the order of the groups.

    Raises:
        CheckpointError: groups or sizes are not those of this run's optimizer.
    """
    saved = states[0]["param_groups"]
    same = [_signature(group) for group in groups] == [_signature(group) for group in saved]
    if not same:
        raise CheckpointError("its parameter groups are others than this config's")
    names = [name for group in groups for name in group["params"]]
    numbers = [number for group in saved for number in group["params"]]
    merged = {
        name: _merge_entry([state["state"].get(number, {}) for state in states], shapes[name], name)
        for name, number in zip(names, numbers, strict=True)
    }
    options = [
        {**mine, **{key: value for key, value in theirs.items() if key in mine and key != "params"}}
        for mine, theirs in zip(groups, saved, strict=True)
    ]
    return {"state": merged, "param_groups": options}


def _signature(group: Mapping[str, Any]) -> tuple[Any, ...]:
    """What tells upstream's groups apart."""
    return len(group["params"]), *(group.get(key) for key in ("lr_multiplier", "wd_multiplier", "is_last_layer"))


def _merge_entry(entries: Sequence[Mapping[str, Any]], shape: Sequence[int], name: str) -> dict[str, Any]:
    """One parameter's state; ranks whose shard holds nothing of it have none."""
    merged: dict[str, Any] = {}
    for key in dict.fromkeys(key for entry in entries for key in entry):
        values = [entry[key] for entry in entries if key in entry]
        if isinstance(values[0], Tensor) and values[0].ndim > 0:
            merged[key] = _join(values, shape)
        else:
            merged[key] = values[0]
    if not merged or any(value is None for value in merged.values()):
        raise CheckpointError(f"the state of {name} is missing or of another size")
    return merged


def read_rank_teacher(path: Path | str, architecture: nn.Module) -> Weights:
    """The EMA teacher in the files of all ranks.

    Args:
        path: the file of any rank; the others lie beside it.
        architecture: upstream's `SSLMetaArch` of the same networks, before FSDP wraps it; its shapes are used. Its
            blocks may be chunked otherwise.

    Raises:
        CheckpointError: see `read_rank_files`; or the files hold no teacher.
    """
    shapes = {
        name: tuple(tensor.shape)
        for name, tensor in architecture.state_dict().items()
        if name.startswith("teacher.") or name in _CENTERS
    }
    wanted = _named_as_in(_read_one(Path(path))["model"], shapes)
    merged = read_rank_files(path, wanted)["model"]
    found = {name.removeprefix("teacher."): merged[name] for name in wanted if name in merged}
    prefix = "backbone."
    backbone = {name.removeprefix(prefix): value for name, value in found.items() if name.startswith(prefix)}
    if not backbone:
        raise CheckpointError(f"{path} holds no teacher with a backbone")
    rest = {name: value for name, value in found.items() if not name.startswith(prefix)}
    return Weights(str(path), "training checkpoint (teacher), one file per rank", to_upstream(backbone), rest)


def _named_as_in(model: Mapping[str, Any], shapes: Shapes) -> Shapes:
    """``shapes`` under the names in a file, whose blocks may be chunked otherwise."""
    by_number = {_by_number(name): shape for name, shape in shapes.items()}
    names = [plain_name(name) for name, value in model.items() if isinstance(value, Tensor)]
    renamed = {name: by_number[_by_number(name)] for name in names if _by_number(name) in by_number}
    return renamed if len(renamed) == len(shapes) else shapes


def _by_number(name: str) -> str:
    """A name in which blocks are counted without their chunks."""
    network, prefix, rest = name.partition("backbone.")
    return network + prefix + unchunked(rest)
