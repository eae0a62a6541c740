"""Stages of small crops and the position grid, which is made for full ones and interpolated by upstream's own code."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from helpers import SmallSet
from numpy.typing import NDArray
from staged_batches import BATCH, FULL, LENGTH, SMALL, loader, start
from torch import Tensor

from dinov2_noise.upstream import runtime

pytestmark = [pytest.mark.upstream, pytest.mark.filterwarnings("ignore:'pin_memory' argument:UserWarning")]


@pytest.fixture
def run() -> Iterator[None]:
    start()
    yield
    runtime.start(None)


def backbone(img_size: int) -> Any:
    """Upstream's network for patches of 8 px, two blocks."""
    from dinov2.layers import MemEffAttention, NestedTensorBlock
    from dinov2.models.vision_transformer import DinoVisionTransformer

    class Block(NestedTensorBlock):
        def __init__(self, **options: Any) -> None:
            super().__init__(attn_class=MemEffAttention, **options)

    sizes = {"img_size": img_size, "patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 3}
    return DinoVisionTransformer(**sizes, block_fn=Block, init_values=1.0, block_chunks=0)


def cubic(distance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Keys' kernel with a = -0.75, PyTorch's."""
    a, d = -0.75, np.abs(distance)
    near = (a + 2) * d**3 - (a + 3) * d**2 + 1
    far = a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a
    return np.where(d <= 1, near, np.where(d < 2, far, 0.0))


def interpolated(grid: Tensor, side: int) -> Tensor:
    """(1, 1 + N, D) positions for ``side`` x ``side`` patches, as a slow reference with upstream's offset of 0.1."""
    full = round((grid.shape[1] - 1) ** 0.5)
    patches = grid[0, 1:].detach().double().numpy().reshape(full, full, -1)
    weights = np.zeros((side, full))
    for row in range(side):
        place = (row + 0.5) * full / (side + 0.1) - 0.5
        below = int(np.floor(place))
        for source in range(below - 1, below + 3):
            weights[row, min(max(source, 0), full - 1)] += cubic(np.array(place - source))
    small = np.einsum("is,jt,std->ijd", weights, weights, patches).reshape(1, side * side, -1)
    return torch.cat([grid[:, :1].detach(), torch.from_numpy(small).float()], dim=1)


def batches(small_set: SmallSet) -> list[dict[str, Any]]:
    """The last of the small and the first of the full crops."""
    found = list(itertools.islice(loader(small_set.pair(), 0, start_iteration=LENGTH - 1), 2))
    assert [len(batch["collated_global_crops"]) for batch in found] == [2 * BATCH, 2 * BATCH]
    return found


def test_small_crops_give_what_a_network_of_their_size_gives(run: None, small_set: SmallSet) -> None:
    ours = backbone(FULL["global_crops_size"]).eval()
    small, full = batches(small_set)
    with torch.no_grad():
        ours.pos_embed.normal_()
        for name, px in (("global", SMALL["global_crops_size"]), ("local", SMALL["local_crops_size"])):
            theirs = backbone(px).eval()
            theirs.load_state_dict(ours.state_dict() | {"pos_embed": interpolated(ours.pos_embed, px // 8)})
            crops = small[f"collated_{name}_crops"]
            masks = small["collated_masks"] if name == "global" else None
            found, expected = (net(crops, masks=masks, is_training=True) for net in (ours, theirs))
            for key in ("x_norm_clstoken", "x_norm_patchtokens"):
                torch.testing.assert_close(found[key], expected[key], rtol=0, atol=2e-4)
        sides = ours(full["collated_global_crops"], masks=full["collated_masks"], is_training=True)
        assert sides["x_norm_patchtokens"].shape[1] == 64


def test_small_crops_train_the_whole_grid(run: None, small_set: SmallSet) -> None:
    ours = backbone(FULL["global_crops_size"]).train()
    small, _ = batches(small_set)
    crops = [small["collated_global_crops"], small["collated_local_crops"]]
    outputs = ours(crops, masks=[small["collated_masks"], None], is_training=True)
    sum(output["x_norm_patchtokens"].std() for output in outputs).backward()
    assert ours.pos_embed.grad.shape == (1, 1 + 8 * 8, 48)
    assert bool((ours.pos_embed.grad[0, 1:].norm(dim=1) > 0).all())
