"""Which denoiser: a file of weights, a module, or a function ``module:factory`` that makes one."""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import nn
from yaml import YAMLError  # type: ignore[import-untyped]

from dinov2_noise.decoding import DTYPE_RANGE
from dinov2_noise.errors import CheckpointError, ConfigError
from neighbor2neighbor import CheckpointMismatchError, load_checkpoint, read_notes

_SHOWN = 8  # names that a module offers


@dataclass(frozen=True)
class Denoiser:
    """A network and what tells it from others.

    Attributes:
        module: maps ``(B, 3, h, w)`` in [0, 1] to the same shape.
        identity: for the manifest.
        label: for messages.
        is_own: a network of ours: it may take channels-last tensors, and its range needs no check.
        values: name of the range of stored values that it was trained on; None where nothing tells.
    """

    module: nn.Module
    identity: Mapping[str, Any]
    label: str
    is_own: bool = False
    values: str | None = None


def load_denoiser(
    weights: Path | None, model: nn.Module | None, factory: str | None, options: Mapping[str, Any] | None = None
) -> Denoiser:
    """The one of three that is given, in eval mode on the CPU or where the module is.

    Args:
        weights: file written by ``denoise train``, or published Neighbor2Neighbor weights.
        model: a module.
        factory: ``module:factory``, a function without needed arguments other than ``options`` that returns a module.
        options: keyword arguments of the factory.

    Raises:
        ConfigError: not exactly one is given, or the factory cannot be had, fails, or returns something else.
        CheckpointError: the file cannot be read, or holds weights of another network.
    """
    if [weights, model, factory].count(None) != 2:
        raise ConfigError(
            "denoise apply takes either weights or a model: give exactly one of --weights FILE and --model "
            "module:factory"
        )
    if options and factory is None:
        raise ConfigError(f"options {', '.join(options)} belong to a factory (--model module:factory)")
    if weights is not None:
        return _from_weights(weights)
    if factory is not None:
        return _from_factory(factory, dict(options or {}))
    assert model is not None
    label = f"{type(model).__module__}.{type(model).__qualname__}"
    return Denoiser(model.eval(), {"model": label, **_content(model)}, label)


def parse_options(texts: Sequence[str]) -> dict[str, Any]:
    """``["sigma=0.1", "pretrained=null"]`` as a mapping; values are read as YAML.

    Raises:
        ConfigError: one of another form.
    """
    for text in texts:
        if not text.partition("=")[0].isidentifier() or "=" not in text:
            raise ConfigError(f"model option {text!r} is not key=value, such as sigma=0.1")
    try:
        content = OmegaConf.to_container(OmegaConf.from_dotlist(list(texts)), resolve=True)
    except (YAMLError, OmegaConfBaseException) as cause:
        raise ConfigError(f"model options {' '.join(texts)} cannot be read as YAML: {cause}") from cause
    assert isinstance(content, dict)
    return {str(key): value for key, value in content.items()}


def _from_weights(path: Path) -> Denoiser:
    try:
        network, notes = load_checkpoint(path), read_notes(path)
    except (FileNotFoundError, CheckpointMismatchError) as cause:
        raise CheckpointError(str(cause)) from cause
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    values = None if notes is None else notes.get("range", DTYPE_RANGE.name)
    # Channels-last convolutions are faster on CPU and GPU alike.
    network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return Denoiser(network, {"weights_sha256": digest}, str(path), is_own=True, values=values)


def _from_factory(spec: str, options: dict[str, Any]) -> Denoiser:
    factory = _find(spec)
    shown = ", ".join(f"{key}={value!r}" for key, value in options.items())
    call = f"{spec}({shown})"
    try:
        json.dumps(options)  # they go into the manifest
        made = factory(**options)
    except (Exception, SystemExit) as cause:  # a user's code may raise anything, and a script may end itself
        raise ConfigError(f"the model {call} could not be made: {type(cause).__name__}: {cause}") from cause
    if not isinstance(made, nn.Module):
        raise ConfigError(
            f"{call} returned a {type(made).__name__}, not a torch.nn.Module: wrap what it does in a module that maps "
            "(B, 3, H, W) in [0, 1] to the same shape"
        )
    return Denoiser(made.eval(), {"model": spec, "model_options": options, **_content(made)}, call)


def _find(spec: str) -> Callable[..., Any]:
    name, separator, attribute = spec.partition(":")
    if not (name and separator and attribute):
        raise ConfigError(f"model {spec!r} is not module:factory, such as my_models:median")
    if os.getcwd() not in sys.path:  # as for `python -m`; the command's own file lies elsewhere
        sys.path.insert(0, os.getcwd())
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as cause:
        if cause.name is None or not f"{name}.".startswith(f"{cause.name}."):
            raise ConfigError(f"model {spec}: {name} needs {cause.name}, which is not installed") from cause
        raise ConfigError(
            f"model {spec}: there is no module {cause.name}, neither in {os.getcwd()} nor installed"
        ) from cause
    except (Exception, SystemExit) as cause:  # a user's code may raise anything, and a script may end itself
        raise ConfigError(f"model {spec}: importing {name} failed: {type(cause).__name__}: {cause}") from cause
    factory: Callable[..., Any] | None = getattr(module, attribute, None)
    if not callable(factory):
        raise ConfigError(f"model {spec}: {name} has no function {attribute}; {_offer(module)}")
    return factory


def _offer(module: Any) -> str:
    own = [
        name
        for name, value in vars(module).items()
        if callable(value) and not name.startswith("_") and getattr(value, "__module__", None) == module.__name__
    ]
    more = f" and {len(own) - _SHOWN} more" if len(own) > _SHOWN else ""
    return f"it has {', '.join(own[:_SHOWN])}{more}" if own else "it has none"


def _content(module: nn.Module) -> dict[str, str]:
    """A hash of all parameters and buffers; nothing for a module without any."""
    digest = hashlib.sha256()
    tensors = [*module.named_parameters(), *module.named_buffers()]
    for name, tensor in tensors:
        values = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {values.dtype} {tuple(values.shape)}\n".encode())
        digest.update(values.reshape(-1).view(torch.uint8).numpy().tobytes())
    return {"model_sha256": digest.hexdigest()} if tensors else {}
