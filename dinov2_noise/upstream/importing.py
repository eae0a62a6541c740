"""Attach our code to upstream's modules while Python imports them.

A `sys.meta_path` finder rather than post-import hooks of a library, for three reasons: upstream's training module
asserts xFormers *while* it is imported, and torchvision needs operator schemas *before* it is, so some seams must act
around the import; and a hook that fails must fail at every import, whereas wrapt removes a hook before it runs and
lets a second import succeed unpatched.

A seam is a module of ours with ``attach(module)``, and optionally ``surround()``, a context manager held while
upstream's code runs.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from dinov2_noise.errors import DinoNoiseError, PluginError

_MARK = "__dinov2_noise_attached__"


def attach_once(module: ModuleType, seam: ModuleType) -> None:
    """Run ``seam.attach(module)`` unless it has been run on this very module object.

    Raises:
        PluginError: the seam failed; its own message is kept.
    """
    if getattr(module, _MARK, False):
        return
    try:
        seam.attach(module)
    except DinoNoiseError:
        raise
    except Exception as cause:
        raise PluginError(
            f"{seam.__name__} could not attach to {module.__name__} ({type(cause).__name__}: {cause}). "
            "Run `dinov2-noise doctor` and compare the versions it prints with the README's."
        ) from cause
    setattr(module, _MARK, True)


def is_attached(module: ModuleType) -> bool:
    """Whether our seam has been attached to ``module``."""
    return bool(getattr(module, _MARK, False))


class SeamLoader(Loader):
    """Runs the module's own loader, then attaches the seam.

    If the seam fails, `importlib` drops the module from `sys.modules`: the next import comes here again and fails
    again.
    """

    def __init__(self, loader: Loader, seam_name: str) -> None:
        self._loader = loader
        self._seam_name = seam_name

    def __getattr__(self, name: str) -> Any:
        # `python -m`, inspect and linecache ask a loader for get_code, get_source, …
        return getattr(self._loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        module.__loader__ = self._loader
        seam = importlib.import_module(self._seam_name)
        surround: AbstractContextManager[None] = seam.surround() if hasattr(seam, "surround") else nullcontext()
        with surround:
            self._loader.exec_module(module)
        attach_once(module, seam)


class SeamFinder(MetaPathFinder):
    """Finds the modules named in ``seams`` where all other finders find them, and wraps their loader.

    Args:
        seams: name of the module to attach to → name of our module with ``attach``.
    """

    def __init__(self, seams: Mapping[str, str]) -> None:
        self.seams = dict(seams)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        seam_name = self.seams.get(fullname)
        if seam_name is None:
            return None
        for finder in sys.meta_path:
            if finder is self:
                continue
            spec = finder.find_spec(fullname, path, target)
            if spec is not None and spec.loader is not None:
                spec.loader = SeamLoader(spec.loader, seam_name)
                return spec
        return None


def install(seams: Mapping[str, str]) -> SeamFinder:
    """Put one finder for ``seams`` in front of `sys.meta_path`; a second call returns the first one.

    Raises:
        PluginError: a module to attach to has been imported before.
    """
    for finder in sys.meta_path:
        if isinstance(finder, SeamFinder):
            return finder
    early = [name for name in seams if name.startswith("dinov2") and name in sys.modules]
    if early:
        raise PluginError(
            f"dinov2_noise was activated after {', '.join(early)} had been imported, too late to attach to it. "
            "Run `dinov2-noise patch` on your DINOv2 checkout, so that `import dinov2` activates it first."
        )
    finder = SeamFinder(seams)
    sys.meta_path.insert(0, finder)
    return finder
