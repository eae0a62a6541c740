"""``step.compile`` changes how blocks are computed, not what: losses, gradients and checkpoint names."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partialmethod
from pathlib import Path

import pytest
import torch
from helpers import run_python
from torch import nn


@pytest.mark.slow  # compiling takes about a minute on one core
@pytest.mark.upstream
def test_compiled_blocks_compute_the_same() -> None:
    done = run_python(str(Path(__file__).with_name("compiled_in_training.py")))
    assert done.returncode == 0, done.stderr[-3000:]
    plain, compiled = json.loads(done.stdout.strip().splitlines()[-1])
    assert (plain["n_compiled"], compiled["n_compiled"]) == (0, 3 * 12), "student, teacher and frozen teacher"
    for found, expected in zip(compiled["losses"], plain["losses"], strict=True):
        assert found == pytest.approx(expected, rel=1e-4)
    assert compiled["norms"] == pytest.approx(plain["norms"], rel=1e-3)
    assert len(plain["losses"][1]) == len(plain["losses"][0]) + 3
    assert compiled["names"] == plain["names"]


@pytest.fixture
def fresh_dynamo() -> Iterator[None]:
    """No compiled code before and after; more versions of it than the limit are an error instead of a warning."""
    torch._dynamo.reset()
    config = torch._dynamo.config
    with config.patch(recompile_limit=8, accumulated_recompile_limit=256, fail_on_recompile_limit_hit=True):
        yield
    torch._dynamo.reset()


@pytest.mark.upstream
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")  # torch's own
def test_blocks_stay_compiled_over_many_sizes_of_crops(fresh_dynamo: None, monkeypatch: pytest.MonkeyPatch) -> None:
    from dinov2.layers import MemEffAttention, NestedTensorBlock
    from dinov2.models.vision_transformer import DinoVisionTransformer
    from torch._dynamo.utils import counters

    from dinov2_noise.upstream.train.compiled import compile_blocks

    # What is compiled, and how often, does not depend on the back end; this one needs no C++ compiler.
    monkeypatch.setattr(nn.Module, "compile", partialmethod(nn.Module.compile, backend="eager"))

    def backbone(rate: float) -> nn.Module:
        def block(**options: object) -> nn.Module:
            block: nn.Module = NestedTensorBlock(attn_class=MemEffAttention, **options)
            return block

        sizes = {"img_size": 40, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2}
        made: nn.Module = DinoVisionTransformer(**sizes, block_fn=block, drop_path_rate=rate, block_chunks=0)
        return made

    networks = nn.ModuleList([backbone(0.1).train(), backbone(0.0).train(), backbone(0.0).eval()])
    sides = (16, 24, 32, 40)
    assert compile_blocks(networks, n_sizes=len(sides)) == 6
    before = counters["stats"]["unique_graphs"]
    for side in sides:
        crops = [torch.randn(4, 3, side, side), torch.randn(4, 3, 8, 8)]
        with torch.no_grad():
            for teacher in list(networks)[1:]:
                teacher(crops[0], is_training=True)
        student = networks[0](crops, masks=[None, None], is_training=True)
        sum(tokens["x_norm_clstoken"].sum() for tokens in student).backward()
    assert counters["stats"]["unique_graphs"] - before > 8
