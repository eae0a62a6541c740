"""Which images are measured on: evenly spread, balanced, in every view; and what is wrong with them, in one error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import SmallSet
from PIL import Image

from dinov2_noise import data
from dinov2_noise.curriculum.sections import MonitorConfig
from dinov2_noise.errors import DinoNoiseError, ImageError
from dinov2_noise.monitor.images import ImageSet, labelled_images, normalised, prepare, training_images
from dinov2_noise.torchvision_ops import declare_missing_ops

GRAY = Image.new("RGB", (40, 40), (128, 128, 128))


def config(small_set: SmallSet, **changes: Any) -> MonitorConfig:
    strings = {key: f"ImageNet:split={key.upper()}:root={small_set.noisy}" for key in ("train", "val")}
    return MonitorConfig(**{**strings, "knn": 3, **changes})


def pixels(images: ImageSet, view: str, number: int) -> Any:
    return np.asarray(images.views[view](images.indices[number]))


def test_training_images_are_spread_and_have_their_twins(small_set: SmallSet) -> None:
    images = training_images(small_set.pair(), 5)
    assert images.indices == [2, 6, 10, 14, 18]
    assert len(training_images(small_set.pair(), 500)) == 20
    whole: Any = data.make(small_set.pair())
    assert {*images.views} == {"noisy", "denoised"}
    for number, index in enumerate(images.indices):
        assert np.array_equal(pixels(images, "noisy", number), np.asarray(whole.noisy(index)))
        assert np.array_equal(pixels(images, "denoised", number), np.asarray(whole.denoised(index)))


@pytest.mark.parametrize("mode", ["", ",mode=fresh"], ids=["fixed", "fresh"])
def test_noise_on_the_fly_has_a_clean_view(small_set: SmallSet, mode: str) -> None:
    images = training_images(f"ImageNet:split=TRAIN:root={small_set.clean}:noise=gauss100{mode}", 4)
    assert {*images.views} == {"noisy", "clean"}
    stored: Any = data.make(f"ImageNet:split=TRAIN:root={small_set.clean}")
    noisy: Any = data.make(f"ImageNet:split=TRAIN:root={small_set.noisy}")
    for number, index in enumerate(images.indices):
        assert np.array_equal(pixels(images, "clean", number), np.asarray(stored.noisy(index)))
        same = np.array_equal(pixels(images, "noisy", number), np.asarray(noisy.noisy(index)))
        assert same == (mode == ""), "fixed noise is that of add-noise"
        assert np.array_equal(pixels(images, "noisy", number), pixels(images, "noisy", number))


def test_labelled_noisy_images_with_clean_twins(small_set: SmallSet) -> None:
    found = labelled_images(config(small_set, clean=str(small_set.clean), n_train=11, n_val=7))
    assert found is not None
    train, val = found
    assert train.labels is not None
    assert val.labels is not None
    assert torch.bincount(train.labels).tolist() == [3, 2, 2, 2, 2]
    assert torch.bincount(val.labels).tolist() == [2, 2, 1, 1, 1]
    noisy: Any = data.make(f"ImageNet:split=TRAIN:root={small_set.noisy}")
    clean: Any = data.make(f"ImageNet:split=TRAIN:root={small_set.clean}")
    assert {*train.views} == {"noisy", "clean"}
    for number, index in enumerate(train.indices):
        assert noisy.get_target(index) == train.labels[number]
        assert np.array_equal(pixels(train, "noisy", number), np.asarray(noisy.noisy(index)))
        assert np.array_equal(pixels(train, "clean", number), np.asarray(clean.noisy(index)))


def test_clean_labelled_images_get_noise_by_either_key(small_set: SmallSet) -> None:
    strings = {key: f"ImageNet:split={key.upper()}:root={small_set.clean}" for key in ("train", "val")}
    by_key = labelled_images(config(small_set, **strings, noise="gauss100"))
    in_string = {key: f"{text}:noise=gauss100" for key, text in strings.items()}
    by_string = labelled_images(config(small_set, **in_string))
    assert by_key is not None
    assert by_string is not None
    for one, other in zip(by_key, by_string, strict=True):
        assert {*one.views} == {*other.views} == {"noisy", "clean"}
        assert all(np.array_equal(pixels(one, view, 3), pixels(other, view, 3)) for view in one.views)
        assert not np.array_equal(pixels(one, "noisy", 3), pixels(one, "clean", 3))


def class_folders(root: Path, counts: dict[str, int]) -> str:
    for name, count in counts.items():
        (root / name).mkdir(parents=True)
        for number in range(count):
            GRAY.save(root / name / f"{number}.png")
    return f"ImageFolder:root={root}:labels=folders"


def test_classes_are_matched_by_name(small_set: SmallSet, tmp_path: Path) -> None:
    train = class_folders(tmp_path / "train", {"a": 3, "b": 5, "c": 4})
    val = class_folders(tmp_path / "val", {"b": 2, "c": 1})
    found = labelled_images(config(small_set, train=train, val=val))
    assert found is not None
    assert [images.labels.tolist() for images in found if images.labels is not None] == [
        [0] * 3 + [1] * 5 + [2] * 4,
        [1, 1, 2],
    ]


def test_fewer_validation_images_than_classes_are_spread_over_them(small_set: SmallSet) -> None:
    found = labelled_images(config(small_set, n_val=2))
    assert found is not None
    assert found[1].labels is not None
    assert found[1].labels.tolist() == [1, 3]
    assert found[0].labels is not None
    assert torch.bincount(found[0].labels).tolist() == [4] * 5


def test_bad_labels_are_one_error_each(small_set: SmallSet, tmp_path: Path) -> None:
    two = class_folders(tmp_path / "two", {"a": 3, "b": 3})
    one = class_folders(tmp_path / "one", {"a": 3})
    other = class_folders(tmp_path / "other", {"a": 1, "z": 1})
    unlabelled = f"ImageFolder:root={tmp_path / 'two'}"
    (tmp_path / "empty").mkdir()
    cases: list[tuple[dict[str, Any], str]] = [
        ({"train": f"ImageFolder:root={tmp_path / 'gone'}"}, r"monitor\.train: dataset root .*gone does not exist"),
        ({"train": "ImagNet:root=x"}, r"monitor\.train: unknown dataset 'ImagNet'"),
        ({"train": unlabelled}, r"monitor\.train: 'ImageFolder:root=.*two' has no labels: give labelled images"),
        ({"train": one, "val": one}, r"the images of monitor\.train have 1 class: the probes need at least 2"),
        ({"train": two, "val": other}, r"monitor\.val has 1 classes that monitor\.train lacks, such as 'z'"),
        ({"train": two, "val": two, "knn": 7}, r"monitor\.knn is 7: monitor\.train gives 6 images"),
        ({"n_train": 4}, r"^monitor\.n_train is 4, but 'ImageNet:.*' has 5 classes: raise it"),
        ({"noise": "gaus100"}, r"monitor\.train: unknown noise 'gaus100'"),
        ({"clean": str(tmp_path / "gone")}, r"monitor\.clean: .*gone does not exist"),
        ({"clean": str(tmp_path / "empty")}, r"monitor\.clean: 20 images have no clean twin .* train/n0/n0_0\."),
    ]
    noise = f"ImageNet:split=TRAIN:root={small_set.clean}:noise=gauss50"
    cases.append(({"train": noise, "noise": "gauss100"}, r"has a noise of its own, and monitor\.noise is gauss100"))
    for changes, message in cases:
        with pytest.raises(DinoNoiseError, match=message):
            labelled_images(config(small_set, **changes))


def test_labels_missing_for_some_images(small_set: SmallSet, monkeypatch: pytest.MonkeyPatch) -> None:
    """A data set of somebody's own, some of whose images have no label."""
    kind = data.DATASETS["ImageNet"]

    class SomeUnlabelled(data.NoisyImageNet):
        def get_targets(self) -> None:
            return None

        def get_target(self, index: int) -> int | None:
            return None if index in (7, 9) else super().get_target(index)

    monkeypatch.setitem(data.DATASETS, "ImageNet", kind._replace(factory=SomeUnlabelled))
    with pytest.raises(DinoNoiseError, match=r"2 of 20 images of .* have no label, the first is train/n1/n1_3\.png"):
        labelled_images(config(small_set))


def test_prepared_as_upstream_prepares_for_evaluation() -> None:
    declare_missing_ops()
    from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Normalize, Resize, ToTensor

    rng = np.random.default_rng(0)
    steps = [Resize(256, interpolation=InterpolationMode.BICUBIC), CenterCrop(224), ToTensor()]
    theirs = Compose([*steps, Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))])
    for size in ((300, 260), (257, 391), (256, 256), (100, 64)):
        image = Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))
        ours = prepare(lambda _, image=image: image, [0], 224)  # type: ignore[misc]
        assert ours.dtype == torch.uint8
        torch.testing.assert_close(normalised(ours)[0], theirs(image))


def test_full_depth_is_kept(small_set: SmallSet) -> None:
    deep = training_images(f"{small_set.pair()}:depth=full", 3)
    plain = training_images(small_set.pair(), 3)
    for view, tolerance in (("noisy", 12), ("denoised", 1.5)):  # 8-bit resizing cuts what shoots over black and white
        found = prepare(deep.views[view], deep.indices, 28, workers=2)
        expected = prepare(plain.views[view], plain.indices, 28)
        assert found.dtype == torch.float32
        assert 0 <= float(found.min()) < float(found.max()) <= 1
        assert float((found * 255 - expected).abs().max()) < tolerance


def test_a_bad_image_is_named(small_set: SmallSet, tmp_path: Path) -> None:
    text = class_folders(tmp_path / "set", {"a": 2})
    (tmp_path / "set" / "a" / "1.png").write_bytes(b"no image")
    images = training_images(text, 2)
    with pytest.raises(ImageError, match=r"a/1\.png"):
        prepare(images.views["noisy"], images.indices, 32)
