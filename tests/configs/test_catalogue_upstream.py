"""Every config against upstream's defaults and our own checks."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers import SmallSet
from omegaconf import OmegaConf

from dinov2_noise.configs import config_file, names, read, register_guard
from dinov2_noise.curriculum.config import parse_curriculum
from dinov2_noise.curriculum.frequency import Crops, check_crops
from dinov2_noise.curriculum.schedules import ScheduleSettings, staged_schedules
from dinov2_noise.curriculum.sections import parse_health, parse_loader, parse_step
from dinov2_noise.data.strings import parse_dataset_string
from dinov2_noise.errors import ConfigError
from dinov2_noise.upstream import runtime
from dinov2_noise.upstream.utils import options, strict

pytestmark = pytest.mark.upstream


@pytest.fixture(autouse=True)
def _no_run_left() -> Iterator[None]:
    yield
    runtime.start(None)


@pytest.fixture(scope="module")
def merged() -> dict[str, Any]:
    """All configs, merged with upstream's defaults; merging takes most of the time here."""
    from dinov2.configs import dinov2_default_config

    register_guard()
    return {name: OmegaConf.merge(dinov2_default_config, OmegaConf.create(read(name))) for name in names()}


def _from_command_line(config: str, output: Path, *opts: str) -> Any:
    """What upstream's `setup` merges for its training script; the scaling rule applied as for one process."""
    from dinov2.utils.config import apply_scaling_rules_to_cfg, get_cfg_from_args

    args = argparse.Namespace(config_file=config, output_dir=str(output), opts=list(opts), eval_only=False)
    return apply_scaling_rules_to_cfg(get_cfg_from_args(args))


def test_every_config_passes_our_checks(merged: dict[str, Any]) -> None:
    from dinov2.configs import dinov2_default_config

    for name, cfg in merged.items():
        strict.check_keys(cfg, dinov2_default_config)
        section: Any = OmegaConf.to_container(cfg.curriculum)
        if name.endswith("-published") or name == "adapt_vits14":
            section["stages"][-1]["anchor"]["teacher"] = "model_final.pth"
        config = parse_curriculum(section, total_epochs=cfg.optim.epochs)
        check_crops(config.stages, Crops.from_config(cfg))
        step = parse_step(cfg.get("step"), batch_size=cfg.train.batch_size_per_gpu)
        parse_health(cfg.get("health"))
        parse_loader(cfg.get("loader"))
        spec = parse_dataset_string(cfg.train.dataset_path)
        needs_twins = any(stage.noisy_share != (1.0, 1.0) or stage.anchor is not None for stage in config.stages)
        assert (spec.denoised is not None) == needs_twins, name
        in_epochs = replace(ScheduleSettings.from_config(cfg), epoch_length_iterations=1)
        assert staged_schedules(in_epochs, config), name
        assert cfg.train.batch_size_per_gpu // step.micro_batches <= 64


def test_every_experiment_has_the_published_settings(merged: dict[str, Any]) -> None:
    for name, cfg in merged.items():
        if name in ("nct_laptop", "adapt_vits14"):
            continue
        small = name.startswith("in100")
        n_gpus = 1 if small or name == "nct_24gb" else 8
        assert n_gpus * cfg.train.batch_size_per_gpu == (40 if small else 512), name
        assert (1250 if small else 2500) == cfg.train.OFFICIAL_EPOCH_LENGTH
        assert (cfg.student.arch, cfg.student.patch_size) == ("vit_small" if small else "vit_base", 16)
        assert cfg.student.drop_path_rate == (0.0 if small else 0.1)
        assert (cfg.student.layerscale, cfg.train.centering, cfg.dino.head_n_prototypes) == (1e-5, "centering", 65536)
        assert (cfg.optim.base_lr, cfg.optim.scaling_rule, cfg.optim.min_lr) == (0.004, "sqrt_wrt_1024", 1e-6)
        assert (cfg.optim.warmup_epochs, cfg.teacher.warmup_teacher_temp_epochs) == (10, 30)
        assert (cfg.optim.weight_decay, cfg.optim.weight_decay_end, cfg.optim.clip_grad) == (0.04, 0.4, 3.0)
        assert (cfg.optim.layerwise_decay, cfg.optim.patch_embed_lr_mult) == (0.9, 0.2)
        assert cfg.optim.freeze_last_layer_epochs == 1
        assert (cfg.teacher.momentum_teacher, cfg.teacher.final_momentum_teacher) == (0.992, 1)
        assert (cfg.teacher.warmup_teacher_temp, cfg.teacher.teacher_temp) == (0.04, 0.07)
        assert (cfg.crops.global_crops_size, cfg.crops.local_crops_size, cfg.crops.local_crops_number) == (224, 96, 8)
        iterations = cfg.optim.epochs * cfg.train.OFFICIAL_EPOCH_LENGTH
        assert iterations % cfg.evaluation.eval_period_iterations == 0, f"{name}: the last checkpoint is evaluated"


def test_learning_rate_of_imagenet_100_by_name(
    small_set: SmallSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dinov2.train.train import build_schedulers

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    name = "dinov2_noise/configs/in100-nct-gauss255.yaml"
    cfg = _from_command_line(name, tmp_path / "out", f"train.dataset_path={small_set.pair()}")
    peak = 0.004 * (40 / 1024) ** 0.5
    assert cfg.optim.lr == pytest.approx(peak) == pytest.approx(7.906e-4, rel=1e-3)
    lr, *_, temperature, _ = build_schedulers(cfg)
    switch = 140 * 1250
    assert len(lr.schedule) == 250_000
    assert [lr[i] for i in (0, 12_499, switch, switch + 12_499)] == pytest.approx([0, peak, 0, peak])
    assert lr[switch - 1] > 0.2 * peak, "cut in the middle of a schedule of 200 epochs"
    assert [temperature[i] for i in (switch, switch + 37_500)] == pytest.approx([0.04, 0.07])


def test_one_stage_has_upstreams_own_schedules(small_set: SmallSet, tmp_path: Path) -> None:
    from dinov2.train.train import build_schedulers

    path = f"train.dataset_path=ImageNet:split=TRAIN:root={small_set.noisy}"
    staged = build_schedulers(_from_command_line(config_file("baseline_noisy"), tmp_path / "out", path))
    plain = OmegaConf.create(read("baseline_noisy"))
    del plain["curriculum"]
    OmegaConf.save(plain, tmp_path / "plain.yaml")
    upstreams = build_schedulers(_from_command_line(str(tmp_path / "plain.yaml"), tmp_path / "out2", path))
    for ours, theirs in zip(staged, upstreams, strict=True):
        assert [ours[i] for i in range(0, 250_001, 1_237)] == [theirs[i] for i in range(0, 250_001, 1_237)]


def test_the_teacher_of_a_published_variant_must_be_named(small_set: SmallSet, tmp_path: Path) -> None:
    path = config_file("in1k-nct-gauss255-published")
    data = f"train.dataset_path={small_set.pair()}"
    with pytest.raises(ConfigError, match=r"curriculum\.stages\[1\]\.anchor\.teacher has no value.*stages\.1\.anchor"):
        _from_command_line(path, tmp_path / "out", data)
    teacher = tmp_path / "model_final.pth"
    teacher.write_bytes(b"")
    for option in ("curriculum.stages.1.anchor.teacher", "curriculum.stages[1].anchor.teacher"):
        cfg = _from_command_line(path, tmp_path / "out", data, f"{option}={teacher}", "optim.clip_grad=2.5")
        assert (cfg.curriculum.stages[1].anchor.teacher, cfg.optim.clip_grad) == (str(teacher), 2.5)
        run = runtime.current()
        assert run is not None
        anchor = run.config.stages[1].anchor
        assert anchor is not None
        assert (anchor.weight, anchor.teacher) == (1.6, str(teacher))


def test_options_of_single_stages() -> None:
    cfg = OmegaConf.create(read("nct"))
    theirs, ours = options.split_options(
        ["optim.epochs=3", "curriculum.stages.0.epochs=2", "curriculum.stages[1].anchor=null", "curriculum.stages=[]"]
    )
    assert theirs == ["optim.epochs=3", "curriculum.stages=[]"]
    options.apply_options(cfg, [*ours, "curriculum.stages.1.overrides={optim: {base_lr: 0.002}}"])
    assert cfg.curriculum.stages[0].epochs == 2
    assert cfg.curriculum.stages[1].anchor is None
    assert cfg.curriculum.stages[1].overrides.optim == {"warmup_epochs": 5, "base_lr": 0.002}
    with pytest.raises(ConfigError, match="does not fit this config of 2 stages"):
        options.apply_options(cfg, ["curriculum.stages.2.epochs=1"])
    with pytest.raises(ConfigError, match="not of the form key=value"):
        options.apply_options(cfg, ["curriculum.stages.1.epochs"])


def test_upstreams_launcher_finds_composed_configs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dinov2.run.submit import get_args_parser
    from dinov2.train.train import get_args_parser as get_train_args_parser

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    parser = get_args_parser(parents=[get_train_args_parser(add_help=False)])
    args = parser.parse_args(["--config-file", "dinov2_noise/configs/in1k-nc-gauss100.yaml"])
    assert Path(args.config_file).read_text(encoding="utf-8") == read("in1k-nc-gauss100")
