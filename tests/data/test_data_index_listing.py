"""The index of many images: from a listing, byte by byte what NumPy writes, in constant memory, never half replaced."""

import json
import os
import tracemalloc
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from dinov2_noise.cli import app
from dinov2_noise.data import build_index, make
from dinov2_noise.data.metadata import UNLABELLED, replaced
from dinov2_noise.errors import ConfigError, MetadataError, MissingFolderError, WriteError
from dinov2_noise.files import list_images

NAMES = [
    "train/a/a_3.JPEG",
    "train/a/deep/er_4.png",
    "train/a/noname.PNG",
    "train/a b/ü_12.png",
    "train/a-b/x_9999999999.tif",
    "train/a-b/y.v2_7.jpg",
    "val/a/ILSVRC2012_val_00000293.JPEG",
    "val/a-b/1.png",
    "test/2.png",
    "test/deep/1_1.png",
]
FILES = [f"{kind}-{split}.npy" for split in ("TRAIN", "VAL") for kind in ("class-ids", "class-names")] + [
    f"{kind}-{split}.npy" for split in ("TRAIN", "VAL", "TEST") for kind in ("entries", "paths")
]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    names = [name for name in NAMES if "deep/1_1" not in name]
    for name in [*names, "train/a/.hidden.png", "train/a/notes.txt", "other/a/1.png"]:
        path = tmp_path / "set" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"not read")
    (tmp_path / "set/labels.txt").write_text('a,ay\na b,"a, b"\na-b,between\nz,not there\n')
    return tmp_path / "set"


def _reference(root: Path, split: str, classes: list[str]) -> dict[str, np.ndarray]:
    """The arrays of a split, all at once, as NumPy makes and saves them."""
    names = {"a": "ay", "a b": "a, b", "a-b": "between", "": ""}
    folders = classes if split != "TEST" else [""]
    rows, paths = [], []
    for class_id in folders:
        folder = root / split.lower() / class_id
        for name in list_images(folder) if folder.is_dir() else []:
            tail = PurePosixPath(name).stem.rpartition("_")
            usable = tail[1] and tail[2].isdigit() and int(tail[2]) < 2**32
            number = int(tail[2]) if usable else len(rows)
            rows.append((number, classes.index(class_id) if class_id else UNLABELLED, class_id, names[class_id]))
            paths.append("/".join(part for part in (split.lower(), class_id, name) if part).encode())
    widths = [max(len(row[field]) for row in rows) for field in (2, 3)]
    dtype = [("actual_index", "<u4"), ("class_index", "<u4")]
    dtype += [("class_id", f"U{widths[0]}"), ("class_name", f"U{widths[1]}")]
    arrays = {"entries": np.array(rows, dtype), "paths": np.array(paths)}
    if split != "TEST":
        arrays |= {"class-ids": np.array(classes), "class-names": np.array([names[name] for name in classes])}
    return arrays


def _content(extra: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(extra.iterdir())}


def test_files_are_those_that_numpy_saves_from_arrays_in_memory(root, tmp_path):
    assert build_index(root, progress=False) == {"TRAIN": 6, "VAL": 2, "TEST": 1}
    for split in ("TRAIN", "VAL", "TEST"):
        for kind, array in _reference(root, split, ["a", "a b", "a-b"]).items():
            np.save(tmp_path / "expected.npy", array)
            made = root.with_name("set-extra") / f"{kind}-{split}.npy"
            assert made.read_bytes() == (tmp_path / "expected.npy").read_bytes(), made.name
    assert sorted(_content(root.with_name("set-extra"))) == sorted([*FILES, "dinov2-noise-index.json", "listing.txt"])


@pytest.mark.parametrize("workers", [1, 3, 40])
def test_threads_make_no_difference(root, tmp_path, workers):
    build_index(root, progress=False)
    build_index(root, tmp_path / "more", progress=False, workers=workers)
    assert _content(tmp_path / "more") == _content(root.with_name("set-extra"))


@pytest.mark.parametrize("kind", ["ours", "mixed"])
def test_a_listing_gives_the_same_files_without_the_folders(root, tmp_path, kind):
    build_index(root, progress=False)
    expected = _content(root.with_name("set-extra"))
    listing = root.with_name("set-extra") / "listing.txt"
    lines = listing.read_bytes().splitlines()
    if kind == "mixed":
        more = [b"# a comment", b"", b"train/a/.hidden.png", b"labels.txt", b"other/a/1.png", b"train/a/notes.txt"]
        absolute = os.fsencode(root) + b"/" + lines[0]
        lines = [b"./" + line for line in lines[:0:-1]] + more + [absolute]
        listing = tmp_path / "listing.txt"
        listing.write_bytes(b"\r\n".join(lines))
    empty = tmp_path / "empty" / "set"
    empty.mkdir(parents=True)
    (empty / "labels.txt").write_bytes((root / "labels.txt").read_bytes())
    if kind == "mixed":
        listing.write_bytes(listing.read_bytes().replace(os.fsencode(root), os.fsencode(empty)))
    assert build_index(empty, progress=False, listing=listing) == {"TRAIN": 6, "VAL": 2, "TEST": 1}
    assert _content(tmp_path / "empty" / "set-extra") == expected


def test_a_listing_may_be_read_and_replaced_at_once(root, capfd):
    build_index(root, progress=False)
    extra = root.with_name("set-extra")
    expected = _content(extra)
    build_index(root, listing=extra / "listing.txt")
    assert _content(extra) == expected
    assert "index TRAIN (classes): 3/3" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["train/a/1.png", "train/b/1.png", "train/a/1.png"], "train/a/1.png stands twice"),
        (["train/a/1.png", "train/a/1.png"], "train/a/1.png stands twice"),
        (["train/a/1.png", "train/2.png"], r"train lies outside of a class folder"),
        (["test/a/1.png", "test/2.png"], r"test lies outside of a class folder"),
        (["train/a/1.png", "val/b/1.png"], r"val/b is a class that .*train lacks"),
        (["train/q/1.png"], r"class folder q is not in .*labels\.txt"),
        (["train/a/../../../1.png"], "does not lie below"),
    ],
)
def test_listings_that_are_refused_leave_the_old_metadata(root, tmp_path, lines, message):
    build_index(root, progress=False)
    expected = _content(root.with_name("set-extra"))
    (tmp_path / "listing.txt").write_text("\n".join(lines))
    with pytest.raises(MetadataError, match=message):
        build_index(root, progress=False, listing=tmp_path / "listing.txt")
    assert _content(root.with_name("set-extra")) == expected


def test_a_listing_of_nothing_or_none(root, tmp_path):
    (tmp_path / "listing.txt").write_text("elsewhere/1.png\n")
    with pytest.raises(MissingFolderError, match="names no image below train, val or test"):
        build_index(root, progress=False, listing=tmp_path / "listing.txt")
    with pytest.raises(MissingFolderError, match=r"list .*none\.txt does not exist"):
        build_index(root, progress=False, listing=tmp_path / "none.txt")
    with pytest.raises(ConfigError, match="workers is 0"):
        build_index(root, progress=False, workers=0)


def test_memory_does_not_grow_with_the_images(tmp_path):
    def peak(per_class: int) -> int:
        root = tmp_path / str(per_class)
        root.mkdir()
        with (root / "listing.txt").open("w") as file:
            for class_id in range(2):
                file.writelines(f"train/n{class_id}/n{class_id}_{number:06}.JPEG\n" for number in range(per_class))
        tracemalloc.start()
        build_index(root, progress=False, listing=root / "listing.txt")
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return used

    peak(10)
    assert peak(20_000) < 1.2 * peak(6_000)


def test_what_fails_before_the_end_leaves_the_old_metadata(root):
    build_index(root, progress=False)
    extra = root.with_name("set-extra")
    expected = _content(extra)

    def stop_half_way() -> None:
        with replaced(extra, FILES, {}) as paths:
            paths["entries-TRAIN.npy"].write_bytes(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stop_half_way()
    assert _content(extra) == expected


def test_metadata_of_two_runs_are_refused_until_index_has_run_again(root):
    build_index(root, progress=False)
    extra = root.with_name("set-extra")
    expected = _content(extra)
    (extra / "class-ids-TRAIN.npy").unlink()
    (extra / "class-ids-TRAIN.npy").mkdir()  # nothing can take its place: stopped between two files
    with pytest.raises(WriteError, match="class-ids-TRAIN"):
        build_index(root, progress=False)
    for split in ("TRAIN", "VAL"):
        with pytest.raises(MetadataError, match=f"partly of an older run.*dinov2-noise index {root}` again"):
            make(f"ImageNet:split={split}:root={root}")
    (extra / "class-ids-TRAIN.npy").rmdir()
    build_index(root, progress=False)
    assert _content(extra) == expected
    make(f"ImageNet:split=TRAIN:root={root}")
    (extra / "dinov2-noise-index.json").write_text("{")
    with pytest.raises(MetadataError, match=r"cannot read .*index\.json"):
        make(f"ImageNet:split=TRAIN:root={root}")


def test_what_a_killed_run_left_is_removed(root):
    extra = root.with_name("set-extra")
    extra.mkdir()
    for name in (".entries-TRAIN.0123abcd.partial.npy", "mine.txt"):
        (extra / name).write_bytes(b"x")
        os.utime(extra / name, (0, 0))
    build_index(root, progress=False)
    assert "mine.txt" in _content(extra)
    assert not [name for name in _content(extra) if "partial" in name]


def test_names_of_every_kind_and_linked_folders(tmp_path):
    root = tmp_path / "set"
    strange = os.fsdecode(b"train/\xff/\xfe 1.PNG")
    for name in [strange, "train/#/#2.png", "train/- -/--3.JPG"]:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(root / name, format="PNG")
    (tmp_path / "link").symlink_to(root)
    (root / "train/linked").symlink_to(root / "train/#")
    (root / "train/itself").symlink_to(root / "train/itself")
    build_index(tmp_path / "link", tmp_path / "extra", progress=False)
    expected = _content(tmp_path / "extra")
    dataset = make(f"ImageNet:split=TRAIN:root={tmp_path}/link:extra={tmp_path}/extra:noise=gauss50")
    paths = [dataset.relative_path(index) for index in range(len(dataset))]
    assert paths == ["train/#/#2.png", "train/- -/--3.JPG", "train/linked/#2.png", strange]
    dataset[3]
    build_index(root, tmp_path / "extra", progress=False, listing=tmp_path / "extra/listing.txt")
    assert _content(tmp_path / "extra") == expected
    (root / "train/#/line\nbreak.png").touch()
    with pytest.raises(MetadataError, match=r"line\\nbreak.png' has a line break"):
        build_index(root, tmp_path / "extra", progress=False)
    assert _content(tmp_path / "extra") == expected


def test_the_command(root, tmp_path):
    result = CliRunner().invoke(app, ["index", str(root), "--extra", str(tmp_path / "e"), "--workers", "2"])
    assert (result.exit_code, "TRAIN: 6 images" in result.output) == (0, True)
    listing = str(tmp_path / "e/listing.txt")
    again = CliRunner().invoke(app, ["index", str(root), "--extra", str(tmp_path / "f"), "--listing", listing])
    assert again.exit_code == 0
    assert _content(tmp_path / "e") == _content(tmp_path / "f")
    assert json.loads((tmp_path / "f/dinov2-noise-index.json").read_text())["images"] == {
        "TRAIN": 6,
        "VAL": 2,
        "TEST": 1,
    }
