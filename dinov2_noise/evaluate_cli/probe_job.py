"""What `evaluate linear` and `evaluate knn` do: images and model to records, tables, pictures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.table import Column, Table

from dinov2_noise.errors import ConfigError
from dinov2_noise.evaluate_cli.common import console
from dinov2_noise.evaluate_cli.model import Model, training_seed

if TYPE_CHECKING:
    from dinov2_noise.evaluation.classification import Figure
    from dinov2_noise.evaluation.label_noise import Noises
    from dinov2_noise.evaluation.label_results import Outcome, ResultFolder
    from dinov2_noise.evaluation.label_task import Task
    from dinov2_noise.upstream.probing.own_features import FeatureStore
    from dinov2_noise.upstream.probing.own_labels import KnnProbe, LinearProbe

_TITLES = {"top1": "top-1", "top5": "top-5", "balanced_accuracy": "balanced", "macro_f1": "macro F1", "auroc": "AUROC"}


@dataclass(frozen=True)
class Images:
    """What both commands are told of the images."""

    train: str
    val: str | None
    root: Path | None
    noise: str
    train_noise: str
    noise_seed: int
    fraction: float
    folds: int
    seed: int
    allow_leak: bool

    def opened(self) -> tuple[Task, Noises, dict[str, Any]]:
        """Classes and splits, noises, and what tells them from others."""
        from dinov2_noise.evaluation.label_noise import Noises
        from dinov2_noise.evaluation.label_sources import read_source
        from dinov2_noise.evaluation.label_task import Split, make_task

        if self.val is not None and self.folds:
            raise ConfigError("--folds parts the images of --train: leave --val or --folds out")
        noises = Noises.parse(self.noise, self.train_noise, self.noise_seed)
        split = Split(self.fraction, self.folds, self.seed)
        if self.root is not None and not any(Path(text).is_file() for text in (self.train, self.val or "")):
            raise ConfigError("--root belongs to label files (CSV), and there is none: leave it out")
        train = read_source(self.train, self.root)
        val = None if self.val is None else read_source(self.val, self.root)
        for source in filter(None, (train, val)):
            noises.check(source)
        task = make_task(train, val, split, allow_leak=self.allow_leak)
        parted = {"fraction": self.fraction, "folds": self.folds, "seed": self.seed}
        identity = {
            "train": train.identity(),
            "val": parted if val is None else val.identity(),
            "train_noise": self.train_noise,
            "noise_seed": self.noise_seed,
        }
        return task, noises, identity


@dataclass(frozen=True)
class Job:
    """The model, where results go, and how fast."""

    model: Model
    arm: str
    output: Path
    batch_size: int
    workers: int
    device: str
    geometry: str
    random_floor: bool

    def evaluate(self, images: Images, probe: LinearProbe | KnnProbe, upstream_options: str | None) -> None:
        """Do all, print the table; ``upstream_options`` of None: in this process, not by upstream's script.

        Raises:
            DinoNoiseError: images, labels, noises or the model are not usable, or OUTPUT holds other results.
        """
        from dinov2_noise.report.corruption_tables import require_figures

        if self.batch_size < 1 or self.workers < 0 or self.geometry not in ("upstream", "official"):
            raise ConfigError(
                f"--batch-size {self.batch_size}, --workers {self.workers}, --geometry {self.geometry}: at least 1, at "
                "least 0, and upstream or official are needed"
            )
        task, noises, identity = images.opened()
        if upstream_options is None:
            probe.check(task)
            require_figures()
            self._in_process(task, noises, identity, probe, images.seed)
        else:
            self._by_upstream(task, noises, identity, probe, upstream_options)

    @property
    def name(self) -> str:
        """Of the model, in records."""
        return self.arm or self.model.name

    def _in_process(
        self, task: Task, noises: Noises, identity: Mapping[str, Any], probe: LinearProbe | KnnProbe, seed: int
    ) -> None:
        from dinov2_noise.evaluation.label_results import ResultFolder
        from dinov2_noise.files import OutputFolder
        from dinov2_noise.upstream.probing.own_labels import OwnLabels

        store = self._store()
        images = OutputFolder(self.output, "evaluate linear|knn", {**store.identity(), **identity})
        tables = OutputFolder(self.output / probe.kind, f"evaluate {probe.kind}", probe.described())
        if not images.check():
            store.load()  # before the folder is made: weights that do not fit leave none
        tables.check()
        images.open()
        tables.open()
        written, random = task.written(self.output), self._store(random=True) if self.random_floor else None
        labels = OwnLabels(written, noises, probe, store, random, self._facts(task))
        folder = ResultFolder(self.output, probe.kind, probe.metric, self.name, training_seed(self.model.config_file))
        _say_what(task)
        found = []
        for name in noises.names:
            outcome = labels.outcome(name)
            figures = outcome.answers.figures(seed)
            folder.save(outcome, written, figures)
            _draw(folder, outcome, task)
            found.append((outcome, figures))
        _tell(found, folder, task)
        tables.close(noises=[outcome.name for outcome, _ in found])
        images.close()

    def _by_upstream(
        self,
        task: Task,
        noises: Noises,
        identity: Mapping[str, Any],
        probe: LinearProbe | KnnProbe,
        options: str,
    ) -> None:
        from dinov2_noise.evaluate_cli.probe_upstream import UpstreamProbe
        from dinov2_noise.files import OutputFolder

        store = self._store()
        script = UpstreamProbe(self.model, self.name, self.output, probe, self.batch_size, self.workers, options, store)
        script.check(task)
        folder = OutputFolder(self.output, "evaluate linear|knn", {**store.identity(), **identity})
        folder.open()
        written = task.written(self.output)
        _say_what(task)
        table = Table("noise", "SNR (dB)", "top-1 (%)", "95 % interval", "chance (%)", "colour (%)")
        for name in noises.names:
            record = script.record(written, noises, name, self._facts(task))
            low, high = record.interval()
            interval = f"{100 * low:.1f} to {100 * high:.1f}"
            floors = [f"{100 * record.details['floors'][floor]:.1f}" for floor in ("chance", "colour")]
            snr = _db(record.details["snr_db"])
            table.add_row(record.details["noise"], snr, f"{100 * record.value:.1f}", interval, *floors)
        console.print(table)
        folder.close()

    def _store(self, *, random: bool = False) -> FeatureStore:
        from dinov2_noise.upstream.probing.own_features import FeatureStore

        return FeatureStore(
            config_file=self.model.config_file,
            weights=None if random else self.model.weights,
            folder=self.output / "features",
            geometry="official" if self.geometry == "official" else "upstream",
            batch_size=self.batch_size,
            workers=self.workers,
            device=self.device,
        )

    def _facts(self, task: Task) -> dict[str, Any]:
        """For all records."""
        return {
            "config": str(self.model.config_file),
            "weights": str(self.model.weights),
            "n_classes": task.n_classes,
            "n_train": len(task.train),
            "folds": len(task.folds) if len(task.folds) > 1 else None,
            "leaked": len(task.leaked),
            "geometry": self.geometry,
        }


def _say_what(task: Task) -> None:
    parted = f", cross-validated in {len(task.folds)} parts" if len(task.folds) > 1 else ""
    console.print(
        f"{task.n_classes} classes, {len(task.train)} training and {len(task.val)} validation images{parted}",
        soft_wrap=True,
    )
    if task.leaked:
        console.print(f"{len(task.leaked)} validation images are training images, too: read all figures as too high")
    untested = task.n_classes - len(set(task.val.targets.tolist()))
    if untested:
        console.print(f"{untested} classes have no validation image: nothing is known of them")


def _draw(folder: ResultFolder, outcome: Outcome, task: Task) -> None:
    from dinov2_noise.evaluation.label_noise import file_name
    from dinov2_noise.evaluation.label_results import printable
    from dinov2_noise.files import atomic_path
    from dinov2_noise.report.confusion_figures import confusion_figure

    top1 = 100 * float(outcome.answers.in_top(1).mean())
    title = f"{folder.arm}, {outcome.noise}: {top1:.1f} % right"
    path = folder.root / folder.probe / f"confusion-{file_name(outcome.name)}.png"
    with atomic_path(path) as temporary:
        names = [printable(name) for name in task.classes]
        temporary.write_bytes(confusion_figure(outcome.answers.confusion, names, title=title))


def _tell(found: Sequence[tuple[Outcome, Mapping[str, Figure]]], folder: ResultFolder, task: Task) -> None:
    """Print the table, and write it as ``results.csv``."""
    from dinov2_noise.evaluation.label_results import largest_confusions, write_table

    write_table(folder.root / folder.probe / "results.csv", _rows(found))
    floors = list(found[0][0].floors)
    whole = [Column(name, no_wrap=True) for name in ("noise", "metric", "95 % interval")]
    headings: list[Column | str] = [whole[0], "SNR (dB)", whole[1], "%", whole[2], *floors]
    table = Table(*headings, box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for outcome, figures in found:
        named = outcome.noise, _db(outcome.snr_db)
        for metric, figure in figures.items():
            below = [f"{100 * outcome.floors[floor]:.1f}" if metric == "top1" else "" for floor in floors]
            table.add_row(*named, _TITLES[metric], *_cells(figure), *below, end_section=metric == [*figures][-1])
            named = "", ""
    console.print(table)
    for outcome, _ in found:
        if outcome.details.get("has_converged") is False:
            console.print(f"{outcome.noise}: the logistic regression stopped before its minimum", soft_wrap=True)
        worst = [f"{a} as {b} ({n})" for a, b, n in largest_confusions(outcome.answers, task.classes)]
        if worst:
            console.print(f"{outcome.noise}, most often taken for another: {', '.join(worst)}", soft_wrap=True)
    console.print(f"{folder.root}: records/, {folder.probe}/ (results.csv, predictions/, confusion-…)", soft_wrap=True)


def _rows(found: Sequence[tuple[Outcome, Mapping[str, Figure]]]) -> Iterator[Sequence[object]]:
    yield "noise", "snr_db", "metric", "value", "low", "high", "images"
    for outcome, figures in found:
        start = outcome.noise, "" if outcome.snr_db is None else f"{outcome.snr_db:.2f}"
        n = len(outcome.answers.targets)
        for metric, figure in figures.items():
            yield *start, metric, *(f"{value:.4f}" for value in (figure.value, *figure.interval95)), n
        for floor, value in outcome.floors.items():
            yield *start, f"{floor} floor, top1", f"{value:.4f}", "", "", n


def _cells(figure: Figure) -> tuple[str, str]:
    low, high = figure.interval95
    return f"{100 * figure.value:.1f}", f"{100 * low:.1f} to {100 * high:.1f}"


def _db(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"
