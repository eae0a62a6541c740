"""What commands share: options, and a command line made again from what was read of it, for other processes."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Annotated, Any

import typer

Workers = Annotated[int | None, typer.Option(help="Processes; by default one per core.")]
Shard = Annotated[str, typer.Option(help="i/n: the i-th of n such commands that share the work.")]
SkipBad = Annotated[int, typer.Option(help="Leave out so many images that cannot be read; the manifest lists them.")]
Range = Annotated[
    str, typer.Option("--range", help="Which stored values are black and white: dtype, fixed:A,B, percentile:P,Q, …")
]


def arguments_again(context: typer.Context, *, without: Collection[str] = ()) -> list[str]:
    """The name of a running command and its arguments; options left at their defaults stay out.

    Args:
        context: of the command.
        without: options to leave out, under the names of the function's arguments.
    """
    options: list[str] = []
    positional: list[str] = []
    for parameter in context.command.params:
        name, source = str(parameter.name), context.get_parameter_source(str(parameter.name))
        if name in without or source is None or source.name != "COMMANDLINE":
            continue
        value = context.params[name]
        if parameter.param_type_name == "argument":
            positional += [str(value)]
        else:
            options += _option(parameter, value)
    return [str(context.info_name), *options, "--", *positional]


def _option(parameter: Any, value: Any) -> list[str]:
    if isinstance(value, bool):
        return [_long(parameter.opts if value else parameter.secondary_opts)]
    flag = _long(parameter.opts)
    return [f"{flag}={item}" for item in (value if parameter.multiple else [value])]


def _long(names: Sequence[str]) -> str:
    return next((name for name in names if name.startswith("--")), names[0])
