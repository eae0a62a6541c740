"""What a training will cost: counted without running, compared with real steps and with figures known elsewhere."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from helpers import SmallSet, run_python
from omegaconf import OmegaConf
from typer.testing import CliRunner

from dinov2_noise.cli import app
from dinov2_noise.curriculum.cost import RunCost
from dinov2_noise.curriculum.frequency import Crops
from dinov2_noise.errors import ConfigError, MissingFolderError
from dinov2_noise.upstream.estimate import cost_of, curriculum_of, estimate, load, measured_rate, rate_of_run
from dinov2_noise.upstream.flops import StepCounter

pytestmark = pytest.mark.upstream

SCRIPT = Path(__file__).with_name("flops_of_steps.py")


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("flops")


@pytest.fixture(scope="module")
def counted(small_set: SmallSet, output: Path) -> Mapping[str, list[float]]:
    done = run_python(str(SCRIPT), small_set.pair(), str(output), path=(SCRIPT.parents[1],))
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    found: dict[str, list[float]] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


@pytest.fixture(scope="module")
def laptop() -> tuple[Any, RunCost]:
    cfg = load("nct_laptop")
    return cfg, cost_of(cfg)


def _koleo(n_images: int) -> float:
    """Upstream finds neighbours among the normalised CLS tokens of either global crop by their products."""
    return 2 * 2.0 * n_images**2 * 192


def test_real_steps_cost_what_was_estimated(
    counted: Mapping[str, list[float]], output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But for KoLeo exactly; where masks matter that are drawn, the estimate holds their expected number."""
    from dinov2.models import vision_transformer
    from short_vit import vit_short

    monkeypatch.setattr(vision_transformer, "vit_short", vit_short, raising=False)
    for case, (low, anchored) in counted.items():
        cost = cost_of(load(str(output / f"{case}.yaml")))
        expected_low, expected_anchored = (stage.flops.total * cost.batch_size for stage in cost.stages)
        in_parts = case == "two heads, micro-batches"
        koleo = 2 * _koleo(3) if in_parts else _koleo(6)
        assert low == pytest.approx(expected_low + koleo, rel=0.01 if in_parts else 1e-12), case
        assert anchored == pytest.approx(expected_anchored + koleo, rel=0.01), case
        parts = cost.stages[1].flops
        assert parts.frozen == pytest.approx(parts.teacher, rel=0.05)
        assert cost.plain.flops.total == pytest.approx(parts.total - parts.frozen)


def test_vit_b_against_what_can_be_worked_out() -> None:
    """A block multiplies each token with 12 D^2 weights; attention is 2 N D multiply-adds per token more."""
    cfg = load("fast", ["student.drop_path_rate=0"])
    counter, cost = StepCounter(cfg), cost_of(cfg, processes=8)
    width, depth = 768, 12

    def forward(side: int) -> float:
        n_patches = (side // 16) ** 2
        tokens = n_patches + 1
        return 2.0 * (depth * tokens * (12 * width**2 + 2 * tokens * width) + n_patches * 3 * 16**2 * width)

    head = 2.0 * (width * 2048 + 2048**2 + 2048 * 256 + 256 * 65536)
    for stage in cost.stages:
        flops, masked = stage.flops, counter.masks(stage.crops).padded / 64
        assert flops.student == pytest.approx(2 * forward(stage.crops.global_px) + 8 * forward(stage.crops.local_px))
        assert flops.student_heads == pytest.approx(head * (10 + masked))
        assert flops.teacher == pytest.approx(2 * forward(stage.crops.global_px) + head * (2 + masked))
        # Backward is twice forward, but nobody asks for the gradient of the pixels.
        patches = 2 * stage.crops.patches_per_side**2 + 8 * (stage.crops.local_px // 16) ** 2
        pixels = 2.0 * patches * 3 * 16**2 * width
        assert flops.backward == pytest.approx(2 * (flops.student + flops.student_heads) - pixels)
    # Published: 493.76 and 128.64 GFLOPs, a ratio of 3.84; docs/fastdinov2.md.
    low, full = (stage.flops.total for stage in cost.stages)
    assert (full / 1e9, low / 1e9) == (pytest.approx(445.8, abs=0.5), pytest.approx(114.2, abs=0.5))
    assert full / low == pytest.approx(493.76 / 128.64, rel=0.02)
    assert cost.images_per_step == 512
    assert [stage.n_iterations for stage in cost.stages] == [375_000, 125_000]
    assert cost.flops == pytest.approx((0.75 * low + 0.25 * full) * 500_000 * 512)
    assert cost.flops / cost.flops_of(cost.plain) == pytest.approx(219.92 / 493.76, rel=0.02)


def test_options_and_a_rate() -> None:
    options = ["--gpus", "2", "--rate", "50GFLOPs", "curriculum.stages.0.crops.global_crops_size=48"]
    done = CliRunner().invoke(app, ["train", "nct_laptop", "--estimate", *options], catch_exceptions=False)
    assert done.exit_code == 0
    assert "hours at 50 GFLOP/s per process, as given" in done.output
    assert "images per step: 96 = 2 processes x 48" in done.output
    assert "2x48 + 4x32" in done.output


def test_rate_of_a_run(laptop: tuple[Any, RunCost], tmp_path: Path) -> None:
    cfg, cost = laptop
    OmegaConf.save(cfg, tmp_path / "config.yaml")
    metrics, crops = tmp_path / "training_metrics.json", Crops(64, 32, 16)
    with pytest.raises(ConfigError, match=r"is not the output folder of a run: training_metrics.json is not there"):
        rate_of_run(tmp_path)
    metrics.write_text("")
    with pytest.raises(ConfigError, match=r"no speed to be had from this run: .*is empty"):
        rate_of_run(tmp_path)
    metrics.write_text('{"iteration": 0}\n')
    with pytest.raises(ConfigError, match=r"training_metrics\.json holds no iter_time"):
        rate_of_run(tmp_path)

    def write(times: Mapping[int, float], rest: str = "") -> None:
        lines = [json.dumps({"iteration": iteration, "iter_time": time}) for iteration, time in times.items()]
        metrics.write_text("\n".join(lines) + "\n" + rest)

    denoised, noisy = (stage.flops.total * 48 for stage in cost.stages)
    assert noisy > 1.1 * denoised, "it has the anchor"
    write({0: 9.0, 10: 2.0}, rest='{"iteration": 40, "iter')
    assert rate_of_run(tmp_path).of(crops) == pytest.approx(denoised / 2.0), "neither the start nor half a line counts"
    write({0: 2.0})
    assert rate_of_run(tmp_path).of(crops) == pytest.approx(denoised / 2.0)
    last = cost.plain.n_iterations - 1
    write({0: 9.0, last - 20: 4.0, last - 10: 4.0, last: 4.0})
    assert rate_of_run(tmp_path).of(crops) == pytest.approx(noisy / 4.0)


def test_rate_of_this_machine(laptop: tuple[Any, RunCost]) -> None:
    here = measured_rate(*laptop, least_s=0)
    assert list(here.by_crops) == [Crops(64, 32, 16)]
    assert 0 < here.of(Crops(64, 32, 16)) < 1e15
    assert "of the backbone on this machine (" in here.source


def test_attention_is_counted_where_xformers_is_installed(
    laptop: tuple[Any, RunCost], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its kernels run on CUDA only, and torch's counter does not see them."""
    from dinov2.layers import attention, block

    def kernel(*_: object, **__: object) -> None:
        raise NotImplementedError("no operator found for device=meta")

    cfg, cost = laptop
    masks = {((0, 0),): "xFormers' own"}
    monkeypatch.setattr(attention, "memory_efficient_attention", kernel)
    monkeypatch.setattr(block, "attn_bias_cache", masks)
    assert StepCounter(cfg).step(Crops(64, 32, 16), anchored=True) == cost.stages[1].flops
    assert attention.memory_efficient_attention is kernel, "the training has it back"
    assert block.attn_bias_cache is masks
    assert len(masks) == 1


def test_what_cannot_be_estimated() -> None:
    for arguments in ([], ["--output", "run", "--measure"]):
        assert CliRunner().invoke(app, ["train", "nct_laptop", *arguments]).exit_code == 2
    with pytest.raises(ConfigError, match="one of --rate, --measure and --like"):
        estimate("nct_laptop", rate="1T", measure=True)
    with pytest.raises(ConfigError, match="did you mean 'epochs'"):
        load("nct_laptop", ["optim.epoch=3"])
    with pytest.raises(ConfigError, match="--gpus is 0: a training has at least one process"):
        estimate("nct_laptop", processes=0)
    with pytest.raises(ConfigError, match=r"no network of student\.arch 'vit_huge'.* vit_large, "):
        estimate("nct_laptop", ["student.arch=vit_huge"])
    with pytest.raises(ConfigError, match=r"train\.batch_size_per_gpu is 0: it must be at least 1"):
        load("nct_laptop", ["train.batch_size_per_gpu=0"])
    with pytest.raises(ConfigError, match=r"optim\.epochs is abc: it must be at least 1"):
        load("nct_laptop", ["optim.epochs=abc"])
    with pytest.raises(ConfigError, match=r"stages\[0\]\.crops.global_crops_size is 100, not a multiple"):
        curriculum_of(load("fast", ["curriculum.stages.0.crops.global_crops_size=100"]))
    to_be_named = curriculum_of(load("in1k-nct-gauss255-published"))
    assert to_be_named is not None, "a teacher to be named costs what any does"
    assert to_be_named.total_iterations == 250_000


def test_a_file_that_is_no_config(tmp_path: Path) -> None:
    for text in ("train: [1", "- 1\n"):
        (tmp_path / "mine.yaml").write_text(text)
        with pytest.raises(ConfigError, match=r"mine\.yaml and the options make no config: "):
            load(str(tmp_path / "mine.yaml"))


def test_without_dinov2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [])
    with pytest.raises(MissingFolderError, match="no importable dinov2 found: give the path of your DINOv2 checkout"):
        estimate("nct_laptop")
