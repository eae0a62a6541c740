"""`dinov2_noise.load`: what it opens, what it computes, what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from helpers import run_python
from PIL import Image
from tiny_run import picture

import dinov2_noise
from dinov2_noise.errors import CheckpointError, ConfigError, ImageError, MissingFolderError
from dinov2_noise.upstream import portable
from dinov2_noise.upstream.probing.model import load_backbone_for_evaluation

pytestmark = pytest.mark.upstream
TEACHER = "eval/training_199/teacher_checkpoint.pth"


def test_importing_the_package_stays_light() -> None:
    done = run_python("-c", "import sys, dinov2_noise; print({'torch', 'numpy'} & set(sys.modules))")
    assert done.stdout.strip() == "set()", done.stderr
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        _ = dinov2_noise.lode  # type: ignore[attr-defined]


def test_tokens_are_those_of_upstreams_evaluation(run: Path) -> None:
    features = dinov2_noise.load(run, size_px=56)
    images = [picture((80, 64), 1), np.asarray(picture((64, 96), 2))]
    tokens = features(images)
    theirs = load_backbone_for_evaluation(run / "config.yaml", run / TEACHER)
    batch = torch.stack([features.preprocessing(image) for image in images])
    with torch.no_grad():
        expected = theirs(batch, is_training=True)
    assert torch.equal(tokens.cls, expected["x_norm_clstoken"])
    assert torch.equal(tokens.patches, expected["x_norm_patchtokens"])
    assert tokens.patches.shape == (2, 16, 192)
    assert (features.name, features.width) == ("tiny", 192)
    assert not features.backbone.training
    assert not tokens.cls.requires_grad
    torch.testing.assert_close(features(images[0]).cls, tokens.cls[:1], rtol=1e-5, atol=1e-5)
    assert torch.equal(features(batch).cls, tokens.cls)


def test_a_teacher_can_be_named(run: Path) -> None:
    batch = torch.randn(1, 3, 28, 28, generator=torch.Generator().manual_seed(1))
    whole, named = dinov2_noise.load(run), dinov2_noise.load(str(run / TEACHER))
    assert torch.equal(whole(batch).cls, named(batch).cls)
    assert whole.weights_hash == named.weights_hash


def test_embed_is_the_same_image_by_image(run: Path, pictures: Path) -> None:
    features = dinov2_noise.load(run, size_px=56)
    paths = sorted(pictures.glob("*/*"))
    one_by_one = torch.cat([features(Image.open(path)).cls for path in paths])
    together = features.embed(paths, batch_size=3)
    np.testing.assert_allclose(together, one_by_one.numpy(), rtol=1e-4, atol=1e-5)
    assert np.array_equal(features.embed(pictures, batch_size=3, workers=2), together)
    mean = features(Image.open(paths[0])).patches.mean(dim=1)
    both = features.embed(str(paths[0]), tokens="cls+mean")
    np.testing.assert_allclose(both[0], torch.cat((one_by_one[0], mean[0])).numpy(), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(features.embed(paths[:1], tokens="mean-patch"), mean.numpy(), rtol=1e-4, atol=1e-5)
    assert features.embed(paths[:2], tokens="patches").shape == (2, 16, 192)


def test_the_values_of_the_runs_own_images_are_used(make_run: Callable[..., Path], run: Path, tmp_path: Path) -> None:
    deep = np.random.default_rng(0).integers(0, 4096, size=(64, 64), dtype=np.uint16)
    tifffile.imwrite(tmp_path / "deep.tif", deep)
    named = dinov2_noise.load(make_run("ImageFolder:root=/gone:range=fixed,0,4095:depth=full"), size_px=56)
    assert named.preprocessing.plain()["range"] == "fixed:0,4095"
    assert named.preprocessing.full_depth
    given = dinov2_noise.load(run, size_px=56, values="fixed:0,4095")
    assert not given.preprocessing.full_depth
    deeper, rounded = (features.embed(tmp_path / "deep.tif") for features in (named, given))
    np.testing.assert_allclose(deeper, rounded, atol=0.1)
    assert not np.array_equal(deeper, rounded)
    dark = dinov2_noise.load(run, size_px=56).embed(tmp_path / "deep.tif")
    assert np.abs(dark - rounded).max() > 0.1


def test_attention_without_kernels_for_a_cpu_is_replaced(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dinov2.layers import attention

    def gpu_only(*_args: object, **_options: object) -> None:
        raise NotImplementedError("no kernel for a CPU")

    features = dinov2_noise.load(run, size_px=56)
    expected = features(picture((64, 64))).cls
    monkeypatch.setattr(attention, "memory_efficient_attention", gpu_only)
    assert torch.equal(features(picture((64, 64))).cls, expected)
    assert attention.memory_efficient_attention is gpu_only


@pytest.mark.slow
@pytest.mark.parametrize("imported_before", [False, True])
def test_a_checkout_without_the_patch_will_do(
    imported_before: bool, make_run: Callable[..., Path], copy_of_upstream: Callable[[bool], Path]
) -> None:
    run = make_run(arch="vit_tiny")
    before = "import dinov2.layers.attention; " if imported_before else ""
    program = (
        f"{before}import torch, dinov2_noise; print(dinov2_noise.load({str(run)!r})(torch.ones(1, 3, 56, 56)).cls)"
    )
    done = run_python("-c", program, path=(copy_of_upstream(False),))
    if imported_before:
        assert "PluginError: dinov2_noise was activated after dinov2.layers.attention" in done.stderr
    else:
        assert done.stdout.startswith("tensor([["), done.stderr


def test_positions_for_a_size_are_upstreams(run: Path) -> None:
    backbone = dinov2_noise.load(run).backbone
    images = torch.randn(1, 3, 84, 84, generator=torch.Generator().manual_seed(2))
    fixed = portable.at_size(backbone, 84)
    expected = backbone(images, is_training=True)
    assert torch.equal(fixed(images)[0], expected["x_norm_clstoken"])
    assert fixed.backbone.pos_embed.shape == (1, 37, 192)


def test_what_cannot_be_loaded(run: Path, make_run: Callable[..., Path], tmp_path: Path, pictures: Path) -> None:
    with pytest.raises(MissingFolderError, match="does not exist"):
        dinov2_noise.load(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match=r"size 60: .* patch size, 14 px, such as 56 or 70"):
        dinov2_noise.load(run, size_px=60)
    with pytest.raises(ConfigError, match="device 'gpu' is unknown"):
        dinov2_noise.load(run, "gpu")
    features = dinov2_noise.load(run, size_px=56)
    with pytest.raises(MissingFolderError, match=r"none\.png does not exist"):
        features.embed(pictures / "none.png")
    with pytest.raises(ConfigError, match="tokens 'all' are unknown"):
        features.embed(pictures, tokens="all")  # type: ignore[arg-type]
    (tmp_path / "bad.png").write_bytes(b"no image")
    with pytest.raises(ImageError, match=r"bad\.png: .* \(1 of 8 images failed\)"):
        features.embed([pictures, tmp_path / "bad.png"])


def test_a_diverged_network_and_a_broken_config(make_run: Callable[..., Path]) -> None:
    broken = make_run()
    content = torch.load(broken / TEACHER, weights_only=True)
    content["teacher"]["backbone.norm.bias"][3] = float("nan")
    torch.save(content, broken / TEACHER)
    with pytest.raises(CheckpointError, match=r"not finite, in norm\.bias: its training had diverged"):
        dinov2_noise.load(broken)
    (broken / "config.yaml").write_text("student: {arch", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"cannot read the config .*config\.yaml"):
        dinov2_noise.load(broken)
    (broken / "config.yaml").write_text("student: {arch: vit_short}", encoding="utf-8")
    with pytest.raises(ConfigError, match="has no section crops, train"):
        dinov2_noise.load(broken)


def test_weights_of_another_config(make_run: Callable[..., Path]) -> None:
    changed = make_run()
    text = (changed / "config.yaml").read_text(encoding="utf-8").replace("arch: vit_short", "arch: vit_tiny")
    (changed / "config.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(CheckpointError, match="number of blocks 3 in the file, 12 in the model"):
        dinov2_noise.load(changed)
