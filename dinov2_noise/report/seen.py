"""The section on what the model saw: crops of real training images, stage by stage, by upstream's own pipeline."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from omegaconf import OmegaConf
from PIL import Image

from dinov2_noise.errors import DinoNoiseError
from dinov2_noise.report.curves import arm_of
from dinov2_noise.report.figures import contact_sheet
from dinov2_noise.report.html import Block, FigureBlock, Missing, Section
from dinov2_noise.report.images import opened, training_string
from dinov2_noise.report.runs import CONFIG, Run

SAMPLES = 3
"""Training images per stage."""
MOST_RUNS = 4
_LOCAL = 3
_MOST_CELL_PX = 224
_LARGEST_PX = 112  # on the sheet; larger crops are made smaller


def seen_section(runs: Sequence[Run]) -> Section:
    """A contact sheet per run, all its stages below each other; runs that differ in the seed alone share one."""
    title = "What the model saw"
    configured = [run for run in runs if run.stages and not run.is_untrained]
    if not configured:
        return Section("seen", title, [Missing("No training run is among the folders.", "dinov2-noise report RUN")])
    blocks: list[Block] = []
    alike = _alike(configured)
    for same in alike[:MOST_RUNS]:
        blocks.append(_sheet(same))
    if len(alike) > MOST_RUNS:
        rest = ", ".join(run.name for same in alike[MOST_RUNS:] for run in same)
        blocks.append(Missing(f"Sheets of {MOST_RUNS} runs are shown; not shown: {rest}.", "dinov2-noise report RUN"))
    return Section("seen", title, blocks)


def _alike(runs: Sequence[Run]) -> list[list[Run]]:
    """Runs that see the same but for the seed."""
    found: dict[str, list[Run]] = {}
    for run in runs:
        stages = run.get("curriculum.stages")
        key = repr((run.get("train.dataset_path"), stages, run.get("crops"), run.get("loader")))
        found.setdefault(key, []).append(run)
    return list(found.values())


def _sheet(same: Sequence[Run]) -> Block:
    run, names = same[0], ", ".join(run.name for run in same)
    title = names if len(same) < 4 else f"{arm_of(same[0].name)} ({len(same)} runs)"
    try:
        png = _drawn(run)
    except (DinoNoiseError, ImportError, OSError) as cause:
        text = f"{title}: the training images cannot be shown: {cause}"
        return Missing(text, f"dinov2-noise report {run.folder}    # where the data set is")
    caption = (
        f"{SAMPLES} training images in each stage, cropped, coloured and blurred by the run's own pipeline, with its "
        "seed. "
        f"{min(_LOCAL, int(run.get('crops.local_crops_number', 0)))} of {run.get('crops.local_crops_number')} local "
        "crops are shown."
        + (" The frozen teacher sees the twins: denoised, cut and changed alike." if _has_anchor(run) else "")
    )
    stages = ", ".join(stage.name for stage in run.stages)
    return FigureBlock(title, png, caption, f"Contact sheet of the crops of {names} in the stages {stages}.")


def _has_anchor(run: Run) -> bool:
    return any(stage.anchored for stage in run.stages)


def _drawn(run: Run) -> bytes:
    """Rows: stages and samples. Columns: the stored image, two global crops, their twins, local crops.

    Raises:
        DinoNoiseError: the data set is not there, or the config is of another version.
        ImportError: dinov2 is not installed.
    """
    from dinov2_noise.upstream import preview

    text = training_string(run)
    dataset = opened(text)
    indices = [int((place + 0.5) * len(dataset) / SAMPLES) for place in range(min(SAMPLES, len(dataset)))]
    rows, labels = [], []
    with tempfile.TemporaryDirectory() as folder:
        config_file = _config_with(run, text, Path(folder))
        for number, stage in enumerate(run.stages or ()):
            for sample, index in enumerate(indices):
                crops = preview.crops(config_file, index=index, stage=number, number=stage.first + sample)
                rows.append([crops.get(name, []) for name in ("global_crops", "global_crops_anchor", "local_crops")])
                labels.append(f"{stage.name}\n{Path(dataset.relative_path(index)).stem[-14:]}")
    twins = any(anchored for _, anchored, _ in rows)
    columns = ["student:\nglobal crop", "student:\nglobal crop"]
    columns += ["anchor:\nits twin", "anchor:\nits twin"] if twins else []
    columns += ["student:\nlocal crop"] * min(_LOCAL, len(rows[0][2]))
    shown = [[*row[0], *((row[1] or _blanks(row[0])) if twins else []), *row[2][:_LOCAL]] for row in rows]
    small = [[_small(image) for image in row] for row in shown]
    return contact_sheet(columns, small, labels, most_cell_px=_MOST_CELL_PX)


def _blanks(images: Sequence[Image.Image]) -> list[Image.Image]:
    return [Image.new("RGB", image.size, "white") for image in images]


def _small(image: Image.Image) -> Image.Image:
    factor = max(image.size) / _LARGEST_PX
    if factor <= 1:
        return image
    size = (round(image.width / factor), round(image.height / factor))
    return image.resize(size, Image.Resampling.LANCZOS)


def _config_with(run: Run, dataset: str, folder: Path) -> Path:
    """The run's config with the paths that lead to its images from here, and a curriculum where it has none."""
    content = OmegaConf.load(run.config_file)
    OmegaConf.update(content, "train.dataset_path", dataset)
    if run.get("curriculum") is None:
        stage = {"name": run.stages[0].name, "epochs": run.get("optim.epochs"), "view": "noisy"}
        OmegaConf.update(content, "curriculum", {"stages": [stage]}, force_add=True)
    path = folder / CONFIG
    OmegaConf.save(content, path)
    return path
