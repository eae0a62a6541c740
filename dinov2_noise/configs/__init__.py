"""Training configs for upstream's ``train.py``: files written by hand, and the catalogue of published experiments.

A config of the catalogue exists as a file only when it is asked for: it is composed into the user's cache folder, under
a name that holds a hash of its content, so that several processes can write it at once.
"""

from __future__ import annotations

import difflib
import hashlib
import os
import re
import tempfile
from pathlib import Path

from dinov2_noise.configs import catalogue
from dinov2_noise.configs.guard import GUARD, register_guard
from dinov2_noise.errors import ConfigError
from dinov2_noise.files import atomic_path

__all__ = [
    "GUARD",
    "config_file",
    "listing",
    "names",
    "read",
    "register_guard",
    "resolve_config_file",
    "shipped",
]

FOLDER = Path(__file__).parent
_CACHED = re.compile(r"(?P<name>.+)-(?P<hash>[0-9a-f]{8})")


def shipped() -> dict[str, Path]:
    """Name (``nct``) → path of every config written by hand."""
    return {path.stem: path for path in sorted(FOLDER.glob("*.yaml")) if path != catalogue.TABLE}


def names() -> tuple[str, ...]:
    """All configs that can be asked for by name: those written by hand, then the catalogue."""
    return (*shipped(), *catalogue.names())


def read(name: str) -> str:
    """The text of config ``name``: header and YAML.

    Raises:
        ConfigError: there is none of that name; names the closest ones.
    """
    if name in shipped():
        return shipped()[name].read_text(encoding="utf-8")
    if name in catalogue.names():
        return catalogue.compose(name)
    raise ConfigError(f"no config {name!r}: {_closest(name)}")


def listing(grep: str = "") -> str:
    """One line per config whose line holds ``grep``, under group headings.

    Raises:
        ConfigError: no line holds it.
    """
    rows = [("Written by hand", name, read(name).splitlines()[0].lstrip("# ")) for name in shipped()]
    found = [catalogue.experiment(name) for name in catalogue.names()]
    rows += [(entry.group, entry.name, f"{entry.summary}.") for entry in found]
    rows = [row for row in rows if grep.lower() in f"{row[1]} {row[2]}".lower()]
    if not rows:
        raise ConfigError(f"no config matches {grep!r}: {_closest(grep)}")
    width = max(len(name) for _, name, _ in rows)
    lines: list[str] = []
    for index, (group, name, title) in enumerate(rows):
        if index == 0 or rows[index - 1][0] != group:
            lines += [*([""] if lines else []), group]
        lines.append(f"  {name:<{width}}  {title}")
    return "\n".join(lines)


def config_file(config: str) -> str:
    """The path of ``config``, which is a path already or a name of `names`.

    Raises:
        ConfigError: it is neither.
    """
    if config in names():
        return str(_file(config))
    path = resolve_config_file(config)
    if not Path(path).exists():
        raise ConfigError(f"no config file and no config of the name {config!r}: {_closest(Path(config).stem)}")
    return path


def resolve_config_file(config_file: str) -> str:
    """``dinov2_noise/configs/nct.yaml`` works wherever the package is installed; other paths are returned unchanged.

    A file of the cache that is not on this machine (a job may run on another one than its launcher) is written again.

    Raises:
        ConfigError: the path looks like a shipped config, but there is none of that name.
    """
    path = Path(config_file)
    if path.exists():
        return config_file
    cached = _CACHED.fullmatch(path.stem)
    if path.parts[-3:-1] == ("dinov2-noise", "configs") and cached:
        again = _file(cached["name"]) if cached["name"] in catalogue.names() else path
        if again.name != path.name:
            raise ConfigError(
                f"{config_file} is gone, and this version of dinov2-noise composes another config: start anew"
            )
        return str(again)
    if path.parts[-3:-1] != ("dinov2_noise", "configs"):
        return config_file
    name = path.name.removesuffix(".yaml")
    if name not in names():
        raise ConfigError(f"no shipped config {config_file!r}: {_closest(name)}")
    return str(_file(name))


def _file(name: str) -> Path:
    if name in shipped():
        return shipped()[name]
    text = catalogue.compose(name)
    filename = f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:8]}.yaml"
    try:
        return _written(_cache_folder() / filename, text)
    except OSError:  # a home that is missing, read-only or full
        return _written(Path(tempfile.mkdtemp()) / "dinov2-noise" / "configs" / filename, text)


def _cache_folder() -> Path:
    root = os.environ.get("XDG_CACHE_HOME", "")
    base = Path(root) if Path(root).is_absolute() else Path.home() / ".cache"
    return base / "dinov2-noise" / "configs"


def _written(path: Path, text: str) -> Path:
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        with atomic_path(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return path


def _closest(name: str) -> str:
    begun = [other for other in names() if name and other.startswith(name)]
    close = begun[:4] or difflib.get_close_matches(name, names(), n=4, cutoff=0.5)
    hint = f"the closest are {', '.join(close)}" if close else f"there are {', '.join(shipped())} and others"
    return f"{hint} (`dinov2-noise configs` lists all)"
