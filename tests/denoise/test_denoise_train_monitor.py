"""What can be watched while a denoiser is trained: curves, pictures, PSNR; and that watching changes nothing."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from dinov2_noise.denoise import apply_denoiser, train_denoiser
from dinov2_noise.denoise.images import Chosen, open_source
from dinov2_noise.denoise.monitor import SAMPLES, JsonLines
from dinov2_noise.denoise.samples import choose_samples, draw_samples
from dinov2_noise.denoise.validation import Validation
from dinov2_noise.errors import ConfigError, MissingFolderError, PairError
from neighbor2neighbor import Trainer, load_checkpoint

QUICK: dict[str, Any] = {"batch_size": 2, "crop_px": 64, "n_feature": 4, "device": "cpu", "progress": False}
FOUR = {f"{name}.png": (64, 70) for name in "abcd"}
Make = Callable[..., Path]


def weights_of(path: Path) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in load_checkpoint(path).parameters()])


def lines(path: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def curves(folder: Path) -> dict[str, dict[int, float]]:
    """Points by name and step; a step that stands twice fails."""
    events = EventAccumulator(str(folder))
    events.Reload()
    found = {}
    for tag in events.Tags()["scalars"]:
        points = events.Scalars(tag)
        found[tag] = {point.step: point.value for point in points}
        assert len(found[tag]) == len(points), tag
    return found


@contextmanager
def interruption_before(step: int) -> Iterator[None]:
    take_step = Trainer._take_step

    def interrupt(self: Trainer, batch: torch.Tensor) -> Any:
        if self.step == step - 1:
            raise KeyboardInterrupt
        return take_step(self, batch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "_take_step", interrupt)
        yield


def test_watching_does_not_change_the_weights(make_images: Make, tmp_path: Path) -> None:
    noisy, clean = make_images(tmp_path / "noisy", FOUR), make_images(tmp_path / "clean", FOUR)
    settings = {**QUICK, "steps": 4, "ema": 0.9}
    expected = weights_of(train_denoiser(noisy, tmp_path / "blind", **settings, sample_every=0))
    watched = train_denoiser(noisy, tmp_path / "out", **settings, sample_every=1, validation=(noisy, clean))
    assert torch.equal(weights_of(watched), expected)
    assert (tmp_path / "out" / "loss.jsonl").read_text() == (tmp_path / "blind" / "loss.jsonl").read_text()
    assert len(list((tmp_path / "out" / "samples").iterdir())) == 4
    assert not (tmp_path / "blind" / "samples").exists()


def test_pictures_are_spread_over_the_run_and_curves_are_those_of_the_log(
    make_images: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert SAMPLES == 20
    monkeypatch.setattr("dinov2_noise.denoise.monitor.SAMPLES", 4)
    train_denoiser(make_images(tmp_path / "noisy", {"a.png": (64, 64)}), tmp_path / "out", **QUICK, steps=14)
    steps = [int(path.stem.removeprefix("step_")) for path in sorted((tmp_path / "out" / "samples").iterdir())]
    assert steps == [3, 6, 9, 12, 14]
    found = curves(tmp_path / "out" / "tensorboard")
    log = lines(tmp_path / "out" / "loss.jsonl")
    names = ("loss", "reconstruction", "regularization", "learning_rate", "weight")
    assert {*found} == {"train/images_per_s", *(f"train/{name}" for name in names)}
    for name in names:
        assert found[f"train/{name}"] == pytest.approx({int(line["step"]): line[name] for line in log}, rel=1e-6)
    assert all(speed > 0 for speed in found["train/images_per_s"].values())


def test_continued_run_has_each_point_once(make_images: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noisy, clean = make_images(tmp_path / "noisy", FOUR), make_images(tmp_path / "clean", FOUR)
    monkeypatch.setattr("dinov2_noise.denoise.train._SNAPSHOTS", 2)  # after steps 5 and 10
    settings = {**QUICK, "steps": 10, "sample_every": 3, "validation": (noisy, clean)}
    train_denoiser(noisy, tmp_path / "whole", **settings)
    with interruption_before(9), pytest.raises(KeyboardInterrupt):
        train_denoiser(noisy, tmp_path / "out", **settings)
    assert [line["step"] for line in lines(tmp_path / "out" / "validation.jsonl")] == [3, 6]
    train_denoiser(noisy, tmp_path / "out", **settings)
    for name in ("loss.jsonl", "validation.jsonl"):
        assert (tmp_path / "out" / name).read_text() == (tmp_path / "whole" / name).read_text()
    found = curves(tmp_path / "out" / "tensorboard")
    assert list(found["train/loss"]) == [*range(1, 11)]
    assert list(found["validation/psnr_db"]) == [3, 6, 9, 10]
    pictures = [
        {path.name: path.read_bytes() for path in (tmp_path / run / "samples").iterdir()} for run in ("out", "whole")
    ]
    assert pictures[0] == pictures[1]
    assert {*pictures[0]} == {"step_0000003.png", "step_0000006.png", "step_0000009.png", "step_0000010.png"}


def test_log_is_cut_at_a_step_and_where_a_power_cut_has_spoilt_it(tmp_path: Path) -> None:
    log = JsonLines(tmp_path / "log.jsonl")
    good = b"".join(b'{"step": %d}\n' % step for step in range(1, 4))
    for spoilt in (
        b'{"step": 4, "cut',
        b"\0" * 40,
        b"\0" * 40 + b'\n{"step": 2}\n',
        b"\xff\n",
        b'{"stap": 1}\n',
        b"3\n",
    ):
        log.path.write_bytes(good + spoilt)
        log.cut(3)
        assert log.path.read_bytes() == good
    log.cut(2)
    assert log.path.read_bytes() == good[: 2 * len(good) // 3]


def test_continued_run_without_validation_keeps_no_scores_of_lost_steps(
    make_images: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noisy, clean = make_images(tmp_path / "noisy", FOUR), make_images(tmp_path / "clean", FOUR)
    settings = {**QUICK, "steps": 4, "sample_every": 1}
    monkeypatch.setattr("dinov2_noise.denoise.train._SNAPSHOTS", 2)
    with interruption_before(4), pytest.raises(KeyboardInterrupt):
        train_denoiser(noisy, tmp_path / "out", **settings, validation=(noisy, clean))
    assert [line["step"] for line in lines(tmp_path / "out" / "validation.jsonl")] == [1, 2, 3]
    train_denoiser(noisy, tmp_path / "out", **settings)
    assert [line["step"] for line in lines(tmp_path / "out" / "validation.jsonl")] == [1, 2]


def test_validation_is_the_psnr_of_what_apply_writes(
    make_images: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    noisy = make_images(tmp_path / "noisy", FOUR)
    clean = make_images(
        tmp_path / "clean", {"b.png": (64, 70), "a.png": (64, 70), "c.png": (64, 70), "d.png": (64, 70)}
    )
    settings = {**QUICK, "stride": 1, "ema": 0.5, "steps": 3, "sample_every": 2}
    weights = train_denoiser(noisy, tmp_path / "out", **settings, validation=(noisy, clean))
    apply_denoiser(noisy, tmp_path / "denoised", weights=weights, device="cpu", progress=False)

    def psnr_db(folder: Path) -> float:
        values = []
        for name in FOUR:
            pair = [np.asarray(Image.open(root / name), dtype=float) for root in (folder, clean)]
            values.append(10 * np.log10(255**2 / max(np.mean((pair[0] - pair[1]) ** 2), 1e-3)))
        return float(np.mean(values))

    first, last = lines(tmp_path / "out" / "validation.jsonl")
    assert (first["step"], last["step"], last["images"]) == (2, 3, 4)
    assert last["psnr_db"] == pytest.approx(psnr_db(tmp_path / "denoised"), abs=0.01)  # batches may round differently
    assert last["noisy_psnr_db"] == pytest.approx(psnr_db(noisy), abs=1e-9)
    assert curves(tmp_path / "out" / "tensorboard")["validation/psnr_db"][3] == pytest.approx(last["psnr_db"])
    said = f"validation: {last['psnr_db']:.2f} dB denoised, {last['noisy_psnr_db']:.2f} dB noisy"
    assert said in capsys.readouterr().err


def test_twins_of_another_suffix_missing_ones_and_other_sizes(make_images: Make, tmp_path: Path) -> None:
    noisy = make_images(tmp_path / "noisy", {"v/a.png": (64, 64), "v/b.png": (64, 64)})
    clean = make_images(tmp_path / "clean", {"v/a.bmp": (64, 64)})
    with pytest.raises(
        PairError, match=r"1 of 2 validation images in .*noisy have no clean twin .*clean.*\n  v/b\.png"
    ):
        train_denoiser(noisy, tmp_path / "out", **QUICK, steps=1, validation=(noisy, clean))
    assert not (tmp_path / "out").exists()
    with pytest.raises(MissingFolderError, match=r"folder of clean validation images .* does not exist"):
        train_denoiser(noisy, tmp_path / "out", **QUICK, steps=1, validation=(noisy, tmp_path / "absent"))
    make_images(clean, {"v/b.webp": (64, 65)})
    with pytest.raises(
        PairError, match=r"sizes of 1 of 2 validation pairs differ:\n .*b\.png is 64x64 px, .*b\.webp is 65x64 px"
    ):
        train_denoiser(noisy, tmp_path / "out", **QUICK, steps=1, validation=(noisy, clean))
    assert not (tmp_path / "out").exists()
    make_images(clean, {"v/b.webp": (64, 64)})
    assert Validation(noisy, clean).twins == ["v/a.bmp", "v/b.webp"]
    with pytest.raises(ConfigError, match="sample_every must not be negative"):
        train_denoiser(noisy, tmp_path / "out", **QUICK, steps=1, sample_every=-1)


_opened: list[str] | None = None


def _note_opened(event: str, arguments: tuple[Any, ...]) -> None:
    if _opened is not None and event in ("open", "os.listdir", "os.scandir") and isinstance(arguments[0], (str, Path)):
        _opened.append(str(arguments[0]))


def test_no_clean_image_is_opened_unless_for_validation(
    make_images: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noisy, clean = make_images(tmp_path / "set" / "noisy", FOUR), make_images(tmp_path / "set" / "clean", FOUR)
    sys.addaudithook(_note_opened)  # stays for the rest of the process, and then does nothing

    def opened(name: str, **options: Any) -> set[str]:
        monkeypatch.setattr(sys.modules[__name__], "_opened", [])
        train_denoiser(noisy, tmp_path / name, **QUICK, steps=2, **options)
        files = list(_opened or [])
        monkeypatch.setattr(sys.modules[__name__], "_opened", None)
        return {
            Path(path).relative_to(tmp_path / "set").parts[0]
            for path in files
            if path.startswith(str(tmp_path / "set"))
        }

    assert opened("blind") == {"noisy"}
    assert opened("measured", validation=(noisy, clean)) == {"noisy", "clean"}


def test_without_tensorboard_one_line_says_so(
    make_images: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    noisy = make_images(tmp_path / "noisy", FOUR)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard.writer", None)
    train_denoiser(noisy, tmp_path / "out", **QUICK, steps=3)
    assert capsys.readouterr().err.count("no TensorBoard curves, for lack of the package: pip install tensorboard") == 1
    assert not (tmp_path / "out" / "tensorboard").exists()


def test_picture_shows_the_centres_noisy_denoised_and_clean(make_images: Make, tmp_path: Path) -> None:
    noisy = make_images(tmp_path / "noisy", {f"{name}.png": (300, 700) for name in "abcdefgh"})
    clean = make_images(tmp_path / "clean", {f"{number}/{'long' * 20}.png": (96, 80) for number in range(2)})
    images = Chosen(open_source(noisy), [0, 2, 4, 5, 6, 7])
    samples = choose_samples(images, None, multiple_px=32)
    assert [sample.name for sample in samples] == ["a.png", "e.png", "f.png", "h.png"]
    image = images.source[0]
    assert torch.equal(samples[0].noisy, image[:, 22 : 22 + 256, 222 : 222 + 256])
    picture = np.asarray(draw_samples(samples, lambda image: 255 - image, "step 1"))
    crop = samples[0].noisy.permute(1, 2, 0).numpy()
    cells = [_place(picture, cell) for cell in (crop, 255 - crop)]
    assert cells[0][0] == cells[1][0]
    assert cells[0][1] + 256 < cells[1][1]
    pairs = choose_samples(images, Validation(clean, clean), multiple_px=32)
    assert pairs[0].noisy.shape == (3, 64, 64)
    picture = np.asarray(draw_samples(pairs, lambda image: image, "step 1"))
    large = pairs[0].noisy.permute(1, 2, 0).numpy().repeat(3, axis=0).repeat(3, axis=1)
    top, left = _place(picture, large)
    assert np.array_equal(picture[top : top + 192, left + 400 : left + 592], large)
    assert picture.shape[1] == 8 + 3 * 200


def _place(picture: np.ndarray, cell: np.ndarray) -> tuple[int, int]:
    """Where the cell stands in the picture."""
    height, width = cell.shape[:2]
    for top, left in zip(*np.nonzero((picture[: 1 - height, : 1 - width] == cell[0, 0]).all(axis=2)), strict=True):
        if np.array_equal(picture[top : top + height, left : left + width], cell):
            return int(top), int(left)
    raise AssertionError("the cell is not in the picture")
