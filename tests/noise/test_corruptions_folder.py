"""corrupt: the same bytes whatever the workers, shards and interruptions, and every refusal."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from dinov2_noise.cli import app
from dinov2_noise.data import build_index, find_cells, make
from dinov2_noise.decoding import DTYPE_RANGE, parse_range
from dinov2_noise.errors import ConfigError, ImageError, MissingFolderError, OutputFolderError
from dinov2_noise.noise.corruptions import Corruption, corrupt_folder, parse_size

NAMES = [f"val/n{label}/ILSVRC2012_val_{2 * label + number:08d}.JPEG" for label in range(3) for number in range(2)]
CELLS = [Corruption("fog", 3), Corruption("glass_blur", 5), Corruption("impulse_noise", 1)]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    root = tmp_path / "clean"
    rng = np.random.default_rng(0)
    for name in [*NAMES, "train/n0/n0_1.JPEG", "train/n1/n1_1.JPEG", "train/n2/n2_1.JPEG"]:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        coarse = Image.fromarray(rng.integers(0, 256, (6, 7, 3), dtype=np.uint8))
        coarse.resize((70, 60), Image.Resampling.BICUBIC).save(root / name, quality=95)
    (root / "labels.txt").write_text("n0,zero\nn1,one\nn2,two\n")
    build_index(root, progress=False)
    return root


def _content(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != "manifest.json")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def _is_complete(folder: Path) -> bool:
    return json.loads((folder / "manifest.json").read_text())["complete"]


def _corrupt(source: Path, out: Path, **options) -> int:
    return corrupt_folder(source, out, CELLS, **{"size_px": 56, "workers": 1, "progress": False, **options})


def test_each_cell_is_a_root_of_its_own(source, tmp_path):
    out = tmp_path / "out"
    assert _corrupt(source, out) == len(NAMES)
    content = _content(out)
    images = {f"{cell.label}/{Path(name).with_suffix('.png')}" for cell in CELLS for name in NAMES}
    assert set(content) == images | {f"{cell.label}/labels.txt" for cell in CELLS}
    assert content["fog/3/labels.txt"] == (source / "labels.txt").read_bytes()
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["parameters"] == {
        "source": str(source),
        "corruptions": ["fog/3", "glass_blur/5", "impulse_noise/1"],
        "seed": 42,
        "size": 56,
        "format": "png",
    }
    assert manifest["complete"] is True


@pytest.mark.parametrize(("size", "option"), [(56, "56"), (None, "full")])
def test_folder_equals_the_dataset_string_in_every_pixel(source, tmp_path, size, option):
    out = tmp_path / "out"
    _corrupt(source, out, size_px=size, base_seed=7)
    for cell in CELLS:
        live = make(f"ImageNet:split=VAL:root={source}:corruption={cell.label},seed=7,size={option}")
        stored = make(f"ImageNet:split=VAL:root={out / cell.label}:extra={source}-extra")
        plain = make(f"ImageNetC:root={out / cell.label}:extra={source}-extra")
        for index in range(len(NAMES)):
            expected, target = live[index]
            assert expected.size == ((56, 56) if size else (70, 60))
            for dataset in (stored, plain):
                np.testing.assert_array_equal(np.asarray(dataset[index][0]), np.asarray(expected))
                assert dataset[index][1] == target == index // 2
    assert [cell.corruption for cell in find_cells(out, CELLS)] == CELLS


def test_bytes_do_not_depend_on_workers_shards_or_interruptions(source, tmp_path):
    _corrupt(source, tmp_path / "one")
    whole = _content(tmp_path / "one")
    _corrupt(source, tmp_path / "two", workers=2)
    assert _content(tmp_path / "two") == whole
    shards = tmp_path / "shards"
    assert _corrupt(source, shards, shard=(2, 2)) == 3
    assert not _is_complete(shards)
    with pytest.raises(MissingFolderError, match="not complete"):
        find_cells(shards)
    assert _corrupt(source, shards, shard=(1, 2)) == 3
    assert _is_complete(shards)
    assert _content(shards) == whole
    gone = [shards / name for name in sorted(whole) if name.endswith(".png")][::4]
    for path in gone:
        path.unlink()
    kept = {path: path.stat().st_mtime_ns for path in shards.rglob("*.png")}
    assert _corrupt(source, shards, workers=2) == len({path.name for path in gone})
    assert _content(shards) == whole
    assert all(path.stat().st_mtime_ns == when for path, when in kept.items())
    assert _corrupt(source, shards) == 0


@pytest.mark.parametrize("workers", [1, 2])
def test_bad_images_are_named_and_the_others_done(source, tmp_path, workers):
    (source / NAMES[1]).write_bytes(b"")
    Image.new("RGB", (40, 9)).save(source / NAMES[4])
    out = tmp_path / "out"
    with pytest.raises(ImageError, match="2 of 6 images failed") as caught:
        _corrupt(source, out, workers=workers, size_px=None)
    assert str(source / NAMES[1]) in str(caught.value)
    assert f"{source / NAMES[4]}: it is 40x9 px, and glass_blur/5 needs sides of at least 16 px" in str(caught.value)
    assert not _is_complete(out)
    assert len(list((out / "glass_blur").rglob("*.png"))) == 4


@pytest.mark.parametrize("shards", [1, 2, 3])
def test_a_few_bad_images_may_be_left_out_whichever_shard_meets_them(source, tmp_path, shards):
    (source / NAMES[1]).write_bytes(b"")
    (source / NAMES[2]).write_bytes((source / NAMES[2]).read_bytes()[:300])
    out = tmp_path / "out"
    for number in range(1, shards + 1):
        assert not (out / "manifest.json").exists() or not _is_complete(out)
        _corrupt(source, out, shard=(number, shards), skip_bad=2)
    manifest = json.loads((out / "manifest.json").read_text())
    assert (manifest["complete"], manifest["images"]) == (True, 4)
    assert manifest["skipped"] == [str(source / name) for name in NAMES[1:3]]
    with pytest.raises(ImageError, match="2 of 6 images failed, and --skip-bad allows 1"):
        _corrupt(source, out, skip_bad=1)
    assert not _is_complete(out)
    Image.new("RGB", (70, 60)).save(source / NAMES[1])
    assert _corrupt(source, out, skip_bad=1) == 1
    assert json.loads((out / "manifest.json").read_text())["skipped"] == [str(source / NAMES[2])]


def test_a_deep_image_is_corrupted_in_the_range_that_is_given(tmp_path):
    (tmp_path / "deep").mkdir()
    deep = np.linspace(0, 4000, 64 * 64).reshape(64, 64).astype(np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep" / "a.png")
    (tmp_path / "plain").mkdir()
    plain = np.rint(deep / 4000 * 255).astype(np.uint8)
    Image.fromarray(plain).convert("RGB").save(tmp_path / "plain" / "a.png")
    for name, values in (("deep", parse_range("fixed:0,4000")), ("plain", DTYPE_RANGE)):
        _corrupt(tmp_path / name, tmp_path / f"{name}-out", values=values)
    found, expected = (_content(tmp_path / f"{name}-out") for name in ("deep", "plain"))
    assert found == expected
    parameters = json.loads((tmp_path / "deep-out" / "manifest.json").read_text())["parameters"]
    assert parameters["range"] == "fixed:0,4000"
    with pytest.raises(OutputFolderError, match="range: there 'fixed:0,4000', now None"):
        _corrupt(tmp_path / "deep", tmp_path / "deep-out")


def test_a_tree_without_val_is_taken_whole(source, tmp_path):
    _corrupt(source / "val", tmp_path / "out")
    assert (tmp_path / "out/fog/3/n1/ILSVRC2012_val_00000002.png").is_file()


def test_refusals(source, tmp_path):
    out = tmp_path / "out"
    _corrupt(source, out)
    for change in ({"base_seed": 1}, {"size_px": 48}):
        with pytest.raises(OutputFolderError, match="already holds other results"):
            _corrupt(source, out, **change)
    with pytest.raises(OutputFolderError, match="already holds other results"):
        corrupt_folder(source, out, CELLS[:1], size_px=56, workers=1, progress=False)
    (source / "manifest.json").write_text('{"command": "add-noise", "parameters": {"noise": "gauss50"}}')
    with pytest.raises(OutputFolderError, match=r"source_parameters: there None, now .'noise': 'gauss50'"):
        _corrupt(source, out)
    with pytest.raises(OutputFolderError, match="lies in the source"):
        _corrupt(source, source / "out")
    with pytest.raises(MissingFolderError, match="does not exist"):
        _corrupt(tmp_path / "nowhere", tmp_path / "new")
    with pytest.raises(ConfigError, match="at least 1"):
        _corrupt(source, tmp_path / "new", workers=0)
    with pytest.raises(ConfigError, match="shard 3 of 2"):
        _corrupt(source, tmp_path / "new", shard=(3, 2))
    assert not (tmp_path / "new").exists()


def test_options_of_the_command():
    assert (parse_size("224"), parse_size("full")) == (224, None)
    for text in ("0", "-5", "half", ""):
        with pytest.raises(ConfigError, match="or full"):
            parse_size(text)


def test_the_command(source, tmp_path):
    out = tmp_path / "out"
    options = ["--corruptions", "contrast,fog", "--severities", "2", "--size", "full", "--seed", "5", "--workers", "1"]
    for shard, expected in (("2/2", "3 images written; not complete yet: other shards"), ("1/2", "3 images written\n")):
        command = ["corrupt", str(source), str(out), *options, "--shard", shard]
        done = CliRunner().invoke(app, command, catch_exceptions=False)
        assert done.exit_code == 0
        assert f"2 corruptions of {expected}" in done.output
    live = make(f"ImageNet:split=VAL:root={source}:corruption=fog/2,seed=5,size=full")
    for index, name in enumerate(NAMES):
        with Image.open(out / "fog/2" / Path(name).with_suffix(".png")) as stored:
            np.testing.assert_array_equal(np.asarray(stored), np.asarray(live[index][0]))
