"""``depth=full`` through upstream's own loaders and evaluation transforms, and where it is refused."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import staged_batches
import tifffile
import torch
from numpy.typing import NDArray
from PIL import Image

from dinov2_noise.augment.replay import rng_scope
from dinov2_noise.curriculum.sections import LoaderConfig
from dinov2_noise.errors import ConfigError
from dinov2_noise.evaluation.identity import dataset_identity
from dinov2_noise.upstream import runtime

pytestmark = pytest.mark.upstream

MEAN, STD = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)


@pytest.fixture
def frames(tmp_path: Path) -> Iterator[str]:
    """Five 16-bit frames, each a ramp of 6000 levels within 24 of the 256 of a picture, in two class folders."""
    ramp = 20_000 + np.arange(72 * 84).reshape(72, 84)
    for number in range(5):
        path = tmp_path / "frames" / "ab"[number % 2] / f"{number}.tif"
        path.parent.mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(path, (ramp + 100 * number).astype(np.uint16))
    yield f"ImageFolder:root={tmp_path}/frames:labels=folders"
    runtime.start(None)


def levels(crop: torch.Tensor) -> NDArray[np.float64]:
    values: NDArray[np.float64] = 255 * (crop * STD + MEAN).double().numpy()
    return values


@pytest.mark.filterwarnings("ignore:'pin_memory' argument:UserWarning")
def test_training_gets_the_files_depth_with_any_number_of_workers(frames: str) -> None:
    found = []
    for workers in (0, 2):
        staged_batches.start("fast")
        loader = staged_batches.loader(f"{frames}:depth=full", workers)
        found.append([batch["collated_global_crops"] for batch in itertools.islice(loader, 9)])
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))
    assert min(len(np.unique(levels(batch[0])[0].round(2))) for batch in found[0]) > 256


def test_without_a_curriculum_too(frames: str) -> None:
    from dinov2.data import make_dataset

    runtime.start(None, LoaderConfig("fast"))
    augmentation = staged_batches.augmentation(**staged_batches.FULL)
    pair = [make_dataset(dataset_str=f"{frames}{key}", transform=augmentation) for key in (":depth=full", "")]
    samples = []
    for dataset in pair:
        with rng_scope(1):
            samples.append(dataset[0][0]["global_crops"])
    for deep, shallow in zip(*samples, strict=True):
        assert np.abs(levels(deep) - levels(shallow)).mean() < 2.5, "truncated up to five times"
    assert len(np.unique(levels(samples[0][0])[0].round(2))) > 1000


def test_dinov2s_own_augmentation_is_refused(frames: str) -> None:
    from dinov2.data import make_dataset

    for started in (lambda: runtime.start(None), lambda: staged_batches.start("upstream")):
        started()
        augmentation = staged_batches.augmentation(**staged_batches.FULL)
        with pytest.raises(ConfigError, match=r"depth=full.*loader: \{augmentation: fast\}"):
            make_dataset(dataset_str=f"{frames}:depth=full", transform=augmentation)


@pytest.mark.parametrize("is_train", [False, True], ids=["evaluation", "linear training"])
def test_upstreams_transforms_give_the_8_bit_values_within_rounding(small_set: Any, is_train: bool) -> None:
    """Of tensors torchvision's bicubic neither rounds nor cuts what shoots beyond black and white."""
    from dinov2.data import make_dataset
    from dinov2.data.transforms import make_classification_eval_transform, make_classification_train_transform

    transform = (make_classification_train_transform if is_train else make_classification_eval_transform)()
    text = f"ImageNet:split=TRAIN:root={small_set.clean}"
    deep, shallow = (make_dataset(dataset_str=text + key, transform=transform) for key in (":depth=full", ""))
    for index in range(6):
        with rng_scope(index):
            mine = levels(deep[index][0])
        with rng_scope(index):
            theirs = levels(shallow[index][0])
        assert np.abs(mine.clip(0, 255) - theirs).mean() < 0.5
        assert np.abs(mine.clip(0, 255) - theirs).max() < 6


def test_records_tell_the_depth(frames: str) -> None:
    assert dataset_identity(f"{frames}:depth=full") == dataset_identity(frames) | {"depth": "full"}


def test_the_official_geometry_and_the_fourier_probe(frames: str, tmp_path: Path) -> None:
    from dinov2_noise.upstream.probing.fourier import load_pictures
    from dinov2_noise.upstream.probing.model import eval_transform
    from dinov2_noise.upstream.probing.probe import ProbeRequest

    official = eval_transform("official")
    pixels = np.random.default_rng(0).integers(0, 256, (224, 260, 3), dtype=np.uint8)
    tensor = torch.from_numpy(pixels.transpose(2, 0, 1) / np.float32(255))
    np.testing.assert_allclose(levels(official(tensor)), levels(official(Image.fromarray(pixels))), atol=1e-3)
    request = ProbeRequest(tmp_path / "config.yaml", tmp_path / "weights.pth", f"{frames}:depth=full")
    with pytest.raises(ConfigError, match="8-bit pictures"):
        load_pictures(request, 2, 0)
