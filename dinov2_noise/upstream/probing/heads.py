"""The linear classifiers that upstream's `eval/linear.py` trains and saves, all at once or one of them.

A head reads the class tokens of the last n blocks side by side and, with ``avgpool``, the mean patch token of the last
block; n and avgpool stand in its name. Read against lines 176-260 (`create_linear_input`, `LinearClassifier`,
`setup_linear_classifiers`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import linear

from dinov2_noise.errors import CheckpointError
from dinov2_noise.upstream.probing.model import FeatureModel, Tokens, require_width
from dinov2_noise.weights.files import open_weights

_NAME = re.compile(r"classifier_(\d+)_blocks_avgpool_(True|False)_lr_[\d_]+")
_WEIGHT = re.compile(r"(?:module\.)?classifiers_dict\.(.+)\.linear\.(weight|bias)")


@dataclass(frozen=True)
class Head:
    """One linear classifier.

    Attributes:
        n_blocks, avgpool: its input, see the module.
        weight: (C, n_blocks · D + avgpool · D). bias: (C,).
    """

    name: str
    n_blocks: int
    avgpool: bool
    weight: Tensor
    bias: Tensor

    @property
    def n_classes(self) -> int:
        return int(self.weight.shape[0])

    @property
    def token_width(self) -> float:
        """D, from the number of its inputs."""
        return self.weight.shape[1] / (self.n_blocks + self.avgpool)

    def to(self, device: torch.device) -> Head:
        return Head(self.name, self.n_blocks, self.avgpool, self.weight.to(device), self.bias.to(device))

    def __call__(self, tokens: Tokens) -> Tensor:
        """Scores (B, C)."""
        return linear(linear_input(tokens, self.n_blocks, self.avgpool), self.weight, self.bias)


def linear_input(tokens: Tokens, n_blocks: int, avgpool: bool) -> Tensor:
    """What a head reads, (B, n_blocks · D + avgpool · D), float32."""
    parts = [class_token for _, class_token in tokens[-n_blocks:]]
    if avgpool:
        parts.append(tokens[-1][0].mean(dim=1))
    return torch.cat(parts, dim=-1).float()


def head_predictions(heads: Iterable[Head], tokens: Tokens) -> dict[str, Tensor]:
    """Predicted class (B,) of every head; heads with the same input share it."""
    inputs: dict[tuple[int, bool], Tensor] = {}
    found = {}
    for head in heads:
        key = head.n_blocks, head.avgpool
        if key not in inputs:
            inputs[key] = linear_input(tokens, *key)
        found[head.name] = linear(inputs[key], head.weight, head.bias).argmax(dim=1)
    return found


def heads_file(path: Path) -> Path:
    """The file of the heads: ``path`` itself, or the last checkpoint in an output folder of `eval/linear.py`.

    Raises:
        CheckpointError: there is none.
    """
    if not path.is_dir():
        return path
    pointer = path / "last_checkpoint"
    if not pointer.is_file():
        raise CheckpointError(
            f"{path} holds no heads of a linear probe (no last_checkpoint): give the --output-dir of "
            "`python -m dinov2.eval.linear`, run to its end"
        )
    return path / Path(pointer.read_text(encoding="utf-8").strip()).name


def are_finished(folder: Path) -> bool:
    """Whether upstream's `eval/linear.py` has trained the heads in its output folder to their end."""
    pointer = folder / "last_checkpoint"
    return pointer.is_file() and Path(pointer.read_text(encoding="utf-8").strip()).name == "model_final.pth"


def read_heads(path: Path) -> list[Head]:
    """All heads of an output folder of upstream's `eval/linear.py`, or of a file saved there, in upstream's order.

    Raises:
        CheckpointError: the file is missing, unreadable, or holds no heads.
    """
    file = heads_file(path)
    content = open_weights(file)
    state = content.get("model", content)
    parts: dict[str, dict[str, Tensor]] = {}
    for key, tensor in state.items() if isinstance(state, Mapping) else ():
        found = _WEIGHT.fullmatch(str(key))
        if found:
            parts.setdefault(found[1], {})[found[2]] = tensor
    heads = [_head(name, tensors, file) for name, tensors in parts.items()]
    if not heads:
        raise CheckpointError(
            f"{file} holds no heads of upstream's linear probe (entries classifiers_dict.NAME.linear.weight): give the "
            "--output-dir of `python -m dinov2.eval.linear`"
        )
    return heads


def _head(name: str, tensors: Mapping[str, Tensor], file: Path) -> Head:
    described = _NAME.fullmatch(name)
    if described is None or set(tensors) != {"weight", "bias"}:
        raise CheckpointError(f"{file}: head {name!r} does not look like one of upstream's, classifier_4_blocks_…")
    return Head(name, int(described[1]), described[2] == "True", tensors["weight"].float(), tensors["bias"].float())


def require_fit(heads: Iterable[Head], model: FeatureModel, n_classes: int, path: Path) -> None:
    """Check that heads belong to this backbone and these labels.

    Raises:
        CheckpointError: they read tokens of another width, or tell another number of classes.
    """
    for head in heads:
        width = head.token_width
        if not width.is_integer():
            raise CheckpointError(f"{path}: {head.name} has {head.weight.shape[1]} inputs, no multiple of its blocks")
        require_width(int(width), model, f"classifier {head.name} of {path}")
        if head.n_classes != n_classes:
            raise CheckpointError(
                f"classifier {head.name} of {path} tells {head.n_classes} classes apart, the validation images have "
                f"{n_classes}: give the linear probe of this data set"
            )
