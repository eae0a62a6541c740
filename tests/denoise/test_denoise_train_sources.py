"""What ``denoise train`` reads: folders, dataset strings, a number of images per class, workers."""

from __future__ import annotations

import pickle
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import SmallSet

from dinov2_noise.data import DATASETS, build_index, register_dataset
from dinov2_noise.denoise import train_denoiser
from dinov2_noise.denoise.images import Chosen, open_source, unfinished
from dinov2_noise.denoise.selection import select_images
from dinov2_noise.errors import (
    DatasetStringError,
    DinoNoiseError,
    ImageError,
    MetadataError,
    MissingFolderError,
    OutputFolderError,
)
from dinov2_noise.files import read_manifest, write_json
from neighbor2neighbor import load_checkpoint

QUICK: dict[str, Any] = {
    "steps": 3,
    "batch_size": 2,
    "crop_px": 64,
    "n_feature": 4,
    "device": "cpu",
    "sample_every": 0,
    "progress": False,
}
Make = Callable[..., Path]


def weights_of(path: Path) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in load_checkpoint(path).parameters()])


def on_the_fly(small_set: SmallSet, **keys: object) -> str:
    more = "".join(f":{key}={value}" for key, value in keys.items())
    return f"ImageNet:split=TRAIN:root={small_set.clean}:noise=gauss100{more}"


def test_dataset_string_gives_the_weights_of_the_folder_of_the_same_noise(small_set: SmallSet, tmp_path: Path) -> None:
    strings = {"on-the-fly": on_the_fly(small_set), "stored": f"ImageNet:split=TRAIN:root={small_set.noisy}"}
    strings["tree"] = f"ImageFolder:root={small_set.noisy / 'train'}"
    expected = weights_of(train_denoiser(small_set.noisy, tmp_path / "folder", **QUICK, images_per_class=2))
    for name, text in strings.items():
        found = weights_of(train_denoiser(text, tmp_path / name, **QUICK, images_per_class=2))
        assert torch.equal(found, expected), name
    manifests = {name: read_manifest(tmp_path / name) for name in (*strings, "folder")}
    assert {manifest["images"] for manifest in manifests.values()} == {10}
    assert manifests["stored"]["parameters"]["source_parameters"]["noise"] == "gauss100"
    assert manifests["folder"]["parameters"]["source_parameters"]["noise"] == "gauss100"
    with pytest.raises(OutputFolderError, match=r"noisy: there .*noise=gauss100.* now .*noise=gauss50"):
        train_denoiser(on_the_fly(small_set).replace("gauss100", "gauss50"), tmp_path / "on-the-fly", **QUICK)


def test_denoised_folder_in_a_string_is_neither_needed_nor_read(small_set: SmallSet) -> None:
    source = open_source(f"ImageNet:split=TRAIN:root={small_set.noisy}:denoised=/nowhere")
    assert "denoised" not in source.label
    folder = open_source(small_set.noisy)
    assert [source.group(index) for index in range(20)] == [index // 4 for index in range(20)]
    assert [Path("train", name).as_posix() for name in folder.names] == list(source.names)
    for index in (0, 7, 19):
        assert torch.equal(source[index], folder[index])
        assert source.path(index) == folder.path(index)
        assert source.size(index) == (64, 64)


def test_string_means_the_same_from_every_folder(small_set: SmallSet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(small_set.noisy.parent)
    relative = open_source("ImageNet:split=TRAIN:root=noisy:extra=noisy-extra")
    assert relative.label == f"ImageNet:split=TRAIN:root={small_set.noisy}:extra={small_set.noisy}-extra"
    assert open_source(Path("noisy")).label == str(small_set.noisy / "train")


def test_size_of_a_corrupted_image_is_that_of_its_crop(small_set: SmallSet) -> None:
    assert open_source(f"ImageFolder:root={small_set.clean}:corruption=fog/3,size=48").size(0) == (48, 48)
    assert open_source(f"ImageFolder:root={small_set.clean}:corruption=fog/3,size=full").size(0) == (64, 64)
    assert open_source(f"ImageFolder:root={small_set.clean}:corruption=fog/3,size=48")[0].shape == (3, 48, 48)


def test_neither_folder_nor_string(small_set: SmallSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MissingFolderError, match=r"absent does not exist, and it is no dataset string \(ImageFolder:…"):
        open_source(tmp_path / "absent")
    with pytest.raises(
        MissingFolderError, match="Imagenet:split=TRAIN:root=x does not exist, and it is no dataset str"
    ):
        open_source("Imagenet:split=TRAIN:root=x")
    (tmp_path / "file.png").touch()
    with pytest.raises(MissingFolderError, match=r"file\.png is a file"):
        open_source(tmp_path / "file.png")
    with pytest.raises(DatasetStringError, match="split missing in"):
        open_source(f"ImageNet:root={small_set.noisy}")
    # A path that exists wins.
    folder = tmp_path / "ImageFolder:root=y"
    shutil.copytree(small_set.noisy / "train" / "n0", folder)
    monkeypatch.chdir(tmp_path)
    assert open_source("ImageFolder:root=y").label == str(folder)


def test_dataset_without_noisy_images_is_refused(small_set: SmallSet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DATASETS, "Numbers", DATASETS["ImageFolder"])  # so that it is gone afterwards
    register_dataset("Numbers", lambda *_: torch.utils.data.TensorDataset(torch.zeros(3)))
    with pytest.raises(DatasetStringError, match=r"Numbers .* is a TensorDataset, .* dinov2_noise\.data\.PairedImages"):
        open_source(f"Numbers:root={small_set.noisy}")


def test_per_class_counts_classes_of_the_metadata_and_folders_of_a_folder(make_images: Make, tmp_path: Path) -> None:
    """A class may have folders of its own below it."""
    sizes = {
        f"train/{label}/{part}/{number}.png": (64, 64 + number)
        for label in "pq"
        for part in "ab"
        for number in range(4)
    }
    root = make_images(tmp_path / "root", sizes)
    build_index(root, progress=False)

    def counts(noisy: Path | str, seed: int = 0, side_range_px: tuple[int, int] | None = None) -> Counter[Any]:
        source = open_source(noisy)
        indices, _ = select_images(source, images_per_class=3, side_range_px=side_range_px, seed=seed)
        assert indices == sorted(set(indices))
        return Counter(source.group(index) for index in indices)

    by_class = f"ImageNet:split=TRAIN:root={root}"
    assert counts(by_class) == {0: 3, 1: 3}
    assert counts(root) == {"p/a": 3, "p/b": 3, "q/a": 3, "q/b": 3}
    assert counts(f"ImageFolder:root={root / 'train'}") == counts(root)
    assert counts(root, side_range_px=(64, 65)) == {"p/a": 2, "p/b": 2, "q/a": 2, "q/b": 2}

    def chosen(seed: int) -> list[int]:
        return select_images(open_source(by_class), images_per_class=3, side_range_px=None, seed=seed)[0]

    assert chosen(0) == chosen(0)
    # 56 of 8 over 3 each: all draws are about as frequent.
    hits = np.bincount([index for seed in range(200) for index in chosen(seed)], minlength=16)
    assert hits.sum() == 1200
    assert np.abs(hits - 75).max() < 4.5 * np.sqrt(200 * 3 / 8 * 5 / 8)


def test_only_headers_of_drawn_images_are_read(make_images: Make, tmp_path: Path) -> None:
    noisy = make_images(tmp_path / "noisy", {f"{number}.png": (64, 64) for number in range(6)})
    source = open_source(noisy)
    drawn, _ = select_images(source, images_per_class=2, side_range_px=None, seed=0)
    for index in {*range(6)} - {*drawn}:
        source.path(index).write_text("not an image")
    assert select_images(source, images_per_class=2, side_range_px=None, seed=0) == (drawn, 64)
    with pytest.raises(ImageError, match="cannot use image"):
        select_images(source, images_per_class=None, side_range_px=None, seed=0)


def test_too_small_images_are_counted_and_the_first_is_named(
    make_images: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dinov2_noise.denoise.sizes._BLOCK", 3)
    sizes = {"a.png": (128, 128), "b.png": (100, 130), "c.png": (128, 127), "d.png": (64, 64)}
    noisy = make_images(tmp_path / "noisy", sizes)
    expected = r"b\.png: it is 130x100 px, and both sides must be at least 128 px \(3 of 4 images are smaller\)"
    with pytest.raises(ImageError, match=expected):
        train_denoiser(noisy, tmp_path / "out", **{**QUICK, "crop_px": 128}, stride=2)
    assert not (tmp_path / "out").exists()
    weights = train_denoiser(noisy, tmp_path / "out", **{**QUICK, "crop_px": 128}, stride=2, side_range_px=(128, 128))
    assert load_checkpoint(weights).stride == 2


@pytest.mark.parametrize("string", [False, True])
def test_weights_do_not_depend_on_workers(small_set: SmallSet, tmp_path: Path, string: bool) -> None:
    noisy = on_the_fly(small_set) if string else small_set.noisy
    alone, two = (
        weights_of(train_denoiser(noisy, tmp_path / str(workers), **QUICK, num_workers=workers)) for workers in (0, 2)
    )
    assert torch.equal(alone, two)


def test_dataset_pickles_without_its_metadata(small_set: SmallSet) -> None:
    images = Chosen(open_source(on_the_fly(small_set)), [3, 5])
    assert torch.equal(pickle.loads(pickle.dumps(images))[1], images[1])


def test_cache_keeps_what_fits_and_stays_behind_when_pickled(small_set: SmallSet) -> None:
    images = Chosen(open_source(small_set.noisy), [3, 5, 8], cache_bytes=2 * 3 * 64 * 64)
    first = [images[position] for position in (2, 0, 1)]
    again = [images[position] for position in (2, 0, 1)]
    assert [a is b for a, b in zip(first, again, strict=True)] == [True, True, False]
    assert torch.equal(first[2], again[2])
    copy = pickle.loads(pickle.dumps(images))
    assert len(pickle.dumps(images)) < 3 * 64 * 64
    assert [torch.equal(copy[position], images[position]) for position in range(3)] == [True] * 3
    assert images.names[1] == open_source(small_set.noisy).names[5]


def test_error_of_a_string_in_a_worker_is_one_clear_error(small_set: SmallSet, tmp_path: Path) -> None:
    root = tmp_path / "noisy"
    shutil.copytree(small_set.noisy, root)
    build_index(root, progress=False)
    text = f"ImageNet:split=TRAIN:root={root}"
    victim = open_source(text).path(1)
    victim.write_bytes(victim.read_bytes()[:300])
    with pytest.raises(DinoNoiseError, match=r"^cannot use image .*noisy/train/n0.*") as caught:
        train_denoiser(text, tmp_path / "out", **{**QUICK, "steps": 12}, num_workers=1)
    assert "Traceback" not in str(caught.value)
    victim.unlink()
    with pytest.raises(MetadataError, match="does not exist under any image suffix"):
        train_denoiser(text, tmp_path / "out", **QUICK)


def test_noisy_folder_that_is_not_complete_is_warned_of(small_set: SmallSet, tmp_path: Path) -> None:
    root = tmp_path / "noisy"
    shutil.copytree(small_set.noisy, root)
    assert unfinished(open_source(root)) is None
    write_json(root / "manifest.json", {**read_manifest(root), "complete": False})
    build_index(root, progress=False)
    for noisy in (root, root / "train", f"ImageNet:split=TRAIN:root={root}"):
        said = unfinished(open_source(noisy))
        assert said is not None
        assert f"{root} is not complete, so images are missing: `dinov2-noise add-noise` has not finished" in said
    assert unfinished(open_source(root / "train" / "n0")) is None


def test_output_in_the_noisy_folder_is_refused(make_images: Make, tmp_path: Path) -> None:
    """Its pictures would be trained on."""
    noisy = make_images(tmp_path / "noisy", {"a.png": (64, 64)})
    with pytest.raises(OutputFolderError, match="lies in the source"):
        train_denoiser(noisy, noisy / "out", **QUICK)
