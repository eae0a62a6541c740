"""Weights files as they lie on disk: PyTorch's own, safetensors, and folders that hold one of them, whole or in shards.

A ``.pth`` is a pickle, and a pickle is a program. Here it is only ever opened with ``weights_only=True``: tensors and
plain containers are read, anything else is refused before it can run.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from dinov2_noise.errors import CheckpointError

# In the order of preference: the first two are Hugging Face's and timm's, safetensors before pickle.
_IN_FOLDER = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
_RANK_FILE = re.compile(r"\.rank_\d+\.")
_ZIP, _PICKLE = b"PK\x03\x04", b"\x80"


def open_weights(path: Path) -> Mapping[str, Any]:
    """The content of a file or folder: a state dict, or a mapping that holds one.

    Raises:
        CheckpointError: it does not exist, is incomplete, is no weights file, holds Python objects other than
            tensors and containers, or is one rank's part of upstream's checkpoint.
    """
    if path.is_dir():
        return open_weights(_file_in(path))
    if not path.is_file():
        raise CheckpointError(_not_found(path))
    if _RANK_FILE.search(path.name):
        raise _rank_file(path)
    if path.suffix == ".json":
        return _open_shards(path)
    start = _first_bytes(path)
    if start[8:9] == b"{":  # a length of 8 bytes, then JSON
        return _open_safetensors(path)
    if start.startswith((_ZIP, _PICKLE)):
        return _open_pickle(path, mapped=start.startswith(_ZIP))
    raise CheckpointError(f"weights {str(path)!r} are no weights file: {_guess(start)}")


def _not_found(path: Path) -> str:
    if re.match(r"https?:/", str(path)):
        return f"weights {str(path)!r} are an address: download the file and give its path"
    return f"weights {str(path)!r} not found: check the path (student.pretrained_weights, --pretrained-weights)"


def _file_in(folder: Path) -> Path:
    """The weights file of a folder; in the output folder of a run its newest checkpoint."""
    for name in _IN_FOLDER:
        if (folder / name).is_file():
            return folder / name
    newest = folder / "last_checkpoint"
    if newest.is_file():
        return folder / Path(newest.read_text(encoding="utf-8").strip()).name
    raise CheckpointError(
        f"weights folder {str(folder)!r} holds none of {', '.join(_IN_FOLDER)}, nor a run's last_checkpoint: "
        "give the file itself"
    )


def _first_bytes(path: Path) -> bytes:
    with path.open("rb") as stream:
        return stream.read(16)


def _guess(start: bytes) -> str:
    if not start:
        return "the file is empty"
    if start.startswith(b"version https://"):
        return "it is a git-lfs pointer; fetch the file itself with `git lfs pull`"
    if start.lstrip().startswith(b"<"):
        return "it is a web page; the download went wrong"
    return f"it begins with {start[:8]!r}; known are PyTorch's .pth, .pt and .bin, and .safetensors"


def _open_pickle(path: Path, *, mapped: bool) -> Mapping[str, Any]:
    """``mapped``: leave tensors on the disk until they are used, which spares the memory of an optimizer's state."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as cause:
        raise _refused(path, cause) from cause
    if not isinstance(content, Mapping):
        raise CheckpointError(f"weights {str(path)!r} hold no state dict, but a {type(content).__name__}")
    return content


def _refused(path: Path, cause: Exception) -> CheckpointError:
    """What torch's reason means to a user."""
    foreign = re.search(r"GLOBAL ([\w.]+)", str(cause))
    if foreign is None:
        reason = str(cause).rpartition("WeightsUnpickler error:")[2].strip() or type(cause).__name__
        return CheckpointError(
            f"weights {str(path)!r} cannot be read ({_first_sentence(reason)}): is the file complete? It has "
            f"{path.stat().st_size:,} bytes"
        )
    if "shard" in foreign[1].lower() or "DTensor" in foreign[1]:
        return _rank_file(path)
    return CheckpointError(
        f"weights {str(path)!r} hold a Python object ({foreign[1]}), not tensors alone: opening it could run any "
        "program, so it was not opened. If you trust its source, take the state dict out of it once, with "
        "torch.load(file, weights_only=False), and save that alone"
    )


def _first_sentence(text: str) -> str:
    return re.split(r"\.\s|\n", text, maxsplit=1)[0]


def _rank_file(path: Path) -> CheckpointError:
    return CheckpointError(
        f"weights {str(path)!r} are one process's part of upstream's sharded checkpoint, not whole weights: the "
        "training run itself resumes from them, and anchor.teacher accepts them; elsewhere give the run's "
        "eval/training_<iteration>/teacher_checkpoint.pth"
    )


def _open_safetensors(path: Path) -> Mapping[str, Any]:
    try:
        from safetensors.torch import load_file
    except ImportError as cause:
        raise CheckpointError(
            f"weights {str(path)!r} are in safetensors format: install its reader with `pip install safetensors`"
        ) from cause
    try:
        content: Mapping[str, Any] = load_file(path)
    except Exception as cause:
        raise _refused(path, cause) from cause
    return content


def _open_shards(index: Path) -> Mapping[str, Any]:
    """All shards that ``weight_map`` of an index names; they lie beside it."""
    try:
        shards = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError) as cause:
        raise CheckpointError(f"weights index {str(index)!r} has no weight_map: {cause!r}") from cause
    content: dict[str, Any] = {}
    for shard in shards:
        content.update(open_weights(index.parent / Path(shard).name))
    return content
