"""What a backbone's entries tell of its architecture. The number of heads is not among it: no shape depends on it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from dinov2_noise.errors import CheckpointError
from dinov2_noise.weights.positions import grid_side
from dinov2_noise.weights.reading import Weights


@dataclass(frozen=True)
class Architecture:
    """Depth in blocks, width, patch size in px, input channels, square position grid (side; None where it is not
    square), register tokens, feed-forward layer (``mlp``, ``swiglu``, ``none``), layer scale, learned parameters.
    """

    depth: int
    width: int
    patch_size_px: int
    channels: int
    grid: int | None
    registers: int
    feed_forward: str
    layer_scale: bool
    parameters: int

    @classmethod
    def of(cls, backbone: Mapping[str, Tensor]) -> Architecture:
        """From entries under upstream's names, without block chunks.

        Raises:
            KeyError: there is no patch embedding.
        """
        width, channels, patch_size_px, _ = backbone["patch_embed.proj.weight"].shape
        blocks = {name.split(".")[1] for name in backbone if name.startswith("blocks.")}
        kinds = {"mlp": ".mlp.fc1.weight", "swiglu": ".mlp.w12.weight"}
        positions, registers = backbone.get("pos_embed"), backbone.get("register_tokens")
        return cls(
            depth=len(blocks),
            width=width,
            patch_size_px=patch_size_px,
            channels=channels,
            grid=None if positions is None else grid_side(positions),
            registers=0 if registers is None else registers.shape[1],
            feed_forward=next((kind for kind, end in kinds.items() if any(n.endswith(end) for n in backbone)), "none"),
            layer_scale=any(name.endswith(".ls1.gamma") for name in backbone),
            parameters=sum(tensor.numel() for tensor in backbone.values()),
        )


def describe(weights: Weights) -> str:
    """What is in a file, one fact a line.

    Raises:
        CheckpointError: the entries do not make a vision transformer.
    """
    try:
        found = Architecture.of(weights.backbone)
    except (KeyError, ValueError) as cause:
        raise CheckpointError(f"weights {weights.source!r} hold no 2-D patch embedding ({cause!r})") from cause
    side = found.grid
    rows = {
        "file": weights.source,
        "kind": weights.kind,
        "depth": f"{found.depth} blocks",
        "width": str(found.width),
        "patch size": f"{found.patch_size_px} px, {found.channels} channels",
        "position grid": "none, or not square"
        if side is None
        else f"{side} x {side} (images of {side * found.patch_size_px} px)",
        "registers": str(found.registers or "none"),
        "feed-forward": found.feed_forward,
        "layer scale": "yes" if found.layer_scale else "no",
        "parameters": f"{found.parameters:,} in {len(weights.backbone)} entries",
        "beside it": _groups(weights.rest),
    }
    return "\n".join(f"{label:<15}{value}" for label, value in rows.items())


def _groups(rest: Mapping[str, Tensor]) -> str:
    """First parts of names with their number of entries, or ``nothing``."""
    counts = Counter(name.split(".")[0] for name in rest)
    return ", ".join(f"{name} ({count} entries)" for name, count in sorted(counts.items())) or "nothing"
