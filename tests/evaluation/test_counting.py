"""Data sets through one set of workers."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from dinov2_noise.data import build_index, make
from dinov2_noise.errors import DinoNoiseError, ImageError, MetadataError
from dinov2_noise.evaluation.counting import Count, LoaderSettings, batches, count, n_classes_of

from .conftest import nearest_level, to_tensor


def _settings(workers: int = 0, batch_size: int = 5) -> LoaderSettings:
    return LoaderSettings(to_tensor, batch_size=batch_size, workers=workers)


def _right(names: list[str], settings: LoaderSettings) -> list[tuple[int, int, dict[str, int]]]:
    found = count(names, nearest_level, settings, description="test")
    return [(position, one.n_images, one.right) for position, one in found]


def test_counts_are_those_of_a_plain_loop(gray_scale: Any) -> None:
    names = [
        gray_scale.dataset,
        f"{gray_scale.dataset}:corruption=brightness/5,size=full",
        f"{gray_scale.dataset}:noise=gauss255",
    ]
    expected = []
    for position, name in enumerate(names):
        dataset: Any = make(name)
        predicted = [{k: int(v) for k, v in nearest_level(to_tensor(image)[None]).items()} for image, _ in dataset]
        labels = [label for _, label in dataset]
        right = {kind: sum(p[kind] == t for p, t in zip(predicted, labels, strict=True)) for kind in ("level", "zero")}
        expected.append((position, 12, right))
    assert _right(names, _settings()) == expected
    assert expected[0][2] == {"level": 12, "zero": 3}
    assert expected[1][2]["level"] < 12
    # Neither the number of workers nor the size of batches matters, which end with their data set.
    assert _right(names, _settings(workers=2, batch_size=7)) == expected
    assert [len(batch.targets) for batch in batches(names, _settings(), description="test")] == [5, 5, 2] * 3


def test_a_bad_image_keeps_its_name_through_the_workers(tmp_path: Path) -> None:
    for label in range(2):
        (tmp_path / f"r/val/n{label}").mkdir(parents=True)
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / f"r/val/n{label}/0.png")
    build_index(tmp_path / "r", progress=False)
    (tmp_path / "r/val/n1/0.png").write_bytes(b"no image")
    with pytest.raises(ImageError, match=r"n1/0\.png"):
        _right([f"ImageNet:split=VAL:root={tmp_path / 'r'}"], _settings(workers=1, batch_size=1))


def test_images_without_labels_are_refused(gray_scale: Any) -> None:
    with pytest.raises(MetadataError, match="no labels"):
        _right([f"ImageFolder:root={gray_scale.root}"], _settings())


def test_classes_are_those_of_the_metadata(gray_scale: Any, tmp_path: Path) -> None:
    """Images of the last class may be missing: classifiers of the whole set still fit."""
    shutil.copytree(gray_scale.root, tmp_path / "r")
    shutil.copytree(gray_scale.root / "val", tmp_path / "r/train")
    shutil.rmtree(tmp_path / "r/val/n3")
    build_index(tmp_path / "r", progress=False)
    name = f"ImageNet:split=VAL:root={tmp_path / 'r'}"
    assert n_classes_of(make(name), name) == 4
    (tmp_path / "r-extra/class-ids-VAL.npy").unlink()
    assert n_classes_of(make(name), name) == 3


def _die(_image: Image.Image) -> torch.Tensor:
    os._exit(3)


def test_a_dead_worker_is_one_clear_error(gray_scale: Any) -> None:
    with pytest.raises(DinoNoiseError, match="--shm-size"):
        _right([gray_scale.dataset], LoaderSettings(_die, batch_size=2, workers=1))


def test_a_count_adds_up() -> None:
    found = Count()
    for _ in range(2):
        found.add({"a": torch.tensor([0, 1, 2])}, torch.tensor([0, 1, 1]))
    assert (found.n_images, found.right) == (6, {"a": 4})
