"""Parts of a data set: by a file of classes and paths, by a fraction; with noise, twins and DINOv2's own metadata."""

import pickle
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dinov2_noise.data import build_index, make
from dinov2_noise.errors import ConfigError, DatasetStringError, MetadataError, MissingFolderError, PairError
from dinov2_noise.evaluation.corruption_cells import Grid, stored_cells
from dinov2_noise.noise import add_noise

CLASSES = ["n01", "n02", "n03", "n10"]
PER_CLASS = 6


def _name(split: str, class_id: str, number: int) -> str:
    """ImageNet's own names, so that metadata without paths serve too."""
    if split == "train":
        return f"train/{class_id}/{class_id}_{number}.JPEG"
    return f"val/{class_id}/ILSVRC2012_val_{100 * CLASSES.index(class_id) + number:08d}.JPEG"


@pytest.fixture(scope="module")
def clean(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("subset") / "clean"
    for split, count in (("train", PER_CLASS), ("val", 2)):
        for number, class_id in enumerate(CLASSES):
            for image in range(count):
                path = root / _name(split, class_id, image)
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (8, 8), (number, image, 0)).save(path, quality=100)
    (root / "labels.txt").write_text("".join(f"{class_id},name of {class_id}\n" for class_id in CLASSES))
    build_index(root, progress=False)
    return root


def _file(tmp_path: Path, *lines: str, ends: str = "\n") -> Path:
    path = tmp_path / "subset.txt"
    path.write_bytes("".join(line + ends for line in lines).encode())
    return path


def _paths(dataset) -> list[str]:
    return [dataset.relative_path(index) for index in range(len(dataset))]


@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_classes_are_renumbered_alike_in_both_splits(clean, tmp_path, ends):
    subset = _file(tmp_path, "# two of four", "", "n10", "  ", " n02 ", ends=ends)
    for split, count in (("train", PER_CLASS), ("val", 2)):
        dataset = make(f"ImageNet:split={split.upper()}:root={clean}:subset={subset}")
        assert _paths(dataset) == [_name(split, class_id, i) for class_id in ("n02", "n10") for i in range(count)]
        assert dataset.get_targets().tolist() == [0] * count + [1] * count
        assert [dataset.get_target(index) for index in range(2 * count)] == dataset.get_targets().tolist()
        assert [dataset[index][1] for index in range(2 * count)] == dataset.get_targets().tolist()
        assert dataset.n_classes == 2
        assert [dataset.find_class_id(index) for index in range(2)] == ["n02", "n10"]
        assert [dataset.find_class_name(index) for index in range(2)] == ["name of n02", "name of n10"]
        red = int(np.asarray(dataset[count][0])[0, 0, 0])
        assert abs(red - CLASSES.index("n10")) <= 2
        with pytest.raises(IndexError):
            dataset[2 * count]


def test_without_subset_classes_and_names_are_those_of_the_metadata(clean):
    dataset = make(f"ImageNet:split=VAL:root={clean}")
    assert dataset.n_classes == 4
    assert dataset.find_class_id(3) == "n10"
    assert dataset.find_class_name(3) == "name of n10"


def test_paths_with_and_without_suffix_and_of_both_splits(clean, tmp_path):
    lines = ["train/n03/n03_1", "./train//n03/n03_4.png", str(clean / _name("train", "n01", 5)), _name("val", "n10", 1)]
    subset = _file(tmp_path, *lines)
    train = make(f"ImageNet:split=TRAIN:root={clean}:subset={subset}")
    assert _paths(train) == [_name("train", "n01", 5), _name("train", "n03", 1), _name("train", "n03", 4)]
    assert train.get_targets().tolist() == [0, 1, 1]
    val = make(f"ImageNet:split=VAL:root={clean}:subset={subset}")
    assert _paths(val) == [_name("val", "n10", 1)]
    assert val.get_targets().tolist() == [2]
    assert val.n_classes == train.n_classes == 3


def test_a_class_and_a_path_of_another(clean, tmp_path):
    subset = _file(tmp_path, "n01", _name("train", "n02", 3))
    dataset = make(f"ImageNet:split=TRAIN:root={clean}:subset={subset}")
    assert Counter(dataset.get_targets().tolist()) == {0: PER_CLASS, 1: 1}


def test_metadata_of_dinov2_itself(clean, tmp_path):
    subset, extra = _file(tmp_path, "n10", _name("train", "n02", 3)), tmp_path / "extra"
    extra.mkdir()
    for kind in ("entries", "class-ids", "class-names"):
        (extra / f"{kind}-TRAIN.npy").write_bytes((clean.with_name("clean-extra") / f"{kind}-TRAIN.npy").read_bytes())
    ours, theirs = (
        make(f"ImageNet:split=TRAIN:root={clean}:subset={subset}{more}") for more in ("", f":extra={extra}")
    )
    assert _paths(theirs) == _paths(ours)
    assert theirs.get_targets().tolist() == ours.get_targets().tolist() == [0] + [1] * PER_CLASS
    half = [make(f"ImageNet:split=TRAIN:root={clean}:subset=0.5{more}") for more in ("", f":extra={extra}")]
    assert _paths(half[0]) == _paths(half[1])


def test_fractions_are_of_every_class_nested_and_seeded(clean):
    def part(fraction: float, seed: int = 42) -> list[str]:
        return _paths(make(f"ImageNet:split=TRAIN:root={clean}:subset={fraction},seed={seed}"))

    parts = [part(fraction) for fraction in (0.01, 0.17, 0.34, 0.5, 0.99, 1)]
    per_class = [Counter(Counter(path.split("/")[1] for path in one).values()) for one in parts]
    assert per_class == [Counter({count: 4}) for count in (1, 1, 2, 3, 6, 6)]
    for smaller, larger in pairwise(parts):
        assert set(smaller) <= set(larger)
        assert larger == sorted(larger)
    assert part(0.34) == _paths(make(f"ImageNet:split=TRAIN:root={clean}:subset=0.34"))
    assert part(0.34) != part(0.34, seed=43)
    dataset = make(f"ImageNet:split=TRAIN:root={clean}:subset=0.34")
    assert dataset.get_targets().tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert dataset.find_class_name(3) == "name of n10"


def test_every_image_is_as_likely_as_the_others(tmp_path):
    for number in range(20):
        (tmp_path / "set").mkdir(exist_ok=True)
        (tmp_path / "set" / f"{number}.png").touch()
    counts: Counter[str] = Counter()
    for seed in range(500):
        counts.update(_paths(make(f"ImageFolder:root={tmp_path}/set:subset=0.25,seed={seed}")))
    # 500 draws with probability 1/4: standard deviation 9.7; the seeds are fixed.
    assert len(counts) == 20
    assert max(abs(count - 125) for count in counts.values()) < 40


def test_a_noisy_copy_has_the_same_part_and_twins_are_needed_for_it_alone(clean, tmp_path):
    noisy, denoised = tmp_path / "noisy", tmp_path / "denoised"
    add_noise(clean, noisy, noise="gauss50", workers=1, progress=False)
    text = "split=TRAIN:subset=0.34"
    there = make(f"ImageNet:root={noisy}:extra={clean}-extra:{text}", np.asarray)
    fly = make(f"ImageNet:root={clean}:noise=gauss50:{text}", np.asarray)
    assert [Path(path).stem for path in _paths(there)] == [Path(path).stem for path in _paths(fly)]
    for index in range(len(fly)):
        np.testing.assert_array_equal(there[index][0], fly[index][0])
    for path in _paths(fly)[1:]:
        twin = (denoised / path).with_suffix(".png")
        twin.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(twin)
    with pytest.raises(PairError, match="1 of 8 images have no denoised twin"):
        make(f"ImageNet:root={clean}:denoised={denoised}:{text}")
    Image.new("RGB", (8, 8), (7, 7, 7)).save((denoised / _paths(fly)[0]).with_suffix(".png"))
    assert np.unique(make(f"ImageNet:root={clean}:denoised={denoised}:{text}").denoised(0)) == [7]


def test_image_folders_take_paths_and_fractions(clean, tmp_path):
    subset = _file(tmp_path, _name("val", "n02", 1), "train/n01/n01_2")
    dataset = make(f"ImageFolder:root={clean}:subset={subset}")
    assert _paths(dataset) == [_name("train", "n01", 2), _name("val", "n02", 1)]
    assert dataset.get_targets() is None
    assert len(make(f"ImageFolder:root={clean}:subset=0.5")) == 16
    labelled = make(f"ImageFolder:root={clean}/train:labels=folders:subset={_file(tmp_path, 'n02', 'n10')}")
    assert labelled.get_targets().tolist() == [0] * PER_CLASS + [1] * PER_CLASS
    assert [labelled.find_class_id(index) for index in range(labelled.n_classes)] == ["n02", "n10"]


def test_pickle_keeps_the_part_and_no_metadata(clean):
    dataset = make(f"ImageNet:split=TRAIN:root={clean}:subset=0.5")
    data = pickle.dumps(dataset)
    assert _paths(pickle.loads(data)) == _paths(dataset)
    assert b"name of" not in data


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["n01", "n3"], r"line 2 of .*subset\.txt: n3 is no class of split TRAIN.*nearest of its 4 is n03"),
        (["n01", "# n02", "n02", "n01"], r"n01 stands twice in .*lines 1 and 4"),
        (["train/n01/n01_1", "train/n01/n01_1.JPEG"], "train/n01/n01_1 stands twice"),
        (
            ["train/n01/n01_77", "train/n01/n01_78"],
            r"line 1 of .*n01_77: no such image.*nearest.*n01_\d.*\(2 such lines",
        ),
        (["train/n44/n44_1"], "n44 is no class"),
        (["elsewhere/n01/n01_1"], "elsewhere/n01/n01_1 is no class"),
        (["../train/n01/n01_1"], "does not lie below"),
        (["# nothing"], "names no image of split TRAIN.*empty"),
        (["val/n01/ILSVRC2012_val_00000000"], "names no image of split TRAIN.*empty"),
    ],
)
def test_what_a_file_names_wrongly(clean, tmp_path, lines, message):
    with pytest.raises(MetadataError, match=message):
        make(f"ImageNet:split=TRAIN:root={clean}:subset={_file(tmp_path, *lines)}")


def test_a_path_unknown_to_an_image_folder(clean, tmp_path):
    with pytest.raises(MetadataError, match=r"line 1 of .*no such image.*there is no such folder"):
        make(f"ImageFolder:root={clean}:subset={_file(tmp_path, 'nowhere/1.png')}")


def test_missing_and_binary_files(clean, tmp_path):
    with pytest.raises(MissingFolderError, match=r"list .*nothing\.txt does not exist"):
        make(f"ImageNet:split=TRAIN:root={clean}:subset={tmp_path}/nothing.txt")
    with pytest.raises(MissingFolderError, match="is a folder"):
        make(f"ImageNet:split=TRAIN:root={clean}:subset={tmp_path}")
    (tmp_path / "subset.txt").write_bytes(b"\x93NUMPY\0\1")
    with pytest.raises(MetadataError, match="is no text"):
        make(f"ImageNet:split=TRAIN:root={clean}:subset={tmp_path}/subset.txt")


@pytest.mark.parametrize("value", ["0", "-0.1", "1.01", "nan", "inf", "0.5,seed=x", "0.5,sed=1", "0.5,"])
def test_fractions_that_are_none(value):
    with pytest.raises(DatasetStringError, match=r"a fraction lies above 0|subset=FRACTION,seed=INTEGER"):
        make(f"ImageFolder:root=/r:subset={value}")


def test_stored_corruptions_have_no_subset(clean):
    with pytest.raises(ConfigError, match=r"is a part, and .* holds the whole"):
        stored_cells(clean, f"ImageNet:split=VAL:root={clean}:subset=0.5", Grid(("fog",), (3,), ()))


def test_a_split_without_classes_takes_paths_and_fractions(tmp_path):
    root = tmp_path / "set"
    for number in range(8):
        (root / "test").mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(root / "test" / f"{number}.png")
    build_index(root, progress=False)
    chosen = make(f"ImageNet:split=TEST:root={root}:subset={_file(tmp_path, 'test/3.png', 'train/n1/1.png')}")
    assert _paths(chosen) == ["test/3.png"]
    assert (chosen.get_targets(), chosen.n_classes) == (None, None)
    assert len(make(f"ImageNet:split=TEST:root={root}:subset=0.5")) == 4
    with pytest.raises(MetadataError, match="n1: no such image is listed in split TEST"):
        make(f"ImageNet:split=TEST:root={root}:subset={_file(tmp_path, 'test/3.png', 'test/n1')}")
