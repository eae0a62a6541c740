"""Checks on upstream's merged config when it uses our sections: upstream itself lets any key pass."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from dinov2_noise.errors import ConfigError, OutputFolderError

OUR_SECTIONS = ("curriculum", "step", "health")
# Of no influence on what is learned, or (optim.lr) set by upstream from other keys.
_MAY_DIFFER = (
    "train.output_dir",
    "train.num_workers",
    "train.saveckp_freq",
    "optim.lr",
    "compute_precision",
    "evaluation",
    "health",
    "step",
)


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


def check_output_folder(cfg: Any) -> None:
    """Refuse to resume from the checkpoints of another config.

    Raises:
        OutputFolderError: a run was begun there with a ``config.yaml`` that differs in what is learned.
    """
    folder = Path(cfg.train.output_dir)
    saved = folder / "config.yaml"
    metrics = folder / "training_metrics.json"
    begun = any(folder.glob("last_checkpoint*")) or (metrics.exists() and metrics.stat().st_size > 0)
    if not saved.exists() or not begun:
        return
    before = _flat(OmegaConf.to_container(OmegaConf.load(saved), resolve=False), "")
    now = _flat(OmegaConf.to_container(cfg, resolve=False), "")
    differing = [
        key for key in sorted({*before, *now}) if before.get(key) != now.get(key) and not key.startswith(_MAY_DIFFER)
    ]
    if differing:
        rows = "".join(f"\n  {key}: there {before.get(key)!r}, now {now.get(key)!r}" for key in differing[:8])
        raise OutputFolderError(
            f"output folder {folder} holds a run of another config; {len(differing)} keys differ:{rows}\n"
            "Choose another --output-dir, or delete that run."
        )


def holds_curriculum(cfg: Any) -> bool:
    """Whether the folder that ``cfg`` trains into was begun with a curriculum."""
    saved = Path(cfg.train.output_dir) / "config.yaml"
    return saved.exists() and "curriculum" in OmegaConf.load(saved)


def _flat(value: Any, prefix: str) -> dict[str, Any]:
    if isinstance(value, Mapping):
        items = [(f"{prefix}.{key}" if prefix else str(key), child) for key, child in value.items()]
    elif isinstance(value, list):
        items = [(f"{prefix}[{index}]", child) for index, child in enumerate(value)]
    else:
        return {prefix: value}
    return {key: leaf for name, child in items for key, leaf in _flat(child, name).items()}
