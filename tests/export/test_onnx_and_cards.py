"""ONNX files, and model cards: what they say, and that their code runs."""

from __future__ import annotations

import re
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from tiny_run import picture

import dinov2_noise
from dinov2_noise.errors import CheckpointError
from dinov2_noise.evaluation.records import Record
from dinov2_noise.export import ExportRequest, export
from dinov2_noise.noise import add_noise

pytestmark = pytest.mark.upstream
CURRICULUM = {
    "curriculum": {
        "stages": [
            {"name": "denoised", "epochs": 12, "view": "denoised", "schedule_epochs": 20},
            {"name": "noisy", "epochs": 8, "view": "noisy", "restart": True, "anchor": {"weight": 1.5, "heads": "ema"}},
        ]
    }
}


@pytest.fixture(scope="module")
def exported(make_run: Callable[..., Path], pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Function (format) → folder of a run with a curriculum on noisy pictures, and records beside it; made once."""
    noisy = tmp_path_factory.mktemp("data") / "noisy"
    add_noise(pictures, noisy, noise="gauss100", workers=1, progress=False)
    run = make_run(f"ImageFolder:root={noisy}:denoised={noisy}", CURRICULUM)
    Record("tiny", "knn_top1", 0.25, 200, 0, f"ImageNet:split=VAL:root={noisy}").save(run.parent / "records/a.json")
    Record("other", "knn_top1", 0.99, 200, 0, "x").save(run.parent / "records/b.json")
    teacher = str(run / "eval" / "training_199" / "teacher_checkpoint.pth")
    elsewhere = teacher.replace("training_199", "training_99")
    for place, arm, weights, value in (
        ("probes/records/c.json", "seed-0", teacher, 0.33),
        ("probes/records/d.json", run.name, f"/moved{teacher}", 0.34),
        ("probes/records/e.json", run.name, elsewhere, 0.97),
        ("probes/records/f.json", "seed-0", f"/moved{teacher}", 0.98),
    ):
        Record(arm, "dense_miou", value, 200, 0, "x", details={"weights": weights}).save(run / place)
    made: dict[str, Path] = {}

    def get(to: str) -> Path:
        if to not in made:
            made[to] = tmp_path_factory.mktemp("exports") / to
            export(ExportRequest(run, to, made[to], name=f"Noisy pictures, {to}", size_px=56))
        return made[to]

    get.run = run  # type: ignore[attr-defined]
    return get


@pytest.mark.parametrize(("to", "tolerance"), [("safetensors", 1e-5), ("timm", 1e-4), ("hf", 0.1), ("onnx", 1e-4)])
def test_the_code_of_the_card_runs_and_gives_the_features(
    to: str, tolerance: float, exported: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = exported(to)
    picture((90, 70), 3).save(folder / "image.png")
    (code,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "card.py").write_text(code, encoding="utf-8")
    monkeypatch.chdir(folder)
    found = runpy.run_path(str(tmp_path / "card.py"))
    ours = dinov2_noise.load(exported.run, size_px=56)(picture((90, 70), 3))
    for name in ("cls", "patches"):
        # transformers resizes tensors instead of Pillow's images, which rounds otherwise.
        difference = np.abs(np.asarray(found[name]) - getattr(ours, name).numpy()).max()
        assert difference < tolerance * float(ours.patches.abs().max())


def test_onnx_takes_batches_of_any_size_and_the_exported_size_of_images(exported: Any) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(exported("onnx") / "model.onnx"))
    features = dinov2_noise.load(exported.run, size_px=56)
    for count in (1, 5):
        images = torch.randn(count, 3, 56, 56, generator=torch.Generator().manual_seed(count))
        cls, patches = session.run(["cls", "patches"], {"images": images.numpy()})
        ours = features(images)
        np.testing.assert_allclose(cls, ours.cls.numpy(), rtol=0, atol=1e-4)
        np.testing.assert_allclose(patches, ours.patches.numpy(), rtol=0, atol=1e-4)
    with pytest.raises(Exception, match="Got invalid dimensions"):
        session.run(["cls"], {"images": np.zeros((1, 3, 70, 70), np.float32)})
    with pytest.raises(CheckpointError, match="holds an ONNX file, a program without PyTorch's weights"):
        dinov2_noise.load(exported("onnx"))


def test_the_card_tells_what_was_learned_from_what(exported: Any) -> None:
    text = (exported("safetensors") / "README.md").read_text(encoding="utf-8")
    _, header, body = text.split("---\n", 2)
    assert yaml.safe_load(header)["library_name"] == "dinov2"
    assert "noise-robustness" in yaml.safe_load(header)["tags"]
    for line in (
        "# Noisy pictures, safetensors",
        "- images: ImageFolder:root=noisy:denoised=noisy",
        "- noise: gauss100, stored, seed 42",
        "- iterations: 200 of 200",
        "| denoised | 12 | denoised | schedule_epochs: 20 |",
        "| noisy | 8 | noisy | restart; anchor (weight 1.5, heads ema) |",
        "| knn_top1 | 0.250 | 0.195 to 0.314 | 200 | ImageNet:split=VAL:root=noisy |",
        "| dense_miou | 0.330 |",  # of this teacher, under another arm's name
        "| dense_miou | 0.340 |",  # of this teacher, before the run was moved
        "- architecture: vit_short, 3 blocks, 3 heads",
        "shorter side to 64 px (bicubic), centre crop of 56 px",
        "| an image of the training set | 0.0e+00 | 0.0e+00 |",
    ):
        assert line in body, line
    assert "0.990" not in body  # another arm's
    assert "0.970" not in body  # another iteration's
    assert "0.980" not in body  # another run's, which is gone
    assert str(exported.run.parent) not in text
    assert "/tmp" not in text


def test_a_card_of_a_random_network_with_a_range_says_so(make_run: Callable[..., Path], tmp_path: Path) -> None:
    run = make_run("ImageFolder:root=/gone/frames:range=asinh:noise=gauss50,seed=7")
    (run / "eval" / "training_199").rename(run / "eval" / "manual_0")
    export(ExportRequest(run, "safetensors", tmp_path / "exported", size_px=56))
    text = (tmp_path / "exported" / "README.md").read_text(encoding="utf-8")
    for part in (
        "with random weights, for comparisons: it was never trained",
        "- iterations: none: a random network (of 200)",
        "- noise: gauss50, added on the fly, seed 7",
        "black and white were chosen by `range=asinh:0.1,0.5,99.9`",
        "| a made-up picture (the training set was not at hand) |",
        "None were found when this was exported.",
    ):
        assert part in text, part


def test_images_named_from_elsewhere_are_found_above_the_run(
    make_run: Callable[..., Path], pictures: Path, tmp_path: Path
) -> None:
    run = make_run("ImageFolder:root=noisy")
    add_noise(pictures, run.parent / "noisy", noise="shot3", workers=1, progress=False)
    rows = export(ExportRequest(run, "safetensors", tmp_path / "exported", size_px=56))
    assert rows[1].images == "an image of the training set"
    assert "- noise: shot3, stored, seed 42" in (tmp_path / "exported" / "README.md").read_text(encoding="utf-8")


def test_records_of_another_run_are_not_taken(run: Path, tmp_path: Path) -> None:
    Record("other", "knn_top1", 0.5, 10, 0, "x").save(tmp_path / "records" / "a.json")
    with pytest.raises(CheckpointError, match="holds no record of 'tiny'"):
        export(ExportRequest(run, "safetensors", tmp_path / "exported", size_px=56, records=tmp_path / "records"))
    assert not (tmp_path / "exported").exists()
