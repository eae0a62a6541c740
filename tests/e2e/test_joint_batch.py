"""Two ranks with half the batch each train as one rank with the whole: losses, gradients, weights, centers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import SmallSet, run_python

pytestmark = pytest.mark.upstream

SCRIPT = Path(__file__).with_name("joint_batch.py")
BATCH = 3


def _run(output: Path, *arguments: str, launcher: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    output.mkdir()
    dataset, *rest = arguments
    done = run_python(*launcher, str(SCRIPT), dataset, str(output), *rest, path=(SCRIPT.parents[1] / "upstream",))
    assert done.returncode == 0, done.stderr[-3000:]
    return [torch.load(path, weights_only=True) for path in sorted(output.glob("rank*.pth"))]


def _close(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], *, rtol: float, atol: float) -> None:
    assert found.keys() == expected.keys()
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=rtol, atol=atol, msg=lambda text, n=name: n + text)


def test_two_ranks_train_as_one(small_set: SmallSet, tmp_path: Path) -> None:
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    ranks = _run(tmp_path / "two", small_set.pair(), str(BATCH), launcher=torchrun)
    (one,) = _run(tmp_path / "one", small_set.pair(), str(2 * BATCH), str(tmp_path / "two"))
    assert len(ranks) == 2

    # The ranks share the samples of the joint batch, step by step, and are in the same stage.
    for step in range(2):
        shares = [rank["draws"][step * BATCH : (step + 1) * BATCH] for rank in ranks]
        assert shares[0] + shares[1] == one["draws"][2 * step * BATCH : 2 * (step + 1) * BATCH]
        assert not {draw[0] for draw in shares[0]} & {draw[0] for draw in shares[1]}
        assert {rank["batches"][step]["stage"] for rank in ranks} == {step}
        masks = [rank["batches"][step]["collated_masks"] for rank in ranks]
        assert masks[0].sum() == masks[1].sum() == 3 * 5
        assert not torch.equal(masks[0], masks[1])

    first = ranks[0]
    _close(first["initial"], one["initial"], rtol=0, atol=0)
    for found, expected in zip(first["steps"], one["steps"], strict=True):
        assert found["losses"] == pytest.approx(expected["losses"], rel=1e-5)
        assert found["norms"] == pytest.approx(expected["norms"], rel=1e-4)
        _close(found["centers"], expected["centers"], rtol=1e-4, atol=1e-7)
    assert sorted(one["steps"][1]["losses"]) == [
        *("anchor_dino_global_crops_loss", "anchor_dino_local_crops_loss", "anchor_ibot_loss"),
        *("dino_global_crops_loss", "dino_local_crops_loss", "ibot_loss"),
    ]
    moved = max(float((one["student"][name] - one["initial"][name]).abs().max()) for name in one["initial"])
    assert moved > 1e-3
    for part in ("student", "teacher"):
        _close(first[part], one[part], rtol=1e-4, atol=1e-5)

    # With unequal numbers of masked patches upstream's iBOT center is the mean of the ranks' means, (1 + 2) / 2, and
    # not that over all patches, (2 * 1 + 5 * 2) / 7.
    for rank in ranks:
        assert rank["unequal"].flatten().tolist() == pytest.approx([0.1 * 1.5] * 16, rel=1e-4)
