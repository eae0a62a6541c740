"""The toy experiment: all arms with every seed, continued where it stopped; a table, a picture and records."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from dinov2_noise.errors import ConfigError
from dinov2_noise.evaluation.records import Record
from dinov2_noise.files import OutputFolder, write_json
from dinov2_noise.progress import track
from dinov2_noise.toy.arms import ARMS, Settings, record_path
from dinov2_noise.toy.digits import DigitSet, find_digits, load_arrays
from dinov2_noise.toy.jobs import DENOISED_FILE, DENOISER, DIGITS_FILE, FAMILIES, Job
from dinov2_noise.toy.parallel import Task, run_tasks
from dinov2_noise.writing import locked

console = Console(stderr=True, highlight=False)


def run_toy(
    output: Path, *, seeds: int = 3, data: str = "auto", settings: Settings | None = None, processes: int | None = None
) -> dict[str, Any]:
    """Do what is not done yet below ``output``; write ``summary.json`` and ``toy-mnist.png`` there.

    Args:
        output: folder of this experiment; more seeds may be added later.
        seeds: runs of each arm, with the seeds 0, 1, …
        data: see `find_digits`.
        settings: default: the defaults.
        processes: that work side by side; default one per core. The numbers do not depend on it.

    Returns:
        The summary.

    Raises:
        ConfigError: fewer than one seed or process.
        OutputFolderError: the folder holds something else, or other digits or settings.
        DigitsError, MissingFolderError: see `find_digits`.
    """
    settings = settings or Settings()
    processes = _cores() if processes is None else processes
    if seeds < 1 or processes < 1:
        raise ConfigError(f"the toy needs at least one seed and one process, got {seeds} and {processes}")
    digits = _digits(output, data)
    parameters = {"digits": digits.name, "fingerprint": digits.fingerprint, **asdict(settings)}
    folder = OutputFolder(output, "toy mnist", parameters)
    folder.open()
    with locked(output / ".lock", f"the toy experiment in {output}"):
        if not (output / DIGITS_FILE).is_file():
            digits.save(output / DIGITS_FILE)
        tasks = _tasks(output, settings, seeds)
        if tasks:
            folder.reopen()
        for _ in track(run_tasks(tasks, processes), total=len(tasks), description="denoiser and runs"):
            pass
        summary = summarise(output, digits, settings, seeds)
        write_json(output / "summary.json", summary)
        _draw(output, summary)
        folder.close(seeds=seeds)
    return summary


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _digits(output: Path, data: str) -> DigitSet:
    """Those of the experiment to be continued, whatever ``auto`` would now find; else those that ``data`` names."""
    if data == "auto" and (output / DIGITS_FILE).is_file():
        return DigitSet.load(output / DIGITS_FILE)
    download = Path(torch.hub.get_dir()).parent / "dinov2-noise"
    return find_digits(data, download, lambda line: console.print(line, soft_wrap=True))


def _tasks(output: Path, settings: Settings, seeds: int) -> list[Task]:
    """What is left to do; the denoiser first, for others wait for it."""
    jobs = [Job(output, settings, family, seed) for family in FAMILIES for seed in range(seeds)]
    left = [job for job in jobs if not job.is_done()]
    tasks = [
        Task(f"{job.family} {job.seed}", job, needs=[DENOISER] if job.family == "denoised" else ()) for job in left
    ]
    denoiser = Job(output, settings, DENOISER)
    return tasks if denoiser.is_done() else [Task(DENOISER, denoiser), *tasks]


def summarise(output: Path, digits: DigitSet, settings: Settings, seeds: int) -> dict[str, Any]:
    """What came out, from the records below ``output``.

    Returns:
        JSON: ``data``, ``settings``, ``psnr_db`` of noisy and denoised test digits, ``cpu_s`` of all runs and the
        denoiser, and ``results``: for each arm and kind of digits its accuracies by seed, mean, and standard deviation
        over seeds (None for one seed).
    """
    results: dict[str, dict[str, Any]] = {}
    denoised = load_arrays(output / DENOISED_FILE, "psnr_noisy", "psnr_denoised", "cpu_s")
    psnr_db = {name: float(denoised[f"psnr_{name}"]) for name in ("noisy", "denoised")}
    cpu_s = float(denoised["cpu_s"])
    snr_db = None
    for arm in ARMS.values():
        for kind in arm.probed_on:
            records = [Record.load(record_path(output, arm.name, kind, seed)) for seed in range(seeds)]
            values = [record.value for record in records]
            cpu_s += sum(float(record.details["cpu_s"]) for record in records)
            snr_db = records[0].details["snr_db"] or snr_db
            spread = stdev(values) if seeds > 1 else None
            results.setdefault(arm.name, {})[kind] = {"values": values, "mean": mean(values), "std": spread}
    labels = digits.test_labels
    return {
        "data": {"name": digits.name, "train": len(digits.train_labels), "test": len(labels)},
        "settings": {**asdict(settings), "seeds": seeds},
        "chance": float(np.bincount(labels).max() / len(labels)),
        "snr_db": snr_db,
        "psnr_db": psnr_db,
        "cpu_s": round(cpu_s, 1),
        "results": results,
    }


def _draw(output: Path, summary: Mapping[str, Any]) -> None:
    try:
        from dinov2_noise.toy.plot import draw
    except ImportError:
        console.print("no picture: matplotlib is not installed (pip install 'dinov2-noise[toy]')", soft_wrap=True)
        return
    from dinov2_noise.files import atomic_path

    with atomic_path(output / "toy-mnist.png") as temporary:
        temporary.write_bytes(draw(summary))


def table(summary: Mapping[str, Any]) -> Table:
    """The results for a terminal."""
    table = Table(box=None, pad_edge=False)
    for name in ("arm", "probed on", "accuracy (%)", "by seed"):
        table.add_column(name, justify="right" if name == "accuracy (%)" else "left")
    for arm in ARMS.values():
        for kind, result in summary["results"][arm.name].items():
            spread = "" if result["std"] is None else f" ± {100 * result['std']:.1f}"
            by_seed = "  ".join(f"{100 * value:.1f}" for value in result["values"])
            table.add_row(arm.title, kind, f"{100 * result['mean']:.1f}{spread}", by_seed)
    return table


def conditions(summary: Mapping[str, Any]) -> str:
    """What the table's numbers were measured with, in one line."""
    data, settings, psnr_db = summary["data"], summary["settings"], summary["psnr_db"]
    return (
        f"{data['name']}: {data['train']:,} digits to train, {data['test']:,} to test; noise std "
        f"{settings['noise_std']:g} ({settings['noise_draws']}); PSNR of test digits {psnr_db['noisy']:.1f} dB noisy, "
        f"{psnr_db['denoised']:.1f} dB denoised; {summary['cpu_s']:.0f} CPU-seconds"
    )
