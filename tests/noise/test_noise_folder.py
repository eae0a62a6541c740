"""add-noise: the same bytes whatever the workers and interruptions, and every refusal."""

import hashlib
import json
import multiprocessing
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from dinov2_noise.errors import ConfigError, ImageError, MissingFolderError, NoiseNameError, OutputFolderError
from dinov2_noise.noise import Gaussian, Shot, add_noise
from dinov2_noise.noise import folder as folder_module
from dinov2_noise.noise_cli import noise_app

NAMES = [f"train/n0{c}/n0{c}_{i}.{suffix}" for c in "12" for i, suffix in enumerate(["JPEG", "png", "jpg", "webp"] * 5)]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    root = tmp_path / "clean"
    rng = np.random.default_rng(0)
    for name in NAMES:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (9 + len(name) % 3, 13, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / name)
    (root / "labels.txt").write_text("n01,one\nn02,two\n")
    return root


def _content(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != "manifest.json"
    }


def _manifest(folder: Path) -> dict:
    return json.loads((folder / "manifest.json").read_text())


@pytest.fixture
def spawning():
    before = multiprocessing.get_start_method(allow_none=True)
    multiprocessing.set_start_method("spawn", force=True)
    yield
    multiprocessing.set_start_method(before, force=True)


@pytest.mark.parametrize("noise", ["gauss255", "shot1", "speckle0.7"])
def test_folder_equals_the_recipe(source, tmp_path, noise):
    assert add_noise(source, tmp_path / "out", noise=noise, workers=1, progress=False) == len(NAMES)
    formulas = {
        "gauss255": lambda x, rng: x + rng.normal(size=x.shape, scale=1.0),
        "shot1": lambda x, rng: rng.poisson(x * 1) / 1,
        "speckle0.7": lambda x, rng: x + x * rng.normal(size=x.shape, scale=0.7),
    }
    for name in NAMES:
        seed = int(hashlib.md5(f"{name}_42".encode()).hexdigest(), 16) % 2**32
        with Image.open(source / name) as image:
            clean = np.asarray(image.convert("RGB")) / 255.0
        expected = (np.clip(formulas[noise](clean, np.random.default_rng(seed)), 0, 1) * 255).astype(np.uint8)
        with Image.open((tmp_path / "out" / name).with_suffix(".png")) as made:
            assert made.mode == "RGB"
            np.testing.assert_array_equal(np.asarray(made), expected)
    written = _content(tmp_path / "out")
    assert len(written) == len(NAMES) + 1
    assert written["labels.txt"] == (source / "labels.txt").read_bytes()
    manifest = _manifest(tmp_path / "out")
    assert manifest["complete"] is True
    assert manifest["images"] == len(NAMES)
    assert manifest["command"] == "add-noise"
    assert manifest["parameters"] == {"source": str(source), "noise": noise, "seed": 42, "format": "png"}


def test_bytes_do_not_depend_on_the_number_of_workers(source, tmp_path):
    for workers in (1, 2):
        add_noise(source, tmp_path / f"out{workers}", noise=Gaussian(100), workers=workers, progress=False)
    assert _content(tmp_path / "out1") == _content(tmp_path / "out2")


def test_spawned_workers_do_the_same(source, tmp_path, spawning):
    add_noise(source, tmp_path / "one", noise=Shot(3), workers=1, progress=False)
    add_noise(source, tmp_path / "two", noise=Shot(3), workers=2, progress=False)
    assert _content(tmp_path / "one") == _content(tmp_path / "two")


def test_progress_goes_to_standard_error(source, tmp_path, capfd):
    add_noise(source, tmp_path / "out", noise="gauss50", workers=2)
    captured = capfd.readouterr()
    assert f"{len(NAMES)}/{len(NAMES)}" in captured.err
    assert captured.out == ""


@pytest.mark.parametrize("workers", [1, 2])
def test_unreadable_image_fails_the_job_but_not_the_other_images(source, tmp_path, workers):
    add_noise(source, tmp_path / "whole", noise="gauss255", workers=1, progress=False)
    broken, intact = source / NAMES[3], (source / NAMES[3]).read_bytes()
    broken.write_bytes(intact[: len(intact) // 2])
    out = tmp_path / "out"
    with pytest.raises(ImageError, match=f"1 of {len(NAMES)} images failed") as caught:
        add_noise(source, out, noise="gauss255", workers=workers, progress=False)
    assert str(broken) in str(caught.value)
    assert _manifest(out)["complete"] is False
    assert len(_content(out)) == len(NAMES)  # all but one, and labels.txt
    broken.write_bytes(intact)
    assert add_noise(source, out, noise="gauss255", workers=workers, progress=False) == 1
    assert _manifest(out)["complete"] is True
    assert _content(out) == _content(tmp_path / "whole")


def test_many_unreadable_images_are_counted_and_five_named(source, tmp_path):
    for name in NAMES[:7]:
        (source / name).write_bytes(b"")
    with pytest.raises(ImageError, match="7 of 40 images failed") as caught:
        add_noise(source, tmp_path / "out", noise="gauss255", workers=1, progress=False)
    assert sum(str(source / name) in str(caught.value) for name in NAMES) == 5
    assert "2 more" in str(caught.value)


def test_interrupted_run_continues_to_the_same_bytes(source, tmp_path, monkeypatch):
    add_noise(source, tmp_path / "whole", noise="gauss255", workers=1, progress=False)
    out, real = tmp_path / "out", folder_module.noisy_uint8
    calls = []

    def interrupted(*args, **kwargs):
        calls.append(1)
        if len(calls) > 10:
            raise KeyboardInterrupt
        return real(*args, **kwargs)

    monkeypatch.setattr(folder_module, "noisy_uint8", interrupted)
    with pytest.raises(KeyboardInterrupt):
        add_noise(source, out, noise="gauss255", workers=1, progress=False)
    monkeypatch.undo()
    assert _manifest(out)["complete"] is False
    done = {path: path.stat().st_mtime_ns for path in out.rglob("*.png")}
    assert len(done) == 10
    assert add_noise(source, out, noise="gauss255", workers=2, progress=False) == len(NAMES) - 10
    assert _content(out) == _content(tmp_path / "whole")
    assert all(path.stat().st_mtime_ns == when for path, when in done.items())
    assert add_noise(source, out, noise="gauss255", workers=2, progress=False) == 0


@pytest.mark.parametrize("change", [{"noise": "gauss100"}, {"base_seed": 1}, {"source": "other"}])
def test_other_parameters_into_the_same_folder_are_refused(source, tmp_path, change):
    out = tmp_path / "out"
    add_noise(source, out, noise="gauss255", workers=1, progress=False)
    before = _content(out)
    second = source
    if "source" in change:
        second = source.rename(tmp_path / change.pop("source"))
    with pytest.raises(OutputFolderError, match="already holds other results"):
        add_noise(second, out, **{"noise": "gauss255", **change}, workers=1, progress=False)
    assert _content(out) == before


def test_folder_with_files_of_someone_else_is_refused(source, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("keep")
    with pytest.raises(OutputFolderError, match="not empty"):
        add_noise(source, tmp_path / "out", noise="gauss255", workers=1, progress=False)


@pytest.mark.parametrize("inside", ["", "noisy", "train/../noisy"])
def test_destination_in_the_source_is_refused(source, inside):
    with pytest.raises(OutputFolderError, match="lies in the source"):
        add_noise(source, source / inside, noise="gauss255", workers=1, progress=False)
    assert not (source / "manifest.json").exists()


def test_destination_that_a_link_puts_in_the_source_is_refused(source, tmp_path):
    (tmp_path / "link").symlink_to(source)
    with pytest.raises(OutputFolderError, match="lies in the source"):
        add_noise(source, tmp_path / "link" / "noisy", noise="gauss255", workers=1, progress=False)


def test_two_sources_of_one_output_are_named(source, tmp_path):
    Image.new("RGB", (8, 8)).save(source / "train/n01/n01_0.png")
    with pytest.raises(OutputFolderError) as caught:
        add_noise(source, tmp_path / "out", noise="gauss255", workers=1, progress=False)
    assert "train/n01/n01_0.JPEG and train/n01/n01_0.png" in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_bad_arguments(source, tmp_path):
    with pytest.raises(NoiseNameError, match="gauss50"):
        add_noise(source, tmp_path / "out", noise="gaussian", progress=False)
    with pytest.raises(ConfigError, match="at least 1"):
        add_noise(source, tmp_path / "out", noise="gauss50", workers=0, progress=False)
    with pytest.raises(MissingFolderError, match="does not exist"):
        add_noise(tmp_path / "nowhere", tmp_path / "out", noise="gauss50", progress=False)
    (tmp_path / "empty").mkdir()
    with pytest.raises(MissingFolderError, match="holds no images"):
        add_noise(tmp_path / "empty", tmp_path / "out", noise="gauss50", progress=False)
    assert not (tmp_path / "out").exists()
    for shard in [(0, 4), (5, 4), (1, 0)]:
        with pytest.raises(ConfigError, match="does not exist"):
            add_noise(source, tmp_path / "out", noise="gauss50", shard=shard, progress=False)
    with pytest.raises(ConfigError, match=r"does not keep noise.*85 of 255"):
        add_noise(source, tmp_path / "out", noise="gauss50", image_format="jpg", progress=False)
    with pytest.raises(ConfigError, match="0 or more"):
        add_noise(source, tmp_path / "out", noise="gauss50", skip_bad=-1, progress=False)
    assert not (tmp_path / "out").exists()


def test_webp_has_the_same_pixels(source, tmp_path):
    add_noise(source, tmp_path / "png", noise="gauss255", workers=1, progress=False)
    add_noise(source, tmp_path / "webp", noise="gauss255", workers=1, image_format="webp", progress=False)
    assert {path.suffix for path in (tmp_path / "webp").rglob("n0*_*.*")} == {".webp"}
    for name in NAMES:
        png, webp = ((tmp_path / kind / name).with_suffix(f".{kind}") for kind in ("png", "webp"))
        with Image.open(png) as expected, Image.open(webp) as made:
            np.testing.assert_array_equal(np.asarray(made), np.asarray(expected))
    assert _manifest(tmp_path / "webp")["parameters"]["format"] == "webp"


def test_one_folder_holds_one_format(source, tmp_path):
    add_noise(source, tmp_path / "out", noise="gauss255", workers=1, progress=False)
    with pytest.raises(OutputFolderError, match="format: there 'png', now 'webp'"):
        add_noise(source, tmp_path / "out", noise="gauss255", workers=1, image_format="webp", progress=False)


@pytest.mark.parametrize("noise", ["shot3", "correlated50_1", "gauss5-50"])
def test_shards_together_write_what_one_run_writes(source, tmp_path, noise):
    add_noise(source, tmp_path / "whole", noise=noise, workers=1, progress=False)
    out, made = tmp_path / "out", []
    for number in (3, 1, 2):
        made.append(add_noise(source, out, noise=noise, workers=1, shard=(number, 3), progress=False))
        assert _manifest(out)["complete"] is (number == 2)
    assert made == [13, 14, 13]
    assert _content(out) == _content(tmp_path / "whole")
    assert (out / "manifest.json").read_bytes() == (tmp_path / "whole" / "manifest.json").read_bytes()
    assert add_noise(source, out, noise=noise, workers=1, shard=(1, 3), progress=False) == 0
    assert _manifest(out)["complete"] is True


def test_a_whole_run_finishes_what_shards_left(source, tmp_path):
    out = tmp_path / "out"
    add_noise(source, out, noise="gauss50", workers=1, shard=(2, 2), progress=False)
    assert add_noise(source, out, noise="gauss50", workers=2, progress=False) == 20
    assert _manifest(out)["complete"] is True


def _break(source, *names):
    for name in names:
        (source / name).write_bytes((source / name).read_bytes()[:60])


def test_bad_images_are_left_out_up_to_the_number_allowed(source, tmp_path, capsys):
    _break(source, NAMES[0], NAMES[21])
    out = tmp_path / "out"
    with pytest.raises(ImageError, match="2 of 40 images failed, and --skip-bad allows 1"):
        add_noise(source, out, noise="gauss50", workers=1, skip_bad=1, progress=False)
    assert _manifest(out)["complete"] is False
    assert add_noise(source, out, noise="gauss50", workers=1, skip_bad=2, progress=False) == 0
    manifest = _manifest(out)
    assert manifest["complete"] is True
    assert manifest["images"] == 38
    assert manifest["skipped"] == sorted(str(source / name) for name in (NAMES[0], NAMES[21]))
    assert "left out 2 of 40 images" in capsys.readouterr().err


@pytest.mark.parametrize("last", [1, 2])
def test_shards_agree_on_the_images_left_out(source, tmp_path, last):
    """NAMES[0] belongs to the first shard: whichever is last lists it."""
    _break(source, NAMES[0])
    out = tmp_path / "out"
    for number in (3 - last, last):
        add_noise(source, out, noise="gauss50", workers=1, skip_bad=1, shard=(number, 2), progress=False)
        assert _manifest(out)["complete"] is (number == last)
    assert _manifest(out)["skipped"] == [str(source / NAMES[0])]
    assert _manifest(out)["images"] == 39


def _run(*arguments):
    return CliRunner().invoke(noise_app, list(map(str, arguments)))


def test_command_line(source, tmp_path):
    out = tmp_path / "out"
    arguments = ("add-noise", source, out, "--noise", "poissongauss30_5", "--format", "webp", "--workers", 1)
    first = _run(*arguments, "--shard", "1/2")
    assert (first.exit_code, "20 images written; not complete yet" in first.output) == (0, True)
    second = _run(*arguments, "--shard", "2/2", "--skip-bad", 3, "--range", "dtype")
    assert (second.exit_code, second.output.endswith("20 images written\n")) == (0, True)
    assert _manifest(out)["parameters"]["noise"] == "poissongauss30_5"
    listed = _run("add-noise", "--list")
    assert listed.exit_code == 0
    assert "poissongauss<l>_<s>" in listed.output
    assert isinstance(_run(*arguments, "--shard", "0/4").exception, ConfigError)
