"""A corruption benchmark of one model in one process: which cells, what they depend on, and what comes out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from dinov2_noise import configs, data
from dinov2_noise.evaluation.corruption_cells import Cell, Grid, made_cells, stored_cells
from dinov2_noise.evaluation.corruption_run import CellFolder
from dinov2_noise.evaluation.corruption_summary import Summary
from dinov2_noise.evaluation.counting import Count, count, n_classes_of
from dinov2_noise.noise import DEFAULT_SEED
from dinov2_noise.upstream.probing.probe import ProbeRequest, kept_choice, load


@dataclass(frozen=True)
class Benchmark:
    """What is asked for.

    Attributes:
        probe: model, classifiers and clean images. output: folder for the results. name: of the model, in tables.
        imagenet_c: folder of corrupted images; None makes them on the fly, with ``seed`` and ``size`` (``full``, or the
        side in px of the crop that is corrupted).
        allow_missing: go on where that folder lacks asked cells.
        heads_from: how classifiers are trained that this evaluation trains itself; tells its folder from others.
    """

    probe: ProbeRequest
    output: Path
    grid: Grid
    name: str
    imagenet_c: Path | None = None
    size: str = "224"
    seed: int = DEFAULT_SEED
    allow_missing: bool = False
    heads_from: Mapping[str, Any] = field(default_factory=dict)

    def folder(self) -> CellFolder:
        """The cells and where their results go.

        Raises:
            DinoNoiseError: asked cells are missing, or an option, a file or images are wrong.
        """
        cells, missing = self._cells()
        return CellFolder(self.output, self._identity(), cells, missing)

    def _cells(self) -> tuple[list[Cell], list[str]]:
        clean = self.probe.val_dataset
        if self.imagenet_c is None:
            return made_cells(clean, self.grid, seed=self.seed, size=self.size), []
        return stored_cells(self.imagenet_c, clean, self.grid, allow_missing=self.allow_missing)

    def _identity(self) -> dict[str, Any]:
        made = {"made": True, "seed": self.seed, "size": self.size}
        found = {
            **self.probe.identity(),
            "corruptions": made if self.imagenet_c is None else {"made": False},
            "imagenet_c": None if self.imagenet_c is None else str(self.imagenet_c.resolve()),
        }
        return {**found, "classifiers": dict(self.heads_from)} if self.heads_from else found

    def run(self, folder: CellFolder, shard: tuple[int, int] = (1, 1)) -> int:
        """Measure the cells of this shard that are not measured yet; returns their number."""
        folder.check()
        if not folder.pending(shard):
            folder.open()
            return 0
        loaded = load(self.probe)
        folder.open()  # not before: files that do not fit would leave a folder that refuses those that do
        probe = loaded.probe(self.output)

        def measure(names: Sequence[str]) -> Iterator[tuple[int, Count]]:
            return count(names, probe.predict, probe.settings, description=f"{len(names)} cells, batches")

        return folder.run(measure, shard)

    def summary(self, folder: CellFolder) -> Summary:
        """The results of all cells; all must be there."""
        request, config = self.probe, OmegaConf.load(configs.config_file(str(self.probe.config_file)))
        choice = kept_choice(request, self.output)
        classifier = None
        if choice is not None:
            accuracy = choice.right[choice.name] / choice.n_images
            classifier = {
                "name": choice.name,
                "chosen": f"the best of {len(choice.right)} on the clean validation images, once for all cells",
                "accuracy": accuracy,
            }
        return Summary(
            model=self.name,
            identity=folder.identity,
            cells=folder.results(),
            n_classes=n_classes_of(data.make(request.val_dataset), request.val_dataset),
            missing=folder.missing,
            classifier=classifier,
            seed=int(OmegaConf.select(config, "train.seed", default=0)),
            details={
                "config": str(request.config_file),
                "weights": str(request.weights),
                "classifiers": None if request.classifiers is None else str(request.classifiers),
                "imagenet_c": None if self.imagenet_c is None else str(self.imagenet_c),
            },
        )

    def with_classifiers(self, folder: Path) -> Benchmark:
        """The same with the heads in ``folder``, which were trained as ``heads_from`` says."""
        return replace(self, probe=replace(self.probe, classifiers=folder))
