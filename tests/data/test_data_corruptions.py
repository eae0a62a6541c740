"""``corruption=`` in dataset strings: what an item is, with noise before it, in workers, and through upstream."""

from pathlib import Path

import numpy as np
import pytest
from helpers import SmallSet
from PIL import Image
from torch.utils.data import DataLoader

from dinov2_noise.data import make
from dinov2_noise.errors import ImageError
from dinov2_noise.noise import Gaussian, noisy_uint8
from dinov2_noise.noise.corruptions import Corruption, corrupted_uint8, standard_crop
from dinov2_noise.recipes.upstream_steps import dataset_paths


def _clean(small_set: SmallSet, path: str) -> Image.Image:
    return Image.open(small_set.clean / path).convert("RGB")


def test_the_crop_comes_first_and_seed_and_path_decide(small_set):
    text = f"ImageNet:split=VAL:root={small_set.clean}:corruption=motion_blur/3"
    for option, seed, side in ((",seed=9,size=48", 9, 48), ("", 42, 224)):
        dataset = make(text + option, np.asarray)
        for index in (0, 3):
            path = dataset.relative_path(index)
            crop = np.asarray(standard_crop(_clean(small_set, path), side))
            expected = corrupted_uint8(crop, Corruption("motion_blur", 3), relative_path=path, base_seed=seed)
            np.testing.assert_array_equal(dataset[index][0], expected)
            assert dataset[index][1] == index // 2
            assert dataset.get_image_data(index) == (small_set.clean / path).read_bytes()


def test_noise_comes_before_the_corruption(small_set):
    root = small_set.clean
    dataset = make(f"ImageFolder:root={root}:corruption=fog/3,size=full:noise=gauss100,seed=7", np.asarray)
    path = dataset.relative_path(5)
    noisy = noisy_uint8(np.asarray(_clean(small_set, path)), Gaussian(100), relative_path=path, base_seed=7)
    expected = corrupted_uint8(noisy, Corruption("fog", 3), relative_path=path)
    np.testing.assert_array_equal(dataset[5][0], expected)


def test_workers_give_the_same(small_set):
    dataset = make(f"ImageNet:split=VAL:root={small_set.clean}:corruption=glass_blur/2,size=56", np.array)
    loader = DataLoader(dataset, batch_size=3, num_workers=2, multiprocessing_context="fork")
    images = np.concatenate([batch[0].numpy() for batch in loader])
    np.testing.assert_array_equal(images, np.stack([dataset[index][0] for index in range(10)]))


def test_an_image_too_small_is_named(small_set):
    dataset = make(f"ImageNet:split=VAL:root={small_set.clean}:corruption=snow/2,size=12")
    with pytest.raises(ImageError, match=rf"{dataset.relative_path(0)}.*12x12 px.*snow/2 needs sides of at least 16"):
        dataset[0]


def test_folders_of_the_strings():
    """What recipes watch for changes."""
    assert dataset_paths("ImageNet:split=VAL:root=/r:corruption=fog/3,seed=1") == [Path("/r"), Path("/r-extra")]
    assert dataset_paths("ImageNetC:root=/c/fog/3:extra=/e") == [Path("/c/fog/3"), Path("/e")]


@pytest.mark.upstream
def test_upstreams_loader_takes_the_string(small_set):
    from dinov2.data import make_dataset

    text = f"ImageNet:split=VAL:root={small_set.clean}:corruption=contrast/5,seed=3,size=full"
    dataset = make_dataset(dataset_str=text, transform=np.asarray)
    clean = np.asarray(_clean(small_set, dataset.relative_path(2))).astype(float)
    mean = clean.mean((0, 1))
    np.testing.assert_allclose(dataset[2][0], (clean - mean) * 0.05 + mean, atol=1.01)
