"""A recipe file → its steps: inheritance, variables and strict types.

Read in this order: files named by ``inherit`` are merged, the child's keys over the parent's; a step set to ``null``
is taken out; ``key=value`` of the command line replaces variables; ``${name}`` is resolved, once for each combination
of a `matrix`; each step, with the ``defaults`` of its kind below it, becomes one of the dataclasses of `steps`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError  # type: ignore[import-untyped]

from dinov2_noise.curriculum.strict import build_strict, choose
from dinov2_noise.errors import ConfigError
from dinov2_noise.recipes.corruption_step import CorruptionsStep
from dinov2_noise.recipes.denoise_steps import DenoiseApplyStep, DenoiseTrainStep
from dinov2_noise.recipes.matrix import Axes, combinations, filled, narrowed, parse_matrix, placeholder, require_own
from dinov2_noise.recipes.own_probe_steps import LogisticStep, OwnKnnStep
from dinov2_noise.recipes.steps import CommandStep, IndexStep, NoiseStep, Step
from dinov2_noise.recipes.upstream_steps import KnnStep, LinearStep, TrainStep

KINDS: dict[str, type[Step]] = {
    "noise": NoiseStep,
    "index": IndexStep,
    "denoise-train": DenoiseTrainStep,
    "denoise-apply": DenoiseApplyStep,
    "train": TrainStep,
    "knn": KnnStep,
    "linear": LinearStep,
    "evaluate-knn": OwnKnnStep,
    "evaluate-linear": LogisticStep,
    "corruptions": CorruptionsStep,
    "command": CommandStep,
}
SECTIONS = ("name", "description", "inherit", "variables", "matrix", "defaults", "slurm", "steps")
PREDEFINED = ("workdir", "recipe")
_STEP_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class SlurmSection:
    """How jobs are submitted; None is left to the cluster.

    Attributes:
        options: further options of ``sbatch``, as ``key=value``.
    """

    partition: str | None = None
    qos: str | None = None
    account: str | None = None
    constraint: str | None = None
    cpus_per_task: int = 8
    mem_gb: float | None = None
    options: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Recipe:
    """A recipe with all values in place.

    Attributes:
        name: of the file, unless the file gives one.
        description: what it reproduces.
        workdir: where records, logs and runs go.
        steps: in the order of the file.
        slurm: how to submit.
        resolved: the same as plain data: a recipe file without variables.
    """

    name: str
    description: str
    workdir: Path
    steps: Mapping[str, Step]
    slurm: SlurmSection
    resolved: Mapping[str, Any]


def load_recipe(path: Path, overrides: Sequence[str] = (), *, workdir: Path | None = None) -> Recipe:
    """Read a recipe.

    Args:
        path: the YAML file.
        overrides: ``variable=value``.
        workdir: default ``runs/<name of the recipe>``.

    Raises:
        ConfigError: the file or one it inherits from is missing or not YAML, or an unknown, missing or wrong key or
            variable; names file and key.
    """
    content = _with_parents(path, ())
    try:
        return _build(path, content, overrides, workdir)
    except ConfigError as error:
        raise ConfigError(f"recipe {path}: {error}") from error


def _with_parents(path: Path, children: tuple[Path, ...]) -> dict[str, Any]:
    here = path.resolve()
    if here in children:
        chain = " → ".join(child.name for child in (*children[children.index(here) :], here))
        raise ConfigError(f"recipe {path}: inherit goes in a circle: {chain}")
    content = _read(path)
    parent = content.pop("inherit", None)
    if parent is None:
        return content
    if not isinstance(parent, str):
        raise ConfigError(f"recipe {path}: inherit must be one file name, not {parent!r}")
    inherited = _with_parents(path.parent / parent, (*children, here))
    merged = OmegaConf.to_container(OmegaConf.merge(inherited, content))
    assert isinstance(merged, dict)
    # The parent's steps come first and keep their order; its name is not the child's.
    return {str(key): value for key, value in merged.items() if key != "name" or "name" in content}


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ConfigError(f"recipe {path} does not exist: recipes are YAML files, see configs/ of the repository")
    try:
        content = OmegaConf.to_container(OmegaConf.load(path))
    except (OmegaConfBaseException, YAMLError, UnicodeDecodeError) as cause:
        raise ConfigError(f"recipe {path} is not YAML: {cause}") from cause
    if not isinstance(content, dict):
        raise ConfigError(f"recipe {path} must be a mapping with the keys {', '.join(SECTIONS)}")
    for key in content:
        choose(str(key), SECTIONS, f"recipe {path}: key")
    for section in ("variables", "matrix", "defaults", "slurm", "steps"):
        if not isinstance(content.get(section, {}), dict):
            raise ConfigError(f"recipe {path}: {section} must be a mapping, not {content[section]!r}")
    return {str(key): value for key, value in content.items()}


def _build(path: Path, content: dict[str, Any], overrides: Sequence[str], workdir: Path | None) -> Recipe:
    name = str(content.get("name", path.stem))
    folder = Path("runs") / name if workdir is None else workdir
    declared = content.get("variables", {})
    axes = parse_matrix(content.get("matrix", {}), declared)
    variables, axes = _variables(declared, axes, overrides)
    variables |= {"workdir": str(folder), "recipe": name}
    head = {key: value for key, value in content.items() if key not in ("steps", "defaults")}
    resolved = _resolve(head, variables, axes, {})
    complete = _steps(content, variables, axes)
    if not complete:
        raise ConfigError("steps is empty: a recipe has at least one step")
    steps = {step: _step(step, node) for step, node in complete.items()}
    kept: dict[str, Any] = {key: resolved[key] for key in ("description", "slurm") if key in resolved}
    slurm = build_strict(SlurmSection, resolved.get("slurm", {}), "slurm")
    return Recipe(
        name=name,
        description=str(resolved.get("description", "")).strip(),
        workdir=folder,
        steps=steps,
        slurm=slurm,
        resolved={**kept, "name": name, "steps": complete},
    )


def _steps(content: Mapping[str, Any], variables: Mapping[str, Any], axes: Axes) -> dict[str, dict[str, Any]]:
    """Every step with its values in place: those of the matrix once for each combination of their variables."""
    complete: dict[str, dict[str, Any]] = {}
    defaults = _checked_defaults(content.get("defaults", {}))
    for template, node in content.get("steps", {}).items():
        if node is None:
            continue
        whole = _with_defaults(str(template), node, defaults)
        for values in combinations(str(template), axes):
            resolved = _resolve({"steps": {str(template): whole}}, variables, axes, values)
            name = _checked_name(filled(str(template), values))
            complete[name] = resolved["steps"][str(template)]
            require_own(str(template), complete[name], axes)
    return complete


def _variables(declared: Mapping[str, Any], axes: Axes, overrides: Sequence[str]) -> tuple[dict[str, Any], Axes]:
    """Variables and matrix as the command line changes them."""
    for key in (*declared, *axes):
        if key in SECTIONS or key in PREDEFINED:
            raise ConfigError(f"variables.{key}: this name is taken")
    variables = dict(declared)
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals:
            raise ConfigError(f"{override!r} is not of the form variable=value")
        choose(key, [*declared, *axes], f"variable of {override!r}")
        if key in axes:
            axes = narrowed(axes, key, text)
            continue
        # A text stays a text: `1e3` or `yes` can be a folder's name.
        is_text = isinstance(declared[key], str) and declared[key] != "???"
        variables[key] = text if is_text else OmegaConf.from_dotlist([f"value={text}"]).value
    for key, value in variables.items():
        if value == "???":
            raise ConfigError(f"variables.{key} has no value, the recipe leaves it to you: add {key}=… to the command")
    return variables, axes


def _resolve(
    content: Mapping[str, Any], variables: Mapping[str, Any], axes: Axes, values: Mapping[str, Any]
) -> dict[str, Any]:
    """The recipe without variables; those of the matrix have ``values``, or a placeholder."""
    variables = {**variables, **{axis: placeholder(axis) for axis in axes}, **values}
    rest = {key: value for key, value in content.items() if key not in ("variables", "matrix")}
    try:
        container = OmegaConf.to_container(OmegaConf.create({**variables, **rest}), resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as cause:
        message = str(cause).splitlines()[0]
        raise ConfigError(f"{cause.full_key or 'value'}: {message} (variables: {', '.join(variables)})") from cause
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items() if key not in variables}


def _checked_defaults(section: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    for kind, node in section.items():
        choose(str(kind), list(KINDS), "key of defaults")
        if not isinstance(node, Mapping):
            raise ConfigError(f"defaults.{kind} must be a mapping, not {node!r}")
        for key in node:
            choose(str(key), [item.name for item in fields(KINDS[kind])], f"key of defaults.{kind}")
    return {str(kind): dict(node) for kind, node in section.items()}


def _checked_name(name: str) -> str:
    if not _STEP_NAME.fullmatch(name):
        raise ConfigError(
            f"steps.{name}: a step's name is made of letters, digits, '.', '_', '-' and ${{variables}} of the matrix"
        )
    return name


def _with_defaults(name: str, node: object, defaults: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    key = f"steps.{name}"
    if not isinstance(node, Mapping) or "kind" not in node:
        raise ConfigError(f"{key} must be a mapping with a kind: {', '.join(KINDS)}")
    choose(str(node["kind"]), list(KINDS), f"{key}.kind")
    return {**defaults.get(str(node["kind"]), {}), **node}


def _step(name: str, node: Mapping[str, Any]) -> Step:
    settings = {key: value for key, value in node.items() if key != "kind"}
    step = build_strict(KINDS[str(node["kind"])], settings, f"steps.{name}")
    step.check(f"steps.{name}")
    return step
