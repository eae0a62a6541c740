"""Score the cells that are not scored yet, one JSON file each, and sum them up when all are there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dinov2_noise.errors import OutputFolderError
from dinov2_noise.evaluation.corruption_cells import Cell, CellResult
from dinov2_noise.evaluation.counting import Count
from dinov2_noise.evaluation.identity import dataset_identity
from dinov2_noise.evaluation.records import versions
from dinov2_noise.files import OutputFolder

COMMAND = "evaluate corruptions"
Measure = Callable[[Sequence[str]], Iterator[tuple[int, Count]]]
"""From dataset strings to (position, count) of each, as each is complete."""


@dataclass(frozen=True)
class CellFolder:
    """An output folder with ``cells/<cell>.json``.

    Attributes:
        identity: all that decides what comes out (weights, classifier, images, …): a folder of another one is refused.
        missing: cells that were asked for and cannot be had.
    """

    path: Path
    identity: Mapping[str, Any]
    cells: Sequence[Cell]
    missing: Sequence[str] = field(default_factory=tuple)

    @property
    def folder(self) -> OutputFolder:
        return OutputFolder(self.path, COMMAND, self.identity)

    def check(self) -> None:
        """Check, without creating anything, that the folder is new or this very evaluation's.

        Raises:
            OutputFolderError: it is not, or stored images were exchanged after cells had been measured on them.
        """
        if not self.folder.check():
            return
        kept = [cell for cell in self.cells if cell.stored and self.file(cell).exists()]
        stale = [cell for cell in kept if CellResult.load(self.file(cell)).images != dataset_identity(cell.dataset)]
        if stale:
            raise OutputFolderError(
                f"{self.path} holds results of other images than are there now, {len(stale)} cells, the first is "
                f"{stale[0].name} ({stale[0].dataset}): choose another folder, or delete {self.file(stale[0]).parent}"
            )

    def open(self) -> None:
        """Create the folder, or check that it is this very evaluation's.

        Raises:
            OutputFolderError: as for `check`.
        """
        self.check()
        self.folder.open()

    def file(self, cell: Cell) -> Path:
        return self.path / "cells" / cell.file_name

    def pending(self, shard: tuple[int, int] = (1, 1)) -> list[Cell]:
        """Asked cells of this shard without a result yet."""
        number, of = shard
        return [cell for cell in self.cells[number - 1 :: of] if not self.file(cell).exists()]

    def is_complete(self) -> bool:
        return all(self.file(cell).exists() for cell in self.cells)

    def run(self, measure: Measure, shard: tuple[int, int] = (1, 1)) -> int:
        """Measure what is pending; returns how many cells that were. Interrupted, it keeps those that were finished."""
        cells = self.pending(shard)
        if not cells:
            return 0
        self.folder.reopen()
        same = versions()
        for position, count in measure([cell.dataset for cell in cells]):
            cell = cells[position]
            CellResult(
                cell=cell.name,
                dataset=cell.dataset,
                images=dataset_identity(cell.dataset),
                n_images=count.n_images,
                right=count.right,
                waiting_s=round(count.waiting_s, 3),
                computing_s=round(count.computing_s, 3),
                versions=same,
            ).save(self.file(cell))
        return len(cells)

    def results(self) -> dict[str, CellResult]:
        """Results of the asked cells that are there, by name, in order."""
        return {cell.name: CellResult.load(self.file(cell)) for cell in self.cells if self.file(cell).exists()}
