"""Make a DINOv2 checkout load its plug-ins: the one change to upstream's files, a few lines at the end of
``dinov2/__init__.py``.

The same change is kept as a commit in ``patches/dinov2/``; a test keeps both equal.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

from dinov2_noise.errors import MissingFolderError, PluginError
from dinov2_noise.files import atomic_path

_BEGIN = "# Plug-ins: installed packages may extend this one before any of its modules is imported.\n"
_END = "del _load_plugins\n"
BLOCK = f"""

{_BEGIN}def _load_plugins():
    from importlib.metadata import entry_points

    for plugin in entry_points(group="dinov2.plugins"):
        plugin.load()()


_load_plugins()
{_END}"""


def find_init(path: Path | None = None) -> Path:
    """``dinov2/__init__.py`` of a checkout, of a ``dinov2`` folder, or of the importable package.

    Raises:
        MissingFolderError: there is none.
    """
    if path is None:
        for entry in (*sys.path, "."):
            candidate = Path(entry or ".") / "dinov2" / "__init__.py"
            if candidate.is_file():
                return candidate.resolve()
        raise MissingFolderError(
            "no importable dinov2 found: give the path of your DINOv2 checkout, `dinov2-noise patch PATH_TO_DINOV2`, "
            "or set PYTHONPATH to it"
        )
    for candidate in (path / "dinov2" / "__init__.py", path / "__init__.py"):
        if candidate.is_file() and (candidate.parent / "configs").is_dir():
            return candidate.resolve()
    raise MissingFolderError(
        f"{path} is not a DINOv2 checkout: it holds no dinov2/__init__.py with dinov2/configs beside it"
    )


def is_patched(init: Path) -> bool:
    """Whether ``init`` holds our block, whole.

    Raises:
        PluginError: only part of it is there (somebody edited it).
    """
    text = init.read_text(encoding="utf-8")
    if BLOCK in text:
        return True
    if _BEGIN in text or "_load_plugins" in text:
        raise PluginError(
            f"{init} holds an edited form of the plug-in block: restore the file (`git checkout "
            "dinov2/__init__.py`) and patch it again"
        )
    return False


def patch(init: Path) -> bool:
    """Append the block; returns False if it was there."""
    if is_patched(init):
        return False
    text = init.read_text(encoding="utf-8")
    _replace(init, (text if text.endswith("\n") else text + "\n") + BLOCK)
    return True


def reverse(init: Path) -> bool:
    """Remove the block; returns False if it was not there."""
    if not is_patched(init):
        return False
    _replace(init, init.read_text(encoding="utf-8").replace(BLOCK, "", 1))
    return True


def _replace(init: Path, text: str) -> None:
    with atomic_path(init) as temporary:
        temporary.write_text(text, encoding="utf-8")
        temporary.chmod(init.stat().st_mode)


def importable_init() -> Path | None:
    """``dinov2/__init__.py`` that `import dinov2` would run, without running it."""
    spec = importlib.util.find_spec("dinov2")
    return Path(spec.origin) if spec is not None and spec.origin is not None else None
