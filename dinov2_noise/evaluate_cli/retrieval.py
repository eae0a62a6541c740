"""``evaluate retrieval``: how well features find images of the same place or thing, also through noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dinov2_noise.errors import ConfigError
from dinov2_noise.evaluate_cli.common import Device, LoaderWorkers, console

if TYPE_CHECKING:
    from dinov2_noise.evaluation.retrieval_results import Evaluation
    from dinov2_noise.evaluation.retrieval_truth import GroundTruth
    from dinov2_noise.upstream.probing.retrieval import Extractor, View

_SIDES = ("both", "queries", "database")


def retrieval(
    output: Annotated[Path, typer.Option(help="Folder for results and kept features; any number of evaluations.")],
    run: Annotated[Path | None, typer.Option(help="Folder of a training run.")] = None,
    config_file: Annotated[Path | None, typer.Option(help="In place of --run: config.yaml of the run,")] = None,
    weights: Annotated[Path | None, typer.Option(help="and its eval/training_…/teacher_checkpoint.pth.")] = None,
    dataset: Annotated[str, typer.Option(help="roxford5k or rparis6k; with --ground-truth any name.")] = "",
    root: Annotated[Path | None, typer.Option(help="Folder with gnd_DATASET.pkl and the images in jpg/.")] = None,
    ground_truth: Annotated[Path | None, typer.Option(help="Another set: its pickle or JSON file,")] = None,
    images: Annotated[Path | None, typer.Option(help="and the folder of its images.")] = None,
    query_noise: Annotated[str, typer.Option(help="clean, or noises such as clean,gauss100; one after the other.")] = (
        "clean"
    ),
    database_noise: Annotated[str, typer.Option(help="The same for the database; all pairs are measured.")] = "clean",
    query_root: Annotated[Path | None, typer.Option(help="Queries as stored there: denoised, or noisy.")] = None,
    database_root: Annotated[Path | None, typer.Option(help="The same for the database.")] = None,
    denoiser: Annotated[Path | None, typer.Option(help="Weights of a denoiser that noisy images go through.")] = None,
    denoise: Annotated[str, typer.Option(help="What goes through it: both, queries or database.")] = "both",
    whole_queries: Annotated[
        bool, typer.Option("--whole-queries", help="Do not crop queries to their boxes (bbx).")
    ] = False,
    size: Annotated[int, typer.Option(help="Side of the centre crop, in px.")] = 224,
    seed: Annotated[int, typer.Option(help="Base seed of the noise.")] = 42,
    batch_size: Annotated[int, typer.Option(help="Images per forward pass.")] = 64,
    workers: LoaderWorkers = 4,
    device: Device = "auto",
    name: Annotated[str, typer.Option(help="Of the model, in tables; by default the run's folder.")] = "",
) -> None:
    """Mean average precision on Revisited Oxford and Paris, or your own set, clean, noisy or denoised."""
    from dinov2_noise.evaluate_cli.model import open_model
    from dinov2_noise.upstream.probing.retrieval import Extractor

    model = open_model(run, config_file, weights)
    sources = _Sources(*_opened(dataset, root, ground_truth, images), crop=not whole_queries)
    if denoise not in _SIDES:
        raise ConfigError(f"--denoise {denoise!r}: valid are {', '.join(_SIDES)}")
    at = [None if denoiser is None or denoise == other else denoiser for other in ("database", "queries")]
    queries = sources.views(True, query_noise, query_root, at[0], seed)
    database = sources.views(False, database_noise, database_root, at[1], seed)
    extractor = Extractor(model.config_file, model.weights, size, batch_size, workers, device)
    extractor.check()
    _run(sources, name or model.name, extractor, queries, database, output)


def _opened(
    dataset: str, root: Path | None, ground_truth: Path | None, images: Path | None
) -> tuple[str, GroundTruth, Path]:
    from dinov2_noise.evaluation.retrieval_truth import OFFICIAL, official_files, read_ground_truth

    if (root is None) == (ground_truth is None) or (ground_truth is None) != (images is None):
        raise ConfigError("give --dataset and --root (an official set), or --ground-truth and --images (any other)")
    if ground_truth is not None and images is not None:
        return dataset or ground_truth.stem.removeprefix("gnd_"), read_ground_truth(ground_truth), images
    if dataset not in OFFICIAL:
        raise ConfigError(
            f"--dataset {dataset!r}: valid are {', '.join(OFFICIAL)}; any other set: --ground-truth FILE --images DIR"
        )
    assert root is not None
    file, folder = official_files(root, dataset)
    return dataset, read_ground_truth(file), folder


@dataclass(frozen=True)
class _Sources:
    """A retrieval set: its name, its ground truth, the folder of its images."""

    name: str
    truth: GroundTruth
    images: Path
    crop: bool

    def views(self, of_queries: bool, noises: str, root: Path | None, denoiser: Path | None, seed: int) -> list[View]:
        """Queries or database, in all the ways that are asked for."""
        from dinov2_noise.evaluation.retrieval_images import find_pictures
        from dinov2_noise.noise import parse
        from dinov2_noise.upstream.probing.retrieval import CLEAN, View

        names = list(dict.fromkeys(filter(None, noises.split(","))))
        side = "query" if of_queries else "database"
        if not names:
            raise ConfigError(f"--{side}-noise is empty: give clean, or noises such as clean,gauss100")
        if root is not None and (names != [CLEAN] or denoiser is not None):
            raise ConfigError(
                f"--{side}-root holds images as they are to be shown: leave out --{side}-noise; with --denoiser add "
                f"--denoise {'database' if of_queries else 'queries'}"
            )
        found = find_pictures(
            self.truth.queries if of_queries else self.truth.images,
            root or self.images,
            boxes=self.truth.boxes if of_queries and self.crop else None,
            listed_in=str(self.truth.path),
        )
        added = "" if denoiser is None else "+denoised"
        if root is not None:
            return [View(root.resolve().name, found)]
        own = {label: None if label == CLEAN else parse(label).name for label in names}
        return [View((noise or CLEAN) + added, found, noise, seed, denoiser) for noise in own.values()]


def _run(
    sources: _Sources,
    arm: str,
    extractor: Extractor,
    queries: Sequence[View],
    database: Sequence[View],
    output: Path,
) -> None:
    from dinov2_noise.evaluation.retrieval_results import compare
    from dinov2_noise.files import OutputFolder
    from dinov2_noise.upstream.probing.retrieval import used

    folder = OutputFolder(output, "evaluate retrieval", {})
    evaluation = _evaluation(sources, arm, extractor)
    folder.check()
    for query, other in product(queries, database):
        evaluation.check(used(query, extractor), used(other, extractor), output)
    folder.open()
    described: list[list[Any]] = []
    for side, views in (("queries", queries), ("database", database)):
        described.append([])
        for view in views:
            features = extractor.features(view, output / "features", f"{side}, {view.label}, batches")
            described[-1].append((used(view, extractor), features))
    results = [compare(sources.truth, *pair) for pair in product(*described)]
    paths = [path for result in results for path in evaluation.save(result, output)]
    folder.close()
    console.print(evaluation.table(results))
    for line in _remarks(sources.truth):
        console.print(line, soft_wrap=True)
    console.print(f"{output}: {len(paths)} files in results/ and records/", soft_wrap=True)


def _evaluation(sources: _Sources, arm: str, extractor: Extractor) -> Evaluation:
    from dinov2_noise.evaluate_cli.model import training_seed
    from dinov2_noise.evaluation.retrieval_floors import chance
    from dinov2_noise.evaluation.retrieval_results import Evaluation

    return Evaluation(
        arm=arm,
        dataset=sources.name,
        truth=sources.truth,
        cropped=sources.crop,
        seed=training_seed(extractor.config_file),
        details={
            "config": str(extractor.config_file),
            "weights": str(extractor.weights),
            "model": extractor.identity(),
        },
        chance=chance(sources.truth.relevance, len(sources.truth.images)),
    )


def _remarks(truth: GroundTruth) -> list[str]:
    """What a reader of the table should know of this set."""
    found = []
    for protocol in ("easy", "medium", "hard"):
        empty = sum(len(one.split(protocol)[0]) == 0 for one in truth.relevance)
        if empty:
            found.append(f"{protocol}: {empty} of {len(truth.queries)} queries have no positive and are left out")
    if truth.asks_for_itself:
        found.append(
            f"{truth.asks_for_itself} queries are in the database, too, and not junk there: they find themselves; list "
            "them under junk"
        )
    return found
