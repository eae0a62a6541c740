"""Exported folders, read by the libraries they are for, compute what the run's network does."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_run import picture

import dinov2_noise
from dinov2_noise.errors import CheckpointError, ConfigError, ImageError, MissingFolderError, OutputFolderError
from dinov2_noise.export import ExportRequest, export
from dinov2_noise.export import run as exporting
from dinov2_noise.export.formats import Exported
from dinov2_noise.export.parity import TOLERANCE, compare, random_images
from dinov2_noise.export.preprocessing import STD
from dinov2_noise.torchvision_ops import declare_missing_ops

pytestmark = pytest.mark.upstream
NETWORKS: dict[str, dict[str, Any]] = {
    "mlp": {},
    "swiglu in chunks": {"ffn_layer": "swiglufused", "block_chunks": 3},
    "no layer scale, no biases": {"layerscale": 0.0, "qkv_bias": False, "proj_bias": False, "ffn_bias": False},
    "patch 8": {"patch_size": 8},
    "registers": {"num_register_tokens": 4},
    "swiglu and registers": {"ffn_layer": "swiglufused", "num_register_tokens": 2},
}


@pytest.fixture(scope="module")
def trained(make_run: Callable[..., Path]) -> Callable[[str], Path]:
    """Function (key of `NETWORKS`) → a run of that network, made once."""
    made: dict[str, Path] = {}

    def get(network: str) -> Path:
        if network not in made:
            made[network] = make_run(**NETWORKS[network])
        return made[network]

    return get


def _library(name: str, folder: Path, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Class and patch tokens, computed without any code of ours."""
    declare_missing_ops()
    if name == "hf":
        import transformers

        model = transformers.AutoModel.from_pretrained(folder).eval()
        registers = getattr(model.config, "num_register_tokens", 0)
        tokens = model(images).last_hidden_state
        return tokens[:, 0], tokens[:, 1 + registers :]
    import timm

    model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    tokens = model.forward_features(images)
    torch.testing.assert_close(model(images), tokens[:, 0])
    return tokens[:, 0], tokens[:, model.num_prefix_tokens :]


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("to", ["safetensors", "hf", "timm"])
@torch.no_grad()
def test_it_computes_the_same(to: str, network: str, trained: Callable[[str], Path], tmp_path: Path) -> None:
    run, folder = trained(network), tmp_path / "exported"
    rows = export(ExportRequest(run, to, folder, size_px=112))
    assert all(row.passes for row in rows)
    assert len(rows) == 2
    features = dinov2_noise.load(run, size_px=112)
    # Other images than those of the check.
    images = torch.stack([features.preprocessing(picture((150, 120), seed)) for seed in (5, 6)])
    ours = features(images)
    theirs = dinov2_noise.load(folder)(images) if to == "safetensors" else _library(to, folder, images)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(b, a, rtol=0, atol=TOLERANCE * float(a.abs().max()))
    loaded = dinov2_noise.load(folder)  # our own loader understands all three
    assert loaded.weights_hash == features.weights_hash
    torch.testing.assert_close(loaded(images).cls, ours.cls, rtol=0, atol=TOLERANCE * float(ours.cls.abs().max()))
    assert loaded.preprocessing.size_px == 112


@pytest.mark.parametrize("to", ["hf", "timm"])
def test_their_preprocessing_is_ours(to: str, run: Path, tmp_path: Path) -> None:
    export(ExportRequest(run, to, tmp_path / "exported", size_px=112))
    image = picture((200, 160))
    ours = dinov2_noise.load(run, size_px=112).preprocessing(image)
    if to == "timm":
        import timm

        model = timm.create_model(f"local-dir:{tmp_path / 'exported'}", pretrained=True)
        transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
        torch.testing.assert_close(transform(image), ours, rtol=0, atol=1e-6)
        return
    import transformers

    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path / "exported")
    theirs = processor(image, return_tensors="pt")["pixel_values"][0]
    # It resizes tensors, DINOv2 Pillow's images: the two round differently, by one of 255 levels here.
    one_level = 1.01 / 255 / min(STD)
    assert float((theirs - ours).abs().max()) < one_level
    # It also rounds half pixels down, DINOv2 to the even one: of 147 px the crop begins at 17 and at 18.
    odd = picture((147, 128))
    theirs = processor(odd, return_tensors="pt")["pixel_values"][0]
    ours = dinov2_noise.load(run, size_px=112).preprocessing(odd)
    torch.testing.assert_close(theirs[..., 1:], ours[..., :-1], rtol=0, atol=1e-5)


def test_a_network_that_computes_something_else_is_not_exported(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = exporting.FORMATS["safetensors"]

    def write_wrongly(model: Exported, folder: Path) -> None:
        with torch.no_grad():
            model.backbone.norm.bias[7] += 1e-2  # type: ignore[index, operator]
        own.write(model, folder)
        with torch.no_grad():
            model.backbone.norm.bias[7] -= 1e-2  # type: ignore[index, operator]

    monkeypatch.setitem(exporting.FORMATS, "safetensors", replace(own, write=write_wrongly))
    with pytest.raises(CheckpointError, match=r"random numbers: class token 0\.01, patch tokens 0\.01"):
        export(ExportRequest(run, "safetensors", tmp_path / "deep" / "exported", size_px=56))
    assert list((tmp_path / "deep").iterdir()) == []


def test_parity_sees_shapes_sizes_and_nan() -> None:
    images = random_images(4)
    one = (torch.ones(3, 2), torch.full((3, 5, 2), 2.0))
    exact = compare(lambda _: one, lambda _: one, {"x": images})
    assert (exact[0].cls, exact[0].patches, exact[0].scale) == (0.0, 0.0, 2.0)
    near = (one[0] + 1.9e-4, one[1])
    assert compare(lambda _: one, lambda _: near, {"x": images})[0].cls == pytest.approx(1.9e-4, rel=1e-2)
    for other in ((one[0] + 2.1e-4, one[1]), (one[0], one[1] * float("nan"))):
        with pytest.raises(CheckpointError, match="computes something else"):
            compare(lambda _: one, lambda _, other=other: other, {"x": images})
    with pytest.raises(CheckpointError, match=r"patch tokens of shape \(3, 4, 2\), the run's \(3, 5, 2\)"):
        compare(lambda _: one, lambda _: (one[0], one[1][:, 1:]), {"x": images})


def test_a_finished_folder_is_left_as_it_is_and_another_one_refused(run: Path, tmp_path: Path) -> None:
    request = ExportRequest(run, "safetensors", tmp_path / "exported", size_px=56)
    first = export(request)
    written = {path: path.stat().st_mtime_ns for path in request.output.iterdir()}
    assert export(request) == first
    assert {path: path.stat().st_mtime_ns for path in request.output.iterdir()} == written
    assert [path.stat().st_mode & 0o044 for path in written] == [0o044] * len(written)
    with pytest.raises(OutputFolderError, match="to: there 'safetensors', now 'timm'"):
        export(replace(request, to="timm"))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").touch()
    with pytest.raises(OutputFolderError, match=r"full is not empty and was not written by `dinov2-noise export`"):
        export(replace(request, output=tmp_path / "full"))
    (tmp_path / "empty").mkdir()
    assert export(replace(request, output=tmp_path / "empty")) == first
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "exported", "full"]


def test_requests_that_cannot_be_met(
    run: Path, make_run: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = ExportRequest(run, "safetensors", tmp_path / "exported")
    with pytest.raises(ConfigError, match="--to 'pickle' is unknown: valid are safetensors, hf, timm, onnx"):
        export(replace(request, to="pickle"))
    with pytest.raises(ConfigError, match=r"size 100: .* such as 98 or 112"):
        export(replace(request, size_px=100))
    with pytest.raises(MissingFolderError, match="records nowhere does not exist"):
        export(replace(request, records=Path("nowhere")))
    with pytest.raises(ImageError, match="file does not exist"):
        export(replace(request, image=tmp_path / "none.png"))
    with pytest.raises(CheckpointError, match=r"student\.ffn_layer=identity has no counterpart"):
        export(replace(request, run=make_run(ffn_layer="identity")))
    monkeypatch.setitem(__import__("sys").modules, "timm", None)
    with pytest.raises(ConfigError, match=r"exporting to timm needs timm: pip install 'dinov2-noise\[timm\]'"):
        export(replace(request, to="timm"))
    assert list(tmp_path.iterdir()) == []


def test_a_run_without_backbone_or_without_checkpoint(make_run: Callable[..., Path], tmp_path: Path) -> None:
    unfinished = make_run()
    teacher = unfinished / "eval" / "training_199" / "teacher_checkpoint.pth"
    torch.save({"teacher": {"dino_head.last_layer.weight": torch.zeros(2, 2)}}, teacher)
    request = ExportRequest(unfinished, "hf", tmp_path / "exported")
    with pytest.raises(CheckpointError, match="hold no backbone of DINOv2's form"):
        export(request)
    teacher.unlink()
    with pytest.raises(CheckpointError, match="has written no eval/training_<iteration>"):
        export(request)
    assert list(tmp_path.iterdir()) == []


def test_a_broken_manifest_is_named(run: Path, tmp_path: Path) -> None:
    export(ExportRequest(run, "safetensors", tmp_path / "exported", size_px=56))
    path = tmp_path / "exported" / "manifest.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    del content["preprocessing"]
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"manifest\.json is not what `dinov2-noise export` writes"):
        dinov2_noise.load(tmp_path / "exported")


def test_the_image_may_be_given(run: Path, tmp_path: Path) -> None:
    Image.fromarray(np.full((40, 60, 3), 90, np.uint8)).save(tmp_path / "flat.png")
    rows = export(ExportRequest(run, "safetensors", tmp_path / "exported", size_px=56, image=tmp_path / "flat.png"))
    assert [row.images for row in rows] == ["three of random numbers", "the given image"]
