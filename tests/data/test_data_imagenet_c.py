"""Folders of corrupted images in all arrangements: which cells there are, and the labels of their images."""

import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torch.utils.data import DataLoader

from dinov2_noise.data import StoredCell, build_index, find_cells, make
from dinov2_noise.errors import ConfigError, DatasetStringError, MetadataError, MissingFolderError
from dinov2_noise.noise.corruptions import Corruption

# The middle class is missing from the corrupted images: a numbering of theirs alone would be wrong.
TRAINING, CORRUPTED = ["n01", "n02", "n03"], ["n01", "n03"]


def _write(folder: Path, classes: list[str], suffix: str = ".JPEG") -> None:
    for number, class_id in enumerate(classes):
        for image in range(2):
            path = folder / class_id / f"ILSVRC2012_val_{10 * number + image:08d}{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (20, 18), (100 * number, 100 * image, 7)).save(path, quality=95)


@pytest.fixture
def official(tmp_path: Path) -> Path:
    """As the archives unpack: a group, the corruption, the severity, the class."""
    for label in ("weather/fog/3", "weather/fog/5", "noise/gaussian_noise/1"):
        _write(tmp_path / "imagenet-c" / label, CORRUPTED)
    return tmp_path / "imagenet-c"


@pytest.fixture
def extra(tmp_path: Path) -> Path:
    """Metadata of the training set."""
    _write(tmp_path / "clean/train", TRAINING)
    build_index(tmp_path / "clean", progress=False)
    return tmp_path / "clean-extra"


def _labels(root: Path) -> list[str]:
    return [cell.corruption.label for cell in find_cells(root)]


def test_cells_in_groups_flat_and_with_val(official, tmp_path):
    assert _labels(official) == ["gaussian_noise/1", "fog/3", "fog/5"]
    assert _labels(official / "weather") == ["fog/3", "fog/5"]
    _write(tmp_path / "fast/fog/3/val", CORRUPTED)
    (tmp_path / "fast/fog/3/labels.txt").write_text("n01,a\n")
    (tmp_path / "fast/fog/4").mkdir()  # empty: no cell
    (tmp_path / "fast/smoke/1/n01").mkdir(parents=True)
    assert _labels(tmp_path / "fast") == ["fog/3"]


def test_wanted_cells_come_in_their_order_and_missing_ones_are_listed(official):
    fog = [Corruption("fog", severity) for severity in (5, 4, 3, 2)]
    with pytest.raises(MissingFolderError, match="lacks 2 of 4 cells: fog/4, fog/2"):
        find_cells(official, fog)
    found = find_cells(official, fog, allow_missing=True)
    assert found == [StoredCell(item, official / "weather" / item.label) for item in (fog[0], fog[2])]


def test_folders_without_cells(tmp_path):
    with pytest.raises(MissingFolderError, match="does not exist"):
        find_cells(tmp_path / "nowhere")
    with pytest.raises(MissingFolderError, match="holds no corrupted images"):
        find_cells(tmp_path)


def test_a_cell_in_two_folders_is_not_guessed(official):
    (official / "fog").symlink_to(official / "weather/fog")
    assert [cell.root for cell in find_cells(official)][1:] == [official / "fog/3", official / "fog/5"]
    _write(official / "second/fog/5", CORRUPTED)
    with pytest.raises(ConfigError, match=r"fog/5 lies in both .*imagenet-c/fog/5 and .*second/fog/5: give the one"):
        find_cells(official)


def test_cells_that_are_still_written(official):
    manifest = official / "weather/manifest.json"
    manifest.write_text('{"command": "corrupt", "complete": false}')
    for allow_missing in (False, True):
        with pytest.raises(MissingFolderError, match="weather is not complete: run the same"):
            find_cells(official, allow_missing=allow_missing)
    with pytest.raises(MissingFolderError, match="weather is not complete"):
        make(f"ImageNetC:root={official}/weather/fog/3")
    for content in ('{"command": "corrupt", "complete": true}', '{"name": "of another program"}'):
        manifest.write_text(content)
        assert len(find_cells(official)) == 3


def test_corruptions_and_severities_are_not_taken_for_classes(official, extra):
    for folder in ("", "weather", "weather/fog"):
        for option in ("", f":extra={extra}"):
            with pytest.raises(MissingFolderError, match="holds corruptions, not classes: give one corruption and"):
                make(f"ImageNetC:root={official / folder}{option}")
    _write(official / "weather/frost/1", ["fog", "snow"])  # classes of weather
    assert make(f"ImageNetC:root={official}/weather/frost/1").get_targets().tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize("prefix", ["", "val"])
def test_images_and_their_class_indices(official, extra, tmp_path, prefix):
    cell = tmp_path / "cell"
    _write(cell / prefix, CORRUPTED)
    (tmp_path / "clean/labels.txt").write_text("n03,c\nn01,a\nn02,b\n")
    for source, expected in (
        (f":extra={extra}", [0, 0, 2, 2]),
        (f":extra={tmp_path / 'clean'}", [0, 0, 2, 2]),
        ("", [0, 0, 1, 1]),
    ):
        dataset = make(f"ImageNetC:root={cell}{source}", np.asarray)
        assert len(dataset) == 4
        assert dataset.get_targets().tolist() == [dataset[index][1] for index in range(4)] == expected
        for index, path in enumerate(sorted(cell.rglob("*.JPEG"))):
            np.testing.assert_array_equal(dataset[index][0], np.asarray(Image.open(path)))
            assert cell / dataset.relative_path(index) == path
    (cell / "labels.txt").write_text("n03,c\nn01,a\n")
    assert make(f"ImageNetC:root={cell}").get_targets().tolist() == [0, 0, 1, 1]
    (cell / "labels.txt").write_text("n03,c\nn01,a\nn02,b\n")
    with pytest.raises(MetadataError, match=r"labels.txt lists 3 classes, and there are 2 class folders.*give extra="):
        make(f"ImageNetC:root={cell}")


def test_string_of_a_cell_and_workers(official, extra):
    cell = find_cells(official)[1]
    assert cell.dataset_string() == f"ImageNetC:root={official}/weather/fog/3"
    dataset = make(cell.dataset_string(extra), np.array)
    assert len(pickle.loads(pickle.dumps(dataset))) == 4
    loader = DataLoader(dataset, batch_size=2, num_workers=2, multiprocessing_context="fork")
    images, targets = (np.concatenate(part) for part in zip(*loader, strict=True))
    np.testing.assert_array_equal(images, np.stack([dataset[index][0] for index in range(4)]))
    assert targets.tolist() == [0, 0, 2, 2]


def test_classes_that_the_training_set_lacks(official, extra):
    (official / "weather/fog/3/n99").mkdir()
    with pytest.raises(MetadataError, match=r"1 of 3 class folders .*fog/3.*class-ids-TRAIN\.npy.*n99.*extra="):
        make(f"ImageNetC:root={official}/weather/fog/3:extra={extra}")
    known = make(f"ImageNetC:root={official}/weather/fog/3:extra={extra}:classes=known")
    assert known.get_targets().tolist() == [0, 0, 2, 2]
    with pytest.raises(DatasetStringError, match=r"classes=all .*: the only value is known"):
        make(f"ImageNetC:root={official}/weather/fog/3:extra={extra}:classes=all")
    with pytest.raises(MissingFolderError, match="n99 holds no images"):
        make(f"ImageNetC:root={official}/weather/fog/3")


def test_metadata_that_are_none(official, tmp_path):
    root = official / "weather/fog/3"
    with pytest.raises(MetadataError, match=r"has neither class-ids-TRAIN\.npy nor .*dinov2-noise index"):
        make(f"ImageNetC:root={root}:extra={tmp_path}")
    (tmp_path / "class-ids-TRAIN.npy").write_bytes(b"no array")
    with pytest.raises(MetadataError, match=r"cannot read metadata .*class-ids-TRAIN\.npy"):
        make(f"ImageNetC:root={root}:extra={tmp_path}")
    with pytest.raises(MissingFolderError, match="holds no class folders"):
        make(f"ImageNetC:root={root / 'n01'}")


@pytest.mark.upstream
def test_in_upstreams_loader_with_upstreams_transform(official, extra):
    from dinov2.data import make_dataset
    from dinov2.data.transforms import make_classification_eval_transform

    text = find_cells(official)[0].dataset_string(extra)
    dataset = make_dataset(dataset_str=text, transform=make_classification_eval_transform())
    image, target = dataset[3]
    assert target == 2
    # Red 100, green 100, blue 7 of 255, normalised with ImageNet's mean and standard deviation.
    expected = (np.array([100, 100, 7]) / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    np.testing.assert_allclose(image.mean((1, 2)).numpy(), expected, atol=0.05)
