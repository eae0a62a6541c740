"""Part of a data set in upstream's own evaluations; fresh noise in its training loader, and nowhere else."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import SmallSet, run_python
from omegaconf import OmegaConf

from dinov2_noise.curriculum.config import parse_curriculum
from dinov2_noise.curriculum.stages import build
from dinov2_noise.data import build_index
from dinov2_noise.demo.cells import write_cells
from dinov2_noise.errors import DatasetStringError
from dinov2_noise.upstream import runtime
from dinov2_noise.upstream.backbone import build_backbone

pytestmark = pytest.mark.upstream


@pytest.fixture
def run() -> Iterator[runtime.Run]:
    """A run of 4 epochs of 3 iterations with batches of 4, all noisy."""
    from dinov2.configs import dinov2_default_config

    config = parse_curriculum({"stages": [{"name": "noisy", "epochs": 4, "view": "noisy"}]}, total_epochs=4)
    own = {"train": {"batch_size_per_gpu": 4, "seed": 0, "OFFICIAL_EPOCH_LENGTH": 3}, "optim": {"epochs": 4}}
    cfg = OmegaConf.merge(dinov2_default_config, own)
    started = runtime.Run(cfg, config, build(config, epoch_length_iterations=3))
    runtime.start(started)
    yield started
    runtime.start(None)


def _crops(text: str, workers: int, start: int = 0) -> list[torch.Tensor]:
    """The first global crops of iterations ``start`` to 7, as upstream's training loads them."""
    from dinov2.data import SamplerType, make_data_loader, make_dataset
    from dinov2.data.augmentations import DataAugmentationDINO

    transform = DataAugmentationDINO((0.32, 1.0), (0.05, 0.32), 2, global_crops_size=32, local_crops_size=16)
    loader = make_data_loader(
        dataset=make_dataset(dataset_str=text, transform=transform, target_transform=lambda _: ()),
        batch_size=4,
        num_workers=workers,
        shuffle=True,
        seed=start,
        sampler_type=SamplerType.SHARDED_INFINITE,
        collate_fn=_first_crops,
    )
    return list(itertools.islice(loader, 8 - start))


def _first_crops(samples: list[Any]) -> torch.Tensor:
    return torch.stack([sample["global_crops"][0] for sample, _ in samples])


@pytest.mark.filterwarnings("ignore:'pin_memory' argument:UserWarning")
def test_fresh_noise_in_training_with_workers_and_after_a_resume(run: runtime.Run, small_set: SmallSet) -> None:
    text = f"ImageNet:split=TRAIN:root={small_set.clean}:noise=gauss100"
    fresh = _crops(f"{text},mode=fresh", 0)
    for workers, start in ((2, 0), (1, 5)):
        for expected, found in zip(fresh[start:], _crops(f"{text},mode=fresh", workers, start), strict=True):
            assert torch.equal(expected, found)
    assert not torch.equal(fresh[0], _crops(text, 0)[0])


def test_fresh_noise_is_refused_in_an_evaluation_and_without_curriculum(run: runtime.Run, small_set: SmallSet) -> None:
    from dinov2.data import make_dataset

    text = f"ImageNet:split=TRAIN:root={small_set.clean}:noise=gauss100,mode=fresh"
    with pytest.raises(DatasetStringError, match="needs the epoch"):
        make_dataset(dataset_str=text, transform=np.asarray)
    runtime.start(None)
    with pytest.raises(DatasetStringError, match="needs the epoch"):
        _crops(text, 0)


@pytest.mark.slow
def test_upstreams_knn_on_half_of_the_classes(tmp_path: Path) -> None:
    """Upstream counts classes by the largest target: with those of the whole set its votes would not fit."""
    write_cells(tmp_path / "clean", train_grid=(3, 2), val_grid=(2, 1))
    build_index(tmp_path / "clean", progress=False)
    classes = [*sorted(path.name for path in (tmp_path / "clean/train").iterdir())[::2], "# all others are left out"]
    (tmp_path / "subset.txt").write_text("\n".join(classes))
    student = {"arch": "vit_tiny", "patch_size": 32, "block_chunks": 0, "layerscale": 1.0}
    OmegaConf.save(OmegaConf.create({"student": student}), tmp_path / "config.yaml")
    state = {
        f"backbone.{name}": value for name, value in build_backbone(str(tmp_path / "config.yaml")).state_dict().items()
    }
    torch.save({"teacher": state}, tmp_path / "weights.pth")
    text = f"ImageNet:split={{}}:root={tmp_path}/clean:subset={tmp_path}/subset.txt"
    done = run_python(
        *("-m", "dinov2.eval.knn", "--config-file", str(tmp_path / "config.yaml"), "--nb_knn", "1", "5"),
        *("--pretrained-weights", str(tmp_path / "weights.pth"), "--output-dir", str(tmp_path / "knn")),
        *("--train-dataset", text.format("TRAIN"), "--val-dataset", text.format("VAL"), "--batch-size", "16"),
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = [json.loads(line) for line in (tmp_path / "knn/results_eval_knn.json").read_text().splitlines()]
    names = {name for line in found for name in line}
    assert names == {f"('full', {k}) Top {top}" for k in (1, 5) for top in (1, 5)}
    assert max(line["('full', 5) Top 5"] for line in found if "('full', 5) Top 5" in line) == 100
