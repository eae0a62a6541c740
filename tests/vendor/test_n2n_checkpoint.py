"""Files of weights: ours, published ones, foreign ones."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import pytest
import torch

from neighbor2neighbor import (
    CheckpointMismatchError,
    Strided,
    Trainer,
    TrainingConfig,
    UNet,
    load_checkpoint,
    save_checkpoint,
)


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


def test_stride_comes_back_and_is_left_out_where_there_is_none(tmp_path: Path) -> None:
    net = network(n_feature=4)
    save_checkpoint(tmp_path / "strided.pth", Strided(net, 2))
    loaded = load_checkpoint(tmp_path / "strided.pth")
    assert isinstance(loaded, Strided)
    assert (loaded.stride, loaded.side_multiple_px, loaded.training) == (2, 64, False)
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(loaded(images), Strided(net, 2)(images))
    save_checkpoint(tmp_path / "plain.pth", net)
    assert "stride" not in torch.load(tmp_path / "plain.pth", weights_only=True)["config"], (
        "as earlier versions wrote it"
    )
    with pytest.raises(ValueError, match="only a UNet can be saved with its settings, not Identity"):
        save_checkpoint(tmp_path / "other.pth", Strided(torch.nn.Identity(), 2))


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


def test_states_of_whole_trainings_are_refused_with_the_names_in_their_parts(tmp_path: Path) -> None:
    linear = torch.nn.Linear(2, 2)
    state = {
        "epoch": 3,
        "state_dict": linear.state_dict(),
        "optimizer": torch.optim.Adam(linear.parameters()).state_dict(),
    }
    torch.save(state, tmp_path / "foreign.pth")
    with pytest.raises(CheckpointMismatchError) as caught:
        load_checkpoint(tmp_path / "foreign.pth")
    assert "it lacks enc_conv0.weight and nin_c.weight" in str(caught.value)
    assert "'state_dict' begins with weight, bias" in str(caught.value)
    torch.save({"model": linear.state_dict(), "config": {"n_feature": 8}}, tmp_path / "named.pth")
    with pytest.raises(CheckpointMismatchError, match=r"(?s)UNet\(n_feature=8\).*unknown: weight, bias"):
        load_checkpoint(tmp_path / "named.pth")
    torch.save(Trainer([torch.zeros(3, 64, 64)], TrainingConfig(n_feature=4)).state_dict(), tmp_path / "ours.pth")
    with pytest.raises(CheckpointMismatchError, match=r"'model' begins with enc_conv0\.weight, .*Save the one with"):
        load_checkpoint(tmp_path / "ours.pth")
    torch.save({}, tmp_path / "empty.pth")
    with pytest.raises(CheckpointMismatchError, match="is empty"):
        load_checkpoint(tmp_path / "empty.pth")
    torch.save(
        {"model": network(n_feature=8).state_dict(), "config": {"n_feature": 8, "stride": 0}}, tmp_path / "s.pth"
    )
    with pytest.raises(CheckpointMismatchError, match="settings of another network"):
        load_checkpoint(tmp_path / "s.pth")


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


def test_equal_weights_make_equal_files(tmp_path: Path) -> None:
    for name in ("one.pth", "other.pth"):
        save_checkpoint(tmp_path / name, UNet(n_feature=4, generator=torch.Generator().manual_seed(0)))
    assert (tmp_path / "one.pth").read_bytes() == (tmp_path / "other.pth").read_bytes()
