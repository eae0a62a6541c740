"""Retrieval from its command, on real photographs in the layout of the official sets, with a random network."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from retrieval_set import RetrievalSet, write_retrieval_set
from typer.testing import CliRunner
from untrained_run import untrained_run

from dinov2_noise.cli import app
from dinov2_noise.denoise.apply import apply_denoiser
from dinov2_noise.errors import CheckpointError, ConfigError, ImageError, MetadataError, OutputFolderError
from dinov2_noise.evaluation.records import Record
from dinov2_noise.noise import add_noise, noisy_uint8, parse
from neighbor2neighbor import UNet, save_checkpoint

pytestmark = pytest.mark.upstream

SIZE = 64


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with untrained_run(tmp_path_factory.mktemp("retrieval") / "arm") as folder:
        yield folder


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> RetrievalSet:
    return write_retrieval_set(tmp_path_factory.mktemp("photographs") / "roxford5k")


@pytest.fixture(scope="module")
def output(run: Path, photographs: RetrievalSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of one command: clean and noisy queries, clean and noisy database."""
    folder = tmp_path_factory.mktemp("retrieval") / "out"
    noises = ("--query-noise", "clean,gauss100", "--database-noise", "clean,gauss100")
    _evaluate(run, photographs, folder, *noises)
    return folder


def _evaluate(run: Path, photographs: RetrievalSet, output: Path, *more: str) -> str:
    arguments = [
        "evaluate",
        "retrieval",
        "--run",
        str(run),
        "--output",
        str(output),
        "--size",
        str(SIZE),
        "--workers",
        "0",
    ]
    if "--ground-truth" not in more:
        arguments += ["--dataset", "roxford5k", "--root", str(photographs.root)]
    done = CliRunner().invoke(app, [*arguments, *more])
    if done.exception is not None:
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.output


def _result(output: Path, pair: str) -> Any:
    return json.loads((output / "results" / f"arm-roxford5k-{pair}.json").read_text())


def _plain_features(run: Path, images: Sequence[Image.Image]) -> NDArray[np.float64]:
    """One image at a time through torchvision's transforms and the whole network."""
    from torchvision.transforms import functional as F

    from dinov2_noise.upstream.probing.model import load_backbone_for_evaluation

    model = load_backbone_for_evaluation(run / "config.yaml", run / "eval/training_9/teacher_checkpoint.pth")
    found = []
    for image in images:
        resized = F.resize(image, round(SIZE * 256 / 224), F.InterpolationMode.BICUBIC)
        tensor = F.to_tensor(F.center_crop(resized, SIZE))
        normal = F.normalize(tensor, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
        with torch.no_grad():
            found.append(model(normal[None])[0].double().numpy())
    return np.stack([token / np.linalg.norm(token) for token in found])


def _slow_map(similarity: NDArray[np.float64], truth: dict[str, Any], positive: str, junk: str) -> float:
    total = 0.0
    for row, entry in zip(similarity, truth["gnd"], strict=True):
        left_out = [*entry["junk"], *entry[junk]]
        place = found = 0
        area, before = 0.0, 1.0
        for image in sorted(range(len(row)), key=lambda image: -row[image]):
            if image in left_out:
                continue
            place += 1
            found += image in entry[positive]
            if image in entry[positive]:
                area += (before + found / place) / 2 / len(entry[positive])
            before = found / place
        total += area
    return total / len(similarity)


def test_map_is_that_of_plain_code(run: Path, photographs: RetrievalSet, output: Path) -> None:
    truth = photographs.truth
    database = [Image.open(photographs.root / "jpg" / f"{name}.jpg") for name in truth["imlist"]]
    queries, ratios = [], []
    for name, entry in zip(truth["qimlist"], truth["gnd"], strict=True):
        clean = np.asarray(Image.open(photographs.root / "jpg" / f"{name}.jpg"))
        noisy = noisy_uint8(clean, parse("gauss100"), relative_path=f"jpg/{name}.jpg", base_seed=42)
        error = ((noisy / 255 - clean / 255) ** 2).mean()
        ratios.append(10 * np.log10(((clean / 255) ** 2).mean() / error))
        queries.append(Image.fromarray(noisy).crop(tuple(round(side) for side in entry["bbx"])))
    similarity = _plain_features(run, queries) @ _plain_features(run, database).T
    found = _result(output, "q-gauss100-db-clean")
    for protocol, positive, junk in (("easy", "easy", "hard"), ("hard", "hard", "easy")):
        expected = _slow_map(similarity, truth, positive, junk)
        assert found["scores"][protocol]["map"] == pytest.approx(expected, abs=1e-12)
        assert found["scores"][protocol]["n_queries"] == 6
        record = Record.load(output / f"records/arm-retrieval_map_{protocol}-roxford5k-q-gauss100-db-clean.json")
        assert (record.value, record.n_images, record.seed) == (pytest.approx(expected, abs=1e-12), 6, 5)
        assert record.interval95 is not None
        assert record.interval95[0] < expected < record.interval95[1]
        assert record.details["noise"] == "gauss100"
        assert record.details["snr_db"] == pytest.approx(np.mean(ratios), abs=1e-9)
    assert _result(output, "q-clean-db-clean")["snr_db"] == {"query": None, "database": None}


def test_other_views_of_a_photograph_are_found(output: Path) -> None:
    found = _result(output, "q-clean-db-clean")
    assert found["chance"]["easy"]["map"] == pytest.approx(0.10, abs=0.05)  # 2 of 24
    # even a random network sees that two framings of a picture are alike
    assert found["scores"]["easy"]["map"] > 0.7
    assert found["colours"]["easy"]["map"] > 0.9
    assert found["scores"]["hard"]["map"] < found["scores"]["easy"]["map"]


def test_the_second_time_nothing_is_computed(
    run: Path, photographs: RetrievalSet, output: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "out"
    shutil.copytree(output, copy)
    kept = sorted((copy / "features").iterdir())
    assert len(kept) == 4
    before = [path.stat().st_mtime_ns for path in kept]
    printed = _evaluate(run, photographs, copy, "--query-noise", "gauss100")
    assert [path.stat().st_mtime_ns for path in sorted((copy / "features").iterdir())] == before
    assert _result(copy, "q-gauss100-db-clean") == _result(output, "q-gauss100-db-clean")
    assert "chance" in printed
    assert "colours" in printed
    # another size is another set of features, beside them; its result takes no other's place
    smaller = ("--query-noise", "gauss100", "--size", "32")
    with pytest.raises(OutputFolderError, match=r"model.size_px: there 64, now 32(.|\n)*another --name"):
        _evaluate(run, photographs, copy, *smaller)
    assert len(list((copy / "features").iterdir())) == 4
    _evaluate(run, photographs, copy, *smaller, "--name", "small")
    assert len(list((copy / "features").iterdir())) == 6


def test_workers_and_batches_do_not_matter(run: Path, photographs: RetrievalSet, output: Path, tmp_path: Path) -> None:
    _evaluate(run, photographs, tmp_path / "out", "--query-noise", "gauss100", "--workers", "2", "--batch-size", "7")
    found, expected = (_result(folder, "q-gauss100-db-clean") for folder in (tmp_path / "out", output))
    for protocol in ("easy", "medium", "hard"):
        assert found["scores"][protocol]["map"] == pytest.approx(expected["scores"][protocol]["map"], abs=1e-12)


def test_a_stored_noisy_folder_gives_what_noise_on_the_fly_gives(
    run: Path, photographs: RetrievalSet, output: Path, tmp_path: Path
) -> None:
    add_noise(photographs.root, tmp_path / "noisy", noise="gauss100", workers=1, progress=False)
    stored = ("--query-root", str(tmp_path / "noisy"), "--database-root", str(tmp_path / "noisy"))
    _evaluate(run, photographs, tmp_path / "out", *stored)
    found, expected = _result(tmp_path / "out", "q-noisy-db-noisy"), _result(output, "q-gauss100-db-gauss100")
    assert found["scores"] == expected["scores"]
    assert found["colours"] == expected["colours"]


def test_a_denoiser_on_the_fly_gives_what_a_denoised_folder_gives(
    run: Path, photographs: RetrievalSet, tmp_path: Path
) -> None:
    denoiser = tmp_path / "denoiser.pth"
    save_checkpoint(denoiser, UNet(n_feature=4, residual=True, generator=torch.Generator().manual_seed(0)))
    add_noise(photographs.root, tmp_path / "noisy", noise="gauss50", workers=1, progress=False)
    apply_denoiser(tmp_path / "noisy", tmp_path / "denoised", weights=denoiser, progress=False, device="cpu")
    fly = ("--query-noise", "gauss50", "--denoiser", str(denoiser), "--denoise", "queries")
    _evaluate(run, photographs, tmp_path / "out", *fly)
    _evaluate(run, photographs, tmp_path / "out", "--query-root", str(tmp_path / "denoised"))
    found, stored = (_result(tmp_path / "out", f"q-{label}-db-clean") for label in ("gauss50+denoised", "denoised"))
    assert found["colours"] == stored["colours"]
    for protocol in ("easy", "medium", "hard"):
        assert found["scores"][protocol]["map"] == pytest.approx(stored["scores"][protocol]["map"], abs=1e-3)
    noisy_features = len(list((tmp_path / "out/features").iterdir()))
    assert noisy_features == 3  # the clean database's once


def test_whole_queries_are_other_queries(run: Path, photographs: RetrievalSet, output: Path, tmp_path: Path) -> None:
    _evaluate(run, photographs, tmp_path / "out", "--whole-queries")
    found, cropped = (_result(folder, "q-clean-db-clean") for folder in (tmp_path / "out", output))
    assert (found["queries_cropped"], cropped["queries_cropped"]) == (False, True)
    assert found["scores"]["hard"] != cropped["scores"]["hard"]


def test_any_set_is_read_from_json(run: Path, photographs: RetrievalSet, output: Path, tmp_path: Path) -> None:
    truth = json.loads(json.dumps(photographs.truth, default=lambda array: array.tolist()))
    truth["gnd"][0] = {**truth["gnd"][0], "hard": []}
    truth["imlist"].append(truth["qimlist"][1])  # a query that finds itself
    file = tmp_path / "own.json"
    file.write_text(json.dumps(truth))
    own = ("--ground-truth", str(file), "--images", str(photographs.root / "jpg"))
    printed = _evaluate(run, photographs, tmp_path / "out", *own, "--name", "mine")
    found = json.loads((tmp_path / "out/results/mine-own-q-clean-db-clean.json").read_text())
    assert [found["scores"][protocol]["n_queries"] for protocol in ("easy", "medium", "hard")] == [6, 6, 5]
    assert found["scores"]["hard"]["average_precision"][0] is None
    assert "hard: 1 of 6 queries have no positive" in printed
    assert "1 queries are in the database, too" in printed


def test_bad_input_is_named(run: Path, photographs: RetrievalSet, tmp_path: Path) -> None:
    lacking = tmp_path / "lacking"
    shutil.copytree(photographs.root, lacking)
    for view in ("easy0", "hard1"):
        (lacking / f"jpg/coffee_{view}.jpg").unlink()
    there = RetrievalSet(lacking, photographs.truth)
    with pytest.raises(MetadataError, match=r"2 of the 30 images that .*gnd_roxford5k\.pkl names.*\n  coffee_easy0"):
        _evaluate(run, there, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    shutil.copytree(photographs.root / "jpg", lacking / "jpg", dirs_exist_ok=True)
    (lacking / "jpg/rocket_hard0.jpg").write_bytes((lacking / "jpg/rocket_hard0.jpg").read_bytes()[:500])
    with pytest.raises(ImageError, match=r"rocket_hard0\.jpg"):
        _evaluate(run, there, tmp_path / "out")
    other = {**photographs.truth, "imlist": photographs.truth["imlist"][:20]}
    (lacking / "gnd_roxford5k.pkl").write_bytes(pickle.dumps(other))
    with pytest.raises(MetadataError, match=r"has index 20, beyond the 20 images"):
        _evaluate(run, there, tmp_path / "out")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--query-root", "x", "--query-noise", "gauss50"], "leave out --query-noise"),
        (["--query-noise", ""], "--query-noise is empty"),
        (["--denoise", "all"], "valid are both, queries, database"),
        (["--dataset", "oxford"], "valid are roxford5k, rparis6k"),
        (["--size", "63"], "multiple of the backbone's patch size, 16"),
        (["--batch-size", "0"], "batch size 0"),
        (["--ground-truth", "x.pkl"], "give --dataset and --root"),
        (["--weights", "x.pth"], "which model?"),
    ],
    ids=lambda value: value[0].strip("-") if isinstance(value, list) else "",
)
def test_options_that_contradict_each_other(
    run: Path, photographs: RetrievalSet, tmp_path: Path, options: list[str], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        _evaluate(run, photographs, tmp_path / "out", *options)


def test_weights_of_a_diverged_run_are_named(run: Path, photographs: RetrievalSet, tmp_path: Path) -> None:
    broken = tmp_path / "arm"
    shutil.copytree(run, broken)
    file = broken / "eval/training_9/teacher_checkpoint.pth"
    content = torch.load(file, weights_only=True)
    content["teacher"]["backbone.norm.weight"].fill_(torch.nan)
    torch.save(content, file)
    with pytest.raises(CheckpointError, match="features of clean images are not finite"):
        _evaluate(broken, photographs, tmp_path / "out")


def test_another_commands_folder_is_left_alone(run: Path, photographs: RetrievalSet, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("words")
    with pytest.raises(OutputFolderError, match="not empty"):
        _evaluate(run, photographs, tmp_path)
