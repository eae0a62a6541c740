"""What became of each entry when weights were loaded."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Status = Literal["loaded", "resized", "missing", "unexpected"]
_ROWS_SHOWN = 20
# Random in every network that was not trained with iBOT, and not used without masks: nobody's loss.
_OPTIONAL = "mask_token"


@dataclass(frozen=True)
class Row:
    """One entry: its name in upstream's form, its status, its number of parameters, and why.

    ``missing``: the model has it, the file does not (or in another shape); ``unexpected``: the reverse.
    """

    name: str
    status: Status
    parameters: int
    note: str = ""


@dataclass(frozen=True)
class Report:
    """The rows of one loading; percentages leave out ``mask_token``, which many files lack."""

    source: str
    kind: str
    rows: tuple[Row, ...]

    def count(self, status: Status) -> int:
        return sum(row.status == status for row in self.rows)

    @property
    def percent_of_parameters(self) -> float:
        """Parameters of the model's backbone that come from the file, in percent."""
        return _percent((row.status in ("loaded", "resized"), row.parameters) for row in self._of("missing"))

    @property
    def percent_of_entries(self) -> float:
        """Entries of the model's backbone that come from the file, in percent."""
        return _percent((row.status in ("loaded", "resized"), 1) for row in self._of("missing"))

    @property
    def percent_used(self) -> float:
        """Entries or parameters of the file's backbone, whichever is less, that have a place in the model."""
        rows = self._of("unexpected")
        return min(
            _percent((row.status != "unexpected", row.parameters) for row in rows),
            _percent((row.status != "unexpected", 1) for row in rows),
        )

    def _of(self, other: Status) -> list[Row]:
        return [row for row in self.rows if row.status in ("loaded", "resized", other) and row.name != _OPTIONAL]

    def table(self) -> str:
        """Counts, and a line for each of the first 20 entries that were not simply loaded."""
        lines = [
            f"weights {self.source} ({self.kind}): {self.count('loaded')} loaded, {self.count('resized')} resized, "
            f"{self.count('missing')} missing, {self.count('unexpected')} unexpected; "
            f"{_shown(self.percent_of_parameters)} % of the backbone's parameters, "
            f"{_shown(self.percent_of_entries)} % of its entries"
        ]
        remarkable = [row for row in self.rows if row.status != "loaded"]
        lines += [f"  {row.status:<11}{row.name:<32}{row.note}".rstrip() for row in remarkable[:_ROWS_SHOWN]]
        if len(remarkable) > _ROWS_SHOWN:
            lines.append(f"  … and {len(remarkable) - _ROWS_SHOWN} more")
        return "\n".join(lines)


def _percent(weighted: Iterable[tuple[bool, int]]) -> float:
    pairs = list(weighted)
    whole = sum(weight for _, weight in pairs)
    return 100 * sum(weight for good, weight in pairs if good) / whole if whole else 0.0


def _shown(percent: float) -> str:
    """One decimal, never rounded up to a full 100."""
    return "100" if percent == 100 else f"{min(percent, 99.9):.1f}"
