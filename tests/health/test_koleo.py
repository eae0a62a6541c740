"""KoLeo: upstream's numbers in float32, and finite where upstream's is not."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dinov2_noise.health.koleo import EPS, FLOOR, KoLeo

AT_FLOOR = -math.log(FLOOR + EPS)


def published(tokens: Tensor, eps: float = 1e-8) -> Tensor:
    """The loss as published and as upstream computes it, in the dtype of ``tokens``, pair by pair."""
    unit = F.normalize(tokens, eps=eps, dim=-1)
    losses = []
    for i, row in enumerate(unit):
        others = [unit[j] for j in range(len(unit)) if j != i]
        cosines = torch.stack([row.detach() @ other.detach() for other in others])
        distance = (row - others[int(cosines.argmax())] + eps).norm()
        losses.append(-torch.log(distance + eps))
    return torch.stack(losses).mean()


@pytest.mark.parametrize("shape", [(2, 3), (7, 5), (16, 192)])
def test_value_and_gradient_are_the_published_ones(shape: tuple[int, int]) -> None:
    tokens = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    ours, theirs = tokens.clone().requires_grad_(), tokens.clone().requires_grad_()
    found, expected = KoLeo()(ours), published(theirs)
    found.backward()
    expected.backward()
    assert found.item() == pytest.approx(expected.item(), abs=1e-6)
    torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-6, rtol=1e-5)


@pytest.mark.upstream
def test_parity_with_upstreams_class() -> None:
    from dinov2.loss import KoLeoLoss

    tokens = torch.randn(12, 64, generator=torch.Generator().manual_seed(1))
    ours, theirs = tokens.clone().requires_grad_(), tokens.clone().requires_grad_()
    with pytest.warns(FutureWarning, match="autocast"):  # upstream's way to switch autocast off is deprecated
        expected = KoLeoLoss()(theirs)
    found = KoLeo()(ours)
    found.backward()
    expected.backward()
    assert found.item() == pytest.approx(expected.item(), abs=1e-6)
    torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-6, rtol=1e-5)


def test_equal_tokens_in_half_precision() -> None:
    tokens = torch.ones(4, 8, dtype=torch.float16)
    assert torch.isinf(published(tokens)), "eps is 0 in half precision"
    tokens.requires_grad_()
    loss = KoLeo()(tokens)
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(AT_FLOOR, rel=1e-6)
    assert tokens.grad is not None
    assert tokens.grad.abs().max() == 0


def test_duplicates_do_not_touch_the_other_images() -> None:
    generator = torch.Generator().manual_seed(2)
    apart = torch.randn(5, 16, generator=generator)
    twins = torch.randn(1, 16, generator=generator).repeat(2, 1)
    tokens, alone = torch.cat([apart, twins]).requires_grad_(), apart.clone().requires_grad_()
    loss, without = KoLeo()(tokens), KoLeo()(alone)
    loss.backward()
    without.backward()
    assert loss.item() == pytest.approx((5 * without.item() + 2 * AT_FLOOR) / 7, rel=1e-5)
    assert tokens.grad is not None
    assert alone.grad is not None
    torch.testing.assert_close(tokens.grad[:5] * 7, alone.grad * 5)
    assert tokens.grad[5:].abs().max() == 0


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_only_directions_count(scale: float) -> None:
    tokens = torch.randn(6, 16, generator=torch.Generator().manual_seed(3))
    assert KoLeo()(tokens * scale).item() == pytest.approx(KoLeo()(tokens).item(), rel=1e-5)


def test_a_pair_at_a_known_distance() -> None:
    angle = 0.3
    tokens = torch.tensor([[1.0, 0.0], [math.cos(angle), math.sin(angle)]])
    assert KoLeo()(tokens).item() == pytest.approx(-math.log(2 * math.sin(angle / 2)), rel=1e-5)


def test_autocast_has_no_say() -> None:
    tokens = torch.randn(6, 16, generator=torch.Generator().manual_seed(4))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = KoLeo()(tokens)
    assert inside.item() == KoLeo()(tokens).item()


def test_what_is_not_finite_stays_so() -> None:
    tokens = torch.randn(4, 8)
    tokens[1, 2] = math.nan
    assert math.isnan(KoLeo()(tokens).item())
    assert math.isfinite(KoLeo()(torch.zeros(4, 8)).item())
    assert math.isfinite(KoLeo()(torch.randn(1, 8)).item()), "a single image has no neighbour"
