"""Parts of tar shards: by class numbers, by paths, by a fraction."""

from __future__ import annotations

import io
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dinov2_noise.data import ShardedImages, make
from dinov2_noise.errors import MetadataError, ShardError

NUMBERS = (2, 10, 7)  # of the classes; by their digits 10 would come first
PER_CLASS = 4


def _write(path: Path, names: dict[str, int | None]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as shard:
        for key, target in names.items():
            file = io.BytesIO()
            Image.new("RGB", (8, 8), (target or 0, len(key), 0)).save(file, "PNG")
            for suffix, content in ((".png", file.getvalue()), (".cls", None if target is None else b"%d" % target)):
                if content is not None:
                    member = tarfile.TarInfo(key + suffix)
                    member.size = len(content)
                    shard.addfile(member, io.BytesIO(content))


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    keys = [(f"k{image}/{number}", number) for image in range(PER_CLASS) for number in NUMBERS]
    _write(tmp_path / "shards" / "0.tar", dict(keys[:5]))
    _write(tmp_path / "shards" / "1.tar", dict(keys[5:]))
    return tmp_path / "shards"


def _opened(shards: Path, subset: object) -> ShardedImages:
    dataset = make(f"WebDataset:root={shards}:subset={subset}")
    assert isinstance(dataset, ShardedImages)
    return dataset


def _file(tmp_path: Path, *lines: str) -> Path:
    path = tmp_path / "part.txt"
    path.write_text("\n".join(lines))
    return path


def _facts(dataset: ShardedImages) -> list[tuple[str, int]]:
    """Path and target, the latter both ways; the picture is that of the path's class."""
    targets = dataset.get_targets()
    assert targets is not None
    assert targets.tolist() == [dataset[index][1] for index in range(len(dataset))]
    paths = [dataset.relative_path(index) for index in range(len(dataset))]
    for index, path in enumerate(paths):
        assert np.asarray(dataset[index][0])[0, 0, 0] == int(path[3:].removesuffix(".png"))
    return list(zip(paths, targets.tolist(), strict=True))


def test_classes_by_their_numbers_are_numbered_anew_in_that_order(shards: Path, tmp_path: Path) -> None:
    expected = [(f"k{image}/{number}.png", index) for image in range(PER_CLASS) for index, number in ((0, 2), (1, 10))]
    for lines in (("10", "2"), ("# both", "2", "10")):
        dataset = _opened(shards, _file(tmp_path, *lines))
        assert _facts(dataset) == expected
        assert _facts(pickle.loads(pickle.dumps(dataset))) == expected


def test_images_by_their_paths(shards: Path, tmp_path: Path) -> None:
    dataset = _opened(shards, _file(tmp_path, "k2/10.png", "k0/7", "2"))
    expected = [("k0/2.png", 0), ("k0/7.png", 1), ("k1/2.png", 0), ("k2/2.png", 0), ("k2/10.png", 2), ("k3/2.png", 0)]
    assert _facts(dataset) == expected
    with pytest.raises(MetadataError, match=r"line 2 of .*, k9/7: no such image.*"):
        _opened(shards, _file(tmp_path, "2", "k9/7"))


def test_a_fraction_keeps_the_classes_numbers(shards: Path) -> None:
    half = _facts(_opened(shards, 0.5))
    assert sorted(target for _, target in half) == sorted([*NUMBERS, *NUMBERS])
    assert {*_facts(_opened(shards, 0.25))} < {*half}


def test_without_classes_all_lines_are_paths(tmp_path: Path) -> None:
    _write(tmp_path / "shards" / "0.tar", {"1": None, "2": None, "3": None})
    dataset = _opened(tmp_path / "shards", _file(tmp_path, "3", "1.png"))
    assert [dataset.relative_path(index) for index in range(2)] == ["1.png", "3.png"]
    assert dataset.get_targets() is None


def test_names_must_occur_once_in_the_part_only(shards: Path, tmp_path: Path) -> None:
    _write(shards / "2.tar", {"k0/7": 7})
    part = _file(tmp_path, "2", "10")
    assert len(make(f"WebDataset:root={shards}:subset={part}:noise=gauss50")) == 2 * PER_CLASS
    with pytest.raises(ShardError, match=r"k0/7\.png, in 0\.tar and 2\.tar"):
        make(f"WebDataset:root={shards}:noise=gauss50:subset={_file(tmp_path, '7')}")


def test_linked_folders_of_shards_belong_to_the_set(shards: Path, tmp_path: Path) -> None:
    root = tmp_path / "linked"
    root.mkdir()
    (root / "a").symlink_to(shards)
    (root / "b.tar").symlink_to(shards / "0.tar")
    (shards / "back").symlink_to(root)  # a circle
    dataset = make(f"WebDataset:root={root}")
    assert isinstance(dataset, ShardedImages)
    assert len(dataset) == len(NUMBERS) * PER_CLASS + 5
