"""Heads and neighbours against upstream's own linear.py and knn.py, and the corruption benchmark from its command."""

from __future__ import annotations

import json
import shlex
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import run_python
from omegaconf import OmegaConf
from PIL import Image
from typer.testing import CliRunner

from dinov2_noise.cli import app
from dinov2_noise.data import build_index
from dinov2_noise.demo.cells import write_cells
from dinov2_noise.errors import CheckpointError, ConfigError, DinoNoiseError
from dinov2_noise.evaluation.corruption_summary import Summary
from dinov2_noise.evaluation.counting import LoaderSettings, count
from dinov2_noise.evaluation.upstream_results import read_knn

pytestmark = pytest.mark.upstream

CELLS = ("fog/3", "gaussian_noise/3")


@dataclass(frozen=True)
class Run:
    """A network that has not been trained, labelled photographs, and what upstream's scripts found out about both."""

    folder: Path

    @property
    def config(self) -> Path:
        return self.folder / "config.yaml"

    @property
    def weights(self) -> Path:
        return self.folder / "teacher_checkpoint.pth"

    @property
    def linear(self) -> Path:
        return self.folder / "trained" / "linear"

    def dataset(self, split: str = "VAL", more: str = "") -> str:
        return f"ImageNet:split={split}:root={self.folder / 'clean'}{more}"

    def knn(self, *arguments: str) -> None:
        done = run_python(
            *("-m", "dinov2.eval.knn", "--config-file", str(self.config)),
            *("--pretrained-weights", str(self.weights), "--output-dir", str(self.folder / "knn")),
            *("--train-dataset", self.dataset("TRAIN"), "--val-dataset", self.dataset()),
            *arguments,
        )
        assert done.returncode == 0, done.stderr[-3000:]

    def command(self, output: Path) -> list[str]:
        """Of a benchmark without its classifiers, at severity 1."""
        return [
            *("evaluate", "corruptions", "--config-file", str(self.config), "--weights", str(self.weights)),
            *("--val-dataset", self.dataset(), "--severities", "1", "--noises", "none", "--workers", "1"),
            *("--output", str(output)),
        ]

    def training(self, options: list[str]) -> list[str]:
        """Of a benchmark that begins by training its classifiers with upstream's linear.py."""
        more = ("--train-dataset", self.dataset("TRAIN"), f"--linear-options={shlex.join(options)}")
        return [*self.command(self.folder / "trained"), *more]

    def request(self, **changes: Any) -> Any:
        from dinov2_noise.upstream.probing.probe import ProbeRequest

        request = ProbeRequest(self.config, self.weights, self.dataset(), self.linear, batch_size=24, workers=0)
        return replace(request, **changes)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    from dinov2_noise.upstream.backbone import build_backbone

    found = Run(tmp_path_factory.mktemp("probing"))
    write_cells(found.folder / "clean", train_grid=(3, 2), val_grid=(2, 1))
    build_index(found.folder / "clean", progress=False)
    student = {"arch": "vit_tiny", "patch_size": 32, "block_chunks": 0, "layerscale": 1.0}
    OmegaConf.save(OmegaConf.create({"student": student, "train": {"seed": 3}}), found.config)
    torch.manual_seed(0)
    state = {f"backbone.{name}": value for name, value in build_backbone(str(found.config)).state_dict().items()}
    torch.save({"teacher": state}, found.weights)
    tests = [found.dataset(more=f":corruption={cell}") for cell in CELLS]
    options = [
        *("--batch-size", "16", "--epochs", "1", "--epoch-length", "8", "--eval-period-iterations", "8"),
        *("--learning-rates", "0.01", "0.1", "1"),
        *("--test-datasets", *tests, "--test-class-mapping-fpaths", "None", "None"),
    ]
    done = CliRunner().invoke(app, [*found.training(options), "--corruptions", "none"])
    assert done.exit_code == 0, done.output
    return found


def _upstreams(run: Run) -> list[dict[str, Any]]:
    lines = (run.linear / "results_eval_linear.json").read_text().splitlines()
    return [json.loads(line)["best_classifier"] for line in lines if line.startswith("{")]


def test_cells_have_the_accuracy_that_upstreams_linear_py_finds(run: Run, tmp_path: Path) -> None:
    clean, fog, noise = _upstreams(run)
    done = CliRunner().invoke(
        app,
        [
            *("evaluate", "corruptions", "--config-file", str(run.config), "--weights", str(run.weights)),
            *("--classifiers", str(run.linear), "--val-dataset", run.dataset(), "--output", str(tmp_path)),
            *("--corruptions", "fog,gaussian_noise", "--severities", "3", "--noises", "none", "--name", "ours"),
            *("--batch-size", "24", "--workers", "1"),
        ],
    )
    assert done.exit_code == 0, done.output
    summary = Summary.load(tmp_path)
    assert summary.classifier is not None
    assert summary.classifier["name"] == clean["name"] == fog["name"] == noise["name"]
    for cell, theirs in (("clean", clean), (CELLS[0], fog), (CELLS[1], noise)):
        assert summary.cells[cell].accuracy("linear") == pytest.approx(theirs["accuracy"], abs=1e-6), cell
    assert len({clean["accuracy"], fog["accuracy"], noise["accuracy"]}) > 1
    assert (summary.model, summary.seed, summary.n_classes, summary.missing) == ("ours", 3, 12, [])
    assert {path.name for path in tmp_path.glob("*.png")} == {"heatmap-linear.png", "curves-linear.png"}
    with Image.open(tmp_path / "heatmap-linear.png") as picture:
        assert picture.width > 500


def test_neighbours_vote_as_in_upstreams_knn_py(run: Run, tmp_path: Path) -> None:
    from dinov2_noise.upstream.probing.probe import open_probe

    run.knn("--nb_knn", "1", "5", "20", "--batch-size", "24")
    request = run.request(classifiers=None, train_dataset=run.dataset("TRAIN"), knn=(1, 5, 20))
    probe = open_probe(request, keep=tmp_path)
    assert probe.kinds == ("knn1", "knn5", "knn20")
    ((_, found),) = count([run.dataset()], probe.predict, probe.settings, description="test")
    theirs = read_knn(run.folder / "knn" / "results_eval_knn.json")
    assert {f"knn{k}": value for k, value in theirs.items()} == pytest.approx(
        {kind: right / found.n_images for kind, right in found.right.items()}
    )
    # The second time features come from the disk, and are the same.
    (kept,) = tmp_path.glob("features-*.pt")
    before = kept.stat().st_mtime_ns
    again = open_probe(request, keep=tmp_path)
    assert kept.stat().st_mtime_ns == before
    assert probe.neighbours is not None
    assert again.neighbours is not None
    assert torch.equal(again.neighbours.features, probe.neighbours.features)
    with pytest.raises(ConfigError, match="1 to the 72"):
        open_probe(replace(request, knn=(100,)), keep=tmp_path)


def test_heads_that_do_not_fit_are_refused(run: Run, tmp_path: Path) -> None:
    from dinov2_noise.upstream.probing.heads import read_heads, require_fit
    from dinov2_noise.upstream.probing.model import FeatureModel, load_backbone_for_evaluation
    from dinov2_noise.upstream.probing.probe import open_probe

    model = FeatureModel(load_backbone_for_evaluation(run.config, run.weights))
    heads = read_heads(run.linear)
    assert len(heads) == 3 * 2 * 2
    assert [head.weight.shape[1] // 192 for head in heads[::3]] == [1, 2, 4, 5]
    require_fit(heads, model, 12, run.linear)
    with pytest.raises(CheckpointError, match="12 classes apart, the validation images have 10"):
        require_fit(heads, model, 10, run.linear)
    narrow = [replace(heads[0], weight=heads[0].weight[:, :96])]
    with pytest.raises(CheckpointError, match="tokens of 96 numbers, the backbone's have 192"):
        require_fit(narrow, model, 12, run.linear)
    with pytest.raises(CheckpointError, match="no last_checkpoint"):
        read_heads(tmp_path)
    with pytest.raises(CheckpointError, match="holds no heads"):
        read_heads(run.weights)
    (tmp_path / "other.yaml").write_text(run.config.read_text().replace("32", "16"))
    with pytest.raises(CheckpointError, match="patch size"):
        open_probe(run.request(config_file=tmp_path / "other.yaml"), keep=tmp_path)
    with pytest.raises(ConfigError, match="nothing to probe with"):
        open_probe(run.request(classifiers=None), keep=tmp_path)


def test_the_choice_is_made_once_and_kept(run: Run, tmp_path: Path) -> None:
    from dinov2_noise.upstream.probing.probe import open_probe

    probe = open_probe(run.request(), keep=tmp_path)
    (kept,) = tmp_path.glob("classifier-*.json")
    content = json.loads(kept.read_text())
    assert probe.choice is not None
    assert probe.choice.name == content["name"]
    assert content["right"][content["name"]] == max(content["right"].values())
    other = next(name for name in content["right"] if name != probe.choice.name)
    kept.write_text(json.dumps({**content, "name": other}))
    again = open_probe(run.request(), keep=tmp_path)
    assert again.head is not None
    assert again.head.name == other
    for damaged in ("{", "{}", json.dumps({**content, "name": "gone"})):
        kept.write_text(damaged)
        with pytest.raises(CheckpointError, match="tells no classifier"):
            open_probe(run.request(), keep=tmp_path)


def test_official_geometry_leaves_images_of_224_px_as_they_are() -> None:
    from dinov2_noise.upstream.probing.model import eval_transform

    small = Image.effect_noise((224, 224), 60).convert("RGB")
    large = small.resize((320, 300))
    official, upstream = eval_transform("official"), eval_transform("upstream")
    from dinov2.data.transforms import MaybeToTensor, make_normalize_transform

    untouched = make_normalize_transform()(MaybeToTensor()(small))
    assert torch.equal(official(small), untouched)
    assert not torch.allclose(upstream(small), untouched, atol=0.5)
    assert torch.equal(official(large), upstream(large))


def test_it_trains_heads_once_and_goes_on(run: Run, tmp_path: Path) -> None:
    """The fixture's command has trained them; the second adds a corruption; then another model's folder is refused."""
    parameters = json.loads((run.folder / "trained/manifest.json").read_text())["parameters"]
    again = run.training(parameters["classifiers"]["options"])
    heads = run.linear / "model_final.pth"
    trained = heads.stat().st_mtime_ns
    done = CliRunner().invoke(app, [*again, "--corruptions", "brightness", "--shard", "2/2"])
    assert done.exit_code == 0, done.output
    assert heads.stat().st_mtime_ns == trained
    assert list(Summary.load(run.folder / "trained").cells) == ["clean", "brightness/1"]
    other = CliRunner().invoke(app, [*again, "--corruptions", "none", "--knn", "5"])
    assert isinstance(other.exception, DinoNoiseError)
    assert "already holds other results" in str(other.exception)
    # The heads of measured cells are gone: new ones are others.
    shutil.copytree(run.folder / "trained", tmp_path / "moved", ignore=shutil.ignore_patterns("linear"))
    lost = [str(tmp_path / "moved") if word == str(run.folder / "trained") else word for word in again]
    assert "holds results of its heads" in str(CliRunner().invoke(app, lost).exception)


def test_folders_of_corrupted_images(run: Run, tmp_path: Path) -> None:
    for name in ("fog/1", "fog/2"):
        shutil.copytree(run.folder / "clean/val", tmp_path / "c" / name)
    command = [*run.command(tmp_path / "out"), "--classifiers", str(run.linear), "--corruptions", "fog,snow"]
    stored = [*command, "--imagenet-c", str(tmp_path / "c")]
    refused = CliRunner().invoke(app, stored)
    assert "lacks 1 of 2 cells: snow/1" in str(refused.exception)
    allowed = CliRunner().invoke(app, [*stored, "--allow-missing"])
    assert allowed.exit_code == 0, allowed.output
    summary = Summary.load(tmp_path / "out")
    assert summary.missing == ["snow/1"]
    # Copies of the clean images, hence the very same classes and numbers.
    assert summary.cells["fog/1"].right == summary.cells["clean"].right
    # The missing cell comes later: it is added, and the others stay as they are.
    shutil.copytree(run.folder / "clean/val", tmp_path / "c/snow/1")
    kept = (tmp_path / "out/cells/fog-1.json").stat().st_mtime_ns
    completed = CliRunner().invoke(app, stored)
    assert completed.exit_code == 0, completed.output
    assert (tmp_path / "out/cells/fog-1.json").stat().st_mtime_ns == kept
    assert (Summary.load(tmp_path / "out").missing, list(Summary.load(tmp_path / "out").cells)) == (
        [],
        ["clean", "snow/1", "fog/1"],
    )
    (tmp_path / "c").rename(tmp_path / "d")
    refused = CliRunner().invoke(app, [*command, "--imagenet-c", str(tmp_path / "d")])
    assert "imagenet_c: there" in str(refused.exception)


def test_files_that_do_not_fit_leave_no_folder_behind(run: Run, tmp_path: Path) -> None:
    command = [*run.command(tmp_path / "out"), "--corruptions", "none"]
    refused = CliRunner().invoke(app, [*command, "--classifiers", str(run.weights)])
    assert "holds no heads" in str(refused.exception)
    assert not (tmp_path / "out").exists()
    assert CliRunner().invoke(app, [*command, "--classifiers", str(run.linear)]).exit_code == 0


def test_options_that_contradict_each_other_are_refused(run: Run, tmp_path: Path) -> None:
    base = ["evaluate", "corruptions", "--config-file", str(run.config), "--weights", str(run.weights)]
    base += ["--val-dataset", run.dataset(), "--output", str(tmp_path)]
    for more, named in (
        ([], "--train-dataset"),
        (["--knn-only"], "nothing to probe with"),
        (["--classifiers", str(run.linear), "--knn", "5"], "k-NN needs"),
        (["--classifiers", str(run.linear), "--knn", "x"], "--knn 'x'"),
        (["--classifiers", str(run.linear), "--geometry", "x"], "--geometry"),
        (["--classifiers", str(run.linear), "--shard", "0/1"], "is not i/n"),
        (["--classifiers", str(run.linear), "--corruptions", "fogg"], "unknown corruption"),
        (["--train-dataset", run.dataset("TRAIN"), "--shard", "1/2"], "--shard needs trained classifiers"),
        (["--train-dataset", run.dataset("TRAIN"), "--linear-options", "'"], "No closing quotation"),
        (["--classifiers", str(run.linear), "--knn-only"], "--knn-only and --classifiers"),
        (["--classifiers", str(run.linear), "--linear-options", "--epochs 1"], "--linear-options is for"),
        (["--classifiers", str(run.linear), "--imagenet-c", "c", "--seed", "1"], "leave out --size, --seed"),
        (["--classifiers", str(run.linear), "--size", "0"], "size=PIXELS"),
    ):
        found = CliRunner().invoke(app, [*base, *more])
        assert named in str(found.exception), more
        assert not list(tmp_path.iterdir()), more


def test_features_are_upstreams(run: Run) -> None:
    """The class token of the last block is what the model itself returns: one forward pass serves both probes."""
    from dinov2_noise.upstream.probing.model import FeatureModel, load_backbone_for_evaluation

    backbone = load_backbone_for_evaluation(run.config, run.weights)
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    tokens = FeatureModel(backbone)(images)
    assert len(tokens) == 4
    assert tokens[-1][0].shape == (2, 4, 192)
    with torch.inference_mode():
        torch.testing.assert_close(tokens[-1][1], backbone(images))
    assert not backbone.training
    settings = LoaderSettings(torch.nn.Identity(), 1)
    assert settings.workers == 4
