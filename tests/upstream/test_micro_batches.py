"""Gradient accumulation inside upstream's step: equal to the whole batch where that is claimed, and only there."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import SmallSet, run_python
from omegaconf import OmegaConf

from dinov2_noise.errors import ConfigError
from dinov2_noise.upstream.train.micro_batches import _check, split_batch

SCRIPT = Path(__file__).with_name("micro_batches_in_training.py")


@pytest.mark.upstream
@pytest.mark.parametrize("ibot_head", ["shared", "separate"])
def test_parts_add_up_to_the_whole_batch(small_set: SmallSet, tmp_path: Path, ibot_head: str) -> None:
    done = run_python(str(SCRIPT), small_set.pair(), str(tmp_path), ibot_head)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.strip().splitlines()[-1])
    assert min(found["drawn"]["masked"]) > 0
    assert found["uneven"]["masked"][0] == 0 < found["uneven"]["masked"][1]
    for name in ("drawn", "uneven"):
        assert found[name]["center_moved"] > 1e-3
        assert len(found[name]["losses"]) == 6, "DINO local and global, iBOT, and the same three of the anchor"
        for n_parts in ("2", "3"):
            assert found[name][n_parts]["losses"] < 1e-5
            assert found[name][n_parts]["gradients"] < 1e-4
            assert found[name][n_parts]["centers"] < 1e-5
    assert found["none"]["finite"]
    assert found["none"]["center_moved"] < 1e-6
    first, second = found["koleo"]["halves"]
    assert found["koleo"]["split"] == pytest.approx((first + second) / 2, rel=1e-5)


def _batch(n_images: int) -> dict[str, Any]:
    """Crops whose value is 10 * crop + image, and masks of 1, 2, 3, … patches."""
    rows = torch.tensor([10 * crop + image for crop in range(2) for image in range(n_images)])
    local = torch.tensor([100 + 10 * crop + image for crop in range(3) for image in range(n_images)])
    masks = torch.arange(9).expand(2 * n_images, -1) <= torch.arange(2 * n_images).unsqueeze(1)
    return {
        "collated_global_crops": rows[:, None, None, None].expand(-1, 3, 2, 2),
        "collated_local_crops": local[:, None, None, None].expand(-1, 3, 1, 1),
        "collated_masks": masks,
        "mask_indices_list": masks.flatten().nonzero().flatten(),
        "masks_weight": (1 / masks.sum(-1)).unsqueeze(-1).expand_as(masks)[masks],
        "upperbound": 99,
        "n_masked_patches": masks.sum().view(1),
        "stage": 1,
        "number": 40,
    }


def test_a_part_is_a_batch_of_the_same_layout() -> None:
    first, second = split_batch(_batch(4), 2)
    for part, images in ((first, [0, 1]), (second, [2, 3])):
        globals_ = part["collated_global_crops"][:, 0, 0, 0].tolist()
        assert globals_ == [10 * crop + image for crop in range(2) for image in images]
        locals_ = part["collated_local_crops"][:, 0, 0, 0].tolist()
        assert locals_ == [100 + 10 * crop + image for crop in range(3) for image in images]
        n_masked = [1 + 4 * crop + image for crop in range(2) for image in images]
        assert part["collated_masks"].sum(-1).tolist() == n_masked
        assert part["masks_weight"].tolist() == pytest.approx([1 / n for n in n_masked for _ in range(n)])
        indices = torch.zeros(4 * 9, dtype=torch.bool).index_fill_(0, part["mask_indices_list"], True)
        assert torch.equal(indices.view(4, 9), part["collated_masks"])
        assert part["n_masked_patches"].tolist() == [part["upperbound"]] == [sum(n_masked)]
        assert (part["stage"], part["number"]) == (1, 40)


def test_a_batch_that_does_not_divide_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="unflatten"):
        list(split_batch(_batch(4), 3))


def _cfg(batch: int, centering: str, koleo: float) -> Any:
    return OmegaConf.create(
        {"train": {"batch_size_per_gpu": batch, "centering": centering}, "dino": {"koleo_loss_weight": koleo}}
    )


def test_what_is_not_that_of_the_whole_batch_is_said(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ConfigError, match="leaves one image to each part, and KoLeo needs a neighbour"):
        _check(_cfg(4, "centering", 0.1), 4)
    _check(_cfg(4, "centering", 0.0), 4)
    with caplog.at_level(logging.WARNING, "dinov2"):
        _check(_cfg(8, "centering", 0.1), 4)
        assert not caplog.records
        _check(_cfg(8, "sinkhorn_knopp", 0.1), 4)
    assert "balances within each micro-batch (2 images per process)" in caplog.text
