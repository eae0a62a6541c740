"""Without our config sections a seeded run gives the losses of upstream with nothing but the mends for PyTorch."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import SmallSet, run_python
from omegaconf import OmegaConf

pytestmark = pytest.mark.upstream

CONFIG = {
    "train": {"batch_size_per_gpu": 4, "num_workers": 1, "OFFICIAL_EPOCH_LENGTH": 4},
    "student": {"arch": "vit_small", "patch_size": 16, "drop_path_rate": 0.3, "layerscale": 1.0},
    "dino": {"head_n_prototypes": 32, "head_hidden_dim": 32, "head_bottleneck_dim": 16},
    "optim": {"epochs": 3, "warmup_epochs": 1},
    "teacher": {"warmup_teacher_temp_epochs": 1},
    "crops": {"global_crops_size": 64, "local_crops_size": 32, "local_crops_number": 2},
    "evaluation": {"eval_period_iterations": 0},
}
# Stands in for our seam of the training module: the mends alone, without stages and anchor.
MENDS_ONLY = """
from dinov2_noise.upstream.train.mended import Mended
from dinov2_noise.upstream.train.ssl_meta_arch import surround
def attach(module):
    module.SSLMetaArch = type("SSLMetaArch", (Mended, module.SSLMetaArch), {})
"""
# Upstream's own dataset, sampler, augmentation, collate, schedules and config; only its hard-coded length is changed.
TRAIN_MENDED_UPSTREAM = """
import sys
from dinov2_noise.upstream import SEAMS, importing
mends = ("dinov2.distributed", "dinov2.fsdp", "dinov2.layers.attention", "dinov2.layers.block", "torchvision")
importing.install({name: SEAMS[name] for name in mends} | {"dinov2.train.ssl_meta_arch": "mends_only"})
from dinov2.data.datasets import image_net
image_net._Split.length = property(lambda self: 20)
import dinov2.train.train as train
from dinov2.utils import config
def fp32(args, build=config.get_cfg_from_args):
    cfg = build(args)
    for role in ("teacher", "student"):
        for part in cfg.compute_precision[role].values():
            part.mixed_precision.update(param_dtype="fp32", reduce_dtype="fp32")
    return cfg
config.get_cfg_from_args = fp32
train.main(train.get_args_parser().parse_args())
"""


def _losses(output: Path) -> list[dict[str, float]]:
    lines = (output / "training_metrics.json").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if not k.endswith("_time")} for line in lines]


def test_same_losses_as_mended_upstream(
    small_set: SmallSet, tmp_path: Path, copy_of_upstream: Callable[[bool], Path]
) -> None:
    config = tmp_path / "plain.yaml"
    OmegaConf.save(OmegaConf.create(CONFIG), config)
    dataset = f"train.dataset_path=ImageNet:split=TRAIN:root={small_set.clean}:extra={small_set.clean}-extra"
    options = ("--config-file", str(config), dataset)
    (tmp_path / "mends_only.py").write_text(MENDS_ONLY)
    (tmp_path / "train_mended_upstream.py").write_text(textwrap.dedent(TRAIN_MENDED_UPSTREAM))

    def run(*command: str, name: str, path: tuple[Path, ...] = ()) -> list[dict[str, float]]:
        output = tmp_path / name
        done = run_python(*command, *options[:2], "--output-dir", str(output), *options[2:], path=path)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
        return _losses(output)

    ours = run("-m", "dinov2.train.train", name="ours")
    script, unpatched = str(tmp_path / "train_mended_upstream.py"), (copy_of_upstream(False), tmp_path)
    theirs = run(script, name="theirs", path=unpatched)
    assert [entry["iteration"] for entry in ours] == [0, 10, 11]
    assert ours == theirs
