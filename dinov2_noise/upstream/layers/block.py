"""``dinov2.layers.block``: the built-in operators where xFormers cannot be used.

Replaced: the names ``fmha``, ``scaled_index_add`` and ``index_select_cat``, and ``XFORMERS_AVAILABLE`` set to True.
Read against lines 26-41 and 196-262.
"""

from __future__ import annotations

from typing import Any

from dinov2_noise import xformers_ops
from dinov2_noise.upstream.layers.attention import surround as surround
from dinov2_noise.upstream.signatures import expect_signature


def attach(module: Any) -> None:
    expect_signature(module, "get_attn_bias_and_cat", lambda x_list, branges=None: None)
    expect_signature(
        module, "add_residual", lambda x, brange, residual, residual_scale_factor, scaling_vector=None: None
    )
    if xformers_ops.xformers_ops() is not None:
        return
    module.fmha = xformers_ops.fmha
    module.scaled_index_add = xformers_ops.scaled_index_add
    module.index_select_cat = xformers_ops.index_select_cat
    module.XFORMERS_AVAILABLE = True
