"""`evaluate linear` and `evaluate knn` from the command line, on photographs, with a network of random weights."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image
from typer.testing import CliRunner

from dinov2_noise.cli import app
from dinov2_noise.demo.cells import write_cells
from dinov2_noise.errors import CheckpointError, ConfigError, DinoNoiseError, MetadataError, OutputFolderError
from dinov2_noise.evaluation.records import Record
from dinov2_noise.evaluation.upstream_results import read_knn, read_linear

pytestmark = pytest.mark.upstream


@dataclass(frozen=True)
class Setting:
    """A run that is a few seconds old, and photographs of twelve classes."""

    folder: Path

    @property
    def run(self) -> Path:
        return self.folder / "run"

    def images(self, split: str) -> str:
        return str(self.folder / "photos" / split)

    def command(self, output: Path, *more: str, probe: str = "knn") -> list[str]:
        own = ["--k", "3"] if probe == "knn" else []
        return ["evaluate", probe, "--run", str(self.run), "--output", str(output), *own, "--workers", "0", *more]

    def both(self) -> list[str]:
        return ["--train", self.images("train"), "--val", self.images("val")]


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> Setting:
    from dinov2_noise.upstream.backbone import build_backbone

    found = Setting(tmp_path_factory.mktemp("own-labels"))
    write_cells(found.folder / "photos", train_grid=(2, 2), val_grid=(2, 1))
    found.run.mkdir()
    student = {"arch": "vit_tiny", "patch_size": 112, "block_chunks": 0, "layerscale": 1.0}  # 5 tokens: fast
    OmegaConf.save(OmegaConf.create({"student": student, "train": {"seed": 3}}), found.run / "config.yaml")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        state = build_backbone(str(found.run / "config.yaml")).state_dict()
    weights = found.run / "eval" / "training_9" / "teacher_checkpoint.pth"
    weights.parent.mkdir(parents=True)
    torch.save({"teacher": {f"backbone.{name}": value for name, value in state.items()}}, weights)
    return found


def invoke(command: list[str]) -> str:
    """Its output; an error of ours is raised."""
    done = CliRunner().invoke(app, command)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.output


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def record(output: Path, metric: str, noise: str, arm: str = "run") -> Record:
    return Record.load(output / "records" / f"{arm}-{metric}-{noise}.json")


def test_a_linear_probe_leaves_records_predictions_and_pictures(setting: Setting, tmp_path: Path) -> None:
    output = tmp_path / "out"
    printed = invoke(
        setting.command(output, *setting.both(), "--noise", "clean,gauss100", "--random-floor", probe="linear")
    )
    assert "12 classes, 48 training and 24 validation images" in printed
    top1 = record(output, "logistic_top1", "gauss100")
    assert (top1.n_images, top1.seed, top1.interval95) == (24, 3, None)
    assert top1.details["noise"] == top1.details["train_noise"] == "gauss100"
    assert -3 < top1.details["snr_db"] < 6  # some of these photographs are dark
    assert record(output, "logistic_top1", "clean").details["snr_db"] is None
    told = rows(output / "linear" / "predictions" / "gauss100.csv")
    assert top1.value == pytest.approx(np.mean([row["label"] == row["predicted"] for row in told]))
    assert told[0]["path"].startswith("val/")
    assert 1 / 12 < float(told[0]["probability"]) <= 1
    classes = rows(output / "linear" / "classes-gauss100.csv")
    assert sum(int(row["right"]) for row in classes) == round(24 * top1.value)
    balanced = record(output, "logistic_balanced_accuracy", "gauss100")
    assert balanced.value == pytest.approx(top1.value)  # two images of each class
    assert balanced.interval95 is not None
    floors = top1.details["floors"]
    assert set(floors) == {"chance", "colour", "random"}
    assert floors["chance"] == pytest.approx(1 / 12)
    assert floors["colour"] > 2 / 12  # these photographs differ in tint
    with Image.open(output / "linear" / "confusion-gauss100.png") as picture:
        assert min(picture.size) > 600
    table = rows(output / "linear" / "results.csv")
    assert {row["metric"] for row in table} >= {"top1", "top5", "balanced_accuracy", "macro_f1", "chance floor, top1"}


@pytest.mark.slow
def test_knn_equals_upstreams_script_on_the_same_label_files(setting: Setting, tmp_path: Path) -> None:
    output = tmp_path / "out"
    invoke(setting.command(output, *setting.both(), "--k", "3,7", "--noise", "gauss50"))
    ours = record(output, "knn_top1", "gauss50")
    root, own = setting.folder / "photos", output / "images-val.csv"
    assert ours.dataset == f"LabelledImages:root={root}:list={own}:noise=gauss50,seed=42"
    invoke(setting.command(output, *setting.both(), "--k", "3,7", "--noise", "gauss50", "--upstream"))
    theirs = record(output, "knn_top1", "gauss50")
    assert theirs.details["probe"] == "upstream's script"
    assert read_knn(output / "upstream-knn" / "gauss50" / "results_eval_knn.json") == pytest.approx(
        {int(k): value for k, value in ours.details["top1_by_k"].items()}, abs=1e-6
    )
    assert theirs.value == pytest.approx(ours.value, abs=1e-6)


def test_workers_and_order_of_commands_do_not_matter(setting: Setting, tmp_path: Path) -> None:
    commands = [
        setting.command(tmp_path / "a", *setting.both(), "--noise", "shot3", probe="linear"),
        setting.command(tmp_path / "b", *setting.both(), "--noise", "shot3", "--workers", "2", probe="linear"),
        setting.command(tmp_path / "b", *setting.both(), "--noise", "shot3"),
    ]
    for command in commands:
        invoke(command)
    assert [len(list((tmp_path / folder / "features").iterdir())) for folder in "ab"] == [2, 2]
    first, second = (record(tmp_path / folder, "logistic_top1", "shot3") for folder in "ab")
    assert (first.value, first.details["strength"]) == (second.value, second.details["strength"])
    tables = [(tmp_path / folder / "linear" / "predictions" / "shot3.csv").read_bytes() for folder in "ab"]
    assert tables[0] == tables[1]
    assert record(tmp_path / "b", "knn_top1", "shot3").n_images == 24  # beside the linear probe, from its features


def test_kept_features_are_used_again_and_only_for_their_images(
    setting: Setting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, command = tmp_path / "out", setting.command(tmp_path / "out", *setting.both())
    invoke(command)
    kept = {path: path.stat().st_mtime_ns for path in (output / "features").iterdir()}
    invoke([*command, "--noise", "clean,gauss100"])
    now = {path: path.stat().st_mtime_ns for path in (output / "features").iterdir()}
    assert len(now) == len(kept) + 2
    assert {path: now[path] for path in kept} == kept
    next(iter(kept)).write_bytes(b"cut off")
    with pytest.raises(CheckpointError, match="cannot read the kept features"):
        invoke(command)


def test_an_exchanged_image_has_features_of_its_own(setting: Setting, tmp_path: Path) -> None:
    """The hash of the set looks into 16 of its images only; this is another one."""
    photos = tmp_path / "photos"
    shutil.copytree(setting.folder / "photos", photos)
    sets = ["--train", str(photos / "train"), "--val", str(photos / "val")]
    command = setting.command(tmp_path / "out", *sets)
    invoke(command)
    features = tmp_path / "out" / "features"
    kept = {path.name for path in features.iterdir()}
    first, second = sorted((photos / "train").rglob("*.png"))[1:3]
    first.write_bytes(second.read_bytes())
    invoke([*command, "--allow-leak"])
    assert len({path.name for path in features.iterdir()} - kept) == 1  # the training images'; not the others'


def test_a_noisy_folder_that_is_stored_equals_noise_on_the_fly(setting: Setting, tmp_path: Path) -> None:
    from dinov2_noise.noise import add_noise

    noisy = tmp_path / "noisy"
    add_noise(setting.folder / "photos", noisy, noise="gauss100", workers=1, progress=False)
    stored = ["--train", str(noisy / "train"), "--val", str(noisy / "val"), "--arm", "x"]
    invoke(setting.command(tmp_path / "stored", *stored, probe="linear"))
    invoke(setting.command(tmp_path / "flying", *setting.both(), "--noise", "gauss100", "--arm", "x", probe="linear"))
    asked = {"stored": "clean", "flying": "gauss100"}
    found = [record(tmp_path / folder, "logistic_top1", name, "x") for folder, name in asked.items()]
    assert found[0].value == found[1].value
    assert found[0].details["noise"] == found[1].details["noise"] == "gauss100"
    assert found[0].details["snr_db"] == pytest.approx(found[1].details["snr_db"])
    assert found[0].details["train_noise"] == "gauss100"


def test_cross_validation_tests_every_image_of_one_folder(setting: Setting, tmp_path: Path) -> None:
    invoke(setting.command(tmp_path / "out", "--train", setting.images("train"), "--folds", "4", probe="linear"))
    found = record(tmp_path / "out", "logistic_top1", "clean")
    assert (found.n_images, found.details["folds"], len(found.details["strength"])) == (48, 4, 4)
    assert (tmp_path / "out" / "images.csv").is_file()


def test_two_classes_in_a_csv_with_a_split_have_an_area_under_the_curve(setting: Setting, tmp_path: Path) -> None:
    names = sorted(path.relative_to(setting.folder).as_posix() for path in setting.folder.glob("photos/train/*/*.png"))
    sheet = tmp_path / "sheet.csv"
    tissue = ["1" if "retina" in name or "immuno" in name else "0" for name in names]
    sheet.write_text("path;label\n" + "".join(f"{n};{label}\n" for n, label in zip(names, tissue, strict=True)))
    command = ["--train", str(sheet), "--root", str(setting.folder), "--val-fraction", "0.5", "--noise", "fog/3"]
    invoke(setting.command(tmp_path / "out", *command))
    area = record(tmp_path / "out", "knn_auroc", "fog-3")
    assert area.interval95 is not None
    assert 0 <= area.interval95[0] <= area.value <= area.interval95[1] <= 1
    top1 = record(tmp_path / "out", "knn_top1", "fog-3")
    assert (top1.n_images, top1.details["snr_db"], top1.details["noise"]) == (24, None, "fog/3")
    assert top1.details["floors"]["chance"] == pytest.approx(1 - np.mean([label == "1" for label in tissue]), abs=0.05)


def test_a_dataset_string_is_parted_by_its_rows(setting: Setting, tmp_path: Path) -> None:
    string = f"ImageFolder:root={setting.images('train')}:labels=folders"
    invoke(setting.command(tmp_path / "out", "--train", string, "--val-fraction", "0.25"))
    found = record(tmp_path / "out", "knn_top1", "clean")
    assert (found.n_images, found.dataset, found.details["n_train"]) == (12, string, 36)
    assert len(list((tmp_path / "out" / "features").iterdir())) == 1


def _leak(setting: Setting, folder: Path) -> list[str]:
    shutil.copytree(setting.images("train"), folder / "val")
    return ["--train", setting.images("train"), "--val", str(folder / "val")]


def _half_finished(setting: Setting, folder: Path) -> list[str]:
    shutil.copytree(setting.run, folder / "run", ignore=shutil.ignore_patterns("eval"))
    return [*setting.both(), "--run", str(folder / "run")]


def _cut_off(setting: Setting, folder: Path) -> list[str]:
    shutil.copytree(setting.images("val"), folder / "cut")
    first = next(iter(sorted((folder / "cut").rglob("*.png"))))
    first.write_bytes(first.read_bytes()[:200])
    return ["--train", setting.images("train"), "--val", str(folder / "cut")]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (_leak, MetadataError, "48 of 48 validation images are training images"),
        (_half_finished, CheckpointError, "has written no eval/training_"),
        (_cut_off, DinoNoiseError, r"cannot use image .*cut"),
        (lambda s, _: [*s.both(), "--k", "49"], ConfigError, "only 48 training images can vote"),
        (lambda s, _: [*s.both(), "--k", "a"], ConfigError, "numbers of neighbours"),
        (lambda s, _: [*s.both(), "--k", "3,3"], ConfigError, "different numbers"),
        (lambda s, _: [*s.both(), "--folds", "3"], ConfigError, "leave --val or --folds out"),
        (lambda s, _: [*s.both(), "--root", "x"], ConfigError, "--root belongs to label files"),
        (lambda s, _: [*s.both(), "--weights", "x.pth"], ConfigError, "which model"),
        (lambda s, _: [*s.both(), "--geometry", "x"], ConfigError, "--geometry x"),
        (lambda s, _: ["--train", s.images("train"), "--folds", "2", "--upstream"], ConfigError, "no cross-validation"),
        (lambda s, _: ["--train", s.images("train"), "--folds", "5"], ConfigError, "smallest class .* has 4 images"),
        (lambda s, _: [*s.both(), "--upstream", "--upstream-options", "'"], ConfigError, "--upstream-options"),
    ],
    ids=[
        *("leak", "half finished", "cut off", "k", "no k", "k twice", "folds", "root", "model", "geometry", "upstream"),
        *("few images", "options"),
    ],
)
def test_bad_input_ends_in_one_error(
    setting: Setting,
    tmp_path: Path,
    options: Callable[[Setting, Path], list[str]],
    error: type[DinoNoiseError],
    message: str,
) -> None:
    with pytest.raises(error, match=message):
        invoke(setting.command(tmp_path / "out", *options(setting, tmp_path)))


def test_other_results_in_the_folder_are_not_mixed(setting: Setting, tmp_path: Path) -> None:
    invoke(setting.command(tmp_path / "out", *setting.both()))
    with pytest.raises(OutputFolderError, match="k: there 3, now 5"):
        invoke(setting.command(tmp_path / "out", *setting.both(), "--k", "5"))
    with pytest.raises(OutputFolderError, match="noise_seed: there 42, now 7"):
        invoke(setting.command(tmp_path / "out", *setting.both(), "--noise-seed", "7"))


def test_a_random_floor_leaves_the_process_its_random_numbers(setting: Setting) -> None:
    from dinov2_noise.upstream.probing.own_features import random_backbone

    before = torch.get_rng_state()
    networks = [random_backbone(str(setting.run / "config.yaml"), seed).state_dict() for seed in (0, 0, 1)]
    assert torch.equal(torch.get_rng_state(), before)
    key = "blocks.0.attn.qkv.weight"
    assert torch.equal(networks[0][key], networks[1][key])
    assert not torch.equal(networks[0][key], networks[2][key])


def test_colour_is_mean_and_histogram() -> None:
    from dinov2_noise.upstream.probing.own_features import N_BINS, colour_of

    images = torch.rand(2, 3, 5, 7, generator=torch.Generator().manual_seed(0))
    found = colour_of(images)
    assert torch.allclose(found[:, :3], images.mean(dim=(2, 3)))
    expected: Any = np.histogram(images[1, 2].numpy(), bins=N_BINS, range=(0, 1))[0] / 35
    assert found[1, 3 + 2 * N_BINS :].numpy() == pytest.approx(expected)


@pytest.mark.slow
def test_upstreams_linear_script_runs_and_is_read(setting: Setting, tmp_path: Path) -> None:
    options = "--epochs 1 --epoch-length 4 --eval-period-iterations 4 --learning-rates 0.1 --batch-size 8"
    command = setting.command(
        tmp_path / "out", *setting.both(), "--upstream", "--upstream-options", options, probe="linear"
    )
    invoke(command)
    found = record(tmp_path / "out", "linear_top1", "clean")
    assert found.details["chosen"].startswith("the best head on the validation images")
    invoke(setting.command(tmp_path / "own", *setting.both(), probe="linear"))
    assert found.details["floors"] == record(tmp_path / "own", "logistic_top1", "clean").details["floors"]
    results = tmp_path / "out" / "upstream-linear" / "clean" / "results_eval_linear.json"
    left = results.read_text()
    assert read_linear(results) == (found.details["classifier"], pytest.approx(found.value))
    invoke(command)  # read again, not run again
    assert results.read_text() == left
