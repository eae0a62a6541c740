"""Labelled images: where they come from, how they are parted, what is refused."""

from __future__ import annotations

import io
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dinov2_noise import data
from dinov2_noise.errors import ConfigError, DatasetStringError, DinoNoiseError, MetadataError, NoiseNameError
from dinov2_noise.evaluation.label_noise import Noises
from dinov2_noise.evaluation.label_sources import Source, read_source
from dinov2_noise.evaluation.label_task import Split, Task, held_out, make_task, stratified_folds
from dinov2_noise.evaluation.stored_noise import stored_noise
from dinov2_noise.noise import add_noise


def picture(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (9, 12, 3), np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """train/ and val/ with 4 and 2 images of each of three classes, the same names in both."""
    root = tmp_path / "photos"
    for label in range(3):
        for number in range(4):
            picture(root / "train" / f"c{label}" / f"{number}.png", 10 * label + number)
        for number in range(2):
            picture(root / "val" / f"c{label}" / f"{number}.png", 100 + 10 * label + number)
    return root


def opened(photos: Path, split: Split | None = None) -> Task:
    train, val = read_source(str(photos / "train")), read_source(str(photos / "val"))
    return make_task(train, None if split else val, split or Split())


def csv_of(photos: Path, part: str, labels: list[str] | None = None) -> Path:
    names = sorted(path.relative_to(photos).as_posix() for path in (photos / part).rglob("*.png"))
    shown = labels or [name.split("/")[1] for name in names]
    path = photos / f"{part}.csv"
    path.write_text("path,label\n" + "".join(f"{n},{label}\n" for n, label in zip(names, shown, strict=True)))
    return path


def test_folders_csv_and_dataset_strings_give_the_same_task(photos: Path, tmp_path: Path) -> None:
    data.build_index(photos, progress=False)
    tasks = [
        opened(photos),
        make_task(read_source(str(csv_of(photos, "train"))), read_source(str(csv_of(photos, "val"))), Split()),
        make_task(*(read_source(f"ImageNet:split={split}:root={photos}") for split in ("TRAIN", "VAL")), Split()),
    ]
    pixels = []
    for number, task in enumerate(tasks):
        assert task.classes == ["c0", "c1", "c2"]
        assert (task.train.targets.tolist(), task.val.targets.tolist()) == (
            [0] * 4 + [1] * 4 + [2] * 4,
            [0, 0, 1, 1, 2, 2],
        )
        assert task.val.paths[0] == "val/c0/0.png"
        folder = tmp_path / str(number)
        folder.mkdir()
        strings = Noises.parse("gauss100").datasets(task.written(folder), "gauss100")
        pixels.append([np.asarray(data.make(string).noisy(1)) for string in strings])  # type: ignore[attr-defined]
    for noisy in pixels[1:]:  # paths, hence seeds of the noise, are the same
        assert all((one == other).all() for one, other in zip(noisy, pixels[0], strict=True))
    assert (pixels[0][0] != pixels[0][1]).any()


def test_a_split_takes_its_part_of_each_class_and_depends_on_the_seed_alone(photos: Path) -> None:
    task = opened(photos, Split(0.5, seed=3))
    assert Counter(task.val.targets.tolist()) == {0: 2, 1: 2, 2: 2}
    assert not set(task.train.paths) & set(task.val.paths)
    assert sorted([*task.train.paths, *task.val.paths]) == sorted(read_source(str(photos / "train")).paths)
    assert opened(photos, Split(0.5, seed=3)).val.paths == task.val.paths
    assert any(opened(photos, Split(0.5, seed=seed)).val.paths != task.val.paths for seed in range(4, 8))


def test_part_of_a_dataset_string_stays_that_string(photos: Path, tmp_path: Path) -> None:
    string = f"ImageFolder:root={photos / 'train'}:labels=folders"
    task = make_task(read_source(string), None, Split(0.25)).written(tmp_path)
    assert task.train.dataset == task.val.dataset == string
    assert sorted([*task.train.rows, *task.val.rows]) == list(range(12))
    assert [f"c{target}" for target in task.val.targets] == [path.split("/")[0] for path in task.val.paths]


def test_folds_test_every_image_once_and_are_stratified() -> None:
    targets = np.repeat([0, 1, 2], [7, 5, 3])
    folds = stratified_folds(targets, 3, seed=0)
    assert sorted(np.concatenate([test for _, test in folds])) == list(range(15))
    for fit, test in folds:
        assert not set(fit) & set(test)
        assert set(targets[test]) == {0, 1, 2}
        assert len(test) == 5
    with pytest.raises(ConfigError, match="the smallest class of the images has 3 images"):
        stratified_folds(targets, 4, seed=0)


def test_held_out_parts_leave_each_class_an_image() -> None:
    kept, tested = held_out(np.array([0, 0, 1, 1, 1, 1]), 0.9, seed=0)
    assert np.bincount([0, 0, 1, 1, 1, 1]).tolist() == [2, 4]
    assert (len(kept), len(tested)) == (2, 4)
    with pytest.raises(ConfigError, match="1 classes of the images have a single image"):
        held_out(np.array([0, 0, 1]), 0.5, seed=0)


def test_the_same_image_in_both_is_refused_whatever_it_is_called(photos: Path) -> None:
    (photos / "val" / "c1" / "other.png").write_bytes((photos / "train" / "c0" / "3.png").read_bytes())
    train, val = read_source(str(photos / "train")), read_source(str(photos / "val"))
    with pytest.raises(
        MetadataError, match=r"1 of 7 validation .*\n  val/c1/other\.png = train/c0/3\.png\n.*--allow-leak"
    ):
        make_task(train, val, Split())
    assert make_task(train, val, Split(), allow_leak=True).leaked == [("val/c1/other.png", "train/c0/3.png")]


def test_copies_within_one_set_leak_into_folds(photos: Path) -> None:
    (photos / "train" / "c0" / "copy.png").write_bytes((photos / "train" / "c0" / "0.png").read_bytes())
    source = read_source(str(photos / "train"))
    task = make_task(source, None, Split(folds=3, seed=0), allow_leak=True)
    together = any(
        {"train/c0/copy.png", "train/c0/0.png"} <= {task.val.paths[i] for i in test} for _, test in task.folds
    )
    assert len(task.leaked) == (0 if together else 2)


def test_equal_paths_of_different_images_get_different_noise(photos: Path, tmp_path: Path) -> None:
    (photos / "val").rename(tmp_path / "train")  # …/photos/train and …/train: the same paths
    task = make_task(read_source(str(photos / "train")), read_source(str(tmp_path / "train")), Split())
    (tmp_path / "out").mkdir()
    strings = Noises.parse("gauss50", seed=5).datasets(task.written(tmp_path / "out"), "gauss50")
    assert [string.rpartition("seed=")[2] for string in strings] == ["5", "6"]


def test_noise_is_named_once_and_known(photos: Path) -> None:
    noises = Noises.parse("clean, gauss100,fog/3", train="clean")
    assert noises.names == ("clean", "gauss100", "fog/3")
    assert noises.train_name("gauss100") == "clean"
    assert noises.datasets(opened(photos), "fog/3")[1].endswith(":corruption=fog/3,seed=42")
    for wrong in ("", "clean,clean"):
        with pytest.raises(ConfigError, match="--noise"):
            Noises.parse(wrong)
    for wrong in ("gaus100", "fog/9"):
        with pytest.raises(NoiseNameError):
            Noises.parse(wrong)
    own = read_source(f"ImageFolder:root={photos / 'train'}:labels=folders:noise=gauss50")
    Noises.parse("clean").check(own)
    with pytest.raises(ConfigError, match="of its own"):
        Noises.parse("clean", train="gauss100").check(own)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda root: picture(root / "train" / "loose.png", 0), r"1 of 13 images .* no class folder:\n  loose\.png"),
        (
            lambda root: picture(root / "val" / "c9" / "a.png", 0),
            r"1 classes of .*val have no image in .*\n  c9 \(1 images\)",
        ),
        (
            lambda root: (root / "train.csv").write_text("path,label\na.png,x\n"),
            "1 of 1 images of .* do not exist below",
        ),
        (lambda root: (root / "train.csv").write_text("path,label\n"), "a header and no rows"),
    ],
    ids=["loose", "only in val", "missing", "empty"],
)
def test_bad_images_are_named(photos: Path, spoil: object, message: str) -> None:
    spoil(photos)  # type: ignore[operator]
    name = "train.csv" if (photos / "train.csv").exists() else "train"
    with pytest.raises(MetadataError, match=message):
        make_task(read_source(str(photos / name)), read_source(str(photos / "val")), Split())


def test_one_class_is_too_few_and_splits_are_checked(photos: Path) -> None:
    labels = ["same"] * 12
    with pytest.raises(MetadataError, match="the label 'same': two classes"):
        make_task(read_source(str(csv_of(photos, "train", labels))), None, Split())
    for fraction, folds in ((0.0, 0), (1.0, 0), (0.5, 1), (0.5, -2)):
        with pytest.raises(ConfigError, match="--val-fraction"):
            Split(fraction, folds)


def test_sources_that_are_none(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for wrong, message in (
        (str(tmp_path / "gone"), "gone does not exist: give a folder"),
        (str(tmp_path / "gone.csv"), "label file .* does not exist"),
        (str(tmp_path / "empty"), "folder of class folders .* holds no images"),
        (f"ImageFolder:root={photos}", "have no labels"),
        (f"ImageFolder:root={photos}:labels=folders:denoised={photos}", "denoised="),
    ):
        with pytest.raises(DinoNoiseError, match=message):
            read_source(wrong)
    with pytest.raises(DatasetStringError, match="unknown dataset 'Nothing'"):
        read_source("Nothing:root=x")


def test_labels_elsewhere_need_the_root(photos: Path, tmp_path: Path) -> None:
    moved = csv_of(photos, "train").rename(tmp_path / "labels.csv")
    with pytest.raises(MetadataError, match="12 of 12 images"):
        read_source(str(moved))
    assert read_source(str(moved), photos).paths[0] == "train/c0/0.png"
    with pytest.raises(DinoNoiseError, match="check --root"):
        read_source(str(moved), tmp_path / "gone")


def test_stored_noise_is_told_by_the_manifest(photos: Path) -> None:
    noisy = photos.with_name("noisy")
    add_noise(photos, noisy, noise="gauss100", workers=1, progress=False)
    source = read_source(str(noisy / "val"))
    found = stored_noise(source)
    assert found is not None
    assert (found.label, found.clean) == ("gauss100", photos)
    on_the_fly = Noises.parse("gauss100").datasets(opened(photos).written(photos.parent), "gauss100")[1]
    from dinov2_noise.evaluation.snr import snr_of_dataset

    expected = snr_of_dataset(on_the_fly, np.arange(6))
    assert expected is not None
    assert found.snr_db(source, source.paths) == pytest.approx(expected, abs=1e-9)  # the very same pixels
    assert stored_noise(read_source(str(photos / "val"))) is None


def test_identity_is_of_paths_and_labels(photos: Path) -> None:
    source = read_source(str(photos / "val"))
    other = Source(source.name, source.root, source.paths, ["c1", *source.labels[1:]])
    assert source.identity() == read_source(str(photos / "val")).identity() != other.identity()


def test_tar_shards_are_read_and_compared_by_their_members(photos: Path, tmp_path: Path) -> None:
    for part in ("train", "val"):
        (tmp_path / "shards" / part).mkdir(parents=True)
        with tarfile.open(tmp_path / "shards" / part / "0.tar", "w") as shard:
            for path in sorted((photos / part).rglob("*.png")):
                label = path.parent.name
                for name, content in (
                    (f"{part}-{label}-{path.name}", path.read_bytes()),
                    (f"{part}-{label}-{path.stem}.cls", label[1:].encode()),
                ):
                    member = tarfile.TarInfo(name)
                    member.size = len(content)
                    shard.addfile(member, io.BytesIO(content))
    train, val = (read_source(f"WebDataset:root={tmp_path / 'shards' / part}") for part in ("train", "val"))
    task = make_task(train, val, Split())
    assert (task.classes, task.val.targets.tolist()) == (["0", "1", "2"], [0, 0, 1, 1, 2, 2])
    with pytest.raises(MetadataError, match="12 of 12 validation images are training images"):
        make_task(train, read_source(f"WebDataset:root={tmp_path / 'shards' / 'train'}"), Split())
