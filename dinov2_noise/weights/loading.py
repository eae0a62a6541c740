"""Put read weights into upstream's vision transformer."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from dinov2_noise.errors import CheckpointError
from dinov2_noise.weights.architecture import Architecture
from dinov2_noise.weights.names import unchunked, without_wrappers
from dinov2_noise.weights.positions import grid_side, resize_positions
from dinov2_noise.weights.reading import Weights
from dinov2_noise.weights.report import Report, Row

# Fields of `Architecture` that must agree, and the config key that decides each in the model.
_MUST_AGREE = (
    ("patch_size_px", "patch size", "student.patch_size"),
    ("width", "width", "student.arch"),
    ("depth", "number of blocks", "student.arch"),
    ("channels", "number of input channels", "in_chans of the model"),
    ("feed_forward", "feed-forward layer", "student.ffn_layer"),
)


def load_backbone(model: nn.Module, weights: Weights, *, required_percent: float = 95) -> Report:
    """Load a backbone, whatever the model's block chunks; the position grid is resized to the model's.

    Nothing else is resized. ``mask_token`` may be missing. The model is changed only if all checks pass.

    Args:
        model: upstream's ``DinoVisionTransformer``.
        required_percent: least part of the model's backbone that must come from the file, by parameters and by
            entries; and of the file's backbone that must find a place in the model.

    Raises:
        CheckpointError: patch size, width, depth, feed-forward layer, layer scale or registers differ, or less fits
            than required.
    """
    targets = {unchunked(without_wrappers(name)): tensor for name, tensor in model.state_dict().items()}
    _require_same_architecture(targets, weights)
    values, rows = {}, []
    for name, target in targets.items():
        value, row = _match(name, target, weights.backbone.get(name), model)
        rows.append(row)
        if value is not None:
            values[name] = value
    rows += [Row(name, "unexpected", t.numel()) for name, t in weights.backbone.items() if name not in targets]
    report = Report(weights.source, weights.kind, tuple(rows))
    _require_enough(report, required_percent)
    with torch.no_grad():
        for name, value in values.items():
            targets[name].copy_(value)
    return report


def _match(name: str, target: Tensor, found: Tensor | None, model: nn.Module) -> tuple[Tensor | None, Row]:
    """The value for one entry of the model, or None, and what the report says of it."""
    size = target.numel()
    if found is None:
        return None, Row(name, "missing", size, f"{tuple(target.shape)} keeps its initial values")
    if found.shape == target.shape:
        return found, Row(name, "loaded", size)
    if name == "pos_embed" and found.dim() == 3 and grid_side(found) is not None:
        side, grid = grid_side(found), _grid(model, target)
        if grid is not None and found.shape[2] == target.shape[2]:
            note = f"{side} x {side} -> {grid[0]} x {grid[1]} patches"
            return resize_positions(found, grid), Row(name, "resized", size, note)
    note = f"shape {tuple(found.shape)} in the file, the model needs {tuple(target.shape)}"
    return None, Row(name, "missing", size, note)


def _grid(model: nn.Module, positions: Tensor) -> tuple[int, int] | None:
    """Rows and columns of the model's patch grid; where its patch embedding does not tell, it must be square."""
    told = getattr(getattr(model, "patch_embed", None), "patches_resolution", None)
    if told is not None and told[0] * told[1] == positions.shape[1] - 1:
        return int(told[0]), int(told[1])
    side = grid_side(positions)
    return None if side is None else (side, side)


def _require_same_architecture(targets: Mapping[str, Tensor], weights: Weights) -> None:
    try:
        theirs, ours = Architecture.of(weights.backbone), Architecture.of(targets)
    except (KeyError, ValueError) as cause:
        raise CheckpointError(
            f"weights {weights.source!r} and the model are not both vision transformers of DINOv2's form: {cause!r}"
        ) from cause
    differing = [
        f"{label} {getattr(theirs, field)} in the file, {getattr(ours, field)} in the model ({key})"
        for field, label, key in _MUST_AGREE
        if getattr(theirs, field) != getattr(ours, field)
    ]
    if theirs.layer_scale != ours.layer_scale:
        way_out = "give a value" if theirs.layer_scale else "set it to 0"
        differing.append(f"layer scale {_where(theirs.layer_scale)} (student.layerscale: {way_out})")
    if theirs.registers not in (0, ours.registers):
        differing.append(
            f"{theirs.registers} registers in the file, {ours.registers or 'none'} in the model: without them it is "
            f"another function (student.num_register_tokens={theirs.registers}, in a checkout of DINOv2; its PyPI "
            "wheel has no registers)"
        )
    if differing:
        rows = "".join(f"\n  {row}" for row in differing)
        raise CheckpointError(
            f"weights {weights.source!r} belong to another architecture than the config's:{rows}\n"
            "Change those keys, or use the config.yaml saved beside the run that made the weights."
        )


def _where(in_file: bool) -> str:
    return "in the file, none in the model" if in_file else "in the model, none in the file"


def _require_enough(report: Report, required_percent: float) -> None:
    filled = min(report.percent_of_parameters, report.percent_of_entries)
    if filled >= required_percent and report.percent_used >= required_percent:
        return
    if filled < required_percent:
        verdict = (
            f"they fill {report.percent_of_parameters:.1f} % of the backbone's parameters and "
            f"{report.percent_of_entries:.1f} % of its entries"
        )
    else:
        verdict = f"only {report.percent_used:.1f} % of the file's backbone have a place in the model"
    raise CheckpointError(
        f"weights {report.source!r} belong to another architecture than the config's: {verdict}, "
        f"{required_percent:g} % are needed.\n{report.table()}\n"
        "Likely causes: student.arch, student.qkv_bias, student.proj_bias or student.ffn_bias differ, or the file is "
        "of another kind of network. Use the config.yaml saved beside the run that made the weights."
    )
