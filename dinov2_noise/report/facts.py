"""The top of the page: what was trained on what, the most important comparison in one sentence, all settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dinov2_noise.data import parse_dataset_string
from dinov2_noise.errors import DinoNoiseError
from dinov2_noise.evaluation.runs import located
from dinov2_noise.report.arms import arm_names, by_arm
from dinov2_noise.report.collect import Found
from dinov2_noise.report.html import Block, Missing, Section, Table
from dinov2_noise.report.images import noise_in, noise_of, opened, training_string
from dinov2_noise.report.results import by_metric, metric_title
from dinov2_noise.report.runs import Run
from dinov2_noise.report.spread import Difference, Group, Place, dataset_label, difference

BASELINES = ("noisy", "dinov2", "baseline", "plain", "noisy-only")
_PREFERRED = ("linear_top1", "logistic_top1", "knn_top1")
_MOST_COMPARISONS = 4
_NOT_SETTINGS = ("train.output_dir", "train.seed", "optim.lr", "train.num_workers", "train.saveckp_freq")


def title_of(found: Found) -> str:
    """Arms of the runs, or those that were evaluated."""
    names = list(by_arm(found.runs)) or list(dict.fromkeys(record.arm for _, record in found.records))
    names = names or [summary.model for _, summary in found.summaries]
    shown = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
    return f"Report: {shown}"


def summary_of(found: Found, groups: Mapping[Place, Sequence[Group]]) -> str:
    """Two or three sentences: the trainings, the comparison, and how far unfinished ones are."""
    parts = [_trainings(found.runs), comparison(groups)]
    unfinished = [f"{run.name} ({run.state})" for run in found.runs if not run.is_finished]
    if unfinished:
        parts.append(f"Not all runs have ended: {'; '.join(unfinished)}. What there is so far is shown.")
    return "\n\n".join(part for part in parts if part)


def _trainings(runs: Sequence[Run]) -> str:
    trained = [run for run in runs if not run.is_untrained and run.stages]
    if not trained:
        return ""
    networks = _each(trained, "student.arch")
    lengths = {run.total_iterations for run in trained}
    many = f"{len(trained)} trainings" if len(trained) > 1 else "One training"
    length = f", {lengths.pop():,} iterations" + (" each" if len(trained) > 1 else "") if len(lengths) == 1 else ""
    sets = list(dict.fromkeys(str(run.get("train.dataset_path")) for run in trained))
    data = _data(trained[0]) if len(sets) == 1 else f"{len(sets)} data sets"
    return f"{many} of {networks} on {data}{length}: {arm_names(trained)}."


def _data(run: Run) -> str:
    text = str(run.get("train.dataset_path", "an unknown data set"))
    try:
        dataset = opened(training_string(run))
    except DinoNoiseError:
        return text
    noise = noise_of(dataset)
    return f"{len(dataset):,} images of {dataset.spec.root}" + (f" with {noise}" if noise else "")


def comparison(groups: Mapping[Place, Sequence[Group]]) -> str:
    """The best arm against the baseline, or against the second best, where most arms were measured; a sentence for each
    set of images.
    """
    chosen = _most_compared(groups)
    return " ".join(_compared(place, arms) for place, arms in chosen) if chosen else _single(groups)


def _compared(place: Place, arms: Sequence[Group]) -> str:
    first = arms[0]
    named = [group for group in arms if group.arm.lower() in BASELINES and group is not first]
    other = named[0] if named else arms[1]
    found = difference(first, other)
    return (
        f"{metric_title(place.metric)} on {place.shown}: {first.arm} {_per_cent(first)}, {other.arm} "
        f"{_per_cent(other)}; the difference is {_points(found)}: {_verdict(found)}"
    )


def _most_compared(groups: Mapping[Place, Sequence[Group]]) -> list[tuple[Place, list[Group]]]:
    """Of the metric that was measured of most arms, all places with as many; arms in order of their mean."""
    candidates = []
    for place, own in groups.items():
        arms = sorted((group for group in own if not group.is_floor), key=lambda group: -group.mean)
        if len(arms) > 1:
            rank = _PREFERRED.index(place.metric) if place.metric in _PREFERRED else len(_PREFERRED)
            candidates.append(((len(arms), -rank, "clean" not in place.shown), place, arms))
    if not candidates:
        return []
    best, first, _ = max(candidates, key=lambda candidate: candidate[0])
    found = [(place, arms) for key, place, arms in candidates if key == best and place.metric == first.metric]
    return found[:_MOST_COMPARISONS]


def _single(groups: Mapping[Place, Sequence[Group]]) -> str:
    for places in by_metric(groups).values():
        for place, own in places.items():
            low, high = own[0].interval
            return (
                f"{metric_title(place.metric)} of {own[0].arm} on {place.shown}: {_per_cent(own[0])} (95 % "
                f"interval over images {100 * low:.1f} to {100 * high:.1f}); there is no other arm to compare with."
            )
    return ""


def _per_cent(group: Group) -> str:
    spread = "" if group.deviation is None else f" ± {100 * group.deviation:.1f} over {group.n_seeds} seeds"
    return f"{100 * group.mean:.1f}\u00a0%{spread}"


def _points(found: Difference) -> str:
    low, high = (f"{100 * end:+.1f}".replace("-", "−") for end in (found.low, found.high))
    value = f"{100 * found.value:+.1f}".replace("-", "−")
    return f"{value} points (95 % interval {low} to {high})"


def _verdict(found: Difference) -> str:
    verdict = "more than its uncertainty." if found.exceeds_uncertainty else "not more than its uncertainty."
    if found.over_seeds:
        return verdict
    return (
        f"{verdict} The interval is over images; with one training of an arm the spread between trainings is unknown."
    )


def facts_of(found: Found) -> dict[str, str]:
    """Short facts that hold for all runs, or a range of them."""
    trained = [run for run in found.runs if not run.is_untrained]
    facts: dict[str, str] = {}
    if trained:
        sizes = sorted({run.images_per_step for run in trained if run.images_per_step})
        facts["Network"] = f"{_each(trained, 'student.arch')}, patches of {_each(trained, 'student.patch_size')} px"
        facts["Crops"] = _crops(trained)
        facts["Images per step"] = ", ".join(map(str, sizes))
        facts["Seeds"] = _each(trained, "train.seed")
        facts["Precision"] = ", ".join(dict.fromkeys(filter(None, (r.described.get("precision") for r in trained))))
        memory = [run.max_memory_mib for run in trained if run.max_memory_mib]
        kinds = ", ".join(dict.fromkeys(filter(None, (run.device for run in trained))))
        facts["Device"] = f"{kinds}, at most {max(memory):,} MiB" if memory else kinds
    versions: dict[str, list[str]] = {}
    for _, record in found.records:
        for name, version in record.versions.items():
            versions.setdefault(name, []).append(version)
    if versions:
        facts["Versions"] = ", ".join(f"{name} {'/'.join(dict.fromkeys(own))}" for name, own in versions.items())
    return {name: value for name, value in facts.items() if value}


def _crops(runs: Sequence[Run]) -> str:
    shown = []
    for run in runs:
        crops = run.get("crops", {})
        try:
            shown.append(
                f"2x{crops['global_crops_size']} + {crops['local_crops_number']}x{crops['local_crops_size']} px"
            )
        except (KeyError, TypeError):
            continue
    return ", ".join(dict.fromkeys(shown))


def _each(runs: Sequence[Run], key: str) -> str:
    values = dict.fromkeys(str(run.get(key)) for run in runs if run.get(key) is not None)
    return ", ".join(values)


def runs_section(runs: Sequence[Run]) -> Section:
    """A row per run, and folded all settings that differ from DINOv2's default."""
    if not runs:
        text = "No training run is among the folders: only what was evaluated is shown."
        return Section("runs", "Runs", [Missing(text, "dinov2-noise report RUN")])
    rows = [_row(arm, own) for arm, own in by_arm(runs).items()]
    caption = (
        "Stages in order, with the view of the images and iterations. A restart begins optimizer and schedules anew."
    )
    blocks: list[Block] = [Table(["run", "images", "stages", "iterations", "seed", "state"], rows, caption)]
    blocks += _settings(runs)
    return Section("runs", "Runs", blocks)


def _row(arm: str, own: Sequence[Run]) -> list[str]:
    """Of all seeds of an arm."""
    run = own[0]
    seeds = ", ".join(str(one.get("train.seed", "–")) for one in own)
    states = {one.name: one.state for one in own if not one.is_finished}
    state = "; ".join(f"{name}: {text}" for name, text in states.items()) if len(own) > 1 and states else run.state
    return [arm, _images(run), _stages(run), _iterations(run), seeds, state]


def _images(run: Run) -> str:
    """The training set in few words, and where its denoised twins are."""
    text = run.get("train.dataset_path")
    if run.is_untrained or not isinstance(text, str):
        return "–"
    try:
        spec = parse_dataset_string(located(text, run.folder))
    except DinoNoiseError:
        return text
    label = dataset_label(text)
    noise = noise_in(spec)
    label += f" ({noise})" if noise and noise not in label else ""
    return label + (f"; twins: {spec.denoised.name}" if spec.denoised is not None else "")


def _iterations(run: Run) -> str:
    return "–" if run.total_iterations is None or run.is_untrained else f"{run.total_iterations:,}"


def _stages(run: Run) -> str:
    if run.is_untrained:
        return "–"
    has_twins = "denoised=" in str(run.get("train.dataset_path"))
    parts = []
    for stage in run.stages:
        view = "" if stage.view == stage.name or not has_twins else f" ({stage.view})"
        parts.append(f"{stage.name}{view}{' with anchor' if stage.anchored else ''}, {stage.count:,}")
    return " → ".join(parts) or "–"


def _settings(runs: Sequence[Run]) -> list[Block]:
    """Keys whose value differs from DINOv2's default in any arm; a key it does not know is named too."""
    arms = {arm: own[0] for arm, own in by_arm(runs).items() if own[0].config}
    try:
        from dinov2_noise.upstream.defaults import ABSENT, differences

        found = {arm: differences(run.config_file) for arm, run in arms.items()}
    except (DinoNoiseError, ImportError) as cause:
        text = f"Settings cannot be compared with DINOv2's default: {cause}"
        return [Missing(text, "pip install dinov2-noise; see docs/install.md")]
    keys = [key for key in dict.fromkeys(key for own in found.values() for key in own) if key not in _NOT_SETTINGS]
    if not keys:
        return []
    rows = []
    for key in keys:
        default = next(own[key][0] for own in found.values() if key in own)
        values = [own[key][1] if key in own else default for own in found.values()]
        rows.append([key, default, *(values if len(set(values)) > 1 else [values[0]] + ["″"] * (len(values) - 1))])
    unknown = [row[0] for row in rows if row[1] == ABSENT]
    caption = (
        "Values as config.yaml has them; ″: as in the first run. Not listed: sections of dinov2-noise, the seed, the "
        "learning rate computed from base_lr, and what changes no result (output folder, workers, checkpoints)."
    )
    if unknown:
        caption += f" DINOv2 does not know {', '.join(unknown)}: from another version."
    title = f"{len(rows)} settings that differ from DINOv2's default"
    return [Table(["setting", "DINOv2", *found], rows, caption, title=title, folded=True)]
