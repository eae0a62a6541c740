"""``dinov2.models.vision_transformer``: ``vit_tiny`` beside upstream's architectures, for laptops and tests.

Added: one builder function, found by `build_model` through the module's names. Read against lines 316-327 and
`models/__init__.py`.
"""

from __future__ import annotations

from functools import partial
from typing import Any


def attach(module: Any) -> None:
    def vit_tiny(patch_size: int = 16, **kwargs: Any) -> Any:
        """ViT-Ti: width 192, 12 blocks, 3 heads, 5.5 M parameters (Touvron et al., DeiT, 2021, arXiv 2012.12877)."""
        block = partial(module.Block, attn_class=module.MemEffAttention)
        return module.DinoVisionTransformer(
            patch_size=patch_size, embed_dim=192, depth=12, num_heads=3, mlp_ratio=4, block_fn=block, **kwargs
        )

    module.vit_tiny = vit_tiny
