"""Tar shards, written and read again by the library webdataset as the independent other side."""

import io
import multiprocessing
import pickle
import shutil
import tarfile

import numpy as np
import pytest
import torch
import webdataset
from PIL import Image
from torch.utils.data import DataLoader
from webdataset.tariterators import group_by_keys, tar_file_iterator

from dinov2_noise.data import ShardedImages, make
from dinov2_noise.decoding import load_rgb
from dinov2_noise.errors import ImageError, MissingFolderError, PairError, ShardError
from dinov2_noise.noise import add_noise

RNG = np.random.default_rng(0)


def _encoded(suffix="png", shape=(20, 30, 3), dtype=np.uint8):
    pixels = RNG.integers(0, np.iinfo(dtype).max, shape).astype(dtype)
    file = io.BytesIO()
    if suffix == "npy":
        np.save(file, pixels)
    else:
        Image.fromarray(pixels).save(file, format={"jpg": "JPEG"}.get(suffix, suffix))
    return file.getvalue()


def _write(path, samples):
    path.parent.mkdir(parents=True, exist_ok=True)
    with webdataset.TarWriter(str(path)) as writer:
        for sample in samples:
            writer.write(sample)


def _plain(path, members, end=True):
    """A tar whose members are named freely."""
    with tarfile.open(path, "w") as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


@pytest.fixture
def shards(tmp_path):
    """Two folders of shards, 3 + 4 images, classes, and members of other kinds."""
    root, number = tmp_path / "shards", 0
    for name, count in (("b/one.tar", 3), ("a.tar", 4)):
        samples = []
        for _ in range(count):
            number += 1
            suffix = "jpg" if number % 2 else "png"
            sample = {"__key__": f"n{number % 3}/{number:04d}", suffix: _encoded(suffix), "cls": number % 3}
            samples.append(sample | {"json": {"width": 30}, "clip.npy": np.zeros(3)})
        _write(root / name, samples)
    return root


def _samples(path):
    with path.open("rb") as file:
        return list(group_by_keys({**member, "__url__": ""} for member in tar_file_iterator(file)))


def _pixels(image):
    return np.asarray(image)


def test_order_bytes_and_classes_are_webdatasets(shards):
    dataset = make(f"WebDataset:root={shards}", target_transform=lambda target: target + 10)
    theirs = [sample for name in ("a.tar", "b/one.tar") for sample in _samples(shards / name)]
    assert len(dataset) == len(theirs) == 7
    for index, sample in enumerate(theirs):
        data = sample.get("jpg", sample.get("png"))
        assert dataset.get_image_data(index) == data
        assert dataset.relative_path(index).rpartition(".")[0] == sample["__key__"]
        assert dataset.get_target(index) == int(sample["cls"])
        image, target = dataset[index]
        np.testing.assert_array_equal(_pixels(image), _pixels(Image.open(io.BytesIO(data)).convert("RGB")))
        assert target == int(sample["cls"]) + 10
        assert dataset._size(index) == (30, 20)
    assert dataset.get_targets().tolist() == [int(sample["cls"]) for sample in theirs]


def _unpack(shards, folder):
    for path in shards.rglob("*.tar"):
        with tarfile.open(path) as archive:
            archive.extractall(folder, filter="data")
    for path in [*folder.rglob("*.npy"), *folder.rglob("*.cls"), *folder.rglob("*.json")]:
        path.unlink()


def test_noise_and_twins_are_those_of_the_unpacked_folder(shards, tmp_path):
    _unpack(shards, tmp_path / "flat")
    add_noise(tmp_path / "flat", tmp_path / "noisy", noise="gauss100", base_seed=7, workers=1, progress=False)
    dataset = make(f"WebDataset:root={shards}:noise=gauss100,seed=7:denoised={tmp_path / 'noisy'}")
    for index in range(len(dataset)):
        stored = load_rgb((tmp_path / "noisy" / dataset.relative_path(index)).with_suffix(".png"))
        np.testing.assert_array_equal(_pixels(dataset[index][0]), _pixels(stored))
        np.testing.assert_array_equal(_pixels(dataset.denoised(index)), _pixels(stored))
    next((tmp_path / "noisy").rglob("*.png")).unlink()
    with pytest.raises(PairError, match="1 of 7 images have no denoised twin"):
        make(f"WebDataset:root={shards}:denoised={tmp_path / 'noisy'}")


def _as_tensor(image):
    return torch.from_numpy(_pixels(image).copy())


@pytest.mark.parametrize(("method", "workers"), [("fork", 2), ("spawn", 1)])
def test_workers_read_the_same(shards, method, workers):
    dataset = make(f"WebDataset:root={shards}:noise=gauss50", transform=_as_tensor)
    context = multiprocessing.get_context(method)
    loader = DataLoader(dataset, batch_size=1, num_workers=workers, multiprocessing_context=context)
    made = [(images[0], int(targets[0])) for images, targets in loader]
    for index, (image, target) in enumerate(made):
        torch.testing.assert_close(image, dataset[index][0], rtol=0, atol=0)
        assert target == dataset[index][1]


def test_the_index_is_made_once_and_again_where_a_shard_has_changed(shards, tmp_path):
    extra = tmp_path / "shards-extra"
    first = make(f"WebDataset:root={shards}")
    (kept,) = extra.iterdir()
    state = kept.stat().st_mtime_ns
    assert len(pickle.dumps(first)) < 3000
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(first))._index.rows, first._index.rows)
    make(f"WebDataset:root={shards}")
    assert [path.stat().st_mtime_ns for path in extra.iterdir()] == [state]
    _write(shards / "a.tar", [{"__key__": "x", "png": _encoded(), "cls": 1}])
    changed = make(f"WebDataset:root={shards}")
    assert len(changed) == 4
    assert len(list(extra.iterdir())) == 2
    kept.write_bytes(b"cut off")  # a damaged copy is made anew
    for path in extra.iterdir():
        path.write_bytes(path.read_bytes()[:50])
    assert make(f"WebDataset:root={shards}").relative_path(0) == "x.png"
    make(f"WebDataset:root={shards}:extra={tmp_path / 'elsewhere'}")
    assert len(list((tmp_path / "elsewhere").iterdir())) == 1


def test_where_nothing_can_be_written_the_index_stays_in_memory(shards, tmp_path):
    (tmp_path / "file").write_text("")
    dataset = make(f"WebDataset:root={shards}:extra={tmp_path / 'file' / 'below'}")
    assert len(pickle.loads(pickle.dumps(dataset))) == 7


def test_deep_members_keep_their_bits_until_the_noise(tmp_path):
    _write(tmp_path / "s" / "a.tar", [{"__key__": "0", "npy": RNG.integers(0, 4096, (20, 30)).astype(np.uint16)}])
    dataset = make(f"WebDataset:root={tmp_path / 's'}:range=fixed,0,4095")
    stored = np.load(io.BytesIO(dataset.get_image_data(0)))
    np.testing.assert_allclose(dataset._pixels(0)[..., 0], stored / 4095, rtol=0, atol=1e-15)
    np.testing.assert_array_equal(_pixels(dataset[0][0])[..., 0], np.rint(stored / 4095 * 255))
    assert dataset.get_targets() is None
    assert dataset[0][1] == -1


def test_an_unreadable_member_is_named_with_its_shard(tmp_path):
    _plain(tmp_path / "a.tar", [("x/1.jpg", b"no image"), ("x/2.png", _encoded())])
    dataset = make(f"WebDataset:root={tmp_path}")
    with pytest.raises(ImageError, match=r"cannot use image .*a\.tar/x/1\.jpg: not an image"):
        dataset[0]
    assert dataset[1][0].size == (30, 20)


PNG = _encoded()


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([], r"a\.tar holds no images: expected members such as 0001\.jpg and 0001\.cls"),
        ([("1.txt", b"x")], "holds no images"),
        ([("1.png", PNG), ("1.jpg", PNG)], r"1\.png and 1\.jpg in .*a\.tar have one key: which is the image"),
        ([("1.a.png", PNG), ("1.b.png", PNG)], r"1\.a\.png and 1\.b\.png in .* have one key"),
        ([("1.png", PNG), ("./1.png", PNG)], r"a\.tar holds 1\.png twice"),
        ([("1.png", PNG), ("1.cls", b"cat")], r"1\.cls in .*a\.tar holds b'cat': a class is a whole number"),
        ([("1.png", PNG), ("1.cls", b"-3")], "a class is a whole number from 0"),
        ([("1.png", PNG), ("1.cls", b"0"), ("2.png", PNG)], r"1 of 2 images have no \.cls .*2\.png in .*a\.tar"),
    ],
)
def test_members_that_make_no_data_set_are_refused(tmp_path, members, message):
    _plain(tmp_path / "a.tar", members)
    with pytest.raises(ShardError, match=message):
        make(f"WebDataset:root={tmp_path}")


def test_members_of_other_kinds_are_passed_over(tmp_path):
    members = [("1.png", PNG), ("1.seg.png", b"?"), ("1.npy", b"?"), ("__MACOSX/1.png", b"?"), ("._1.png", b"?")]
    _plain(tmp_path / "a.tar", [*members, ("dir.v2/2.img.PNG", PNG), ("3.npy", _encoded("npy"))])
    dataset = make(f"WebDataset:root={tmp_path}")
    names = [dataset.relative_path(index) for index in range(len(dataset))]
    assert names == ["1.png", "__MACOSX/1.png", "dir.v2/2.img.PNG", "3.npy"]


def test_every_cut_and_damage_of_a_shard_is_seen(tmp_path):
    _plain(tmp_path / "a.tar", [(f"{number}.png", PNG) for number in range(3)])
    whole = (tmp_path / "a.tar").read_bytes()
    end = whole.rindex(PNG) + len(PNG)
    for length in [*range(0, end, 701), end - 1]:
        (tmp_path / "a.tar").write_bytes(whole[:length])
        with pytest.raises(ShardError, match=r"cannot read the shard .*a\.tar: "):
            make(f"WebDataset:root={tmp_path}")
    damaged = bytearray(whole)
    damaged[whole.index(b"1.png") + 150] ^= 255  # its checksum
    (tmp_path / "a.tar").write_bytes(damaged)
    with pytest.raises(ShardError, match="cut off or damaged at byte"):
        make(f"WebDataset:root={tmp_path}")


def test_roots_without_shards_are_refused(tmp_path):
    with pytest.raises(MissingFolderError, match=r"holds no \.tar shards$"):
        make(f"WebDataset:root={tmp_path}")
    (tmp_path / "a.tar.gz").touch()
    with pytest.raises(MissingFolderError, match=r"a\.tar\.gz is compressed.*gunzip it"):
        make(f"WebDataset:root={tmp_path}")


def test_equal_names_in_two_shards_are_refused_where_names_decide(shards, tmp_path):
    shutil.copy(shards / "a.tar", shards / "c.tar")
    assert len(make(f"WebDataset:root={shards}")) == 11
    for keys in ("noise=gauss50", "corruption=fog/3", f"denoised={tmp_path}"):
        with pytest.raises(ShardError, match=r"called n\d/000\d\.png, in a\.tar and c\.tar \(4 such names\)"):
            make(f"WebDataset:root={shards}:{keys}")


def test_a_shard_that_shrinks_while_it_is_read(shards):
    dataset = make(f"WebDataset:root={shards}")
    assert isinstance(dataset, ShardedImages)
    (shards / "a.tar").write_bytes(b"")
    with pytest.raises(ShardError, match=r"a\.tar has become shorter"):
        dataset[0]
    (shards / "a.tar").unlink()
    with pytest.raises(ShardError, match=r"cannot read the shard .*a\.tar"):
        dataset[0]
