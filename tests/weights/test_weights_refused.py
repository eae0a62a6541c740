"""Files that are no weights, and weights that belong to another network: one clear error, nothing run or changed."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from dinov2_noise.errors import CheckpointError
from dinov2_noise.weights import Weights, load_backbone, read


class Evil:
    """Unpickled, it creates a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return Path.touch, (self.target,)


class Harmless:
    """A class of someone's own, as many training scripts save."""


@pytest.mark.parametrize("new_format", [True, False])
def test_a_program_in_a_pickle_is_not_run(new_format: bool, tmp_path: Path) -> None:
    target, path = tmp_path / "executed", tmp_path / "weights.pth"
    content = {"model": {"patch_embed.proj.weight": torch.zeros(1, 3, 2, 2)}, "extra": Evil(target)}
    torch.save(content, path, _use_new_zipfile_serialization=new_format)
    with pytest.raises(CheckpointError, match=r"hold a Python object .*could run any program, so it was not opened"):
        read(path)
    assert not target.exists()
    torch.load(path, weights_only=False)
    assert target.exists(), "the trap itself works"


def test_a_plain_pickle_and_foreign_classes(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(pickle.dumps(Evil(tmp_path / "executed")))
    with pytest.raises(CheckpointError):
        read(path)
    assert not (tmp_path / "executed").exists()
    torch.save({"model": {}, "args": Harmless()}, path)
    with pytest.raises(CheckpointError, match=r"Python object \(.*Harmless\)"):
        read(path)


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_truncated(suffix: str, tmp_path: Path) -> None:
    whole, part = tmp_path / f"whole.{suffix}", tmp_path / f"part.{suffix}"
    state = {"patch_embed.proj.weight": torch.zeros(64, 3, 14, 14)}
    if suffix == "pth":
        torch.save(state, whole)
    else:
        pytest.importorskip("safetensors.torch").save_file(state, whole)
    part.write_bytes(whole.read_bytes()[:20_000])
    with pytest.raises(
        CheckpointError, match=rf"part\.{suffix}' cannot be read .*is the file complete\? .* 20,000 byt"
    ):
        read(part)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"<!DOCTYPE html><html>not found", "it is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"\x89PNG\r\n\x1a\n and so on", r"begins with b'\\x89PNG"),
    ],
)
def test_not_a_weights_file(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "weights.pth").write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        read(tmp_path / "weights.pth")


def test_files_that_hold_something_else(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save([1, 2], path)
    with pytest.raises(CheckpointError, match="hold no state dict, but a list"):
        read(path)
    torch.save({"weight": torch.zeros(1000, 384), "bias": torch.zeros(1000)}, path)
    with pytest.raises(CheckpointError, match=r"no backbone of DINOv2's form .*: it has weight, bias"):
        read(path)
    torch.save({"epoch": 3}, path)
    with pytest.raises(CheckpointError, match="no tensors at all"):
        read(path)


def test_paths_that_lead_nowhere(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"absent\.pth' not found"):
        read(tmp_path / "absent.pth")
    with pytest.raises(CheckpointError, match=r"holds none of model\.safetensors"):
        read(tmp_path)
    with pytest.raises(CheckpointError, match="are an address: download the file"):
        read("https://example.org/dinov2_vits14_pretrain.pth")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match="no weight_map"):
        read(tmp_path / "config.json")


def test_upstreams_rank_files_are_named_as_such(tmp_path: Path) -> None:
    path = tmp_path / "model_0001999.rank_0.pth"
    torch.save({}, path)
    with pytest.raises(CheckpointError, match=r"training run itself resumes from them, and anchor\.teacher accepts"):
        read(path)


@pytest.mark.upstream
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"embed_dim": 32}, r"width 64 in the file, 32 in the model \(student\.arch\)"),
        ({"depth": 2}, r"number of blocks 4 in the file, 2 in the model \(student\.arch\)"),
        ({"depth": 6}, "number of blocks 4 in the file, 6 in the model"),
        ({"patch_size": 7}, r"patch size 14 in the file, 7 in the model \(student\.patch_size\)"),
        ({"in_chans": 1}, "number of input channels 3 in the file, 1 in the model"),
        (
            {"ffn_layer": "swiglufused"},
            r"feed-forward layer mlp in the file, swiglu in the model \(student\.ffn_layer\)",
        ),
        ({"init_values": None}, r"layer scale in the file, none in the model \(student\.layerscale: give a value\)"),
        ({"qkv_bias": False}, r"only 93\.5 % of the file's backbone have a place in the model, 95 % are needed"),
        ({"mlp_ratio": 2}, r"they fill 61\.9 % of the backbone's parameters and 80\.6 % of its entries, 95 % are"),
    ],
)
def test_another_network_is_refused_and_left_alone(options: dict[str, Any], message: str, vit: Any) -> None:
    weights = Weights("w.pth", "upstream backbone", vit().state_dict(), {})
    model = vit(**options, seed=1)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(CheckpointError, match=message) as caught:
        load_backbone(model, weights)
    assert "'w.pth' belong to another architecture" in str(caught.value)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


@pytest.mark.upstream
def test_the_limit_and_the_table(vit: Any) -> None:
    """A missing mask token is no obstacle; of 62 others 4 may be missing below 95 %, 3 above."""
    state = vit().state_dict()
    for name in ("mask_token", "norm.weight", "norm.bias", "cls_token"):
        del state[name]
    model = vit(seed=1)
    weights = Weights("w.pth", "timm", state | {"norm_pre.weight": torch.zeros(64)}, {})
    report = load_backbone(model, weights)
    assert report.percent_of_entries == pytest.approx(100 * 59 / 62)
    assert report.percent_used == pytest.approx(100 * 59 / 60)
    lines = report.table().splitlines()
    parameters = sum(p.numel() for p in vit().parameters()) - 64
    assert f"{100 * (1 - 192 / parameters):.1f} % of the backbone's parameters, 95.2 % of its entries" in lines[0]
    assert "59 loaded, 0 resized, 4 missing, 1 unexpected" in lines[0]
    assert [line.split()[:2] for line in lines[1:]] == [
        ["missing", "cls_token"],
        ["missing", "mask_token"],
        ["missing", "norm.weight"],
        ["missing", "norm.bias"],
        ["unexpected", "norm_pre.weight"],
    ]
    with pytest.raises(CheckpointError, match=r"95\.2 % of its entries, 95\.5 % are needed"):
        load_backbone(model, weights, required_percent=95.5)
    del state["patch_embed.proj.bias"]
    with pytest.raises(CheckpointError, match=r"93\.5 % of its entries, 95 % are needed"):
        load_backbone(model, Weights("w.pth", "timm", state, {}))


@pytest.mark.upstream
def test_a_long_table_is_cut(vit: Any) -> None:
    extra = {f"blocks.0.attn.extra{number}": torch.zeros(1) for number in range(30)}
    weights = Weights("w.pth", "upstream backbone", vit().state_dict() | extra, {})
    lines = load_backbone(vit(seed=1), weights, required_percent=50).table().splitlines()
    assert len(lines) == 22
    assert lines[-1] == "  … and 10 more"
