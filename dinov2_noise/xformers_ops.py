"""The names of ``xformers.ops`` that DINOv2 uses, in plain PyTorch.

They compute the same as xFormers (Lefaudeux et al., 2022) on any device and precision. Shapes follow xFormers: ``(B,
M, H, K)`` is batch, sequence, heads, head width; packed sequences are one batch entry, ``(1, sum of lengths, H, K)``.
"""

from __future__ import annotations

import importlib
import itertools
import os
import warnings
from collections.abc import Iterable, Sequence
from types import ModuleType, SimpleNamespace

import torch
import torch.nn.functional as F
from torch import Tensor

REQUIRED = ("memory_efficient_attention", "unbind", "scaled_index_add", "index_select_cat")


class BlockDiagonalMask:
    """Attention within each of several packed sequences, none between them.

    Args:
        lengths: length of each sequence, in the order they are packed.
        batch_sizes: how many neighbouring sequences of equal length form one batch, for `split`; one each by default.
    """

    def __init__(self, lengths: Sequence[int], batch_sizes: Sequence[int] | None = None) -> None:
        self.lengths = list(lengths)
        self._batch_sizes = batch_sizes  # upstream sets this attribute, under this name

    @classmethod
    def from_seqlens(cls, seqlens: Sequence[int]) -> BlockDiagonalMask:
        """A mask for sequences of these lengths."""
        return cls(seqlens)

    @classmethod
    def from_tensor_list(cls, tensors: Sequence[Tensor]) -> tuple[BlockDiagonalMask, Tensor]:
        """Pack tensors of shape (B_i, M_i, …) into one of shape (1, sum of B_i·M_i, …), with the mask that unpacks
        it.
        """
        lengths = [x.shape[1] for x in tensors for _ in range(x.shape[0])]
        packed = torch.cat([x.reshape(1, -1, *x.shape[2:]) for x in tensors], dim=1)
        return cls(lengths, [x.shape[0] for x in tensors]), packed

    def split(self, packed: Tensor) -> list[Tensor]:
        """Undo the packing: (1, sum of B_i·M_i, …) → tensors of shape (B_i, M_i, …)."""
        batch_sizes = self._batch_sizes or [1] * len(self.lengths)
        first = list(itertools.accumulate(batch_sizes, initial=0))[:-1]
        shapes = [(batch, self.lengths[start]) for batch, start in zip(batch_sizes, first, strict=True)]
        parts = packed.squeeze(0).split([batch * length for batch, length in shapes])
        return [part.reshape(*shape, *packed.shape[2:]) for part, shape in zip(parts, shapes, strict=True)]

    def runs(self) -> list[tuple[int, int]]:
        """(count, length) of each run of neighbouring sequences of equal length."""
        return [(len(list(group)), length) for length, group in itertools.groupby(self.lengths)]


def _attend(query: Tensor, key: Tensor, value: Tensor, dropout: float, scale: float | None) -> Tensor:
    """Softmax attention per batch entry: (B, M, H, K) → (B, M, H, K)."""
    query, key, value = (x.transpose(1, 2) for x in (query, key, value))
    return F.scaled_dot_product_attention(query, key, value, dropout_p=dropout, scale=scale).transpose(1, 2)


def memory_efficient_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_bias: BlockDiagonalMask | None = None,
    p: float = 0.0,
    scale: float | None = None,
    *,
    op: object = None,
) -> Tensor:
    r"""Attention :math:`\mathrm{softmax}(Q K^\top s) V`, within each packed sequence if a mask is given.

    Args:
        query, key, value: (B, M, H, K); with a mask B is 1 and M the sum of its lengths.
        attn_bias: the packing, or None for one sequence per batch entry.
        p: dropout probability of the attention weights.
        scale: :math:`s`, by default :math:`1/\sqrt{K}`.
        op: xFormers' choice of kernel; ignored.

    Returns:
        (B, M, H, K)
    """
    if attn_bias is None:
        return _attend(query, key, value, p, scale)
    runs = attn_bias.runs()
    sizes = [count * length for count, length in runs]
    queries, keys, values = (x.squeeze(0).split(sizes) for x in (query, key, value))
    outputs = []
    for run, q, k, v in zip(runs, queries, keys, values, strict=True):
        attended = _attend(q.unflatten(0, run), k.unflatten(0, run), v.unflatten(0, run), p, scale)
        outputs.append(attended.flatten(0, 1))
    return torch.cat(outputs).unsqueeze(0)


def unbind(x: Tensor, dim: int) -> tuple[Tensor, ...]:
    """Slices of ``x`` along ``dim``."""
    return x.unbind(dim)


def index_select_cat(sources: Iterable[Tensor], indices: Iterable[Tensor]) -> Tensor:
    """Rows ``indices[i]`` of each ``sources[i]`` (N_i, D_i), flattened and concatenated to one dimension."""
    return torch.cat([source[index].flatten() for source, index in zip(sources, indices, strict=True)])


def scaled_index_add(
    x: Tensor, index: Tensor, source: Tensor, scaling: Tensor | None = None, alpha: float = 1.0
) -> Tensor:
    """``x`` (B, M, D) with ``alpha * scaling * source`` added to its entries ``index``; ``scaling`` is (D,)."""
    return x.index_add(0, index, source if scaling is None else source * scaling, alpha=alpha)


fmha = SimpleNamespace(BlockDiagonalMask=BlockDiagonalMask, MemoryEfficientAttentionFlashAttentionOp=None)


def xformers_ops() -> ModuleType | None:
    """The installed ``xformers.ops`` if DINOv2 can train with it here, else None.

    It cannot without CUDA (no kernel runs on a CPU), with ``XFORMERS_DISABLED`` set (upstream's own switch), or when a
    name that DINOv2 uses is missing.
    """
    if os.environ.get("XFORMERS_DISABLED") is not None or not torch.cuda.is_available():
        return None
    try:
        ops = importlib.import_module("xformers.ops")
    except ImportError:
        return None
    except Exception as cause:  # an xFormers built for another torch fails in many ways
        warnings.warn(
            f"xFormers is installed but cannot be imported ({cause}): using the built-in attention", stacklevel=2
        )
        return None
    usable = all(hasattr(ops, name) for name in REQUIRED) and hasattr(getattr(ops, "fmha", None), "BlockDiagonalMask")
    return ops if usable else None
