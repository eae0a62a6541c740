"""A network saved in any layout and loaded back computes the same."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dinov2_noise.errors import CheckpointError
from dinov2_noise.weights import load_backbone, read

pytestmark = pytest.mark.upstream

State = dict[str, Tensor]
HEADS = {"dino_head.last_layer.weight_g": torch.full((3, 1), 2.0), "ibot_head.mlp.0.bias": torch.full((2,), 3.0)}
CENTERS = {"dino_loss.center": torch.full((1, 3), 4.0), "ibot_patch_loss.center": torch.full((1, 1, 3), 5.0)}


def _prefixed(state: State, prefix: str) -> State:
    return {f"{prefix}{name}": value for name, value in state.items()}


def _wrapped(state: State) -> State:
    """As FSDP and `torch.compile` of each chunk name things."""
    named = {re.sub(r"^blocks\.(\d+)\.", r"blocks.\1._fsdp_wrapped_module.", name): v for name, v in state.items()}
    return _prefixed(named, "module._orig_mod.")


def _training_checkpoint(state: State) -> dict[str, Any]:
    """Of a run with an anchor: three networks; the student's and the frozen teacher's must not be taken."""
    others = {name: torch.full_like(value, 9.0) for name, value in state.items()}
    model = _prefixed(others, "student.backbone.") | _prefixed(state, "teacher.backbone.")
    model |= _prefixed(others, "frozen_teacher.networks.backbone.") | _prefixed(HEADS, "teacher.") | CENTERS
    return {"model": model, "optimizer": {"state": {}}, "iteration": 7}


LAYOUTS: dict[str, tuple[str, Callable[[State], Any]]] = {
    "hub file": ("upstream backbone", dict),
    "model": ("upstream backbone", lambda state: {"model": state, "epoch": 3}),
    "state_dict with a prefix": ("upstream backbone", lambda state: {"state_dict": _prefixed(state, "model.")}),
    "wrappers": ("upstream backbone", _wrapped),
    "teacher checkpoint": (
        "teacher checkpoint",
        lambda state: {"teacher": _prefixed(state, "backbone.") | HEADS},
    ),
    "training checkpoint": ("training checkpoint (teacher)", _training_checkpoint),
}


@pytest.mark.parametrize("ffn_layer", ["mlp", "swiglufused"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("chunks_saved", "chunks_loaded"), [(0, 4), (2, 0)])
def test_round_trip(
    layout: str,
    chunks_saved: int,
    chunks_loaded: int,
    ffn_layer: str,
    vit: Any,
    images: Tensor,
    features: Any,
    tmp_path: Path,
) -> None:
    kind, arrange = LAYOUTS[layout]
    saved = vit(block_chunks=chunks_saved, ffn_layer=ffn_layer)
    loaded = vit(block_chunks=chunks_loaded, ffn_layer=ffn_layer, seed=1)
    torch.save(arrange(saved.state_dict()), tmp_path / "weights.pth")
    assert not torch.allclose(features(loaded, images), features(saved, images), atol=0.1)
    weights = read(tmp_path / "weights.pth")
    assert weights.kind == kind
    report = load_backbone(loaded, weights, required_percent=100)
    assert report.count("loaded") == len(saved.state_dict()) == 63
    assert (report.count("resized"), report.count("missing"), report.count("unexpected")) == (0, 0, 0)
    assert report.percent_of_parameters == report.percent_of_entries == report.percent_used == 100
    assert torch.equal(features(loaded, images), features(saved, images))


def test_the_file_of_older_torch_versions(vit: Any, tmp_path: Path) -> None:
    model = vit()
    torch.save(model.state_dict(), tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert torch.equal(read(tmp_path / "old.pth").backbone["pos_embed"], model.pos_embed)


def test_heads_and_centers_keep_their_names(vit: Any, tmp_path: Path) -> None:
    path, state = tmp_path / "model_0000007.pth", vit().state_dict()
    torch.save(_training_checkpoint(state), path)
    teacher, student = read(path), read(path, network="student")
    for name, value in (HEADS | CENTERS).items():
        assert torch.equal(teacher.rest[name], value)
    assert torch.equal(teacher.backbone["norm.bias"], state["norm.bias"])
    assert student.kind == "training checkpoint (student)"
    assert student.backbone["norm.bias"].unique().tolist() == [9.0]
    assert torch.equal(student.rest["teacher.dino_head.last_layer.weight_g"], HEADS["dino_head.last_layer.weight_g"])
    (tmp_path / "last_checkpoint").write_text(path.name)
    assert read(tmp_path).kind == teacher.kind, "the folder of the run stands for its newest checkpoint"


def test_a_teacher_checkpoint_holds_no_student(vit: Any, tmp_path: Path) -> None:
    torch.save({"teacher": _prefixed(vit().state_dict(), "backbone.")}, tmp_path / "teacher_checkpoint.pth")
    with pytest.raises(CheckpointError, match="hold no student, only teacher"):
        read(tmp_path / "teacher_checkpoint.pth", network="student")


def _as_hugging_face(state: State, *, version: int) -> State:
    """Upstream's entries as transformers 4 saves them, or as the modules of transformers 5 are called."""
    named: State = {}
    for name, value in state.items():
        block = re.match(r"blocks\.(\d+)\.(.+)", name)
        if block is None:
            special = {"pos_embed": "position_embeddings"}
            module = "patch_embeddings.projection" if name.startswith("patch_embed.") else special.get(name, name)
            suffix = f".{name.rsplit('.', 1)[1]}" if name.startswith("patch_embed.") else ""
            named[f"layernorm.{name[5:]}" if name.startswith("norm.") else f"embeddings.{module}{suffix}"] = value
            continue
        layer, rest = f"encoder.layer.{block[1]}.", block[2]
        kind = rest.rsplit(".", 1)[1]
        parts = {4: ("attention.attention.query", "attention.attention.key", "attention.attention.value")}
        parts[5] = ("attention.q_proj", "attention.k_proj", "attention.v_proj")
        if rest.startswith("attn.qkv."):
            for part, rows in zip(parts[version], value.chunk(3), strict=True):
                named[f"{layer}{part}.{kind}"] = rows
        elif rest.startswith("mlp.w12.") and version == 5:
            for part, rows in zip(("mlp.gate_proj", "mlp.up_proj"), value.chunk(2), strict=True):
                named[f"{layer}{part}.{kind}"] = rows
        else:
            names = {
                "attn.proj": {4: "attention.output.dense", 5: "attention.o_proj"}[version],
                "ls1": "layer_scale1",
                "ls2": "layer_scale2",
                "mlp.w12": "mlp.weights_in",
                "mlp.w3": {4: "mlp.weights_out", 5: "mlp.down_proj"}[version],
            }
            stem = rest.rsplit(".", 1)[0]
            named[f"{layer}{names.get(stem, stem)}.{kind.replace('gamma', 'lambda1')}"] = value
    return named


@pytest.mark.parametrize("version", [4, 5])
@pytest.mark.parametrize("ffn_layer", ["mlp", "swiglufused"])
@pytest.mark.parametrize("prefix", ["", "dinov2."])
def test_hugging_face_names(
    version: int, ffn_layer: str, prefix: str, vit: Any, images: Tensor, features: Any, tmp_path: Path
) -> None:
    saved, loaded = vit(ffn_layer=ffn_layer), vit(ffn_layer=ffn_layer, block_chunks=2, seed=1)
    state = _prefixed(_as_hugging_face(saved.state_dict(), version=version), prefix)
    torch.save(state | {"classifier.weight": torch.ones(2, 128)}, tmp_path / "pytorch_model.bin")
    weights = read(tmp_path)
    assert (weights.kind, list(weights.rest)) == ("Hugging Face", ["classifier.weight"])
    assert load_backbone(loaded, weights, required_percent=100).count("loaded") == 63
    assert torch.equal(features(loaded, images), features(saved, images))


def test_safetensors_whole_and_in_shards(vit: Any, tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors.torch")
    state = _as_hugging_face(vit().state_dict(), version=4)
    safetensors.save_file(state, tmp_path / "whole.safetensors")
    whole, halves = read(tmp_path / "whole.safetensors"), (list(state)[:40], list(state)[40:])
    index = {}
    for number, names in enumerate(halves):
        shard = f"model-{number}.safetensors"
        safetensors.save_file({name: state[name] for name in names}, tmp_path / shard)
        index.update(dict.fromkeys(names, shard))
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    sharded = read(tmp_path)
    assert whole.kind == sharded.kind == "Hugging Face"
    assert whole.backbone.keys() == sharded.backbone.keys() == vit().state_dict().keys()
    assert all(torch.equal(whole.backbone[name], value) for name, value in sharded.backbone.items())
    (tmp_path / "model-1.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"model-1\.safetensors' not found"):
        read(tmp_path)


def test_registers(vit: Any, images: Tensor, features: Any, tmp_path: Path) -> None:
    """Needs a version of upstream that has them; a round trip, and files with registers for a model without."""
    saved, loaded = vit(num_register_tokens=4), vit(num_register_tokens=4, block_chunks=2, seed=1)
    torch.save(saved.state_dict(), tmp_path / "reg4.pth")
    load_backbone(loaded, read(tmp_path / "reg4.pth"), required_percent=100)
    assert torch.equal(features(loaded, images), features(saved, images))
    for other in (0, 8):
        with pytest.raises(CheckpointError, match=rf"4 registers in the file, {other or 'none'} in the model"):
            load_backbone(vit(num_register_tokens=other), read(tmp_path / "reg4.pth"))
    torch.save(vit().state_dict(), tmp_path / "reg0.pth")
    report = load_backbone(loaded, read(tmp_path / "reg0.pth"))
    assert "missing    register_tokens                 (1, 4, 64) keeps its initial values" in report.table()
    with pytest.raises(CheckpointError, match="100 % are needed"):
        load_backbone(loaded, read(tmp_path / "reg0.pth"), required_percent=100)
