"""Tables of features: their rows, their order, what is said of bad images, and that nothing half-written stays."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from numpy.typing import NDArray
from tiny_run import picture

import dinov2_noise
from dinov2_noise.data import build_index
from dinov2_noise.errors import (
    CheckpointError,
    ConfigError,
    DatasetStringError,
    ImageError,
    MissingFolderError,
    OutputFolderError,
    WriteError,
)
from dinov2_noise.export import EmbedRequest, embed, embedding, tables
from dinov2_noise.noise import add_noise

pytestmark = pytest.mark.upstream


@pytest.fixture
def request_for(run: Path, pictures: Path, tmp_path: Path) -> EmbedRequest:
    """All pictures, class tokens at 56 px, into a Parquet file."""
    out = tmp_path / "tables" / "features.parquet"
    return EmbedRequest(images=[str(pictures)], run=run, out=out, size_px=56, batch_size=3, workers=0, device="cpu")


def rows(path: Path) -> tuple[list[str], NDArray[np.float32]]:
    table = pq.read_table(path)
    return table["path"].to_pylist(), np.stack(table["feature"].to_numpy(zero_copy_only=False))


def metadata(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(pq.read_schema(path).metadata[b"dinov2_noise"])
    return found


@pytest.mark.parametrize("tokens", ["cls", "mean-patch", "cls+mean", "patches"])
def test_parquet_holds_the_features_in_order(request_for: EmbedRequest, pictures: Path, tokens: Any) -> None:
    found = embed(replace(request_for, tokens=tokens))
    paths, values = rows(request_for.out)
    files = sorted(path for path in pictures.glob("*/*"))
    assert paths == [str(path) for path in files]
    expected = dinov2_noise.load(request_for.run, size_px=56).embed(files, tokens=tokens, batch_size=3)
    assert np.array_equal(values, expected.reshape(7, -1))
    assert (found.n_images, found.width, list(found.skipped)) == (7, values.shape[1], [])
    said = metadata(request_for.out)
    assert said["weights"] == dinov2_noise.load(request_for.run).weights_hash
    assert said["tokens"] == tokens
    assert said["shape"] == list(expected.shape[1:])
    assert said["preprocessing"]["size_px"] == 56
    assert said["versions"]["torch"] == torch.__version__
    assert "label" not in pq.read_schema(request_for.out).names


@pytest.mark.parametrize(("rows_at_once", "groups"), [(2, 4), (7, 1), (3, 3)])
def test_parquet_is_written_group_by_group(
    rows_at_once: int, groups: int, request_for: EmbedRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = request_for.out.with_name("whole.parquet")
    embed(replace(request_for, out=whole))
    monkeypatch.setattr(tables, "_GROUP_NUMBERS", rows_at_once * 192 + 5)
    embed(request_for)
    assert pq.ParquetFile(request_for.out).num_row_groups == groups
    assert rows(request_for.out)[0] == rows(whole)[0]
    assert np.array_equal(rows(request_for.out)[1], rows(whole)[1])


def test_features_do_not_keep_the_other_tokens_in_memory(run: Path) -> None:
    found = dinov2_noise.load(run, size_px=56)([picture((64, 64), 1), picture((64, 64), 2)])
    for choice in embedding.TOKEN_CHOICES[:3]:
        chosen = embedding._chosen(found, choice)
        assert not np.shares_memory(chosen, found.cls.numpy())
        assert chosen.flags.c_contiguous


def test_npz_and_npy_hold_the_same(request_for: EmbedRequest) -> None:
    embed(request_for)
    paths, values = rows(request_for.out)
    npz, npy = (request_for.out.with_suffix(suffix) for suffix in (".npz", ".npy"))
    embed(replace(request_for, out=npz))
    embed(replace(request_for, out=npy))
    archive = np.load(npz)
    assert np.array_equal(archive["feature"], values)
    assert list(archive["path"]) == paths
    assert json.loads(str(archive["metadata"]))["tokens"] == "cls"
    assert np.array_equal(np.load(npy), values)
    beside = json.loads(npy.with_name("features.npy.json").read_text(encoding="utf-8"))
    assert beside["path"] == paths
    assert beside["metadata"]["model"] == "tiny"


def test_the_number_of_workers_does_not_show(request_for: EmbedRequest) -> None:
    embed(request_for)
    other = request_for.out.with_name("other.parquet")
    embed(replace(request_for, workers=2, out=other))
    assert rows(other)[0] == rows(request_for.out)[0]
    assert np.array_equal(rows(other)[1], rows(request_for.out)[1])


def test_files_folders_and_dataset_strings_in_the_order_given(request_for: EmbedRequest, pictures: Path) -> None:
    first, last = str(pictures / "dogs" / "6.jpg"), str(pictures / "cats" / "1.png")
    labelled = f"ImageFolder:root={pictures}:labels=folders"
    embed(replace(request_for, images=[first, str(pictures / "cats"), labelled, last]))
    paths, values = rows(request_for.out)
    cats, all_of_them = sorted(pictures.glob("cats/*")), sorted(pictures.glob("*/*"))
    assert paths == [first, *map(str, cats), *map(str, all_of_them), last]
    np.testing.assert_allclose(values[0], values[-2], rtol=0, atol=1e-4)  # one picture, in other batches
    labels = pq.read_table(request_for.out)["label"].to_pylist()
    assert labels == [None] * 5 + ["cats"] * 4 + ["dogs"] * 3 + [None]


def test_labels_of_an_indexed_set_are_its_class_ids(request_for: EmbedRequest, tmp_path: Path) -> None:
    for label in ("n1", "n2"):
        (tmp_path / "set" / "val" / label).mkdir(parents=True)
        picture((64, 64), int(label[1])).save(tmp_path / "set" / "val" / label / f"{label}.png")
    build_index(tmp_path / "set", progress=False)
    embed(replace(request_for, images=[f"ImageNet:split=VAL:root={tmp_path / 'set'}"]))
    assert pq.read_table(request_for.out)["label"].to_pylist() == ["n1", "n2"]
    archive = request_for.out.with_suffix(".npz")
    embed(replace(request_for, images=[f"ImageNet:split=VAL:root={tmp_path / 'set'}"], out=archive))
    assert list(np.load(archive)["label"]) == ["n1", "n2"]


def test_noise_on_the_fly_is_that_of_the_folder(request_for: EmbedRequest, pictures: Path, tmp_path: Path) -> None:
    add_noise(pictures, tmp_path / "noisy", noise="gauss100", base_seed=5, workers=1, progress=False)
    stored, made = (request_for.out.with_name(f"{name}.parquet") for name in ("stored", "made"))
    embed(replace(request_for, images=[str(tmp_path / "noisy")], out=stored))
    embed(replace(request_for, noise="gauss100", seed=5, out=made))
    embed(request_for)
    assert np.array_equal(rows(stored)[1], rows(made)[1])
    assert np.abs(rows(made)[1] - rows(request_for.out)[1]).max() > 0.1
    assert (metadata(made)["noise"], metadata(made)["seed"]) == ("gauss100", 5)
    with pytest.raises(ConfigError, match="write noise=gauss100 in the string"):
        embed(replace(request_for, images=[f"ImageFolder:root={pictures}"], noise="gauss100", out=tmp_path / "x.npy"))


@pytest.fixture
def damaged(pictures: Path, tmp_path: Path) -> Path:
    """The pictures, with two files that are none among them."""
    root = tmp_path / "damaged"
    for path in sorted(pictures.glob("*/*")):
        (root / path.parent.name).mkdir(parents=True, exist_ok=True)
        (root / path.parent.name / path.name).write_bytes(path.read_bytes())
    (root / "cats" / "0b.png").write_bytes(b"no image")
    (root / "dogs" / "9.jpg").write_bytes(b"")
    return root


def test_bad_images_are_counted_and_named(
    request_for: EmbedRequest, damaged: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    request = replace(request_for, images=[str(damaged)])
    with pytest.raises(ImageError, match=r"0b\.png: .*\(2 of 9 images failed, and --skip-bad allows 1\)") as error:
        embed(replace(request, skip_bad=1))
    assert "9.jpg: the file is empty" in str(error.value)
    assert "finished images are kept" not in str(error.value)
    assert list(request.out.parent.iterdir()) == []
    found = embed(replace(request, skip_bad=2))
    assert [Path(path).name for path in found.skipped] == ["0b.png", "9.jpg"]
    assert "left out 2 of 9 images" in capsys.readouterr().err
    paths, values = rows(request.out)
    assert (len(paths), len(values), found.n_images) == (7, 7, 7)
    assert not any(path.endswith(("0b.png", "9.jpg")) for path in paths)


def test_a_folder_of_bad_images_only(request_for: EmbedRequest, tmp_path: Path) -> None:
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "1.png").write_bytes(b"no image")
    for suffix in (".parquet", ".npz", ".npy"):
        out = tmp_path / f"x{suffix}"
        with pytest.raises(ImageError, match=r"1 of 1 images failed"):
            embed(replace(request_for, images=[str(tmp_path / "bad")], skip_bad=1, out=out))
        assert not out.exists()


def test_an_interruption_leaves_nothing(request_for: EmbedRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def interrupt(_self: object, arguments: tuple[torch.Tensor, ...]) -> None:
        calls.append(len(arguments[0]))
        if len(calls) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _embed_with_hook(request_for, interrupt, monkeypatch)
    assert calls == [3, 3]
    assert list(request_for.out.parent.iterdir()) == []


def _embed_with_hook(request: EmbedRequest, hook: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from dinov2_noise.export import embedding

    def load(*arguments: Any, **options: Any) -> dinov2_noise.export.Features:  # type: ignore[name-defined]
        features = dinov2_noise.load(*arguments, **options)
        features.backbone.register_forward_pre_hook(hook)
        return features

    monkeypatch.setattr(embedding, "load", load)
    embed(request)


def test_requests_that_cannot_be_met(
    request_for: EmbedRequest, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(kind: type[Exception], text: str, **changes: Any) -> None:
        with pytest.raises(kind, match=text):
            embed(replace(request_for, **changes))

    refused(ConfigError, "suffix must be one of .parquet, .npz, .npy", out=tmp_path / "features.csv")
    refused(ConfigError, "batch size 0, workers 0", batch_size=0)
    refused(ConfigError, "skip-bad must be 0 or more", skip_bad=-1)
    refused(ConfigError, "tokens 'all' are unknown: valid are cls, mean-patch", tokens="all")
    refused(ConfigError, "no images", images=[])
    (tmp_path / "empty").mkdir()
    refused(MissingFolderError, "empty holds no images", images=[str(tmp_path / "empty")])
    refused(MissingFolderError, "none.png does not exist", images=[str(pictures / "none.png")])
    refused(MissingFolderError, "dataset strings begin with", images=["Imagenet:split=VAL:root=x"])
    refused(DatasetStringError, "unknown split", images=["ImageNet:split=DEV:root=x"])
    (tmp_path / "notes.txt").touch()
    refused(MissingFolderError, "not an image by its name", images=[str(tmp_path / "notes.txt")])
    refused(CheckpointError, "no eval", run=_half_finished(request_for.run, tmp_path))
    refused(WriteError, "A part of this path is a file", out=tmp_path / "notes.txt" / "features.npy")
    request_for.out.parent.mkdir(parents=True)
    request_for.out.touch()
    refused(OutputFolderError, "exists already, and tables are not added to")
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    refused(ConfigError, r"a Parquet table needs pyarrow.parquet: pip install 'dinov2-noise\[parquet\]'")


def _half_finished(run: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "half"
    folder.mkdir()
    (folder / "config.yaml").write_bytes((run / "config.yaml").read_bytes())
    return folder
