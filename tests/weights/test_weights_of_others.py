"""Real models of timm and transformers, with random weights, computed by upstream's ViT."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dinov2_noise.torchvision_ops import declare_missing_ops
from dinov2_noise.weights import load_backbone, read

pytestmark = pytest.mark.upstream
Fill = Callable[[nn.Module], nn.Module]


@pytest.fixture
def fill() -> Fill:
    def run(model: nn.Module) -> nn.Module:
        generator = torch.Generator().manual_seed(5)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator) + 0.1)
        return model.eval()

    return run


def _timm() -> Any:
    declare_missing_ops()  # timm imports torchvision
    return pytest.importorskip("timm")


TIMM: dict[str, tuple[str, dict[str, Any]]] = {
    "mlp": ("vit_small_patch14_dinov2", {}),
    "packed SwiGLU": ("vit_giant_patch14_dinov2", {"mlp_ratio": 5.5}),
    "split SwiGLU": ("vit_small_patch14_dinov2", {"mlp_ratio": 2.75, "mlp_layer": "SwiGLU"}),
    "no CLS position": ("vit_small_patch14_dinov2", {"no_embed_class": True}),
    "registers": ("vit_small_patch14_reg4_dinov2", {}),
    "registers with positions": ("vit_small_patch14_reg4_dinov2", {"no_embed_class": False}),
    "SwiGLU and registers": ("vit_giant_patch14_reg4_dinov2", {"mlp_ratio": 5.5}),
}


@pytest.mark.parametrize("case", TIMM)
@pytest.mark.parametrize("block_chunks", [0, 2])
def test_timm(
    case: str, block_chunks: int, vit: Any, fill: Fill, images: Tensor, features: Any, tmp_path: Path
) -> None:
    timm = _timm()
    name, options = TIMM[case]
    options = dict(options)
    if "mlp_layer" in options:
        options |= {"mlp_layer": timm.layers.SwiGLU, "act_layer": nn.SiLU}  # its default is the ViT's GELU
    theirs: Any = fill(timm.create_model(name, img_size=56, embed_dim=64, depth=4, num_heads=2, **options))
    registers = {"num_register_tokens": 4} if "register" in case else {}
    ours = vit(block_chunks=block_chunks, ffn_layer="swiglufused" if "SwiGLU" in case else "mlp", **registers)
    torch.save(theirs.state_dict(), tmp_path / "pytorch_model.bin")
    weights = read(tmp_path)
    assert weights.kind == "timm"
    report = load_backbone(ours, weights, required_percent=100)
    assert [row.name for row in report.rows if row.status != "loaded"] == ["mask_token"]
    with torch.no_grad():
        tokens = theirs.forward_features(images)
    n_registers = registers.get("num_register_tokens", 0)
    expected = torch.cat((tokens[:, :1], tokens[:, 1 + n_registers :]), dim=1)
    torch.testing.assert_close(features(ours, images), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("swiglu", [False, True])
@pytest.mark.parametrize("name", ["Dinov2Model", "Dinov2ForImageClassification", "Dinov2WithRegistersModel"])
@pytest.mark.parametrize("saved", ["save_pretrained", "shards", "state_dict"])
def test_transformers(
    name: str, swiglu: bool, saved: str, vit: Any, fill: Fill, images: Tensor, features: Any, tmp_path: Path
) -> None:
    declare_missing_ops()
    transformers = pytest.importorskip("transformers")
    registers = {"num_register_tokens": 4} if "Registers" in name else {}
    ours = vit(block_chunks=2, ffn_layer="swiglufused" if swiglu else "mlp", **registers)
    config = transformers.Dinov2WithRegistersConfig if registers else transformers.Dinov2Config
    size = {"hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 2, "image_size": 56, "patch_size": 14}
    theirs: Any = fill(getattr(transformers, name)(config(**size, **registers, use_swiglu_ffn=swiglu)))
    if saved == "state_dict":
        torch.save(theirs.state_dict(), tmp_path / "pytorch_model.bin")
    else:
        theirs.save_pretrained(tmp_path, **({"max_shard_size": "300KB"} if saved == "shards" else {}))
    weights = read(tmp_path)
    assert weights.kind == "Hugging Face"
    report = load_backbone(ours, weights, required_percent=100)
    assert {row.status for row in report.rows} == {"loaded"}
    with torch.no_grad():
        tokens = getattr(theirs, "dinov2", theirs)(images).last_hidden_state
    n_registers = registers.get("num_register_tokens", 0)
    expected = torch.cat((tokens[:, :1], tokens[:, 1 + n_registers :]), dim=1)
    torch.testing.assert_close(features(ours, images), expected, rtol=1e-5, atol=1e-5)
