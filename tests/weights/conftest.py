"""Small vision transformers of upstream's with telling weights."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

Build = Callable[..., Any]


def randomise(model: nn.Module, seed: int = 0) -> nn.Module:
    """Give every parameter values of its own, so that two that are swapped show; evaluation mode."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            around = 1.0 if name.endswith(("norm1.weight", "norm2.weight", "norm.weight", "gamma")) else 0.0
            parameter.copy_(around + 0.1 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


@pytest.fixture
def vit() -> Build:
    """Builder of a ViT of width 64, 4 blocks, patch 14, images of 56 px; options change it.

    ``seed`` fills all parameters; registers are skipped where this version of upstream has none.
    """
    from dinov2.models.vision_transformer import DinoVisionTransformer

    def build(*, seed: int = 0, **options: Any) -> nn.Module:
        known = inspect.signature(DinoVisionTransformer.__init__).parameters
        if "num_register_tokens" in options and "num_register_tokens" not in known:
            pytest.skip("this version of DINOv2 has no registers")
        size = {"img_size": 56, "patch_size": 14, "embed_dim": 64, "depth": 4, "num_heads": 2, "init_values": 1.0}
        return randomise(DinoVisionTransformer(**{"block_chunks": 0, **size, **options}), seed)

    return build


@pytest.fixture
def images() -> Tensor:
    """Two images of 56 px."""
    return torch.rand(2, 3, 56, 56, generator=torch.Generator().manual_seed(3))


@pytest.fixture
def features() -> Callable[[Any, Tensor], Tensor]:
    """Function (upstream's ViT, images) → normalised CLS and patch tokens (B, 1 + N, D)."""

    @torch.no_grad()
    def compute(model: Any, batch: Tensor) -> Tensor:
        tokens = model(batch, is_training=True)
        return torch.cat((tokens["x_norm_clstoken"].unsqueeze(1), tokens["x_norm_patchtokens"]), dim=1)

    return compute
