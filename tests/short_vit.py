"""A network for tests that count operations one by one: ``vit_short``, as ``vit_tiny`` with 3 blocks instead of 12."""

from __future__ import annotations

from functools import partial
from typing import Any

from dinov2.models import vision_transformer


def vit_short(patch_size: int = 16, **kwargs: Any) -> Any:
    """Found by upstream once it is an attribute of ``vision_transformer``."""
    block = partial(vision_transformer.Block, attn_class=vision_transformer.MemEffAttention)
    return vision_transformer.DinoVisionTransformer(
        patch_size=patch_size, embed_dim=192, depth=3, num_heads=3, block_fn=block, **kwargs
    )
