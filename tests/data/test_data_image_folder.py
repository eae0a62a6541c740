"""Image folders: class folders as labels, lists of paths, ranges of values, and names of every kind."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torch.utils.data import DataLoader

from dinov2_noise.data import make
from dinov2_noise.errors import (
    ConfigError,
    DatasetStringError,
    ImageError,
    MetadataError,
    MissingFolderError,
    PairError,
)
from dinov2_noise.evaluation.counting import labels_of, n_classes_of
from dinov2_noise.files import OutputFolder
from dinov2_noise.noise import add_noise, noisy_uint8, parse
from dinov2_noise.noise.corruptions import corrupted_uint8, parse_corruption
from dinov2_noise.torchvision_ops import declare_missing_ops

NAMES = ["b/1.png", "b/deep/0.png", "a/2.PNG", "a b/ü#.png", "a-b/3.png"]


def _fill(root: Path, names=NAMES) -> Path:
    for number, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (number, 0, 0)).save(root / name, format="PNG")
    return root


def _paths(dataset) -> list[str]:
    return [dataset.relative_path(index) for index in range(len(dataset))]


def _list(tmp_path: Path, *lines: str | bytes) -> Path:
    path = tmp_path / "list.txt"
    path.write_bytes(b"\n".join(line if isinstance(line, bytes) else line.encode() for line in lines))
    return path


def test_class_folders_are_labels_in_sorted_order(tmp_path):
    dataset = make(f"ImageFolder:root={_fill(tmp_path / 'set')}:labels=folders", np.array)
    assert _paths(dataset) == sorted(NAMES)
    classes = ["a", "a b", "a-b", "b"]
    expected = [classes.index(path.split("/")[0]) for path in sorted(NAMES)]
    assert dataset.get_targets().tolist() == expected
    assert [dataset[index][1] for index in range(len(NAMES))] == expected
    assert [dataset.find_class_name(index) for index in range(dataset.n_classes)] == classes
    assert labels_of(dataset, "").tolist() == expected
    assert n_classes_of(dataset, "") == 4
    loader = DataLoader(dataset, batch_size=2, num_workers=2, multiprocessing_context="fork")
    assert np.concatenate([batch[1].numpy() for batch in loader]).tolist() == expected


def test_class_folders_have_torchvisions_numbers(tmp_path):
    declare_missing_ops()
    from torchvision.datasets import ImageFolder

    root = _fill(tmp_path / "set")
    theirs = ImageFolder(str(root))
    ours = make(f"ImageFolder:root={root}:labels=folders")
    by_path = {str(Path(path).relative_to(root)): target for path, target in theirs.samples}
    assert {path: ours.get_target(index) for index, path in enumerate(_paths(ours))} == by_path


def test_an_image_outside_of_a_class_folder(tmp_path):
    root = _fill(tmp_path / "set", [*NAMES, "stray.png"])
    with pytest.raises(MetadataError, match=r"stray\.png lies outside of a class folder"):
        make(f"ImageFolder:root={root}:labels=folders")


def test_a_list_says_which_and_in_which_order(tmp_path):
    root = _fill(tmp_path / "set")
    lines = ["\ufeffb/deep/0.png\r", "# a comment", "", "./a b//ü#.png", str(root / "a/2.PNG")]
    dataset = make(f"ImageFolder:root={root}:list={_list(tmp_path, *lines)}", np.asarray)
    assert _paths(dataset) == ["b/deep/0.png", "a b/ü#.png", "a/2.PNG"]
    assert [int(dataset[index][0][0, 0, 0]) for index in range(3)] == [1, 3, 2]
    assert _paths(pickle.loads(pickle.dumps(dataset))) == _paths(dataset)
    labelled = make(f"ImageFolder:root={root}:list={tmp_path}/list.txt:labels=folders:subset=1")
    assert labelled.get_targets().tolist() == [2, 1, 0]


def test_the_list_of_a_clean_folder_serves_its_noisy_copy(tmp_path):
    root, noisy = _fill(tmp_path / "set"), tmp_path / "noisy"
    for name in NAMES:
        Image.new("RGB", (8, 8), (90, 90, 90)).save((root / name).with_suffix(".jpg"))
        (root / name).unlink()
    add_noise(root, noisy, noise="gauss50", workers=1, progress=False)
    path = _list(tmp_path, *(name.rsplit(".", 1)[0] + ".jpg" for name in NAMES))
    stored = make(f"ImageFolder:root={noisy}:list={path}", np.asarray)
    fly = make(f"ImageFolder:root={root}:list={path}:noise=gauss50", np.asarray)
    for index in range(len(NAMES)):
        assert stored.relative_path(index).endswith(".png")
        np.testing.assert_array_equal(stored[index][0], fly[index][0])


def test_a_name_that_begins_with_a_hash_and_one_that_is_no_text(tmp_path):
    strange = os.fsdecode(b"\xff 1.png")
    root = _fill(tmp_path / "set", ["#1.png", strange])
    dataset = make(f"ImageFolder:root={root}:list={_list(tmp_path, './#1.png', os.fsencode(strange))}", np.asarray)
    assert _paths(dataset) == ["#1.png", strange]
    assert int(dataset[1][0][0, 0, 0]) == 1


def test_a_missing_file_of_a_list_is_named_when_it_is_read(tmp_path):
    root = _fill(tmp_path / "set")
    dataset = make(f"ImageFolder:root={root}:list={_list(tmp_path, 'b/1.png', 'b/gone.png')}")
    dataset[0]
    with pytest.raises(MetadataError, match=r"b/gone\.png, image 1 of .*list\.txt, does not exist"):
        dataset[1]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["b/1.png", "a/2.PNG", "b/1.png"], r"b/1\.png stands twice"),
        (["b/1.png", "../b/1.png"], r"line 2 of .*'\.\./b/1\.png' does not lie below"),
        (["/elsewhere/1.png"], "does not lie below"),
        (["# nothing"], "names no image"),
    ],
)
def test_lists_that_are_refused(tmp_path, lines, message):
    root = _fill(tmp_path / "set")
    with pytest.raises(MetadataError, match=message):
        make(f"ImageFolder:root={root}:list={_list(tmp_path, *lines)}")


def test_a_list_in_the_place_of_the_root(tmp_path):
    path = _list(tmp_path, "b/1.png")
    with pytest.raises(MissingFolderError, match=rf"is a file.*root=FOLDER:list={path}"):
        make(f"ImageFolder:root={path}")
    with pytest.raises(MissingFolderError, match=r"1\.png is a file: give a folder$"):
        make(f"ImageFolder:root={_fill(tmp_path / 'set')}/b/1.png")
    with pytest.raises(MissingFolderError, match="does not exist"):
        make(f"ImageFolder:root={_fill(tmp_path / 'set')}:list={tmp_path}/none.txt")


def test_linked_roots_and_class_folders_and_a_read_only_source(tmp_path):
    root = _fill(tmp_path / "set")
    (tmp_path / "link").symlink_to(root)
    (root / "c").symlink_to(root / "b")
    dataset = make(f"ImageFolder:root={tmp_path}/link:labels=folders:noise=gauss50", np.asarray)
    assert _paths(dataset) == sorted([*NAMES, "c/1.png", "c/deep/0.png"])
    expected = noisy_uint8(np.zeros((8, 8, 3), np.uint8), parse("gauss50"), relative_path="b/1.png")
    np.testing.assert_array_equal(dataset[_paths(dataset).index("b/1.png")][0], expected)


# Deep images: values, noise and corruption from them.


def _deep(root: Path) -> np.ndarray:
    ramp = np.linspace(0, 4095, 64).astype(np.uint16).reshape(8, 8)
    root.mkdir()
    Image.fromarray(ramp).save(root / "1.tif")
    return ramp.astype(np.float64)


def test_a_range_of_values_reaches_pixels_noise_and_corruption(tmp_path):
    ramp = _deep(tmp_path / "set") / 4095
    text = f"ImageFolder:root={tmp_path}/set:range=fixed,0,4095"
    expected = np.repeat(np.rint(ramp * 255).astype(np.uint8)[..., None], 3, axis=2)
    np.testing.assert_array_equal(make(text, np.asarray)[0][0], expected)
    noisy = noisy_uint8(np.repeat(ramp[..., None], 3, axis=2), parse("gauss50"), relative_path="1.tif")
    np.testing.assert_array_equal(make(f"{text}:noise=gauss50", np.asarray)[0][0], noisy)
    corrupted = corrupted_uint8(expected, parse_corruption("contrast/3"), relative_path="1.tif", base_seed=42)
    np.testing.assert_array_equal(make(f"{text}:corruption=contrast/3,size=full", np.asarray)[0][0], corrupted)
    whole = np.asarray(make(f"ImageFolder:root={tmp_path}/set")[0][0])
    assert whole.max() == round(4095 / 65535 * 255)


@pytest.mark.parametrize("value", ["fixd", "fixed,1", "percentile,9,1"])
def test_ranges_that_are_none(value):
    with pytest.raises((DatasetStringError, ConfigError), match=f"range={value}"):
        make(f"ImageFolder:root=/r:range={value}")


@pytest.mark.parametrize(
    ("parameters", "good", "bad"),
    [
        ({"range": "fixed:0,4095"}, "fixed,0,4095", "fixed,0,100"),
        ({}, "dtype", "fixed,0,4095"),
        ({"source_parameters": {"range": "fixed:0,4095"}}, "fixed,0,4095", "percentile,1,99"),
        ({"source_parameters": {"range": "fixed:0,4095"}}, "dtype", "percentile,1,99"),
    ],
)
def test_twins_of_another_range_are_refused(tmp_path, parameters, good, bad):
    _deep(tmp_path / "set")
    folder = OutputFolder(tmp_path / "denoised", "denoise apply", {"source": "elsewhere", **parameters})
    folder.open()
    Image.new("RGB", (8, 8)).save(tmp_path / "denoised/1.png")
    folder.close(images=1)
    make(f"ImageFolder:root={tmp_path}/set:denoised={tmp_path}/denoised:range={good}")
    with pytest.raises(PairError, match=f"range {bad.replace(',', ':', 1)}.*was made with"):
        make(f"ImageFolder:root={tmp_path}/set:denoised={tmp_path}/denoised:range={bad}")


def test_a_float_image_out_of_range_is_an_error_that_names_it(tmp_path):
    (tmp_path / "set").mkdir()
    np.save(tmp_path / "set/1.npy", np.full((8, 8), 3.5, np.float32))
    with pytest.raises(ImageError, match=r"1\.npy"):
        make(f"ImageFolder:root={tmp_path}/set")[0]
