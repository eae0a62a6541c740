"""Files of weights: our own, with the network's settings, and bare state dicts as published by the paper's authors."""

from __future__ import annotations

import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from neighbor2neighbor.phases import Strided
from neighbor2neighbor.unet import UNet

_SHOWN = 5  # of each kind of difference
_LONGEST_REASON = 160
_PARALLEL_PREFIX = "module."  # torch.nn.DataParallel puts it before every name


class CheckpointMismatchError(ValueError):
    """A file is not a checkpoint of this network."""


def save_checkpoint(path: Path | str, model: UNet | Strided, *, notes: Mapping[str, str] | None = None) -> None:
    """Write ``{"model": state_dict, "config": settings}``; the file takes its name only when it is complete.

    Args:
        path: of the file.
        model: the network.
        notes: what else is to be known of it, such as how its images were read; kept as ``"notes"`` if there are any.

    Raises:
        ValueError: ``model`` is strided around another network than ours.
    """
    network = model.net if isinstance(model, Strided) else model
    if not isinstance(network, UNet):
        raise ValueError(f"only a UNet can be saved with its settings, not {type(network).__name__}")
    settings = _settings(network) | ({"stride": model.stride} if isinstance(model, Strided) else {})
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    weights = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    try:
        with temporary.open(
            "wb"
        ) as file:  # by a path, torch would put its name into the file: equal weights, equal bytes
            torch.save({"model": weights, "config": settings, **({"notes": dict(notes)} if notes else {})}, file)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def read_notes(path: Path | str) -> dict[str, str] | None:
    """The notes of a file of :func:`save_checkpoint`; None of a bare state dict, of which nothing is known.

    Raises:
        FileNotFoundError, CheckpointMismatchError: as for :func:`load_checkpoint`.
    """
    content = _read(Path(path))
    return dict(content.get("notes", {})) if isinstance(content.get("config"), Mapping) else None


def load_checkpoint(path: Path | str) -> UNet | Strided:
    """The network of a file, in eval mode on the CPU.

    Reads files of :func:`save_checkpoint` and bare state dicts; the latter's width is read off the shapes, and they are
    taken to be non-residual, as the published weights are.

    Raises:
        FileNotFoundError: there is no such file.
        CheckpointMismatchError: not a file of weights, or of another architecture; the message names what differs.
    """
    weights, settings = _weights_and_settings(_read(Path(path)), path)
    stride = settings.pop("stride", 1)
    with torch.random.fork_rng(devices=[]):  # the initial weights are replaced at once
        try:
            model = UNet(**settings)
            denoiser = model if stride == 1 else Strided(model, stride)
        except (TypeError, ValueError) as cause:
            raise CheckpointMismatchError(f"{path} holds settings of another network: {settings}") from cause
    differences = _differences(weights, model.state_dict())
    if differences:
        raise CheckpointMismatchError(
            f"{path} holds weights of another architecture than UNet({_as_arguments(settings)}):{differences}"
        )
    model.load_state_dict(weights)
    return denoiser.eval()


def _weights_and_settings(content: Mapping[str, Any], path: Path | str) -> tuple[dict[str, Any], dict[str, Any]]:
    ours = isinstance(content.get("model"), Mapping) and isinstance(content.get("config"), Mapping)
    found = content["model"] if ours else content
    weights = {str(name).removeprefix(_PARALLEL_PREFIX): value for name, value in found.items()}
    return weights, dict(content["config"]) if ours else _inferred_settings(weights, path)


def _read(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"weights {path} do not exist: check the path")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, pickle.UnpicklingError) as cause:
        reason = str(cause).partition("\n")[0][:_LONGEST_REASON]  # torch adds advice that does not hold here
        raise CheckpointMismatchError(f"{path} is not a file of weights that torch can read: {reason}") from cause
    if not isinstance(content, Mapping) or not all(isinstance(name, str) for name in content):
        raise CheckpointMismatchError(f"{path} holds a {type(content).__name__}, not named weights")
    return content


def _settings(model: UNet) -> dict[str, Any]:
    return {
        "in_channels": model.in_channels,
        "out_channels": model.out_channels,
        "n_feature": model.n_feature,
        "residual": model.residual,
        "n_output_feature": model.n_output_feature,
    }


def _inferred_settings(weights: Mapping[str, Any], path: Path | str) -> dict[str, Any]:
    first, last = weights.get("enc_conv0.weight"), weights.get("nin_c.weight")
    if not (isinstance(first, Tensor) and isinstance(last, Tensor) and first.ndim == last.ndim == 4):
        raise CheckpointMismatchError(
            f"{path} holds weights of another architecture: it lacks enc_conv0.weight and nin_c.weight, and "
            f"{_contents(weights)}"
        )
    return {
        "in_channels": first.shape[1],
        "out_channels": last.shape[0],
        "n_feature": first.shape[0],
        "n_output_feature": last.shape[1],
    }


def _contents(found: Mapping[str, Any]) -> str:
    """What a foreign file begins with; of a whole training's state, what each part of it begins with."""
    parts = {name: [*value] for name, value in found.items() if isinstance(value, Mapping) and value}
    if not parts:
        return f"begins with {_shorten([*found])}" if found else "is empty"
    listed = "; ".join(f"{name!r} begins with {_shorten([*map(str, keys)])}" for name, keys in parts.items())
    return (
        f"is a state of several parts, of which {listed}. Save the one with the weights alone, if it is this network's"
    )


def _differences(found: Mapping[str, Any], expected: Mapping[str, Tensor]) -> str:
    missing = [name for name in expected if name not in found]
    unknown = [name for name in found if name not in expected]
    reshaped = [
        f"{name}: {_shape(found[name])} there, {_shape(value)} expected"
        for name, value in expected.items()
        if name in found and _shape(found[name]) != _shape(value)
    ]
    kinds = {"missing": missing, "unknown": unknown, "of another shape": reshaped}
    return "".join(f"\n  {kind}: {_shorten(names)}" for kind, names in kinds.items() if names)


def _shape(value: object) -> tuple[int, ...] | None:
    return tuple(value.shape) if isinstance(value, Tensor) else None


def _shorten(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _as_arguments(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in settings.items())
