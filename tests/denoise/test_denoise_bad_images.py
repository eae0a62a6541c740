"""Images that cannot be read, among many: named and counted, or left out up to a number, the same after a restart."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import mounted, run_python
from PIL import Image
from torch import nn

from dinov2_noise.denoise import apply_denoiser, train_denoiser
from dinov2_noise.denoise.images import Chosen, open_source
from dinov2_noise.denoise.selection import select_images
from dinov2_noise.denoise.sizes import read_sizes
from dinov2_noise.denoise.skipping import Skipped
from dinov2_noise.errors import BusyError, CheckpointError, ConfigError, DinoNoiseError, ImageError
from dinov2_noise.files import read_manifest
from dinov2_noise.noise import add_noise
from dinov2_noise.noise.corruptions import Corruption, corrupt_folder
from dinov2_noise.writing import locked
from neighbor2neighbor import Trainer

QUICK: dict[str, Any] = {
    "steps": 8,
    "batch_size": 2,
    "crop_px": 64,
    "n_feature": 4,
    "device": "cpu",
    "sample_every": 4,
    "progress": False,
}
SIX = {f"{name}.png": (64, 70) for name in "abcdef"}
Make = Callable[..., Path]


@pytest.fixture
def noisy(make_images: Make, tmp_path: Path) -> Path:
    """``b`` has no header, ``d`` has half of its pixels."""
    folder = make_images(tmp_path / "noisy", SIX)
    content = (folder / "d.png").read_bytes()
    (folder / "b.png").write_bytes(content[:10])
    (folder / "d.png").write_bytes(content[: len(content) // 2])
    return folder


def skipped(folder: Path) -> list[str]:
    return [Path(path).name for path in read_manifest(folder)["skipped"]]


def test_a_truncated_image_is_replaced_by_the_next(noisy: Path, tmp_path: Path, capsys: Any) -> None:
    source = open_source(noisy)
    skips = Skipped(tmp_path / "skipped", 2)
    images = Chosen(source, [2, 3, 4], skipped=skips)
    assert torch.equal(images[1], source[4])
    assert torch.equal(images[0], source[2])
    assert skips.paths() == [str(noisy / "d.png")]
    again = pickle.loads(pickle.dumps(images))  # as in another process
    assert torch.equal(again[1], source[4])
    assert capsys.readouterr().err.count("warning: left out") == 1
    both = Chosen(source, [3, 1], skipped=Skipped(tmp_path / "other", 2))
    with pytest.raises(ImageError, match=r"d\.png: no image can be read"):
        both.read(0)
    with pytest.raises(ImageError, match=r"b\.png.*\(2 images cannot be read; --skip-bad allows 1\)"):
        Chosen(source, [3, 1], skipped=Skipped(tmp_path / "third", 1)).read(0)
    with pytest.raises(ImageError, match=r"d\.png: image file is truncated"):
        Chosen(source, [3, 1]).read(0)


def test_notes_of_several_processes_add_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, two = (Skipped(tmp_path / "skipped", 2) for _ in range(2))
    one.note(["x\ny.png"])
    two.add(ImageError("x\ny.png", "cut"))
    assert capsys.readouterr().err == ""  # it was named when it was noted
    two.add(ImageError("z.png", "cut"))
    assert capsys.readouterr().err == "warning: left out z.png: cut\n"
    with pytest.raises(ImageError, match=r"3 images cannot be read; --skip-bad allows 2"):
        one.add(ImageError("a.png", "cut"))
    assert one.paths() == two.paths() == ["x\ny.png", "z.png"]
    with pytest.raises(ImageError, match=r"2 images cannot be read; --skip-bad allows 1"):
        Skipped(tmp_path / "skipped", 1).add(ImageError("z.png", "cut"))
    with pytest.raises(ImageError, match=r"z\.png: cut$"):
        Skipped(tmp_path / "none", 0).add(ImageError("z.png", "cut"))
    assert one.paths() == ["x\ny.png", "z.png"]
    one.delete()
    assert two.paths() == Skipped(tmp_path / "none", 0).paths() == []


def test_an_image_is_the_same_one_from_another_folder(
    noisy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    paths = {Path("noisy"): [1, 3], Path("../" + tmp_path.name, "noisy"): [1, 3], noisy: [1, 3]}
    found = {str(open_source(folder).path(index)) for folder, indices in paths.items() for index in indices}
    assert found == {str(noisy / "b.png"), str(noisy / "d.png")}
    assert open_source("ImageFolder:root=noisy").path(1) == noisy / "b.png"
    options: dict[str, Any] = {"model": nn.Identity(), "device": "cpu", "progress": False, "skip_bad": 2}
    apply_denoiser(Path("noisy"), Path("out"), **options)
    assert read_manifest(tmp_path / "out")["skipped"] == [str(noisy / "b.png"), str(noisy / "d.png")]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_training_leaves_them_out_and_a_continued_one_ends_the_same(
    noisy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, num_workers: int
) -> None:
    settings = {**QUICK, "num_workers": num_workers, "skip_bad": 2}
    train_denoiser(noisy, tmp_path / "whole", **settings)
    manifest = read_manifest(tmp_path / "whole")
    assert skipped(tmp_path / "whole") == ["b.png", "d.png"]
    assert manifest["images"] == 5  # d is among them: its header is whole
    assert "skip_bad" not in manifest["parameters"]
    assert not list((tmp_path / "whole").glob(".*"))
    take_step = Trainer._take_step
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_take_step", lambda self, batch: 1 / 0 if self.step == 5 else take_step(self, batch))
        with pytest.raises(ZeroDivisionError):
            train_denoiser(noisy, tmp_path / "out", **settings)
    assert (tmp_path / "out" / ".snapshot.pth").is_file()
    train_denoiser(noisy, tmp_path / "out", **settings)
    for name in ("denoiser.pth", "loss.jsonl", "manifest.json"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_run_that_a_truncated_image_has_stopped_continues_with_skip_bad(
    make_images: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dinov2_noise.denoise.train.CACHE_BYTES", 0)
    noisy = make_images(tmp_path / "noisy", SIX)
    settings = {**QUICK, "sample_every": 0, "steps": 12}
    take_step = Trainer._take_step
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_take_step", lambda self, batch: 1 / 0 if self.step == 3 else take_step(self, batch))
        with pytest.raises(ZeroDivisionError):
            train_denoiser(noisy, tmp_path / "out", **settings)
    content = (noisy / "d.png").read_bytes()
    (noisy / "d.png").write_bytes(content[: len(content) // 2])
    with pytest.raises(DinoNoiseError, match=r"d\.png: image file is truncated.*\n.*--skip-bad N"):
        train_denoiser(noisy, tmp_path / "out", **settings)
    train_denoiser(noisy, tmp_path / "out", **settings, skip_bad=1)
    assert skipped(tmp_path / "out") == ["d.png"]
    # Were its header gone too, the images would be others.
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_take_step", lambda self, batch: 1 / 0 if self.step == 3 else take_step(self, batch))
        with pytest.raises(ZeroDivisionError):
            train_denoiser(noisy, tmp_path / "other", **settings, skip_bad=1)
    (noisy / "d.png").write_bytes(b"")
    with pytest.raises(CheckpointError, match="no longer those it was trained on"):
        train_denoiser(noisy, tmp_path / "other", **settings, skip_bad=1)


def test_a_finished_run_on_a_disk_that_cannot_be_written_is_left_as_it_is(
    make_images: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    noisy, settings = make_images(tmp_path / "noisy", SIX), {**QUICK, "steps": 1, "sample_every": 0}
    train_denoiser(noisy, tmp_path / "out", **settings)
    with mounted("-o", "bind,ro", tmp_path / "out", tmp_path / "out"):
        train_denoiser(noisy, tmp_path / "out", **settings)
    assert "is complete; nothing to do" in capsys.readouterr().err


def test_a_second_start_does_not_join_the_first(make_images: Make, tmp_path: Path) -> None:
    noisy, out, settings = make_images(tmp_path / "noisy", SIX), tmp_path / "out", {**QUICK, "steps": 1}
    with (
        locked(out / ".lock", "x"),
        pytest.raises(BusyError, match=r"training in .*out is being run by another process: wait for it, or end it"),
    ):
        train_denoiser(noisy, out, **settings)
    assert not (out / "loss.jsonl").exists()
    train_denoiser(noisy, out, **settings)
    assert read_manifest(out)["complete"]
    assert not list(out.glob(".*"))


def test_too_many_bad_headers_are_counted_before_the_first_step(noisy: Path, tmp_path: Path) -> None:
    for name in "ac":
        (noisy / f"{name}.png").write_bytes(b"")
    with pytest.raises(ImageError, match=r"a\.png.*\(3 of 6 images failed, and --skip-bad allows 2\)"):
        train_denoiser(noisy, tmp_path / "out", **QUICK, skip_bad=2)
    assert not (tmp_path / "out").exists()
    with pytest.raises(ConfigError, match="skip_bad must not be negative"):
        train_denoiser(noisy, tmp_path / "out", **QUICK, skip_bad=-1)


def test_apply_leaves_out_as_many_as_allowed(noisy: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"model": nn.Identity(), "device": "cpu", "progress": False}
    with pytest.raises(ImageError, match=r"2 of 6 images failed, and --skip-bad allows 1"):
        apply_denoiser(noisy, tmp_path / "out", **options, skip_bad=1)
    assert not read_manifest(tmp_path / "out")["complete"]
    assert apply_denoiser(noisy, tmp_path / "out", **options, skip_bad=2) == 0
    assert skipped(tmp_path / "out") == ["b.png", "d.png"]
    with pytest.raises(ConfigError, match="skip-bad must be 0 or more"):
        apply_denoiser(noisy, tmp_path / "out", **options, skip_bad=-1)


@pytest.mark.slow
def test_several_processes_tell_of_a_bad_image_once(noisy: Path, tmp_path: Path) -> None:
    (tmp_path / "plain.py").write_text("import torch\nmake = torch.nn.Identity\n")
    done = run_python(
        *("-m", "dinov2_noise", "denoise", "apply", "noisy", "out", "--model", "plain:make", "--gpus", "2"),
        *("--device", "cpu"),
        cwd=tmp_path,
    )
    assert done.returncode == 1
    assert done.stderr.count("d.png: image file is truncated") == 1, done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: LaunchError: process 0 ")
    assert last.endswith("(2 of 6 images failed) …")


def test_sizes_are_read_once_until_a_file_changes(
    make_images: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dinov2_noise.denoise.sizes._FEW", 2)
    noisy, cache = make_images(tmp_path / "noisy", SIX), tmp_path / ".sizes.npz"
    (noisy / "e.png").write_bytes(b"")
    source, read = open_source(noisy), []
    monkeypatch.setattr("dinov2_noise.denoise.images.image_size", _counting(read))
    first = read_sizes(source, range(6), cache)
    assert sorted(read) == sorted(SIX)
    assert first.sizes == dict.fromkeys((0, 1, 2, 3, 5), (70, 64))
    assert [failure.path.name for failure in first.failures] == ["e.png"]
    read.clear()
    make_images(noisy, {"b.png": (80, 64)})
    second = read_sizes(source, range(6), cache)
    assert sorted(read) == ["b.png", "e.png"]  # what failed is tried again
    assert second.sizes == {**first.sizes, 1: (64, 80)}
    read.clear()
    read_sizes(source, range(5), cache)
    assert len(read) == 5
    cache.write_bytes(b"spoilt")
    assert read_sizes(source, range(6), cache).sizes == second.sizes


def _counting(read: list[str]) -> Callable[[Path], tuple[int, int]]:
    from dinov2_noise.decoding import image_size

    def size(path: Path) -> tuple[int, int]:
        read.append(path.name)
        return image_size(path)

    return size


@pytest.mark.slow
def test_one_bad_image_in_ten_thousand(tmp_path: Path) -> None:
    clean, names = tmp_path / "clean", [f"n{number % 10}/{number:05}.png" for number in range(10_000)]
    rng = np.random.default_rng(0)
    for name in names:
        (clean / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(clean / name)
    bad = clean / names[4321]
    bad.write_bytes(bad.read_bytes()[:100])
    runs: dict[str, Callable[..., object]] = {
        "noisy": lambda **options: add_noise(
            clean, tmp_path / "noisy", noise="gauss50", workers=2, progress=False, **options
        ),
        "corrupt": lambda **options: corrupt_folder(
            clean, tmp_path / "corrupt", [Corruption("contrast", 1)], size_px=None, progress=False, **options
        ),
        "denoised": lambda **options: apply_denoiser(
            clean, tmp_path / "denoised", model=nn.Identity(), device="cpu", progress=False, **options
        ),
    }
    for name, run in runs.items():
        with pytest.raises(ImageError, match=rf"{bad.name}.*\(1 of 10000 images failed\)"):
            run()
        run(skip_bad=1)
        manifest = json.loads((tmp_path / name / "manifest.json").read_text())
        assert (manifest["complete"], manifest["images"], manifest["skipped"]) == (True, 9_999, [str(bad)])


def test_one_bad_image_in_a_few_hundred_is_found_by_its_header(make_images: Make, tmp_path: Path) -> None:
    noisy = make_images(tmp_path / "noisy", {f"{number:03}.png": (64, 64) for number in range(300)})
    (noisy / "123.png").write_bytes(b"no image")
    source = open_source(noisy)
    with pytest.raises(ImageError, match=r"123\.png.*\(1 of 300 images failed\)"):
        select_images(source, images_per_class=None, side_range_px=None, seed=0)
    skips = Skipped(tmp_path / "skipped", 1)
    chosen, smallest_px = select_images(source, images_per_class=None, side_range_px=None, seed=0, skipped=skips)
    assert (chosen, smallest_px) == ([number for number in range(300) if number != 123], 64)
    assert skips.paths() == [str(noisy / "123.png")]


def test_shards_that_leave_images_out_complete_the_folder(noisy: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"model": nn.Identity(), "device": "cpu", "progress": False, "skip_bad": 2}
    for number in (3, 1, 2):
        assert not (tmp_path / "out").exists() or not read_manifest(tmp_path / "out")["complete"]
        apply_denoiser(noisy, tmp_path / "out", **options, shard=(number, 3))
    assert skipped(tmp_path / "out") == ["b.png", "d.png"]
    assert read_manifest(tmp_path / "out")["images"] == 4
