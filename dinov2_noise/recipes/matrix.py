"""The ``matrix`` of a recipe: a step whose name holds ``${variable}`` stands once for each value of that variable.

    matrix: {seed: [0, 1, 2]}
    steps:
      nct-${seed}: {kind: train, …, options: [train.seed=${seed}]}
      nct-knn-${seed}: {kind: knn, of: "nct-${seed}", …}

gives six steps. Defaults and variables may name the variable too; a step that uses it without having it in its name is
an error, for it would be told from its siblings by nothing.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from dinov2_noise.errors import ConfigError

Axes = Mapping[str, Sequence[str | int | float]]
_NAMED = re.compile(r"\$\{(\w+)\}")


def parse_matrix(section: object, variables: Mapping[str, Any]) -> Axes:
    """The checked section.

    Raises:
        ConfigError: it is no mapping of names to lists of different values, or a name is one of ``variables``.
    """
    if not isinstance(section, Mapping):
        raise ConfigError(f"matrix must be a mapping of variables to lists of values, not {section!r}")
    for name, values in section.items():
        if name in variables:
            raise ConfigError(f"matrix.{name}: there is a variable of this name, take one of them out")
        if not isinstance(values, list) or not values or len({str(value) for value in values}) < len(values):
            raise ConfigError(f"matrix.{name} must be a list of different values, not {values!r}")
        if not all(isinstance(value, (str, int, float)) for value in values):
            raise ConfigError(f"matrix.{name}: values are texts or numbers, not {values!r}")
    return {str(name): values for name, values in section.items()}


def narrowed(axes: Axes, name: str, text: str) -> Axes:
    """The same with only the values of ``text``, separated by commas.

    Raises:
        ConfigError: a value is not one of the recipe's.
    """
    by_text = {str(value): value for value in axes[name]}
    asked = text.split(",")
    for value in asked:
        if value not in by_text:
            raise ConfigError(f"{name}={text}: {value!r} is not in the recipe's matrix: {', '.join(by_text)}")
    return {**axes, name: [value for shown, value in by_text.items() if shown in asked]}


def combinations(template: str, axes: Axes) -> Iterator[dict[str, Any]]:
    """The values, one dictionary per step, that a step's name asks for; one empty dictionary for a plain name."""
    names = [name for name in axes if name in _NAMED.findall(template)]
    for values in itertools.product(*(axes[name] for name in names)):
        yield dict(zip(names, values, strict=True))


def filled(template: str, values: Mapping[str, Any]) -> str:
    """The name of one of the steps that ``template`` stands for."""
    return _NAMED.sub(lambda found: str(values.get(found[1], found[0])), template)


def placeholder(name: str) -> str:
    """What stands for a variable of the matrix in steps that do not have it in their name."""
    return f"<{name} of the matrix>"


def require_own(name: str, node: object, axes: Axes) -> None:
    """Raises:
    ConfigError: the step ``name`` uses a variable of the matrix that its name does not hold.
    """
    text = str(node)
    for axis in axes:
        if placeholder(axis) in text:
            raise ConfigError(
                f"steps.{name} uses ${{{axis}}} of the matrix: put it into the name, such as {name}-${{{axis}}}"
            )
