"""Sections that need images and a network: crops, maps and neighbours of a small run with random weights."""

from __future__ import annotations

import io
import shutil
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import SmallSet
from PIL import Image
from report_files import config, write_run

from dinov2_noise.curriculum.sampler import CurriculumSampler
from dinov2_noise.errors import MissingFolderError
from dinov2_noise.evaluation.runs import located
from dinov2_noise.files import MANIFEST_NAME, read_manifest, write_json
from dinov2_noise.report import features, seen
from dinov2_noise.report.features import Extractor, Settings, feature_sections
from dinov2_noise.report.html import FigureBlock, Missing
from dinov2_noise.report.images import Choice, open_images, training_string, validation_string
from dinov2_noise.report.runs import Run, read_run

SETTINGS = Settings(n_maps=2, n_queries=2, n_neighbours=3, n_candidates=6)


def _run(folder: Path, dataset: str) -> Run:
    return read_run(write_run(folder, config(dataset)), folder.name)


def test_relative_roots_are_looked_for_above_the_run(tmp_path: Path) -> None:
    (tmp_path / "images" / "noisy").mkdir(parents=True)
    run = tmp_path / "runs" / "nct"
    run.mkdir(parents=True)
    text = "ImageNet:split=TRAIN:root=images/noisy:denoised=gone"
    assert located(text, run) == f"ImageNet:split=TRAIN:root={tmp_path}/images/noisy:denoised=gone"
    assert located("ImageFolder:root=/absolute", run) == "ImageFolder:root=/absolute"


def test_validation_images_lie_beside_the_training_images(tmp_path: Path) -> None:
    for name in ("a/train", "a/val", "b/train"):
        (tmp_path / name).mkdir(parents=True)
    assert validation_string(f"ImageNet:split=TRAIN:root={tmp_path}/a") == f"ImageNet:split=VAL:root={tmp_path}/a"
    assert validation_string(f"ImageNet:split=TRAIN:root={tmp_path}/b") is None
    assert validation_string(f"ImageFolder:root={tmp_path}/a/train:denoised=/d") == f"ImageFolder:root={tmp_path}/a/val"


def test_clean_images_come_from_the_manifest_the_noise_or_the_user(tmp_path: Path, small_set: SmallSet) -> None:
    stored = open_images(_run(tmp_path / "stored", small_set.pair()), Choice())
    assert (stored.clean_root, stored.noise_label, stored.is_validation) == (small_set.clean, "gauss100", True)
    name, clean = stored.original(3) or ("", None)
    assert name == "clean"
    assert np.array_equal(np.asarray(clean), np.asarray(Image.open(small_set.clean / _source(small_set, stored, 3))))
    on_the_fly = f"ImageNet:split=TRAIN:root={small_set.clean}:noise=gauss100"
    made = open_images(_run(tmp_path / "made", on_the_fly), Choice())
    assert np.array_equal(np.asarray(made.noisy(3)), np.asarray(stored.noisy(3)))  # the same realisation
    assert np.array_equal(np.asarray(made.clean(3)), np.asarray(clean))
    other = open_images(_run(tmp_path / "other", small_set.pair()), Choice(noise="gauss50"))
    assert other.noise_label == "gauss50"
    assert not np.array_equal(np.asarray(other.noisy(3)), np.asarray(stored.noisy(3)))
    folder = open_images(
        _run(tmp_path / "gone", "ImageNet:split=TRAIN:root=gone"), Choice(images=small_set.clean / "val")
    )
    assert (folder.noise_label, folder.has_labels, len(folder)) == ("gauss100", True, 10)
    with pytest.raises(MissingFolderError, match="--clean"):
        open_images(_run(tmp_path / "x", small_set.pair()), Choice(clean=tmp_path / "nowhere"))


def test_what_the_files_hold_is_told_from_their_manifest(tmp_path: Path, small_set: SmallSet) -> None:
    denoised = tmp_path / "set"
    shutil.copytree(small_set.denoised, denoised)
    noisy = read_manifest(small_set.noisy)["parameters"]
    parameters = {"source": str(small_set.noisy), "source_parameters": noisy}
    write_json(denoised / MANIFEST_NAME, {"command": "denoise apply", "parameters": parameters, "complete": True})
    shutil.copytree(Path(f"{small_set.denoised}-extra"), tmp_path / "set-extra")
    strings = {
        "noisy": small_set.pair(),
        "denoised": f"ImageNet:split=TRAIN:root={denoised}",
        "as stored": f"ImageNet:split=TRAIN:root={small_set.clean}",
    }
    found = {form: open_images(_run(tmp_path / form, text), Choice()) for form, text in strings.items()}
    assert {form: images.form for form, images in found.items()} == {form: form for form in strings}
    assert (found["denoised"].noise_label, found["denoised"].clean_root) == ("gauss100-denoised", small_set.clean)
    assert found["as stored"].noise_label == "of unknown noise"


def _source(small_set: SmallSet, images: Any, index: int) -> Path:
    stem = Path(images.name(index)).with_suffix("")
    return next(small_set.clean.glob(f"{stem}.*")).relative_to(small_set.clean)


def test_noise_without_clean_images_is_refused_and_a_missing_set_named(tmp_path: Path, small_set: SmallSet) -> None:
    lonely = tmp_path / "copy"
    (lonely / "train").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(lonely / "train" / "a.png")
    images = open_images(_run(tmp_path / "a", f"ImageFolder:root={lonely}"), Choice())
    assert images.original(0) is None
    gone = _run(tmp_path / "lost", "ImageNet:split=TRAIN:root=gone")
    (block,) = seen.seen_section([gone]).blocks
    assert isinstance(block, Missing)
    assert "gone does not exist" in block.text


class _Planted:
    """In place of a network: the class token is the mean colour, patch tokens are the pixels of an 8 x 8 thumbnail."""

    def __call__(self, images: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
        small = torch.nn.functional.adaptive_avg_pool2d(images, 8)
        return [(small.flatten(2).transpose(1, 2), images.mean(dim=(2, 3)))]


def test_neighbours_and_maps_of_planted_features(
    tmp_path: Path, small_set: SmallSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Any] = []
    monkeypatch.setattr(features, "neighbour_sheet", lambda rows, shown: drawn.append(rows) or _pixel())
    images = open_images(_run(tmp_path / "nct", small_set.pair()), Choice())

    def transform(image: Image.Image) -> torch.Tensor:
        return torch.from_numpy(np.asarray(image, np.float32) / 255 - 0.5).permute(2, 0, 1)

    extractor = Extractor(_Planted(), transform)
    run = read_run(tmp_path / "nct", "nct")
    block = features._neighbours(run, images, extractor, Settings(n_queries=2, n_neighbours=3, n_candidates=10))
    assert isinstance(block, FigureBlock)
    means = np.array([transform(images.noisy(index)).mean(dim=(1, 2)).numpy() for index in range(10)])
    unit = means / np.linalg.norm(means, axis=1, keepdims=True)
    for query, (_, others) in zip((2, 7), drawn[0], strict=True):
        order = [int(other) for other in np.argsort(-(unit @ unit[query]), kind="stable") if other != query][:3]
        assert [other.cosine for other in others] == pytest.approx(
            [float(unit[o] @ unit[query]) for o in order], abs=1e-6
        )
        assert [other.is_right for other in others] == [o // 2 == query // 2 for o in order]
    maps = features._maps(run, images, extractor, SETTINGS)
    assert isinstance(maps, FigureBlock)
    assert "clean and noisy" in maps.alt


def _pixel() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (2, 2)).save(buffer, "PNG")
    return buffer.getvalue()


def _check_the_crops(run: Run, small_set: SmallSet, folder: Path) -> None:
    """Those that a sampler of two processes, run from the beginning, hands to the first of them in the second stage."""
    from dinov2_noise.upstream.preview import Preview

    preview = Preview(run.config_file)
    sampler = CurriculumSampler(len(preview.dataset), 4, preview.curriculum, seed=0, rank=0, world_size=2)
    expected = [draw for draw in islice(sampler, 4 * 31) if draw.iteration == 30][:3]
    assert preview.first_draws(1, 3, world_size=2) == expected
    assert [draw.number for draw in expected] == [240, 241, 242]
    log = folder / "nct" / "logs" / "log.txt"
    log.parent.mkdir()
    log.write_text("I x] dinov2-noise: this run\n  training set     1,234 images\n")
    (sheet,) = seen.seen_section([read_run(folder / "nct", "nct")]).blocks
    assert f"the run had 1,234 images, there are {len(preview.dataset)} now" in sheet.caption  # type: ignore[union-attr]


@pytest.mark.upstream
def test_a_run_with_weights_shows_crops_maps_and_neighbours(tmp_path: Path, small_set: SmallSet) -> None:
    from dinov2_noise.upstream.backbone import build_backbone

    run = _run(tmp_path / "nct", small_set.pair())
    (sheet,) = seen.seen_section([run]).blocks
    assert isinstance(sheet, FigureBlock), sheet
    assert "twins" in sheet.caption
    assert "The very crops" in sheet.caption
    _check_the_crops(run, small_set, tmp_path)
    assert training_string(run) == small_set.pair()
    (maps, neighbours) = feature_sections([run], SETTINGS, lambda _: None)
    assert "No run has written a teacher yet" in maps.blocks[0].text  # type: ignore[union-attr]
    weights = run.folder / "eval" / "training_49" / "teacher_checkpoint.pth"
    weights.parent.mkdir(parents=True)
    backbone = build_backbone(str(run.config_file))
    torch.save({"teacher": {f"backbone.{k}": v for k, v in backbone.state_dict().items()}}, weights)
    told: list[str] = []
    for section in feature_sections([run], SETTINGS, told.append):
        (block,) = section.blocks
        assert isinstance(block, FigureBlock), block
        assert Image.open(io.BytesIO(block.picture)).format == "WEBP"
    assert told == ["features of nct"]
    weights.write_bytes(weights.read_bytes()[:1000])
    maps, neighbours = feature_sections([run], SETTINGS, lambda _: None)
    assert isinstance(maps.blocks[0], Missing)
    assert isinstance(neighbours.blocks[0], Missing)
    assert "teacher_checkpoint.pth" in maps.blocks[0].text
