"""A batch without a masked patch: upstream's iBOT center becomes NaN, with a curriculum it stays."""

from __future__ import annotations

import pytest
import torch

from dinov2_noise.upstream.train.micro_batches import keep_center_without_rows

pytestmark = pytest.mark.upstream


@pytest.mark.parametrize("guarded", [False, True])
def test_the_center_after_a_batch_without_masks(guarded: bool) -> None:
    from dinov2.loss import iBOTPatchLoss

    loss = iBOTPatchLoss(patch_out_dim=4)
    loss.center = torch.tensor([[[1.0, 2.0, 3.0, 4.0]]])
    if guarded:
        keep_center_without_rows(loss)
    nothing = torch.zeros(1, 0, 4)
    loss.update_center(nothing[:0])
    loss.apply_center_update()
    if not guarded:
        assert loss.center.isnan().all()
        return
    torch.testing.assert_close(loss.center, torch.tensor([[[1.0, 2.0, 3.0, 4.0]]]))
    loss.update_center(torch.ones(1, 5, 4))
    loss.apply_center_update()
    torch.testing.assert_close(loss.center, torch.tensor([[[1.0, 1.9, 2.8, 3.7]]]))
