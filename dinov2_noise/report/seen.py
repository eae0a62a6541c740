"""The section on what the model saw: the first crops of each stage, by upstream's own pipeline and the run's seed."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

from omegaconf import OmegaConf
from PIL import Image

from dinov2_noise.errors import DinoNoiseError
from dinov2_noise.report.arms import arm_names
from dinov2_noise.report.figures import as_webp, contact_sheet, shortened
from dinov2_noise.report.html import Block, FigureBlock, Missing, Section
from dinov2_noise.report.images import training_string
from dinov2_noise.report.runs import CONFIG, Run

SAMPLES = 3
"""Training images per stage."""
MOST_RUNS = 4
_LOCAL = 3
_MOST_CELL_PX = 224
_LARGEST_PX = 224  # on the sheet; larger crops are made smaller
_PLAIN_PX = 112  # up to which a pixel of a crop is at least one of the page


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
    run, title = same[0], arm_names(same)
    try:
        png, remarks = _drawn(run)
    except (DinoNoiseError, ImportError, OSError) as cause:
        text = f"{title}: the training images cannot be shown: {cause}"
        return Missing(text, f"dinov2-noise report {run.folder}    # where the data set is")
    n_local = run.get("crops.local_crops_number")
    caption = f"Rows: stage and image. {' '.join(remarks)}"
    if isinstance(n_local, int) and n_local > _LOCAL:
        caption += f" {_LOCAL} of {n_local} local crops are shown."
    if _has_anchor(run):
        caption += " The frozen teacher of an anchored stage sees the twins: denoised, cut and changed alike."
    stages = ", ".join(stage.name for stage in run.stages)
    return FigureBlock(title, png, caption, f"Contact sheet of the crops of {title} in the stages {stages}.")


def _has_anchor(run: Run) -> bool:
    return any(stage.anchored for stage in run.stages)


def _drawn(run: Run) -> tuple[bytes, list[str]]:
    """The sheet, and what to say of it. Rows: stages and samples. Columns: global crops, their twins, local crops.

    Raises:
        DinoNoiseError: the data set is not there, or the config is of another version.
        ImportError: dinov2 is not installed.
    """
    from dinov2_noise.upstream.preview import Preview

    rows, labels = [], []
    with tempfile.TemporaryDirectory() as folder:
        preview = Preview(_config_with(run, training_string(run), Path(folder)))
    for number, stage in enumerate(run.stages):
        for draw in preview.first_draws(number, SAMPLES, world_size=_world_size(run)):
            crops = preview.crops(draw)
            rows.append([crops.get(name, []) for name in ("global_crops", "global_crops_anchor", "local_crops")])
            name = Path(preview.dataset.relative_path(draw.index)).stem
            labels.append(f"{stage.name}\n{shortened(name, 14)}")
    twins = any(anchored for _, anchored, _ in rows)
    columns = ["student:\nglobal crop", "student:\nglobal crop"]
    columns += ["anchor:\nits twin", "anchor:\nits twin"] if twins else []
    columns += ["student:\nlocal crop"] * min(_LOCAL, len(rows[0][2]))
    shown = [[*row[0], *((row[1] or _blanks(row[0])) if twins else []), *row[2][:_LOCAL]] for row in rows]
    sheet = contact_sheet(
        columns, [[_small(image) for image in row] for row in shown], labels, most_cell_px=_MOST_CELL_PX
    )
    largest = max(max(image.size) for row in shown for image in row)
    remarks = [_identity(run, len(preview.dataset))]
    if largest <= _PLAIN_PX:
        return sheet, remarks
    remarks.append(_AVERAGED.format(px=largest) if largest > _LARGEST_PX else _FINE)
    return as_webp(sheet, quality=92), remarks


_FINE = (
    "The pixels are half as large as those of the page: enlarge it to see the noise, which looks weaker where a screen "
    "averages them."
)
_AVERAGED = "Crops of {px} px are drawn smaller, which averages noise away: the model saw more of it."


def _world_size(run: Run) -> int:
    batch, images = run.get("train.batch_size_per_gpu"), run.images_per_step
    return max(1, images // batch) if isinstance(batch, int) and batch and images else 1


def _identity(run: Run, n_images: int) -> str:
    """Whether these crops are the very ones."""
    logged = re.match(r"[\d,]+", run.described.get("training set", ""))
    if run.get("curriculum") is None:
        return (
            "Images cut, coloured and blurred by DINOv2's own pipeline; which crops a run without a curriculum drew "
            "cannot be told afterwards."
        )
    if logged and int(logged[0].replace(",", "")) != n_images:
        return (
            f"Made by the run's own pipeline, but not the very crops: the run had {logged[0]} images, there are "
            f"{n_images:,} now."
        )
    return (
        f"The very crops of the first {SAMPLES} images of each stage, drawn, cut, coloured and blurred as the seed of "
        "the run has it."
    )


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
