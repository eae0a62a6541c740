"""Checks on upstream's merged config when it uses our sections: upstream itself lets any key pass."""

from __future__ import annotations

import difflib
import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from dinov2_noise import data
from dinov2_noise.curriculum.config import parse_curriculum
from dinov2_noise.curriculum.frequency import Crops, check_sides
from dinov2_noise.errors import ConfigError, DatasetStringError, OutputFolderError

logger = logging.getLogger("dinov2")

OUR_SECTIONS = ("curriculum", "step", "health", "loader", "monitor")
# Of no influence on what is learned.
_OURS_FREE = ("step", "health", "loader", "monitor")
_FREE = (*_OURS_FREE, "evaluation", "compute_precision", "train.num_workers", "train.saveckp_freq")
# optim.lr is set by upstream from other keys.
_MAY_DIFFER = (*_FREE, "train.output_dir", "optim.lr", "student.pretrained_weights")


def check_keys(cfg: Any, upstream_defaults: Any) -> None:
    """Compare the keys of ``cfg``, outside our sections, with upstream's defaults.

    Raises:
        ConfigError: a key that neither upstream nor we read; the closest valid one is named.
    """
    container = OmegaConf.to_container(cfg, resolve=False)
    assert isinstance(container, dict)
    defaults = OmegaConf.to_container(upstream_defaults, resolve=False)
    assert isinstance(defaults, dict)
    theirs = {key: value for key, value in container.items() if key not in OUR_SECTIONS}
    for key, siblings in _unknown(theirs, defaults, ""):
        name = key.rsplit(".", 1)[-1]
        valid = sorted([*siblings, *(OUR_SECTIONS if "." not in key else ())])
        closest = difflib.get_close_matches(name, valid, n=1)
        hint = f"did you mean {closest[0]!r}? " if closest else ""
        raise ConfigError(f"unknown config key {key!r}: {hint}valid keys there: {', '.join(valid)}")


def _unknown(found: Mapping[Any, Any], known: Mapping[Any, Any], prefix: str) -> Iterator[tuple[str, list[str]]]:
    for key, value in found.items():
        if key not in known:
            yield f"{prefix}{key}", [str(sibling) for sibling in known]
        elif isinstance(value, Mapping) and isinstance(known[key], Mapping):
            yield from _unknown(value, known[key], f"{prefix}{key}.")


def check_numbers(cfg: Any) -> None:
    """Numbers of upstream's that it takes as they come, with odd consequences.

    Raises:
        ConfigError: one is out of its range, or the crops do not divide into patches, or the local ones are larger.
    """
    least = {
        **dict.fromkeys(("train.batch_size_per_gpu", "train.OFFICIAL_EPOCH_LENGTH", "optim.epochs"), 1),
        **dict.fromkeys(("student.patch_size", "crops.local_crops_number"), 1),
        **dict.fromkeys(("optim.warmup_epochs", "optim.freeze_last_layer_epochs"), 0),
        "teacher.warmup_teacher_temp_epochs": 0,
    }
    for key, bound in least.items():
        value = OmegaConf.select(cfg, key)
        if not isinstance(value, int | float) or value < bound:
            raise ConfigError(f"{key} is {value}: it must be at least {bound}")
    check_sides(Crops.from_config(cfg), "crops")


def first_iteration(cfg: Any, args: Any, total_iterations: int) -> int:
    """Where training into this folder goes on, by the name of its newest checkpoint; 0 when it begins."""
    tag = Path(cfg.train.output_dir) / "last_checkpoint"
    if getattr(args, "no_resume", True) or not tag.is_file():
        return 0
    name = tag.read_text(encoding="utf-8").strip()
    found = re.fullmatch(r"model_(\d+)\.pth", name)
    if found:
        return int(found[1]) + 1
    return total_iterations if name == "model_final.pth" else 0


def check_output_folder(cfg: Any) -> None:
    """Refuse to resume from the checkpoints of another config.

    The images per process may differ: whether those per step do, the checkpoint tells when it is loaded.

    Raises:
        OutputFolderError: a run was begun there with a ``config.yaml`` that differs in what is learned.
    """
    folder = Path(cfg.train.output_dir)
    saved = folder / "config.yaml"
    metrics = folder / "training_metrics.json"
    begun = any(folder.glob("last_checkpoint*")) or (metrics.exists() and metrics.stat().st_size > 0)
    if not saved.exists() or saved.stat().st_size == 0 or not begun:
        return
    may_differ = [*_MAY_DIFFER, *(["train.batch_size_per_gpu"] if (folder / "last_checkpoint").exists() else [])]
    there = _saved_config(folder)
    if there is None:
        return
    stages = _stage_changes(there, cfg)
    before = _flat(OmegaConf.to_container(there, resolve=False), "")
    now = _flat(OmegaConf.to_container(cfg, resolve=False), "")
    rows = [
        f"{key}: there {before.get(key)!r}, now {now.get(key)!r}"
        for key in sorted({*before, *now})
        if before.get(key) != now.get(key)
        and not any(key == name or key.startswith(f"{name}.") for name in may_differ)
        and not (stages is not None and key.startswith("curriculum."))
        and not (key == "train.dataset_path" and _same_data_elsewhere(there, cfg))
    ]
    rows = [*(stages or []), *rows]
    if rows:
        more = f"\n  … and {len(rows) - 8} more" if len(rows) > 8 else ""
        raise OutputFolderError(
            f"output folder {folder} holds a run of another config; {len(rows)} keys differ:"
            + "".join(f"\n  {row}" for row in rows[:8])
            + f"{more}\n{_still_possible(folder)}"
        )


def _same_data_elsewhere(before: Any, now: Any) -> bool:
    """Whether the data sets differ in their folders only: each job may have scratch of its own."""
    try:
        specs = [data.parse_dataset_string(cfg.train.dataset_path) for cfg in (before, now)]
    except DatasetStringError:
        return False
    here = [_without_folders(spec) for spec in specs]
    same = here[0] == here[1] and (specs[0].denoised is None) == (specs[1].denoised is None)
    if same:
        logger.warning(
            "dinov2-noise: the run was begun with the data %s; now it goes on with %s, which must be the same images",
            before.train.dataset_path,
            now.train.dataset_path,
        )
    return same


def _without_folders(spec: data.DatasetSpec) -> data.DatasetSpec:
    """What must be the same: of files that choose images their names."""
    listed = spec.list_file and Path(spec.list_file.name)
    subset = spec.subset and replace(spec.subset, file=spec.subset.file and Path(spec.subset.file.name))
    return replace(spec, root=Path(), extra=None, denoised=None, list_file=listed, subset=subset)


def _still_possible(folder: Path) -> str:
    tag = folder / "last_checkpoint"
    weights = folder / tag.read_text(encoding="utf-8").strip() if tag.exists() else "CHECKPOINT"
    return (
        "That run goes on with its own config.yaml; there only the number of processes (with the same product of it "
        f"and train.batch_size_per_gpu), {', '.join(_FREE)} may change. For anything else choose another --output-dir; "
        f"student.pretrained_weights={weights} starts it from what was learned here."
    )


def _stage_changes(before: Any, now: Any) -> list[str] | None:
    """What differs between two curricula, stage by stage; None when there are no two to compare."""
    try:
        lists = [parse_curriculum(cfg.curriculum, total_epochs=cfg.optim.epochs).stages for cfg in (before, now)]
    except (AttributeError, ConfigError):
        return None
    old, new = ({stage.name: asdict(stage) for stage in stages} for stages in lists)
    rows = [f"stage {name!r}: is gone" for name in old if name not in new]
    rows += [f"stage {name!r}: is new" for name in new if name not in old]
    if not rows and list(old) != list(new):
        rows.append(f"stages: there in the order {', '.join(old)}, now {', '.join(new)}")
    for name in old:
        rows += [f"stage {name!r}: {change}" for change in _changes(old[name], new.get(name, old[name]), "")]
    return rows


def _changes(before: Any, now: Any, key: str) -> Iterator[str]:
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for name in dict.fromkeys((*before, *now)):
            yield from _changes(before.get(name), now.get(name), f"{key}.{name}" if key else str(name))
    elif before != now:
        yield f"{key} {_brief(before)} → {_brief(now)}"


def _brief(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {child}" for key, child in value.items() if child is not None) + "}"
    return "none" if value is None else str(value)


def holds_curriculum(cfg: Any) -> bool:
    """Whether the folder that ``cfg`` trains into was begun with a curriculum."""
    saved = _saved_config(Path(cfg.train.output_dir))
    return saved is not None and "curriculum" in saved


def _saved_config(folder: Path) -> DictConfig | None:
    """The config that the run in ``folder`` was begun with; None when there is none, or only half of one.

    Raises:
        OutputFolderError: it is damaged, and there are checkpoints made with it.
    """
    saved = folder / "config.yaml"
    if not saved.exists() or saved.stat().st_size == 0:
        return None
    try:
        found = OmegaConf.load(saved)
        if isinstance(found, DictConfig):
            return found
        reason = "it holds no keys"
    except Exception as cause:  # of YAML, of the encoding, or of OmegaConf
        reason = " ".join(str(cause).split())
    if any(folder.glob("last_checkpoint*")):
        raise OutputFolderError(
            f"{saved} is damaged ({reason}), so that nobody can tell whether the checkpoints beside it belong to the "
            "config given now. If they do, delete it and start again: it is written anew. Otherwise choose another "
            "--output-dir"
        )
    logger.warning("dinov2-noise: %s is damaged and is written anew: %s", saved, reason)
    return None


def _flat(value: Any, prefix: str) -> dict[str, Any]:
    if isinstance(value, Mapping):
        items = [(f"{prefix}.{key}" if prefix else str(key), child) for key, child in value.items()]
    elif isinstance(value, list):
        items = [(f"{prefix}[{index}]", child) for index, child in enumerate(value)]
    else:
        return {prefix: value}
    return {key: leaf for name, child in items for key, leaf in _flat(child, name).items()}
