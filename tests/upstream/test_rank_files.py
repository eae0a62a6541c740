"""Upstream's checkpoints, one file per rank, written by its own class in two processes and read as one."""

from __future__ import annotations

import io
import os
import pickle
import re
import shutil
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from helpers import SmallSet, run_python
from omegaconf import OmegaConf

from dinov2_noise.errors import CheckpointError
from dinov2_noise.upstream import rank_files
from dinov2_noise.upstream.inert_reading import read_inert

pytestmark = pytest.mark.upstream

SCRIPT = Path(__file__).with_name("write_rank_files.py")
NAME = "model_0000002.rank_{}.pth"
CONFIG: dict[str, Any] = {
    "train": {"batch_size_per_gpu": 2, "num_workers": 0, "OFFICIAL_EPOCH_LENGTH": 1, "centering": "centering"},
    "student": {"arch": "vit_tiny", "patch_size": 16, "drop_path_rate": 0.0, "layerscale": 1.0, "block_chunks": 2},
    "dino": {"head_n_prototypes": 32, "head_hidden_dim": 32, "head_bottleneck_dim": 16},
    "optim": {"epochs": 3, "warmup_epochs": 1},
    "teacher": {"warmup_teacher_temp_epochs": 1},
    "crops": {"global_crops_size": 64, "local_crops_size": 32, "local_crops_number": 2},
    "evaluation": {"eval_period_iterations": 0},
}


@pytest.fixture(scope="module")
def written(small_set: SmallSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Output folder of a plain DINOv2 run of three steps in two processes; ``reference/`` holds the truth."""
    folder = tmp_path_factory.mktemp("rank-files")
    OmegaConf.save(OmegaConf.create(CONFIG), folder / "plain.yaml")
    done = run_python(
        *("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(SCRIPT)),
        *("--config-file", str(folder / "plain.yaml"), "--output-dir", str(folder / "run")),
        f"train.dataset_path=ImageNet:split=TRAIN:root={small_set.clean}",
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder / "run"


@pytest.fixture(scope="module")
def truth(written: Path) -> dict[str, Any]:
    """The same state, gathered by FSDP itself."""
    content: dict[str, Any] = torch.load(written / "reference" / "model_0000002.pth", weights_only=True)
    return content


def shapes(model: dict[str, Any]) -> rank_files.Shapes:
    return {name: tuple(tensor.shape) for name, tensor in model.items()}


def unequal(expected: dict[str, Any], found: dict[str, Any]) -> list[str]:
    assert expected.keys() == found.keys()
    return [name for name, tensor in expected.items() if not torch.equal(tensor, found[name])]


@pytest.mark.parametrize("rank", [0, 1])
def test_model_and_optimizer_are_those_of_the_run(written: Path, truth: dict[str, Any], rank: int) -> None:
    groups = truth["optimizer"]["param_groups"]
    merged = rank_files.read_rank_files(written / NAME.format(rank), shapes(truth["model"]), groups)
    assert merged["iteration"] == 2
    assert unequal(truth["model"], merged["model"]) == []
    expected, found = truth["optimizer"]["state"], merged["optimizer"]["state"]
    assert expected.keys() == found.keys()
    assert len(expected) > 150
    assert [name for name in expected if unequal(expected[name], found[name])] == []
    assert merged["optimizer"]["param_groups"] == groups


def test_flat_parameters_alone_say_the_same(written: Path, truth: dict[str, Any]) -> None:
    contents = [read_inert(written / NAME.format(rank)) for rank in (0, 1)]
    models = [{k: v for k, v in each["model"].items() if "_flat_param" in k or "center" in k} for each in contents]
    assert len(models[0]) == 10
    merged = rank_files._merge_model(models, shapes(truth["model"]), written)
    assert unequal(truth["model"], merged) == []


@pytest.mark.parametrize(("name", "numbers"), [("aligned", 36 + 8 + 8 + 7 + 1), ("joined", 35 + 7 + 7 + 7)])
def test_flat_parameters_with_and_without_gaps(written: Path, name: str, numbers: int) -> None:
    """PyTorch 2.0 joins parameters as FSDP does today without ``use_orig_params``; later versions align them."""
    folder = written / "small" / name
    expected = torch.load(folder / "truth.pth", weights_only=True)
    models = [read_inert(folder / f"model_0000000.rank_{rank}.pth")["model"] for rank in (0, 1)]
    flat_only = [{k: v for k, v in model.items() if "_flat_param" in k or "center" in k} for model in models]
    assert models[0]["student.inner._flat_param"].state[1].attribute("size")[0] == numbers
    assert unequal(expected, rank_files._merge_model(flat_only, shapes(expected), folder)) == []
    whole = rank_files.read_rank_files(folder / "model_0000000.rank_0.pth", shapes(expected))
    assert unequal(expected, whole["model"]) == []


def test_the_teacher_alone_for_blocks_chunked_otherwise(written: Path, truth: dict[str, Any]) -> None:
    unchunked = {re.sub(r"blocks\.[01]\.", "blocks.", name): tensor for name, tensor in truth["model"].items()}
    architecture: Any = SimpleNamespace(state_dict=lambda: unchunked)
    found = rank_files.read_rank_teacher(written / NAME.format(1), architecture)
    prefix = "teacher.backbone."
    assert unequal({k.removeprefix(prefix): v for k, v in unchunked.items() if prefix in k}, found.backbone) == []
    heads = {k.removeprefix("teacher."): v for k, v in unchunked.items() if k.startswith("teacher.dino_head")}
    centers = {name: unchunked[name] for name in ("dino_loss.center", "ibot_patch_loss.center")}
    assert unequal(heads | centers, found.rest) == []


def test_a_missing_rank_is_named(written: Path, truth: dict[str, Any], tmp_path: Path) -> None:
    shutil.copy(written / NAME.format(0), tmp_path)
    with pytest.raises(CheckpointError, match=r"written by 2 processes, but model_0000002\.rank_1\.pth is missing"):
        rank_files.read_rank_files(tmp_path / NAME.format(0), shapes(truth["model"]))


def test_another_network_or_optimizer_is_noticed(
    written: Path, truth: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    path, model = written / NAME.format(0), shapes(truth["model"])
    other = {**model, "student.backbone.cls_token": (1, 1, 384)}
    with pytest.raises(CheckpointError, match=r"student\.backbone\._flat_param has \d+ numbers, which this config's"):
        rank_files.read_rank_files(path, other)
    merged = rank_files.read_rank_files(path, model, truth["optimizer"]["param_groups"][:-1])
    assert "optimizer" not in merged
    assert "the optimizer starts afresh" in caplog.text


class Foreign:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, ("made-by-a-checkpoint",)


def test_nothing_of_a_foreign_file_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"model": {"weight": Foreign()}}, tmp_path / NAME.format(0))
    with pytest.raises(CheckpointError, match=r"names (posix|nt)\.mkdir, which does not belong into a checkpoint"):
        rank_files.read_rank_files(tmp_path / NAME.format(0), {})
    assert not (tmp_path / "made-by-a-checkpoint").exists()


class Scripted(torch.nn.Module):
    """TorchScript, which `torch.load` runs before it asks anybody which classes it may load."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path

    @torch.jit.export
    def __getstate__(self) -> tuple[str, bool]:
        return self.path, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[str, bool]) -> None:
        self.path = state[0]
        self.training = state[1]
        torch.from_file(state[0], True, 4, dtype=torch.uint8).fill_(65)

    def forward(self) -> str:
        return self.path


def test_a_torchscript_archive_is_not_run(tmp_path: Path) -> None:
    made = tmp_path / "made-by-a-checkpoint"
    with pytest.warns(DeprecationWarning, match="torch.jit"):
        torch.jit.save(torch.jit.script(Scripted(str(made))), tmp_path / NAME.format(0))
    made.unlink(missing_ok=True)  # compiling runs nothing, but be sure
    with pytest.raises(CheckpointError, match=r"names __torch__\..*Scripted, which does not belong"):
        read_inert(tmp_path / NAME.format(0))
    assert not made.exists()


def crafted(path: Path, content: bytes, **storages: bytes) -> Path:
    """A file as `torch.save` writes it, with any pickle in it."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", content)
        for key, raw in storages.items():
            archive.writestr(f"archive/data/{key}", raw)
    return path


class Kind:
    """A dtype that says its eight bytes were a pointer to an object."""

    def __reduce__(self) -> Any:
        fields = (3, "|", None, ("a",), {"a": (np.dtype("O"), 0)}, 8, 1, 0)
        return np.dtype, ("V8", False, True), fields


class Number:
    def __init__(self, kind: Any, raw: bytes) -> None:
        self.kind, self.raw = kind, raw

    def __reduce__(self) -> Any:
        return np.float64(0).__reduce__()[0], (self.kind, self.raw)


def test_numbers_are_numbers(tmp_path: Path) -> None:
    values = [np.float64(0.1), np.float32(0.5), np.int64(-3), np.uint8(255), np.bool_(True), np.float16(2), np.int32(7)]
    found = read_inert(crafted(tmp_path / "a.pth", pickle.dumps(values, 2)))
    assert found == [value.item() for value in values]
    assert [type(value) for value in found] == [float, float, int, int, bool, float, int]
    for kind in (Kind(), np.dtype("O"), np.dtype("M8[s]"), np.dtype("V8")):
        path = crafted(tmp_path / "b.pth", pickle.dumps(Number(kind, b"AAAAAAAA"), 2))
        with pytest.raises(CheckpointError, match=r"it holds a number of the kind '(V8|O8|M8)'"):
            read_inert(path)


def tensor_pickle(offset: int, shape: tuple[int, ...], stride: tuple[int, ...]) -> bytes:
    """A float32 tensor over the storage ``0``."""
    box: list[Any] = []

    class Rebuilt:
        def __reduce__(self) -> Any:
            return torch._utils._rebuild_tensor_v2, (box, offset, shape, stride, False, {})

    class Pickler(pickle._Pickler):
        def persistent_id(self, obj: Any) -> Any:
            return ("storage", torch.FloatStorage, "0", "cpu", 4) if obj is box else None

    stream = io.BytesIO()
    Pickler(stream, 2).dump(Rebuilt())
    return stream.getvalue()


@pytest.mark.parametrize(
    ("offset", "shape", "stride"), [(0, (5,), (1,)), (2, (3,), (1,)), (0, (2, 2), (4, 1)), (-1, (1,), (1,))]
)
def test_a_tensor_stays_within_its_bytes(
    tmp_path: Path, offset: int, shape: tuple[int, ...], stride: tuple[int, ...]
) -> None:
    raw = np.arange(4, dtype=np.float32).tobytes()
    good = read_inert(crafted(tmp_path / "a.pth", tensor_pickle(1, (3,), (1,)), **{"0": raw}))
    assert good.tolist() == [1, 2, 3]
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_inert(crafted(tmp_path / "b.pth", tensor_pickle(offset, shape, stride), **{"0": raw}))


def test_what_stands_for_a_function_cannot_be_changed(tmp_path: Path) -> None:
    """By BUILD with a pair a pickle sets attributes, such as a function's defaults."""
    changing = b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\nN}X\x0c\x00\x00\x00__defaults__N\x85s\x86b."
    with pytest.raises(CheckpointError, match="it changes a function"):
        read_inert(crafted(tmp_path / "a.pth", changing))


def test_one_process_continues_where_two_stopped(written: Path, small_set: SmallSet, tmp_path: Path) -> None:
    for path in [*written.glob("model_0000002.rank_*"), *written.glob("last_checkpoint.*")]:
        shutil.copy(path, tmp_path)
    (tmp_path / "last_checkpoint.rank_0").write_text(NAME.format(0))
    done = run_python(
        *("-m", "dinov2.train.train", "--config-file", str(written.parent / "plain.yaml")),
        *("--output-dir", str(tmp_path), f"train.dataset_path=ImageNet:split=TRAIN:root={small_set.clean}"),
        *("train.batch_size_per_gpu=4", "optim.epochs=4"),
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "model_0000002.rank_0.pth: upstream's files, one per rank, are read as one" in done.stdout
    assert "Starting training from iteration 3" in done.stdout
    final = torch.load(tmp_path / "model_final.pth", weights_only=True)
    assert final["iteration"] == 3
    assert {int(state["step"]) for state in final["optimizer"]["state"].values()} == {4}
