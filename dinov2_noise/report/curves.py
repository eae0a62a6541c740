"""The section on training curves: losses, schedules, what was measured meanwhile, health signs; stage switches."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from omegaconf import OmegaConf

from dinov2_noise.curriculum.config import parse_curriculum
from dinov2_noise.curriculum.schedules import ScheduleSettings, staged_schedules
from dinov2_noise.errors import ConfigError
from dinov2_noise.report.arms import arm_names, by_arm
from dinov2_noise.report.curve_figures import Line, Panel, panels
from dinov2_noise.report.figures import ARM_COLOURS, NARROW_WIDTH_PX
from dinov2_noise.report.html import Block, FigureBlock, Missing, Section, Table
from dinov2_noise.report.runs import Entry, Run

MOST_ARMS = len(ARM_COLOURS)
"""In one picture, with all their seeds; more could not be told apart."""

_LOSSES = {
    "total_loss": "total loss",
    "dino_global_crops_loss": "DINO, global crops",
    "dino_local_crops_loss": "DINO, local crops",
    "ibot_loss": "iBOT",
    "koleo_loss": "KoLeo",
    "anchor_dino_global_crops_loss": "anchor: DINO, global",
    "anchor_dino_local_crops_loss": "anchor: DINO, local",
    "anchor_ibot_loss": "anchor: iBOT",
}
_SIGNS = {
    "feature_std": "spread of CLS tokens",
    "rankme": "RankMe of a batch",
    "distinct_cls": "distinct CLS tokens (share)",
    "prototype_entropy": "prototype entropy",
    "assignment_entropy": "assignment entropy",
    "anchor_gap": "gap to the frozen teacher",
}
_MEASURED = {
    "knn_top1": "k-NN top-1",
    "linear_top1": "linear top-1",
    "rank_me": "RankMe",
    "uniformity": "uniformity",
    "twin_agreement": "agreement with denoised",
    "clean_agreement": "agreement with clean",
}


def curves_section(runs: Sequence[Run]) -> Section:
    """All curves of all runs; what a run lacks is said."""
    trained = [run for run in runs if run.training or run.health or run.monitor]
    if not trained:
        command = "dinov2-noise train CONFIG --output RUN\ndinov2-noise report RUN"
        return Section("curves", "Curves", [Missing("No run with a training log is among the folders.", command)])
    drawn = list(by_arm(trained))[:MOST_ARMS]
    shown, rest = ([run for run in trained if (run.arm in drawn) is wanted] for wanted in (True, False))
    blocks: list[Block] = _unfinished(shown)
    if rest:
        text = f"Only the first {MOST_ARMS} arms are drawn; not drawn: {arm_names(rest)}."
        blocks.append(Missing(text, "dinov2-noise report RUN"))
    switches = switch_labels(shown)
    blocks += _figure(_loss_panels(shown), switches, "Losses", _LOSS_CAPTION + _seeds(shown))
    blocks += _figure(_schedule_panels(shown), switches, "Schedules", _SCHEDULE_CAPTION)
    if any(len(run.monitor) > 1 for run in shown):  # one measurement is told by the table below
        blocks += _figure(_monitor_panels(shown), switches, "Measured while training", _MONITOR_CAPTION)
    elif not any(run.monitor for run in shown):
        blocks.append(Missing(_NO_MONITOR, _MONITOR_COMMAND))
    blocks += _figure(_sign_panels(shown), switches, "Health signs", _SIGN_CAPTION)
    blocks += _monitor_table(shown)
    return Section("curves", "Curves", blocks)


_LOSS_CAPTION = (
    "As DINOv2 logs them: medians over the last 20 iterations. A dashed upright line is a stage switch; after a "
    "restart the optimizer and all schedules begin anew. A term that a stage does not have is not drawn; with an "
    "anchor the total is a sum of more terms, so that totals compare within a stage only. “Knows nothing”: the loss of "
    "a network that gives all prototypes the same share."
)
_SCHEDULE_CAPTION = (
    "Learning rate, weight decay and teacher momentum as logged, medians over the last 20 iterations, which smooth "
    "their jumps; the teacher temperature as configured, it is not logged."
)
_MONITOR_CAPTION = (
    "Measured on a small set every evaluation.eval_period_iterations. Solid: noisy images, dashed: clean, dotted: "
    "denoised. Uniformity: lower is more even. Agreement: share of nearest neighbours that noisy images and their "
    "twins have in common."
)
_SIGN_CAPTION = (
    "Measured on batches of the training, see docs/health.md: near-constant tokens are a sign of collapse. Entropies "
    "are shares of ln(number of prototypes)."
)
_NO_MONITOR = (
    "Accuracy during training is not here: no run has a monitor.jsonl. It is written where the config has a section "
    "monitor (docs/monitoring.md)."
)
_MONITOR_COMMAND = "dinov2-noise train CONFIG --output RUN"


def _unfinished(runs: Sequence[Run]) -> list[Block]:
    open_runs = [run for run in runs if not run.is_finished]
    if not open_runs:
        return []
    states = "; ".join(f"{run.name}, {run.state}" for run in open_runs)
    text = f"Curves as far as they go: {states}. The training's command, started again, continues it."
    return [Missing(text, "dinov2-noise train CONFIG --output RUN")]


def _seeds(runs: Sequence[Run]) -> str:
    several = any(len(own) > 1 for own in by_arm(runs).values())
    return " Lines that look alike are the seeds of one arm." if several else ""


def styles(runs: Sequence[Run]) -> dict[str, tuple[int, int]]:
    """Run → (colour, line style): seeds of an arm share both, arms beyond the colours change the style."""
    arms = list(by_arm(runs))
    return {run.name: (arms.index(run.arm) % len(ARM_COLOURS), arms.index(run.arm) // len(ARM_COLOURS)) for run in runs}


def switch_labels(runs: Iterable[Run]) -> dict[int, str]:
    """Iteration → names of the stages that begin there, in any run."""
    found: dict[int, list[str]] = {}
    for run in runs:
        for iteration, name in run.switches:
            found.setdefault(iteration, []).append(name)
    return {iteration: "→ " + " / ".join(dict.fromkeys(names)) for iteration, names in sorted(found.items())}


def _lines(runs: Sequence[Run], entries: Callable[[Run], Sequence[Entry]], key: str) -> list[Line]:
    found, looks = [], styles(runs)
    for run in runs:
        points = [(entry["iteration"], entry[key]) for entry in entries(run) if _is_number(entry.get(key))]
        if points:
            x, y = zip(*points, strict=True)
            found.append(Line(run.arm, *looks[run.name], x, y))
    return found


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _of_training(run: Run) -> Sequence[Entry]:
    return run.training


def _loss_panels(runs: Sequence[Run]) -> list[Panel]:
    keys = [*_LOSSES, *sorted({key for run in runs for entry in run.training[-1:] for key in entry if _is_new(key)})]
    found = []
    for key in keys:
        title = _LOSSES.get(key, key.replace("_", " "))
        floor = _uniform(runs) if key == "dino_global_crops_loss" else {}
        found.append(Panel(title, _lines(runs, _of_training, key), floor))
    return [panel for panel in found if panel.lines]


def _is_new(key: str) -> bool:
    return key.endswith("_loss") and key not in _LOSSES


def _uniform(runs: Sequence[Run]) -> dict[str, float]:
    """Where DINO's global term stands while the network knows nothing: its share of ln K, the same for all runs.

    Upstream weighs the 2 global terms against all 2 + 2 n_local: 2 ln K / (2 + 2 n).
    """
    heights = set()
    for run in runs:
        prototypes, local = run.get("dino.head_n_prototypes"), run.get("crops.local_crops_number")
        if not isinstance(prototypes, int) or not isinstance(local, int):
            return {}
        heights.add(2 * math.log(prototypes) / (2 + 2 * local))
    return {"knows nothing": heights.pop()} if len(heights) == 1 else {}


def _schedule_panels(runs: Sequence[Run]) -> list[Panel]:
    named = {"lr": "learning rate", "wd": "weight decay", "mom": "teacher momentum"}
    found = [Panel(title, _lines(runs, _of_training, key), {}) for key, title in named.items()]
    found.insert(1, Panel("teacher temperature", _temperatures(runs), {}))
    return [panel for panel in found if panel.lines]


def _temperatures(runs: Sequence[Run]) -> list[Line]:
    found, looks = [], styles(runs)
    for run in runs:
        values = _temperature(run)
        step = max(1, len(values) // 300)
        if values:
            found.append(Line(run.arm, *looks[run.name], range(0, len(values), step), values[::step]))
    return found


def _temperature(run: Run) -> list[float]:
    """Of each iteration so far; empty where the config is not enough to compute it."""
    try:
        config = OmegaConf.create(dict(run.config))
        curriculum = config.get("curriculum") or {"stages": [_ONE_STAGE | {"epochs": config.optim.epochs}]}
        parsed = parse_curriculum(curriculum, total_epochs=config.optim.epochs)
        schedules = staged_schedules(ScheduleSettings.from_config(config), parsed)
    except (ConfigError, ValueError, AttributeError, TypeError):
        return []
    values = [float(value) for value in schedules.teacher_temp]
    return values[: (run.last_iteration or 0) + 1]


_ONE_STAGE = {"name": "plain", "view": "noisy"}


def _monitor_panels(runs: Sequence[Run]) -> list[Panel]:
    """One per metric; of each run one line per set of images."""
    keys = dict.fromkeys(key for run in runs for entry in run.monitor for key in _values(entry))
    looks = styles(runs)
    metrics: dict[str, list[Line]] = {}
    for key in keys:
        metric, _, images = key.partition("/")
        images = images or "noisy"  # agreement is that of noisy images with their twins
        for run in runs:
            points = [(e["iteration"], _values(e)[key]) for e in run.monitor if _is_number(_values(e).get(key))]
            if points:
                x, y = zip(*points, strict=True)
                style = {"noisy": 0, "clean": 1, "denoised": 3}.get(images, 2)
                label = f"{run.arm}, {images}"
                scaled = [100 * value for value in y] if metric.endswith("top1") else y
                metrics.setdefault(metric, []).append(Line(label, looks[run.name][0], style, x, scaled))
    ordered = sorted(metrics, key=lambda metric: [*_MEASURED, metric].index(metric))
    return [Panel(_measured_title(metric), metrics[metric], {}) for metric in ordered]


def _measured_title(metric: str) -> str:
    return _MEASURED.get(metric, metric.replace("_", " ")) + (" (%)" if metric.endswith("top1") else "")


def _values(entry: Entry) -> Mapping[str, Any]:
    values = entry.get("values")
    return values if isinstance(values, Mapping) else {}


def _monitor_table(runs: Sequence[Run]) -> list[Block]:
    """The last measurement of each run."""
    measured = [run for run in runs if run.monitor and _values(run.monitor[-1])]
    if not measured:
        return []
    keys = list(dict.fromkeys(key for run in measured for key in _values(run.monitor[-1])))
    rows = []
    for run in measured:
        last = run.monitor[-1]
        values = [_values(last).get(key) for key in keys]
        rows.append([run.name, f"{last['iteration']:,}", *map(_shown, keys, values)])
    split = (key.partition("/") for key in keys)
    titles = [_measured_title(metric) + (f", {images}" if images else "") for metric, _, images in split]
    return [Table(["run", "iteration", *titles], rows, "The last measurement of each run.", title="Last measurement")]


def _shown(key: str, value: Any) -> str:
    if not _is_number(value):
        return "–"
    metric = key.partition("/")[0]
    text = f"{100 * value:.1f}" if "top1" in metric else f"{value:.{_DECIMALS.get(metric, 3)}f}"
    return text.replace("-", "−")


_DECIMALS = {"rank_me": 1, "uniformity": 2}


def _sign_panels(runs: Sequence[Run]) -> list[Panel]:
    found = [Panel(title, _lines(runs, lambda run: run.health, key), {}) for key, title in _SIGNS.items()]
    return [panel for panel in found if panel.lines]


def _figure(shown: Sequence[Panel], switches: Mapping[int, str], title: str, caption: str) -> list[Block]:
    if not shown:
        return []
    names = ", ".join(panel.title for panel in shown)
    alt = f"{title}: {names}, over iterations, for {', '.join(dict.fromkeys(line.label for line in shown[0].lines))}."
    wide = panels(shown, switches)
    narrow = panels(shown, switches, columns=1, width_px=2 * NARROW_WIDTH_PX)
    return [FigureBlock(title, wide, caption, alt, is_chart=True, narrow=narrow)]
