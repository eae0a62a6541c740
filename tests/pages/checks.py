"""Whether a page's words are a command: the program is there, its options and arguments are known, names exist.

Nothing is run. Our command line is asked through typer, upstream's scripts through their own parsers, a script of the
repository by its text.
"""

from __future__ import annotations

import argparse
import importlib
import re
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import typer

from dinov2_noise import data
from dinov2_noise.cli import app
from dinov2_noise.configs import names
from dinov2_noise.errors import DinoNoiseError
from dinov2_noise.recipes import load_recipe
from dinov2_noise.recipes.plan import Plan
from pages.blocks import ROOT

# Everything else that pages use.
USUAL = (
    *(".", "cd", "cp", "curl", "du", "export", "find", "git", "grep", "head", "kill", "ls", "mkdir", "mv", "rm", "sed"),
    *("set", "sort", "source", "tail", "tar", "unzip", "wget", "conda", "docker", "module", "pip", "sbatch", "srun"),
    *("tensorboard", "ssh", "echo", "cat", "rsync", "which", "unset", "wandb"),
)
_KEY = re.compile(r"^[\w.\-@]+=")
_PLACEHOLDER = re.compile(r"^[A-Z_0-9]+$")


class PageError(AssertionError):
    """A command in a page is not one; ``is_incomplete`` when only something required is missing."""

    is_incomplete = False


def check(words: Sequence[str]) -> None:
    """Raise `PageError` unless ``words`` are a command that could be run, given its files."""
    program, rest = words[0], list(words[1:])
    if program == "dinov2-noise":
        _check_ours(rest)
    elif program == "torchrun" or program.startswith("python"):
        _check_python(rest)
    elif program == "make":
        _check_make(rest)
    elif program not in USUAL:
        raise PageError(f"unknown program {program!r}")


def _check_ours(words: list[str]) -> None:
    name, context, parameters = _parsed(words)
    if name == "dinov2-noise train":
        check_config(parameters["config"], context.args)
    if name == "dinov2-noise run":
        _check_recipe(parameters, context.args)
    for value in [*_texts(parameters), *context.args]:
        check_dataset_string(value)


def _parsed(words: list[str]) -> tuple[str, Any, dict[str, Any]]:
    """The command's name, its context, and its parameters, as typer reads them."""
    command = _root()
    name = "dinov2-noise"
    words = [_numbered(word) for word in words]
    while hasattr(command, "commands"):
        if not words or words[0] not in command.commands:
            raise _wrong(f"`{name}` knows {', '.join(command.commands)}, not {words[:1]}", incomplete=not words)
        name, command, words = f"{name} {words[0]}", command.commands[words[0]], words[1:]
    if "--help" in words or "--list" in words:  # they end the command while it is read
        known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
        if not {word for word in words if word.startswith("-")} <= known:
            raise PageError(f"`{name}` knows {sorted(known)}")
        return name, argparse.Namespace(args=[]), {}
    try:
        context = command.make_context(name, list(words))
    except Exception as cause:  # typer has its own copy of click: its errors have no name to import
        text = cause.format_message() if hasattr(cause, "format_message") else str(cause)
        raise _wrong(f"{name}: {text}", incomplete="Missing" in text or "requires an argument" in text) from cause
    return name, context, dict(context.params)


def _wrong(text: str, *, incomplete: bool) -> PageError:
    error = PageError(text)
    error.is_incomplete = incomplete
    return error


@cache
def _root() -> Any:
    return typer.main.get_command(app)


def _numbered(word: str) -> str:
    return {"N": "1", "i/n": "1/2", "I/N": "1/2"}.get(word, word)


def check_config(config: str, options: Sequence[str]) -> None:
    """A training's config is one that exists, and its ``key=value`` are keys of upstream's or of our sections."""
    for option in options:
        if not _KEY.match(option):
            raise PageError(f"train {config}: {option!r} is not key=value")
    if config not in names() and not (ROOT / config).is_file():
        if not config.endswith((".yaml", ".yml")) and not _PLACEHOLDER.match(config):
            raise PageError(f"no config {config}")
        config = "nct_laptop"
    from dinov2_noise.upstream.estimate import curriculum_of, load

    try:
        curriculum_of(load(config, options))
    except DinoNoiseError as cause:
        raise PageError(str(cause)) from cause


def _check_recipe(parameters: dict[str, Any], options: Sequence[str]) -> None:
    recipe = ROOT / parameters["recipe"]
    if not recipe.is_file():
        if recipe.parent.is_dir() and "configs" in recipe.parts and not _PLACEHOLDER.match(recipe.stem):
            raise PageError(f"no recipe {parameters['recipe']}")
        return
    try:
        plan = Plan(load_recipe(recipe, options, workdir=None))
        plan.select(only=[*filter(None, parameters["only"].split(","))], start=parameters["start"])
    except DinoNoiseError as cause:
        raise PageError(str(cause)) from cause


def check_dataset_string(text: str) -> None:
    """Where ``text`` is a dataset string of ours, it can be read; files it names need not exist."""
    text = text.removeprefix("train.dataset_path=")
    if text.split(":")[0] not in data.DATASETS or "…" in text:
        return
    try:
        data.parse_dataset_string(text)
    except DinoNoiseError as cause:
        raise PageError(str(cause)) from cause


def _texts(parameters: dict[str, Any]) -> list[str]:
    values = [value if isinstance(value, list | tuple) else [value] for value in parameters.values()]
    return [str(item) for value in values for item in value if item is not None]


def _check_python(words: list[str]) -> None:
    if "-m" in words:
        at = words.index("-m")
        _check_module(words[at + 1], words[at + 2 :])
    elif words[:1] == ["-c"]:
        compile(words[1], "<page>", "exec")
    elif words[0].startswith("dinov2/run/"):
        group, name = words[0].removesuffix(".py").split("/")[2:]
        _check_upstream(f"dinov2.{group}.{name}", words[1:], launched=True)
    elif (ROOT / words[0]).is_file():
        text = (ROOT / words[0]).read_text(encoding="utf-8")
        unknown = [word for word in words[1:] if word.startswith("--") and f'"{word}"' not in text]
        if unknown:
            raise PageError(f"{words[0]} has no {', '.join(unknown)}")
    else:
        raise PageError(f"no script {words[0]}")


def _check_module(module: str, words: list[str]) -> None:
    if module == "dinov2_noise":
        _check_ours(words)
    elif module.startswith("dinov2."):
        _check_upstream(module, words, launched=False)
    elif module not in ("venv", "pip", "http.server"):
        raise PageError(f"unknown module {module}")


def _check_upstream(module: str, words: Sequence[str], *, launched: bool) -> None:
    parser = _upstream_parser(module, launched)
    try:
        known = parser.parse_args(words)
    except SystemExit as cause:
        raise PageError(f"{module} does not take {' '.join(words)}") from cause
    values = vars(known)
    if module == "dinov2.train.train":
        name = re.sub(r"^dinov2_noise/configs/(.*)\.yaml$", r"\1", values["config_file"])
        check_config(name, [word for word in values["opts"] if _KEY.match(word)])
    for word in words:
        check_dataset_string(word)


@cache
def _upstream_parser(module: str, launched: bool) -> argparse.ArgumentParser:
    """The parser of one of upstream's scripts; ``launched`` adds the options of its SLURM launcher."""
    get: Callable[..., argparse.ArgumentParser] = importlib.import_module(module).get_args_parser
    parser = get(add_help=False)
    if launched:
        with_launcher = importlib.import_module("dinov2.run.submit").get_args_parser
        return with_launcher("as in a page", parents=[parser])  # type: ignore[no-any-return]
    return parser


def _check_make(words: list[str]) -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    for word in words:
        if "=" not in word and word not in targets:
            raise PageError(f"no make target {word}")
