"""What may change in the config when a run is resumed, and how a refused change is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf

from dinov2_noise.errors import OutputFolderError
from dinov2_noise.upstream.utils import strict

STAGES: list[dict[str, Any]] = [
    {"name": "denoised", "epochs": 3, "view": "denoised"},
    {"name": "noisy", "epochs": 7, "view": "noisy", "restart": True, "anchor": {"weight": 1.6}},
]


@pytest.fixture
def begun(tmp_path: Path) -> DictConfig:
    """The config of a run that has a checkpoint."""
    cfg = OmegaConf.create(
        {
            "train": {"output_dir": str(tmp_path), "batch_size_per_gpu": 4},
            "optim": {"epochs": 10},
            "curriculum": {"stages": STAGES},
        }
    )
    OmegaConf.save(cfg, tmp_path / "config.yaml")
    (tmp_path / "last_checkpoint").write_text("model_0000005.pth")
    return cfg


def refusal(cfg: DictConfig, **changes: Any) -> str:
    with pytest.raises(OutputFolderError) as caught:
        strict.check_output_folder(OmegaConf.merge(cfg, changes))
    return str(caught.value)


def test_what_may_change(begun: DictConfig) -> None:
    free = {"step": {"micro_batches": 2}, "health": {"trial_save": False}, "evaluation": {"eval_period_iterations": 5}}
    strict.check_output_folder(OmegaConf.merge(begun, free, {"train": {"num_workers": 3, "batch_size_per_gpu": 2}}))


def test_the_same_data_may_lie_elsewhere(begun: DictConfig, tmp_path: Path) -> None:
    def with_data(path: str) -> DictConfig:
        return OmegaConf.merge(begun, {"train": {"dataset_path": path}})  # type: ignore[return-value]

    OmegaConf.save(
        with_data("ImageNet:split=TRAIN:root=/a/noisy:denoised=/a/denoised:noise=gauss100"), tmp_path / "config.yaml"
    )
    strict.check_output_folder(with_data("ImageNet:split=TRAIN:root=/b/x:extra=/b/y:denoised=/b/z:noise=gauss100"))
    for other in (
        "ImageNet:split=TRAIN:root=/b/x:denoised=/b/z:noise=gauss50",
        "ImageNet:split=TRAIN:root=/b/x:noise=gauss100",
    ):
        with pytest.raises(OutputFolderError, match="dataset_path: there"):
            strict.check_output_folder(with_data(other))


def test_files_that_choose_images_may_lie_elsewhere(begun: DictConfig, tmp_path: Path) -> None:
    def with_data(chosen: str) -> DictConfig:
        path = f"ImageFolder:root=/a:{chosen}"
        return OmegaConf.merge(begun, {"train": {"dataset_path": path}})  # type: ignore[return-value]

    OmegaConf.save(with_data("list=/a/list.txt:subset=/a/part.txt"), tmp_path / "config.yaml")
    strict.check_output_folder(with_data("list=/b/list.txt:subset=/c/part.txt"))
    for other in ("list=/a/list.txt:subset=/a/other.txt", "list=/a/list.txt:subset=0.5", "subset=/a/part.txt"):
        with pytest.raises(OutputFolderError, match="dataset_path: there"):
            strict.check_output_folder(with_data(other))


def test_defaults_written_out_are_no_change(begun: DictConfig) -> None:
    spelled = [{**STAGES[0], "restart": False, "teacher_view": "noisy"}, STAGES[1]]
    strict.check_output_folder(OmegaConf.merge(begun, {"curriculum": {"stages": spelled}}))


def test_images_per_process_are_compared_while_there_is_no_checkpoint(begun: DictConfig, tmp_path: Path) -> None:
    (tmp_path / "last_checkpoint").unlink()
    (tmp_path / "training_metrics.json").write_text("{}\n")
    assert "train.batch_size_per_gpu: there 4, now 2" in refusal(begun, train={"batch_size_per_gpu": 2})


@pytest.mark.parametrize(
    ("stages", "epochs", "rows"),
    [
        ([STAGES[0], {**STAGES[1], "epochs": 6}], 9, ["stage 'noisy': epochs 7 → 6", "optim.epochs: there 10, now 9"]),
        ([STAGES[0], {**STAGES[1], "anchor": {"weight": 2}}], 10, ["stage 'noisy': anchor.weight 1.6 → 2"]),
        ([STAGES[0], {**STAGES[1], "anchor": None}], 10, ["stage 'noisy': anchor {weight: 1.6, "]),
        (
            [{**STAGES[0], "crops": {"global_crops_size": 112}}, {**STAGES[1], "gaussian_patch": {"max_sigma": 0.5}}],
            10,
            [
                "stage 'denoised': crops none → {global_crops_size: 112}",
                "stage 'noisy': gaussian_patch none → {max_sigma: 0.5}",
            ],
        ),
        (STAGES[:1], 3, ["stage 'noisy': is gone"]),
        ([*STAGES, {"name": "end", "epochs": 1, "view": "noisy"}], 11, ["stage 'end': is new"]),
        (
            [{**STAGES[1], "anchor": None, "restart": False}, STAGES[0]],
            10,
            ["stages: there in the order denoised, noisy, now noisy, denoised"],
        ),
    ],
)
def test_changed_stages_are_told_by_name(
    begun: DictConfig, tmp_path: Path, stages: list[Any], epochs: int, rows: list[str]
) -> None:
    message = refusal(begun, curriculum={"stages": stages}, optim={"epochs": epochs})
    for row in rows:
        assert f"\n  {row}" in message
    assert "curriculum.stages" not in message
    assert "only the number of processes (with the same product of it and train.batch_size_per_gpu), step" in message
    assert f"student.pretrained_weights={tmp_path / 'model_0000005.pth'}" in message


def test_other_keys_are_named_too(begun: DictConfig) -> None:
    assert "1 keys differ:\n  student.arch: there None, now 'vit_tiny'" in refusal(begun, student={"arch": "vit_tiny"})


@pytest.mark.parametrize("content", [b"optim: {epochs: 1", b"optim:\n  epochs: 10\n a", b"\xff\xfe\x00", b"- 1"])
def test_a_damaged_config(begun: DictConfig, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "config.yaml").write_bytes(content)
    assert "config.yaml is damaged (" in refusal(begun)
    with pytest.raises(OutputFolderError, match="delete it and start again: it is written anew"):
        strict.holds_curriculum(begun)
    (tmp_path / "last_checkpoint").unlink()
    (tmp_path / "training_metrics.json").write_text("{}\n")
    strict.check_output_folder(begun)
    assert not strict.holds_curriculum(begun)


def test_a_config_that_a_full_disk_left_empty_says_nothing(begun: DictConfig, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("")
    strict.check_output_folder(OmegaConf.merge(begun, {"optim": {"epochs": 11}}))
