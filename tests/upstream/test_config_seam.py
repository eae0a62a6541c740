"""Upstream's config with our sections: strict, staged, and safe against the wrong output folder."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import SmallSet
from omegaconf import OmegaConf

from dinov2_noise.configs import shipped
from dinov2_noise.errors import ConfigError, MissingFolderError, OutputFolderError, PluginError
from dinov2_noise.upstream import runtime
from dinov2_noise.upstream.utils import strict

pytestmark = pytest.mark.upstream


DATASET = ""


@pytest.fixture(autouse=True)
def _no_run_left(small_set: SmallSet) -> Iterator[None]:
    global DATASET
    DATASET = small_set.pair()
    yield
    runtime.start(None)


def _merged(path: Path, tmp_path: Path, *options: str) -> Any:
    """What upstream's `setup` merges for its training script; the scaling rule applied as for one process."""
    from dinov2.utils.config import apply_scaling_rules_to_cfg, get_cfg_from_args

    opts = [f"train.dataset_path={DATASET}", *options]
    args = argparse.Namespace(config_file=str(path), output_dir=str(tmp_path / "out"), opts=opts, eval_only=False)
    return apply_scaling_rules_to_cfg(get_cfg_from_args(args))


def _with(tmp_path: Path, **sections: Any) -> Path:
    path = tmp_path / "config.yaml"
    OmegaConf.save(OmegaConf.merge(OmegaConf.load(shipped()["nct"]), sections), path)
    return path


@pytest.mark.parametrize("name", ["baseline_noisy", "nc", "nct"])
def test_shipped_configs_hold_the_published_settings(name: str, tmp_path: Path) -> None:
    """As merged from the command line; tests/configs looks at all configs."""
    cfg = _merged(shipped()[name], tmp_path)
    assert cfg.optim.lr == pytest.approx(0.004 * (64 / 1024) ** 0.5)
    assert (cfg.optim.epochs, cfg.train.OFFICIAL_EPOCH_LENGTH, 8 * cfg.train.batch_size_per_gpu) == (100, 2500, 512)
    run = runtime.current()
    assert run is not None
    published = (
        [(0, 250_000, "noisy")] if name == "baseline_noisy" else [(0, 75_000, "denoised"), (75_000, 175_000, "noisy")]
    )
    assert [(stage.first_iteration, stage.n_iterations, stage.view) for stage in run.curriculum.stages] == published
    anchors = [stage.anchor and (stage.anchor.weight, stage.anchor.heads) for stage in run.curriculum.stages]
    assert anchors == [None] * (len(published) - 1) + [(1.6, "ema") if name == "nct" else None]


def test_build_schedulers_gives_the_staged_schedules(tmp_path: Path) -> None:
    from dinov2.train.train import build_schedulers

    cfg = _merged(shipped()["nct"], tmp_path)
    lr, wd, momentum, temperature, last_layer = build_schedulers(cfg)
    switch, peak = 75_000, 0.004 * (64 / 1024) ** 0.5
    assert [lr[i] for i in (0, switch)] == [0, 0]
    assert lr[25_000 - 1] == pytest.approx(peak), "10 epochs of warm-up"
    assert lr[switch + 12_500 - 1] == pytest.approx(peak), "5 epochs after the switch"
    assert lr[switch - 1] == pytest.approx(1e-6 + 0.5 * (peak - 1e-6) * (1 + np.cos(np.pi * 49_999 / 225_000)))
    assert lr[249_999] == pytest.approx(1e-6, rel=1e-3)
    assert [momentum[i] for i in (0, switch)] == [pytest.approx(0.992)] * 2
    assert [wd[i] for i in (0, switch)] == [pytest.approx(0.04)] * 2
    assert [temperature[i] for i in (0, switch)] == [0.04, 0.04]
    assert temperature[switch + 37_500] == 0.07, "15 epochs after the switch"
    assert all(last_layer[i] == 0 for i in (0, 2_499, switch, switch + 2_499))
    assert last_layer[switch + 2_500] == lr[switch + 2_500] > 0
    assert len(lr.schedule) == 250_000
    assert lr[250_000] == lr.final_value == 1e-6


def test_schedules_asked_for_in_another_order_are_an_error(tmp_path: Path) -> None:
    from dinov2.utils.utils import CosineScheduler

    _merged(shipped()["nct"], tmp_path)
    with pytest.raises(PluginError, match="asks for another lr schedule"):
        CosineScheduler(base_value=0.04, final_value=0.4, total_iters=250_000)


def test_a_plain_config_leaves_upstreams_schedule_alone() -> None:
    from dinov2.utils.utils import CosineScheduler

    runtime.start(None)
    plain = CosineScheduler(base_value=1.0, final_value=0.0, total_iters=4, warmup_iters=2)
    np.testing.assert_array_equal(plain.schedule, [0.0, 1.0, 1.0, 0.5])


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"optim": {"epochz": 3}}, r"unknown config key 'optim\.epochz': did you mean 'epochs'\?"),
        ({"curiculum": {}}, r"unknown config key 'curiculum': did you mean 'curriculum'\?"),
        ({"crops": {"global_crop_size": 1}}, r"unknown config key 'crops\.global_crop_size'.*global_crops_size"),
        ({"optim": {"epochs": 90}}, "sum to 100, but optim.epochs is 90"),
    ],
)
def test_wrong_keys_anywhere_are_errors(tmp_path: Path, sections: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        _merged(_with(tmp_path, **sections), tmp_path)


def test_unknown_key_of_a_stage_names_its_place(tmp_path: Path) -> None:
    config = OmegaConf.load(shipped()["nct"])
    config.curriculum.stages[1].anchr = {"weight": 1}
    path = tmp_path / "typo.yaml"
    OmegaConf.save(config, path)
    with pytest.raises(ConfigError, match=r"curriculum\.stages\[1\].*anchr.*anchor"):
        _merged(path, tmp_path)


def test_a_plain_config_may_hold_any_key(tmp_path: Path) -> None:
    """Without our sections upstream's leniency is upstream's business."""
    path = tmp_path / "plain.yaml"
    path.write_text("optim: {epochz: 3}\n")
    assert _merged(path, tmp_path).optim.epochz == 3


def test_on_a_cpu_computation_is_in_fp32(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    precision = _merged(shipped()["nct"], tmp_path).compute_precision
    assert precision.grad_scaler is False
    assert {
        precision[role][part].mixed_precision.param_dtype
        for role in ("student", "teacher")
        for part in ("backbone", "dino_head")
    } == {"fp32"}


def test_output_folder_of_another_config_is_refused(tmp_path: Path) -> None:
    cfg = OmegaConf.create({"train": {"output_dir": str(tmp_path), "num_workers": 1}, "student": {"arch": "vit_base"}})
    OmegaConf.save(cfg, tmp_path / "config.yaml")
    (tmp_path / "last_checkpoint").write_text("model_0000001.pth")
    strict.check_output_folder(OmegaConf.merge(cfg, {"train": {"num_workers": 8}}))
    with pytest.raises(OutputFolderError, match=r"1 keys differ:\n  student\.arch: there 'vit_base', now 'vit_tiny'"):
        strict.check_output_folder(OmegaConf.merge(cfg, {"student": {"arch": "vit_tiny"}}))


def test_vit_tiny_is_registered_with_its_published_size() -> None:
    from dinov2.configs import dinov2_default_config
    from dinov2.models import build_model_from_cfg

    cfg = OmegaConf.merge(dinov2_default_config, {"student": {"arch": "vit_tiny", "patch_size": 16}})
    model, width = build_model_from_cfg(cfg, only_teacher=True)
    assert width == 192
    assert (len(model.blocks), model.blocks[0].attn.num_heads) == (12, 3)
    # DeiT-Ti has 5,717,416 parameters, of which 193,000 are its classifier; ours adds a mask token and layer scales.
    assert sum(p.numel() for p in model.parameters()) == 5_717_416 - 193_000 + 192 + 2 * 12 * 192


def test_training_data_are_looked_at_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(MissingFolderError, match="nowhere"):
        _merged(shipped()["nct"], tmp_path, "train.dataset_path=ImageNet:split=TRAIN:root=nowhere:denoised=nowhere")
    assert not (tmp_path / "out").exists()


def test_warm_up_longer_than_its_schedule_is_found_before_training(tmp_path: Path) -> None:
    config = OmegaConf.load(shipped()["nct"])
    config.curriculum.stages[1].overrides.optim.warmup_epochs = 71
    path = tmp_path / "long.yaml"
    OmegaConf.save(config, path)
    with pytest.raises(ConfigError, match=r"stage 'noisy': optim\.warmup_epochs is 71"):
        _merged(path, tmp_path)


def test_a_plain_config_does_not_continue_a_curriculum(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    OmegaConf.save(_merged(shipped()["nct"], tmp_path), tmp_path / "out" / "config.yaml")
    (tmp_path / "out" / "training_metrics.json").write_text("{}")
    path = tmp_path / "plain.yaml"
    path.write_text("student: {arch: vit_base}")
    with pytest.raises(OutputFolderError, match=r"curriculum\.stages\[0\]"):
        _merged(path, tmp_path)


def test_training_datasets_pickle_without_upstreams_lambda(tmp_path: Path) -> None:
    """Python 3.14 and macOS start loader workers afresh."""
    import pickle

    from dinov2.data import DataAugmentationDINO, make_dataset

    transform = DataAugmentationDINO((0.3, 1.0), (0.1, 0.3), 2, global_crops_size=32, local_crops_size=16)
    dataset = make_dataset(dataset_str=DATASET, transform=transform, target_transform=lambda _: ())
    assert pickle.loads(pickle.dumps(dataset))[0][1] == ()
