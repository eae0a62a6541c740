"""Files of weights: ours, published ones, foreign ones."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import pytest
import torch

from neighbor2neighbor import CheckpointMismatchError, UNet, load_checkpoint, save_checkpoint


def network(**settings: int) -> UNet:
    return UNet(generator=torch.Generator().manual_seed(1), **settings)  # type: ignore[arg-type]


def assert_equal_weights(first: UNet, second: UNet) -> None:
    assert list(first.state_dict()) == list(second.state_dict())
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name


@pytest.mark.parametrize("residual", [False, True])
def test_saved_network_comes_back_with_its_settings(tmp_path: Path, residual: bool) -> None:
    model = UNet(n_feature=6, residual=residual, n_output_feature=10)
    save_checkpoint(tmp_path / "weights" / "w.pth", model)
    loaded = load_checkpoint(tmp_path / "weights" / "w.pth")
    assert (loaded.n_feature, loaded.residual, loaded.n_output_feature) == (6, residual, 10)
    assert not loaded.training
    assert_equal_weights(model, loaded)
    assert [path.name for path in (tmp_path / "weights").iterdir()] == ["w.pth"]


@pytest.mark.parametrize("prefix", ["", "module."])
def test_published_state_dict_loads_and_its_width_is_read_off(tmp_path: Path, prefix: str) -> None:
    for settings in ({}, {"n_feature": 24, "n_output_feature": 96}):
        model = network(**settings)
        bare = OrderedDict((prefix + name, value) for name, value in model.state_dict().items())
        torch.save(bare, tmp_path / "published.pth")
        loaded = load_checkpoint(tmp_path / "published.pth")
        assert (loaded.n_feature, loaded.residual) == (model.n_feature, False)
        assert_equal_weights(model, loaded)


def test_foreign_weights_are_refused_by_name(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(2, 2).state_dict(), tmp_path / "linear.pth")
    with pytest.raises(CheckpointMismatchError, match=r"linear\.pth .*another architecture.*begins with weight, bias"):
        load_checkpoint(tmp_path / "linear.pth")


def test_differences_are_listed(tmp_path: Path) -> None:
    weights = network(n_feature=8).state_dict()
    weights["dec_conv2a.weight"] = torch.zeros(5, 5, 3, 3)
    del weights["nin_b.bias"]
    weights["extra.weight"] = torch.zeros(1)
    torch.save(weights, tmp_path / "other.pth")
    with pytest.raises(CheckpointMismatchError) as caught:
        load_checkpoint(tmp_path / "other.pth")
    message = str(caught.value)
    assert "missing: nin_b.bias" in message
    assert "unknown: extra.weight" in message
    assert "dec_conv2a.weight: (5, 5, 3, 3) there, (16, 24, 3, 3) expected" in message


def test_wrong_recorded_width_is_refused(tmp_path: Path) -> None:
    content = {"model": network(n_feature=8).state_dict(), "config": {"n_feature": 16}}
    torch.save(content, tmp_path / "wrong.pth")
    with pytest.raises(CheckpointMismatchError, match=r"UNet\(n_feature=16\)") as caught:
        load_checkpoint(tmp_path / "wrong.pth")
    assert "enc_conv0.weight: (8, 3, 3, 3) there, (16, 3, 3, 3) expected" in str(caught.value)
    assert " more" in str(caught.value)


def test_unreadable_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text.pth").write_text("no weights")
    with pytest.raises(CheckpointMismatchError, match=r"text\.pth is not a file of weights"):
        load_checkpoint(tmp_path / "text.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(CheckpointMismatchError, match="holds a list"):
        load_checkpoint(tmp_path / "list.pth")
    torch.save({"model": {}, "config": {"depth": 3}}, tmp_path / "settings.pth")
    with pytest.raises(CheckpointMismatchError, match="settings of another network"):
        load_checkpoint(tmp_path / "settings.pth")
    with pytest.raises(FileNotFoundError, match=r"absent\.pth"):
        load_checkpoint(tmp_path / "absent.pth")
