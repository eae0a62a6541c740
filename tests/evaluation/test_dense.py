"""The dense probe from its command: real textures in planted places, a random network."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from texture_set import TEXTURES, VOID, TextureSet, write_texture_set
from typer.testing import CliRunner
from untrained_run import untrained_run

from dinov2_noise.cli import app
from dinov2_noise.errors import CheckpointError, ConfigError, MetadataError, OutputFolderError
from dinov2_noise.evaluation.dense_masks import find_labelled, read_mask
from dinov2_noise.evaluation.records import Record

pytestmark = pytest.mark.upstream


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with untrained_run(tmp_path_factory.mktemp("dense") / "arm") as folder:
        yield folder


@pytest.fixture(scope="module")
def textures(tmp_path_factory: pytest.TempPathFactory) -> TextureSet:
    return write_texture_set(tmp_path_factory.mktemp("textures"), n_train=20, n_val=6)


@pytest.fixture(scope="module")
def output(run: Path, textures: TextureSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dense") / "out"
    _evaluate(run, textures, folder, "--noise", "clean,gauss255", "--save-predictions")
    return folder


def _evaluate(run: Path, textures: TextureSet, output: Path, *more: str) -> str:
    arguments = ["evaluate", "dense", "--run", str(run), *textures.options(), "--output", str(output)]
    done = CliRunner().invoke(app, [*arguments, "--size", "128", "--workers", "0", *more])
    if done.exception is not None:
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.output


def _result(output: Path, noise: str) -> Any:
    return json.loads((output / "results" / f"arm-images-{noise}.json").read_text())


def _predicted(output: Path, noise: str, textures: TextureSet) -> list[tuple[NDArray[Any], NDArray[Any]]]:
    masks = sorted((textures.root / "val/masks").iterdir())
    return [(read_mask(output / "predictions" / noise / mask.name), read_mask(mask)) for mask in masks]


def test_tokens_tell_textures_apart_and_colours_do_not(textures: TextureSet, output: Path) -> None:
    clean = _result(output, "clean")
    assert clean["classes"] == list(TEXTURES)
    assert clean["scores"]["tokens"]["miou"] > clean["scores"]["colours"]["miou"] + 0.15
    assert clean["scores"]["tokens"]["miou"] > clean["majority"]["miou"] + 0.15
    noisy = _result(output, "gauss255")
    assert noisy["scores"]["tokens"]["miou"] < clean["scores"]["tokens"]["miou"] - 0.1
    assert (clean["snr_db"], 0 < noisy["snr_db"] < 3) == (None, True)


def test_scores_are_those_of_the_written_predictions(textures: TextureSet, output: Path) -> None:
    for noise in ("clean", "gauss255"):
        pairs = _predicted(output, noise, textures)
        ious = []
        for number in range(3):
            hits = union = 0
            for told, mask in pairs:
                counted = mask != VOID
                hits += int(((told == number) & (mask == number)).sum())
                union += int((((told == number) | (mask == number)) & counted).sum())
            ious.append(hits / union)
        right = sum(int((told == mask).sum()) for told, mask in pairs)
        pixels = sum(int((mask != VOID).sum()) for _, mask in pairs)
        found = _result(output, noise)["scores"]["tokens"]
        assert found["iou"] == pytest.approx(ious, abs=1e-12)
        assert found["miou"] == pytest.approx(np.mean(ious), abs=1e-12)
        assert found["pixel_accuracy"] == pytest.approx(right / pixels, abs=1e-12)
        record = Record.load(output / f"records/arm-dense_miou-images-{noise}.json")
        assert (record.value, record.n_images, record.seed) == (found["miou"], 6, 5)
        assert record.interval95 == tuple(found["miou95"])
        assert record.details["floors"]["colours"] == _result(output, noise)["scores"]["colours"]["miou"]


def test_predictions_are_plain_codes(run: Path, textures: TextureSet, output: Path) -> None:
    """The probe's own classifier, applied to one image by hand: tokens, bilinear scores, the best class."""
    from torchvision.transforms import functional as F

    from dinov2_noise.upstream.probing.dense import DenseProbe, DenseRequest
    from dinov2_noise.upstream.probing.model import load_backbone_for_evaluation

    teacher = run / "eval/training_9/teacher_checkpoint.pth"
    train, val = (
        find_labelled(textures.root / split / "images", textures.root / split / "masks") for split in ("train", "val")
    )
    request = DenseRequest(run / "config.yaml", teacher, train, val, 3, size_px=128, workers=0)
    head = DenseProbe(request).train(None)["tokens"]
    assert _result(output, "clean")["classifiers"]["tokens"] == {"l2": head.l2, "has_converged": True}
    image = F.to_tensor(Image.open(val[2].image).convert("RGB"))
    normal = F.normalize(image, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    with torch.no_grad():
        model = load_backbone_for_evaluation(run / "config.yaml", teacher)
        tokens = model.forward_features(normal[None])["x_norm_patchtokens"][0]  # type: ignore[operator]
        scores = head(tokens).T.reshape(1, 3, 8, 8)
        told = torch.nn.functional.interpolate(scores, (128, 128), mode="bilinear").argmax(dim=1)[0]
    written = read_mask(output / "predictions/clean" / val[2].mask.name)
    assert (told.numpy() == written).mean() > 0.999  # of near ties rounding decides


def test_workers_and_batches_do_not_matter(run: Path, textures: TextureSet, output: Path, tmp_path: Path) -> None:
    _evaluate(run, textures, tmp_path / "out", "--noise", "clean", "--workers", "2", "--batch-size", "5")
    found, expected = (_result(folder, "clean")["scores"]["tokens"] for folder in (tmp_path / "out", output))
    assert found["miou"] == pytest.approx(expected["miou"], abs=2e-3)


def test_the_same_command_goes_on_and_another_is_refused(
    run: Path, textures: TextureSet, output: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "out"
    shutil.copytree(output, copy)
    before = (copy / "results/arm-images-clean.json").stat().st_mtime_ns
    (copy / "results/arm-images-gauss255.json").unlink()
    printed = _evaluate(run, textures, copy, "--noise", "clean,gauss255", "--save-predictions")
    assert (copy / "results/arm-images-clean.json").stat().st_mtime_ns == before
    assert _result(copy, "gauss255") == _result(output, "gauss255")  # to the last bit
    for word in ("majority", "colours", "brick", "gauss255"):
        assert word in printed
    with pytest.raises(OutputFolderError, match=r"l2: there None, now 0\.1"):
        _evaluate(run, textures, copy, "--noise", "clean", "--save-predictions", "--l2", "0.1")
    (copy / "results/arm-images-clean.json").write_text("{}")
    with pytest.raises(CheckpointError, match="no result of a dense probe"):
        _evaluate(run, textures, copy, "--noise", "clean", "--save-predictions")


def test_images_of_several_sizes_and_few_patches(run: Path, textures: TextureSet, tmp_path: Path) -> None:
    root = tmp_path / "set"
    shutil.copytree(textures.root, root)
    for number, size in enumerate([(128, 70), (77, 128), (101, 99)]):
        for kind in ("images", "masks"):
            path = root / "val" / kind / f"{number:02d}.png"
            Image.open(path).crop((0, 0, *size)).save(path)
    other = TextureSet(root)
    _evaluate(
        run,
        other,
        tmp_path / "out",
        "--noise",
        "gauss50",
        "--train-noise",
        "clean",
        "--max-patches",
        "300",
        "--l2",
        "0.01",
    )
    found = _result(tmp_path / "out", "gauss50")
    assert found["train_noise"] == "clean"
    assert found["scores"]["tokens"]["n_images"] == 6
    assert 0 < found["scores"]["tokens"]["miou"] < 1


def test_bad_input_is_named(run: Path, textures: TextureSet, tmp_path: Path) -> None:
    root = tmp_path / "set"
    shutil.copytree(textures.root, root)
    broken = TextureSet(root)
    (root / "val/masks/03.png").unlink()
    with pytest.raises(MetadataError, match=r"1 of 6 images have no mask in .*masks:\n  03\.png"):
        _evaluate(run, broken, tmp_path / "out")
    Image.new("L", (64, 128)).save(root / "val/masks/03.png")
    with pytest.raises(MetadataError, match=r"03\.png is 64x128 px, its image .* 128x128"):
        _evaluate(run, broken, tmp_path / "out")
    Image.new("L", (128, 128), 9).save(root / "val/masks/03.png")
    with pytest.raises(MetadataError, match=r"03\.png has the class 9: .*classes\.txt names 3"):
        _evaluate(run, broken, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--noise", ""], "--noise is empty"),
        (["--l2", "0"], "--l2 0.0: auto, or a number above 0"),
        (["--l2", "much"], "--l2 'much'"),
        (["--blocks", "5"], "the last 3 can be read"),
        (["--blocks", "0"], "at least 1 of each"),
        (["--config-file", "x.yaml"], "which model?"),
    ],
    ids=lambda value: " ".join(value).strip("-") if isinstance(value, list) else "",
)
def test_wrong_options(run: Path, textures: TextureSet, tmp_path: Path, options: list[str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        _evaluate(run, textures, tmp_path / "out", *options)
    assert not (tmp_path / "out").exists()


def test_more_blocks_are_side_by_side(run: Path, textures: TextureSet, output: Path, tmp_path: Path) -> None:
    _evaluate(run, textures, tmp_path / "out", "--noise", "clean", "--blocks", "3", "--l2", "0.01")
    found = _result(tmp_path / "out", "clean")["scores"]
    assert found["tokens"]["miou"] != _result(output, "clean")["scores"]["tokens"]["miou"]
