"""``depth=full``: samples of 16-bit files keep their levels; everything else still sees 8 bits."""

from __future__ import annotations

import io
import pickle
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from numpy.typing import NDArray
from PIL import Image

from dinov2_noise.data import PairedImages, build_index, make, parse_dataset_string
from dinov2_noise.decoding import load_pixels, to_float32
from dinov2_noise.denoise.images import open_source
from dinov2_noise.errors import DatasetStringError, PairError
from dinov2_noise.noise import FAMILIES, noisy_float64, noisy_uint8, parse

HEIGHT, WIDTH = 40, 50
NOISES = ("gauss5-50", *(family.examples[0] for family in FAMILIES.values()))


@pytest.fixture(scope="module")
def ramp() -> NDArray[np.uint16]:
    """2000 levels, all within 12 of the 256 of a picture."""
    return (20_000 + np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH) * 3 // 2).astype(np.uint16)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, ramp: NDArray[np.uint16]) -> Path:
    folder = tmp_path_factory.mktemp("depth") / "frames"
    (folder / "train" / "a").mkdir(parents=True)
    tifffile.imwrite(folder / "train" / "a" / "deep.tif", ramp)
    Image.fromarray((ramp // 128).astype(np.uint8)).save(folder / "train" / "a" / "flat.png")
    build_index(folder, progress=False)
    with tarfile.open(folder.parent / "0.tar", "w") as shard:
        for name in ("deep.tif", "flat.png"):
            data = (folder / "train" / "a" / name).read_bytes()
            member = tarfile.TarInfo(f"train/a/{name}")
            member.size = len(data)
            shard.addfile(member, io.BytesIO(data))
    return folder


def opened(text: str, transform: Any = None) -> PairedImages:
    dataset = make(text, transform)
    assert isinstance(dataset, PairedImages)
    return dataset


@pytest.mark.parametrize(
    "kind", ["ImageFolder:root={0}", "ImageNet:split=TRAIN:root={0}", "WebDataset:root={0.parent}"]
)
def test_samples_keep_every_level(root: Path, ramp: NDArray[np.uint16], kind: str) -> None:
    text = kind.format(root)
    deep, shallow = opened(f"{text}:depth=full"), opened(text)
    sample, _ = pickle.loads(pickle.dumps(deep))[0]
    assert sample.dtype == np.float32
    np.testing.assert_array_equal(np.rint(65535 * sample[..., 1]), ramp)
    assert len(np.unique(np.asarray(shallow[0][0]))) < 14
    # An 8-bit file has no more, and both have the picture that they have without the key.
    np.testing.assert_array_equal(np.rint(255 * deep[1][0]), np.asarray(shallow[1][0]))
    for index in range(2):
        assert deep.noisy(index).tobytes() == shallow.noisy(index).tobytes()


def test_a_transform_gets_a_tensor_with_the_channels_first(root: Path) -> None:
    seen = opened(f"ImageFolder:root={root}:depth=full", transform=lambda image: image)[0][0]
    assert isinstance(seen, torch.Tensor)
    assert seen.is_contiguous()
    np.testing.assert_array_equal(seen.permute(1, 2, 0), opened(f"ImageFolder:root={root}").noisy_pixels(0))


@pytest.mark.parametrize("name", NOISES)
@pytest.mark.parametrize("epoch", [None, 3])
def test_noise_is_that_of_8_bits_before_it_is_cut(root: Path, name: str, epoch: int | None) -> None:
    for file in ("deep.tif", "flat.png"):
        pixels = load_pixels(root / "train" / "a" / file)
        where = {"relative_path": file, "base_seed": 7, "epoch": epoch}
        exact = noisy_float64(pixels, parse(name), **where)
        np.testing.assert_array_equal((255 * exact).astype(np.uint8), noisy_uint8(pixels, parse(name), **where))
    mode = "" if epoch is None else ",mode=fresh"
    text = f"ImageFolder:root={root}:noise={name},seed=7{mode}:depth=full"
    dataset = make(text, knows_epoch=True)
    assert isinstance(dataset, PairedImages)
    where["relative_path"] = "train/a/flat.png"
    np.testing.assert_array_equal(
        dataset.noisy_pixels(1, epoch), to_float32(noisy_float64(pixels, parse(name), **where))
    )


def test_twins_have_the_depth_of_their_files(root: Path, tmp_path: Path, ramp: NDArray[np.uint16]) -> None:
    denoised = tmp_path / "denoised" / "train" / "a"
    denoised.mkdir(parents=True)
    tifffile.imwrite(denoised / "deep.tif", ramp + 1)
    Image.fromarray((ramp // 256).astype(np.uint8)).save(denoised / "flat.png")
    text = f"ImageFolder:root={root}:denoised={tmp_path}/denoised:depth=full"
    dataset = opened(text)
    np.testing.assert_array_equal(np.rint(65535 * dataset.denoised_pixels(0)[..., 0]), ramp + 1)
    np.testing.assert_array_equal(np.rint(255 * dataset.denoised_pixels(1)[..., 0]), ramp // 256)
    assert isinstance(dataset.denoised(0), Image.Image)
    tifffile.imwrite(denoised / "deep.tif", ramp[1:])
    with pytest.raises(PairError, match=r"50x40 px.*50x39 px"):
        dataset.denoised_pixels(0)
    with pytest.raises(DatasetStringError, match="no denoised root"):
        opened(f"ImageFolder:root={root}").denoised_pixels(0)


def test_the_denoiser_reads_8_bits(root: Path) -> None:
    deep, shallow = (open_source(f"ImageFolder:root={root}:noise=gauss50{key}") for key in (":depth=full", ""))
    for index in range(2):
        assert deep[index].dtype == torch.uint8
        assert torch.equal(deep[index], shallow[index])


def test_the_key(root: Path) -> None:
    assert parse_dataset_string(f"ImageFolder:root={root}:depth=full").full_depth
    assert not parse_dataset_string(f"ImageFolder:root={root}").full_depth
    with pytest.raises(DatasetStringError, match="the only value is full"):
        make(f"ImageFolder:root={root}:depth=16")
    with pytest.raises(DatasetStringError, match=r"corruptions are made for 8-bit pictures"):
        make(f"ImageFolder:root={root}:depth=full:corruption=fog/3")
