"""Features for monitoring are the same in batches of one size and of what is left, and the model is left alone."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.distributed as dist
from PIL import Image
from torch import Tensor, nn

from dinov2_noise.monitor.images import ImageSet
from dinov2_noise.upstream.train.features import Extractor, keep

pytestmark = pytest.mark.upstream


class Backbone(nn.Module):
    """Tokens that tell the pictures; what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    def forward(self, pictures: Tensor, *, is_training: bool) -> dict[str, Tensor]:
        assert is_training
        assert not torch.is_grad_enabled()
        self.sizes.append(len(pictures))
        patches = pictures.flatten(2).transpose(1, 2)
        return {"x_norm_clstoken": patches[:, 0], "x_norm_patchtokens": patches}


@pytest.fixture
def process_group(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    store = tmp_path_factory.mktemp("group") / "store"
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def grey(index: int) -> Image.Image:
    return Image.new("RGB", (8, 8), (10 * index, 0, 255 - index))


@pytest.mark.parametrize(("always_full", "sizes"), [(False, [3, 3, 1]), (True, [3, 3, 3])], ids=["as-is", "full"])
@pytest.mark.usefixtures("process_group")
def test_batches(always_full: bool, sizes: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.Tensor, "cuda", lambda self: self)
    backbone, crops = Backbone(), torch.ones(1)
    model: Any = SimpleNamespace(teacher=nn.ModuleDict({"backbone": backbone}), _teacher_crops=crops)
    kept = keep("unlabelled", ImageSet([3, 1, 4, 7, 5, 9, 2], {"noisy": grey}), 7, workers=2)
    extract = Extractor(model, 3, always_full=always_full)
    assert model._teacher_crops is None, "else a hook shows the network the last batch"
    features = extract(kept, "noisy")
    extract.close()
    assert model._teacher_crops is crops
    assert backbone.sizes == sizes
    red = torch.tensor([3, 1, 4, 7, 5, 9, 2]) * 10 / 255
    torch.testing.assert_close(features.cls[:, 0], (red - 0.485) / 0.229)
    torch.testing.assert_close(features.patch, features.cls)
    assert features.both.shape == (7, 6)
