"""The table of all noises that ``dinov2-noise add-noise --list`` prints."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from dinov2_noise.noise.registry import FAMILIES


def print_noises(console: Console | None = None) -> None:
    """Print name, formula, levels with units, use and source of every family; to standard output by default."""
    console = Console() if console is None else console
    table = Table(title="x: a pixel's channel, 0 is black, 1 is white; results are clipped", show_lines=True)
    table.add_column("name, examples\n(* published)", no_wrap=True)
    table.add_column("formula and levels")
    table.add_column("stands for; source")
    for name, family in FAMILIES.items():
        star = "*" if family.is_published else ""
        names = [family.signature(name), *(f"  {example}{star}" for example in family.examples)]
        levels = [family.formula, *(f"{symbol}: {meaning}" for symbol, meaning in family.parameters)]
        table.add_row(*(Text("\n".join(lines)) for lines in (names, levels, [family.stands_for, family.source])))
    console.print(table)
    console.print(
        Text("Two numbers for the first level, such as gauss5-50, draw it for each image, uniformly between the two.")
    )
