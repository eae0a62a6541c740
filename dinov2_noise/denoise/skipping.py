"""Images that a training leaves out because they cannot be read: a few, named, the same when it is continued.

Which images these are is known only when they are read, in several processes and over several starts; so they are kept
in a folder beside the snapshot, in a small file for each: to add one is safe on a network's disk, too.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from dinov2_noise.errors import ImageError
from dinov2_noise.files import atomic_path

SKIPPED_NAME = ".skipped"


class Skipped:
    """The images left out so far; picklable, for the loader's processes.

    Args:
        folder: for the files.
        limit: how many may be left out.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder = folder
        self.limit = limit
        self._known: set[str] = set()

    def add(self, failure: ImageError) -> None:
        """Leave an image out; named on standard error the first time.

        Raises:
            ImageError: it is one more than allowed.
            WriteError: it cannot be noted.
        """
        name = str(failure.path)
        if name in self._known:
            return
        if self.limit == 0:
            raise failure
        is_new = name not in self.paths()
        self.note([name])
        count = len(self.paths())  # after it was noted: of two processes with one image each, one at least sees both
        if count > self.limit:
            if is_new:
                self._file(name).unlink(missing_ok=True)
            allowed = f"({count} images cannot be read; --skip-bad allows {self.limit})"
            raise ImageError(failure.path, f"{failure.cause} {allowed}")
        self._known.add(name)
        if is_new:
            print(f"warning: left out {failure.path}: {failure.cause}", file=sys.stderr)

    def note(self, names: Iterable[str]) -> None:
        """Add images without a word: they have been named already."""
        for name in names:
            with atomic_path(self._file(name), durable=True) as temporary:
                temporary.write_text(json.dumps(name))

    def paths(self) -> list[str]:
        """What has been left out, sorted."""
        found = []
        for file in self.folder.glob("[!.]*.json"):
            with suppress(FileNotFoundError):  # another process has taken it back meanwhile
                found.append(str(json.loads(file.read_text())))
        return sorted(found)

    def delete(self) -> None:
        """Forget all: a training begins anew, or is complete."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _file(self, name: str) -> Path:
        return self.folder / f"{hashlib.sha256(name.encode('utf-8', 'surrogateescape')).hexdigest()[:16]}.json"
