"""The built-in operators against plain loops: forward and gradient."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from dinov2_noise import xformers_ops as ops

HEADS, WIDTH = 3, 8


def _plain_attention(query: Tensor, key: Tensor, value: Tensor, lengths: Sequence[int]) -> Tensor:
    """softmax(q k^T / sqrt(K)) v, one sequence and one head at a time, on packed (1, M, H, K)."""
    outputs, start = [], 0
    for length in lengths:
        heads = []
        for head in range(query.shape[2]):
            q, k, v = (x[0, start : start + length, head] for x in (query, key, value))
            weights = torch.exp(q @ k.T / math.sqrt(q.shape[-1]))
            heads.append(weights / weights.sum(-1, keepdim=True) @ v)
        outputs.append(torch.stack(heads, dim=1))
        start += length
    return torch.cat(outputs).unsqueeze(0)


def _inputs(total: int, *, double: bool = True) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    dtype = torch.float64 if double else torch.float32
    return [torch.randn(1, total, HEADS, WIDTH, generator=generator, dtype=dtype, requires_grad=True) for _ in range(3)]


@pytest.mark.parametrize("lengths", [[7], [5, 5, 5], [17, 17, 5, 5, 5, 2], [3, 9, 3]])
def test_attention_equals_the_plain_one_in_value_and_gradient(lengths: list[int]) -> None:
    ours, plain = _inputs(sum(lengths)), _inputs(sum(lengths))
    direction = torch.randn(
        1, sum(lengths), HEADS, WIDTH, generator=torch.Generator().manual_seed(2), dtype=torch.float64
    )

    packed = ops.memory_efficient_attention(*ours, attn_bias=ops.BlockDiagonalMask.from_seqlens(lengths))
    expected = _plain_attention(*plain, lengths)
    torch.testing.assert_close(packed, expected, rtol=0, atol=1e-12)

    (packed * direction).sum().backward()
    (expected * direction).sum().backward()
    for mine, theirs in zip(ours, plain, strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=0, atol=1e-12)


def test_without_a_mask_each_batch_entry_is_a_sequence() -> None:
    packed = _inputs(12)
    batched = [x.reshape(3, 4, HEADS, WIDTH) for x in packed]
    expected = _plain_attention(*packed, [4, 4, 4]).reshape(3, 4, HEADS, WIDTH)
    torch.testing.assert_close(ops.memory_efficient_attention(*batched), expected, rtol=0, atol=1e-12)


def test_scale_is_applied() -> None:
    query, key, value = _inputs(6)
    torch.testing.assert_close(
        ops.memory_efficient_attention(query, key, value, scale=0.0), value.mean(1, keepdim=True).expand_as(value)
    )


def test_mask_packs_and_splits_back() -> None:
    tensors = [torch.randn(2, 5, 4), torch.randn(3, 2, 4), torch.randn(1, 1, 4)]
    mask, packed = ops.BlockDiagonalMask.from_tensor_list(tensors)
    assert packed.shape == (1, 17, 4)
    assert mask.runs() == [(2, 5), (3, 2), (1, 1)]
    for part, tensor in zip(mask.split(packed), tensors, strict=True):
        assert torch.equal(part, tensor)


def test_mask_splits_one_by_one_without_batch_sizes() -> None:
    parts = ops.BlockDiagonalMask.from_seqlens([2, 2, 3]).split(torch.arange(7).view(1, 7, 1))
    assert [part.flatten().tolist() for part in parts] == [[0, 1], [2, 3], [4, 5, 6]]


def test_index_select_cat() -> None:
    sources = [torch.arange(6).view(3, 2), torch.arange(10, 18).view(2, 4)]
    indices = [torch.tensor([2, 0]), torch.tensor([1])]
    assert ops.index_select_cat(sources, indices).tolist() == [4, 5, 0, 1, 14, 15, 16, 17]


def test_scaled_index_add_value_and_gradients() -> None:
    x, source = torch.randn(4, 2, 3, dtype=torch.float64), torch.randn(2, 2, 3, dtype=torch.float64)
    scaling, index = torch.randn(3, dtype=torch.float64), torch.tensor([3, 1])
    expected = x.clone()
    for row, target in enumerate(index.tolist()):
        expected[target] += 1.5 * scaling * source[row]
    torch.testing.assert_close(ops.scaled_index_add(x, index, source, scaling, alpha=1.5), expected)
    assert torch.autograd.gradcheck(
        lambda a, b, c: ops.scaled_index_add(a, index, b, c, alpha=1.5),
        [t.requires_grad_() for t in (x, source, scaling)],
    )


def test_built_in_operators_rule_without_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert ops.xformers_ops() is None


@pytest.mark.upstream
@pytest.mark.parametrize("drop_path", [0.0, 0.3])
@pytest.mark.parametrize("layerscale", [None, 0.5])
def test_upstream_block_on_several_crop_sizes(drop_path: float, layerscale: float | None) -> None:
    """Two crop sizes in one packed call equal one call per crop size, in value and gradient, also with stochastic
    depth.
    """
    from dinov2.layers import MemEffAttention, NestedTensorBlock

    def build() -> torch.nn.Module:
        torch.manual_seed(0)
        block = NestedTensorBlock(
            dim=24, num_heads=3, attn_class=MemEffAttention, drop_path=drop_path, init_values=layerscale
        ).double()
        return block.train()

    generator = torch.Generator().manual_seed(3)
    crops = [torch.randn(n, m, 24, generator=generator, dtype=torch.float64) for n, m in ((4, 17), (10, 5))]
    together, apart = build(), build()
    torch.manual_seed(7)
    packed = together(list(crops))
    expected = _one_by_one(apart, crops, drop_path, layerscale)
    for ours, theirs in zip(packed, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
    sum(x.square().sum() for x in packed).backward()
    sum(x.square().sum() for x in expected).backward()
    for (name, ours), theirs in zip(together.named_parameters(), apart.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=0, atol=1e-10, msg=name)


def _one_by_one(
    block: torch.nn.Module, crops: list[Tensor], drop_path: float, layerscale: float | None
) -> list[Tensor]:
    """The block written out: each kept image alone, residuals scaled by batch / kept, same permutations as upstream
    draws.
    """
    torch.manual_seed(7)
    kept = [max(int(len(x) * (1 - drop_path)), 1) for x in crops]
    current = crops
    for residual in (lambda x: block.ls1(block.attn(block.norm1(x))), lambda x: block.ls2(block.mlp(block.norm2(x)))):
        rows = [
            torch.randperm(len(x))[:n] if drop_path else torch.arange(len(x)) for x, n in zip(crops, kept, strict=True)
        ]
        following = []
        for x, chosen in zip(current, rows, strict=True):
            output = list(x.unbind(0))
            for row in chosen.tolist():
                output[row] = output[row] + len(x) / len(chosen) * residual(x[row : row + 1])[0]
            following.append(torch.stack(output))
        current = following
    return current
