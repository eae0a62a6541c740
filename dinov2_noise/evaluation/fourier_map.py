"""The folder of a Fourier heat map: a file per frequency while it is measured, ``fourier.json`` when all are there."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dinov2_noise.errors import CheckpointError
from dinov2_noise.evaluation.fourier import FourierGrid, Frequency
from dinov2_noise.evaluation.records import versions
from dinov2_noise.files import OutputFolder, write_json
from dinov2_noise.progress import track

COMMAND = "evaluate fourier"
RECORD_NAME = "fourier.json"
Count = Callable[[Frequency | None], dict[str, int]]
"""From a frequency, or None for clean images, to images told right per kind of probe."""


@dataclass(frozen=True)
class HeatMap:
    """A measured map.

    Attributes:
        accuracy: per kind of probe, rows and columns as the grid's axis. clean_accuracy: per kind, on the same images.
    """

    grid: FourierGrid
    n_images: int
    clean_accuracy: Mapping[str, float]
    accuracy: Mapping[str, list[list[float]]]

    def drop(self, kind: str) -> list[list[float]]:
        """Clean accuracy minus that at each frequency; in [-1, 1]."""
        clean = self.clean_accuracy[kind]
        return [[clean - value for value in row] for row in self.accuracy[kind]]


@dataclass(frozen=True)
class HeatMapFolder:
    """Where a map is kept.

    Attributes:
        identity: all that decides what comes out, the grid included: a folder of another map is refused.
    """

    path: Path
    identity: Mapping[str, Any]
    grid: FourierGrid
    n_images: int

    @property
    def folder(self) -> OutputFolder:
        return OutputFolder(self.path, COMMAND, self.identity)

    @property
    def wanted(self) -> list[Frequency | None]:
        """Clean images first."""
        return [None, *self.grid.frequencies]

    def file(self, frequency: Frequency | None) -> Path:
        name = "clean" if frequency is None else f"{frequency[0]}_{frequency[1]}"
        return self.path / "cells" / f"{name}.json"

    def pending(self, shard: tuple[int, int] = (1, 1)) -> list[Frequency | None]:
        """What this shard has yet to measure."""
        number, of = shard
        return [frequency for frequency in self.wanted[number - 1 :: of] if not self.file(frequency).exists()]

    def run(self, count: Count, shard: tuple[int, int] = (1, 1)) -> int:
        """Measure what is pending, and return how much that was; interrupted, it keeps what is finished."""
        pending = self.pending(shard)
        if pending:
            self.folder.reopen()
        for frequency in track(pending, total=len(pending), description="frequencies"):
            write_json(self.file(frequency), {"right": count(frequency), "n_images": self.n_images})
        return len(pending)

    def heat_map(self) -> HeatMap:
        """The map, when nothing is pending.

        Raises:
            CheckpointError: a file of a frequency is damaged or missing.
        """
        found = {frequency: self._read(frequency) for frequency in self.wanted}
        clean = found.pop(None)
        measured = {frequency: values for frequency, values in found.items() if frequency is not None}
        maps = {
            kind: self.grid.filled({frequency: values[kind] for frequency, values in measured.items()})
            for kind in clean
        }
        return HeatMap(self.grid, self.n_images, clean, maps)

    def save(self, heat_map: HeatMap, details: Mapping[str, Any]) -> None:
        """Write ``fourier.json``: the maps, and all that is needed to measure them again."""
        content = {
            "frequencies_cycles_per_px": self.grid.axis_cycles_per_px,
            "n_images": heat_map.n_images,
            "clean_accuracy": dict(heat_map.clean_accuracy),
            "accuracy": dict(heat_map.accuracy),
            "identity": dict(self.identity),
            "details": dict(details),
            "versions": versions(),
        }
        write_json(self.path / RECORD_NAME, content)

    def _read(self, frequency: Frequency | None) -> dict[str, float]:
        path = self.file(frequency)
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            return {kind: right / content["n_images"] for kind, right in content["right"].items()}
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as cause:
            raise CheckpointError(f"{path} is no result ({cause!r}): delete it to measure it again") from cause
