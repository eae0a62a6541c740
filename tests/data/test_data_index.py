"""Metadata: values, order and dtype as DINOv2's reader expects, and every refusal."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dinov2_noise.data import build_index, default_extra
from dinov2_noise.data.metadata import UNLABELLED, decode_path, encode_paths
from dinov2_noise.errors import MetadataError, MissingFolderError


def _make(root: Path, *names: str) -> Path:
    for number, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (number, 0, 0)).save(root / name)
    return root


def _index(root: Path, **kwargs) -> dict[str, int]:
    return build_index(root, progress=False, **kwargs)


def test_values_order_and_dtype(tmp_path):
    root = _make(
        tmp_path / "set",
        "train/b/b_18.JPEG",
        "train/b/b_5.JPEG",
        "train/a-b/deep/er_7.png",
        "train/a/noname.tif",
        "train/a/x_9999999999.png",  # does not fit 32 bits
        "val/b/ILSVRC2012_val_00000293.JPEG",
    )
    (root / "labels.txt").write_text('b,"bee, honey"\na,ay\na-b,between\n')
    assert _index(root) == {"TRAIN": 5, "VAL": 1}
    extra = tmp_path / "set-extra"
    assert default_extra(root) == extra
    entries = np.load(extra / "entries-TRAIN.npy")
    assert entries.dtype.names == ("actual_index", "class_index", "class_id", "class_name")
    assert [entries.dtype[name].str for name in entries.dtype.names] == ["<u4", "<u4", "<U3", "<U10"]
    assert entries.tolist() == [
        (0, 0, "a", "ay"),
        (1, 0, "a", "ay"),
        (7, 1, "a-b", "between"),
        (18, 2, "b", "bee, honey"),
        (5, 2, "b", "bee, honey"),
    ]
    assert np.load(extra / "class-ids-TRAIN.npy").tolist() == ["a", "a-b", "b"]
    assert np.load(extra / "class-names-VAL.npy").tolist() == ["ay", "between", "bee, honey"]
    assert [decode_path(path) for path in np.load(extra / "paths-TRAIN.npy")] == [
        "train/a/noname.tif",
        "train/a/x_9999999999.png",
        "train/a-b/deep/er_7.png",
        "train/b/b_18.JPEG",
        "train/b/b_5.JPEG",
    ]
    # val has class b alone; its index stays that of train.
    assert np.load(extra / "entries-VAL.npy").tolist() == [(293, 2, "b", "bee, honey")]


def test_order_of_classes_equals_sorted_folders(tmp_path):
    names = ["a", "a-b", "a b", "A", "ä", "10", "9"]
    _index(_make(tmp_path / "set", *(f"train/{name}/1.png" for name in names)))
    ids = np.load(tmp_path / "set-extra" / "class-ids-TRAIN.npy").tolist()
    assert ids == sorted(names)
    assert np.load(tmp_path / "set-extra" / "entries-TRAIN.npy")["class_id"].tolist() == ids


def test_without_labels_the_folder_name_is_the_class_name(tmp_path):
    _index(_make(tmp_path / "set", "train/cat/1.png"))
    assert np.load(tmp_path / "set-extra" / "entries-TRAIN.npy").tolist() == [(0, 0, "cat", "cat")]


def test_labels_with_bom_blank_lines_and_bare_commas(tmp_path):
    root = _make(tmp_path / "set", "train/n1/1.png")
    (root / "labels.txt").write_bytes("\ufeffn1,tench, Tinca tinca\n\n".encode())
    _index(root)
    assert np.load(tmp_path / "set-extra" / "class-names-TRAIN.npy").tolist() == ["tench, Tinca tinca"]


def test_val_and_test_without_train_share_one_mapping(tmp_path):
    _index(_make(tmp_path / "set", "val/b/1.png", "test/a/1.png", "test/c/1.png"))
    extra = tmp_path / "set-extra"
    assert np.load(extra / "entries-VAL.npy")["class_index"].tolist() == [1]
    assert np.load(extra / "entries-TEST.npy")["class_index"].tolist() == [0, 2]


def test_flat_test_folder_is_unlabelled(tmp_path):
    root = _make(tmp_path / "set", "train/a/1.png", "test/ILSVRC2012_test_00000001.JPEG", "test/ILSVRC2012_test_2.JPEG")
    assert _index(root) == {"TRAIN": 1, "TEST": 2}
    entries = np.load(tmp_path / "set-extra" / "entries-TEST.npy")
    assert entries.tolist() == [(1, UNLABELLED, "", ""), (2, UNLABELLED, "", "")]
    assert not (tmp_path / "set-extra" / "class-ids-TEST.npy").exists()


def test_extra_elsewhere_and_again_after_a_change(tmp_path):
    root, extra = _make(tmp_path / "set", "train/a/1.png"), tmp_path / "deep" / "meta"
    assert _index(root, extra=extra) == {"TRAIN": 1}
    _make(root, "train/b/1.png")
    assert _index(root, extra=extra) == {"TRAIN": 2}
    assert np.load(extra / "class-ids-TRAIN.npy").tolist() == ["a", "b"]
    assert not (tmp_path / "set-extra").exists()
    assert sorted(path.name for path in extra.iterdir()) == [
        "class-ids-TRAIN.npy",
        "class-names-TRAIN.npy",
        "dinov2-noise-index.json",
        "entries-TRAIN.npy",
        "listing.txt",
        "paths-TRAIN.npy",
    ]


def test_default_extra_of_relative_roots(tmp_path, monkeypatch):
    (tmp_path / "set").mkdir()
    monkeypatch.chdir(tmp_path / "set")
    assert default_extra(Path(".")) == default_extra(Path("../set/")) == tmp_path / "set-extra"


def test_paths_of_any_name_survive():
    names = ["train/ä/ß 1.png", b"train/\xff.png".decode("utf-8", "surrogateescape"), "train/a/" + "x" * 200 + ".png"]
    assert [decode_path(path) for path in encode_paths(names)] == names


def test_progress_bar_counts_classes(tmp_path, capfd):
    build_index(_make(tmp_path / "set", "train/a/1.png", "train/b/1.png"))
    assert "2/2" in capfd.readouterr().err


def test_missing_root_or_splits(tmp_path):
    with pytest.raises(MissingFolderError, match="does not exist"):
        _index(tmp_path / "nowhere")
    with pytest.raises(MissingFolderError, match=r"train/<class>/<image>.*ImageFolder:root="):
        _index(_make(tmp_path / "flat", "photo.png"))


def test_class_missing_in_labels_is_named(tmp_path):
    root = _make(tmp_path / "set", "train/a/1.png", "train/b/1.png")
    (root / "labels.txt").write_text("a,ay\n")
    with pytest.raises(MetadataError, match=r"class folder b is not in .*labels\.txt"):
        _index(root)


@pytest.mark.parametrize(("content", "message"), [(b"a\n", "row 1"), (b"a,\xff\xfe\n", "cannot read")])
def test_bad_labels_file(tmp_path, content, message):
    root = _make(tmp_path / "set", "train/a/1.png")
    (root / "labels.txt").write_bytes(content)
    with pytest.raises(MetadataError, match=message):
        _index(root)


@pytest.mark.parametrize("split", ["val", "test"])
def test_class_unknown_to_train_is_named(tmp_path, split):
    root = _make(tmp_path / "set", "train/a/1.png", f"{split}/a/1.png", f"{split}/z/1.png")
    with pytest.raises(MetadataError, match=f"{split}/z is a class that .*train lacks"):
        _index(root)


def test_empty_class_folder_is_named(tmp_path):
    root = _make(tmp_path / "set", "train/a/1.png")
    (root / "train" / "b").mkdir()
    with pytest.raises(MissingFolderError, match=r"class folder .*train/b holds no images"):
        _index(root)
    (root / "val").mkdir()
    with pytest.raises(MissingFolderError, match="val holds neither"):
        _index(root)


@pytest.mark.parametrize("stray", ["train/2.png", "val/2.png"])
def test_image_outside_of_a_class_folder_is_named(tmp_path, stray):
    root = _make(tmp_path / "set", "train/a/1.png", "val/a/1.png", stray)
    with pytest.raises(MetadataError, match=f"{stray} lies outside of a class folder"):
        _index(root)
