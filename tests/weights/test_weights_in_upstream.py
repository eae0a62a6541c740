"""The command, and the places of upstream that load weights."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from typer.testing import CliRunner

from dinov2_noise.cli import app
from dinov2_noise.errors import CheckpointError

pytestmark = pytest.mark.upstream

TINY = {"arch": "vit_tiny", "patch_size": 16, "block_chunks": 4, "layerscale": 1.0}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    OmegaConf.save(OmegaConf.create({"student": TINY, "crops": {"global_crops_size": 64}}), path)
    return path


def _tiny(size: int) -> Any:
    from dinov2.models import vision_transformer

    return vision_transformer.vit_tiny(patch_size=16, img_size=size, init_values=1.0, block_chunks=0)


def test_the_command_says_what_is_in_a_file_and_how_it_fits(config: Path, tmp_path: Path) -> None:
    path = tmp_path / "teacher_checkpoint.pth"
    state = {f"backbone.{name}": value for name, value in _tiny(224).state_dict().items()}
    torch.save({"teacher": state | {"dino_head.mlp.0.bias": torch.zeros(4)}}, path)
    done = CliRunner().invoke(app, ["weights", str(path), "--config", str(config)])
    assert done.exit_code == 0, done.output
    rows = dict(line.split(maxsplit=1) for line in done.output.splitlines()[:6] if "  " in line)
    assert rows["kind"] == "teacher checkpoint"
    assert rows["depth"] == "12 blocks"
    assert rows["width"] == "192"
    assert "position grid  14 x 14 (images of 224 px)" in done.output
    assert f"parameters     {sum(value.numel() for value in state.values()):,} in 175 entries" in done.output
    assert "beside it      dino_head (1 entries)" in done.output
    assert "174 loaded, 1 resized, 0 missing, 0 unexpected; 100 % of the backbone's parameters" in done.output
    assert "14 x 14 -> 4 x 4 patches" in done.output


def test_evaluation_resizes_the_grid_and_refuses_anything_less_than_all(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dinov2.utils.utils import load_pretrained_weights

    monkeypatch.setattr(logging.getLogger("dinov2"), "propagate", True)
    path, state, model = tmp_path / "weights.pth", _tiny(64).state_dict(), _tiny(96)
    torch.save(state, path)
    with caplog.at_level(logging.INFO, logger="dinov2"):
        load_pretrained_weights(model, str(path), "teacher")
    assert "4 x 4 -> 6 x 6 patches" in caplog.text
    assert torch.equal(model.blocks[11].mlp.fc1.weight, state["blocks.11.mlp.fc1.weight"])
    torch.save({name: value for name, value in state.items() if name != "norm.bias"}, path)
    with pytest.raises(CheckpointError, match=r"99\.4 % of its entries, 100 % are needed"):
        load_pretrained_weights(model, str(path), "teacher")
    torch.save({"student": state}, path)
    with pytest.raises(CheckpointError, match="hold no teacher, only student"):
        load_pretrained_weights(model, str(path), "teacher")


def test_addresses_stay_upstreams_business(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dinov2.utils.utils import load_pretrained_weights

    state, model = _tiny(64).state_dict(), _tiny(64)
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", lambda address, map_location: state)
    load_pretrained_weights(model, "https://example.org/weights.pth", "teacher")
    assert torch.equal(model.norm.bias, state["norm.bias"])
    assert torch.equal(model.patch_embed.proj.weight, state["patch_embed.proj.weight"])
