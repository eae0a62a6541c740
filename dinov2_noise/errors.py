"""One error type per cause. Every message names the file or key at fault and the way out."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path


class DinoNoiseError(Exception):
    """Base of all errors a user can mend; the command line prints it without a traceback."""


class ConfigError(DinoNoiseError, ValueError):
    """A config section holds an unknown key, a wrong type, or values that contradict each other."""


class NoiseNameError(DinoNoiseError, ValueError):
    """A noise such as ``gauss255``, or a corruption such as ``fog/3``, cannot be parsed."""


class DatasetStringError(DinoNoiseError, ValueError):
    """A dataset string such as ``ImageNet:split=TRAIN:root=R`` cannot be parsed."""


class MissingFolderError(DinoNoiseError, FileNotFoundError):
    """An input folder or file does not exist, or holds no images."""


class MetadataError(DinoNoiseError, ValueError):
    """ImageNet-style metadata are missing or do not belong to the images."""


class ImageError(DinoNoiseError, ValueError):
    """An image cannot be read: truncated, not an image, or of an unusable size."""

    def __init__(self, path: Path | str, cause: object) -> None:
        super().__init__(f"cannot use image {path}: {cause}")
        self.path = Path(path)
        self.cause = cause

    def __reduce__(self) -> tuple[type[ImageError], tuple[Path, str]]:
        return type(self), (self.path, str(self.cause))


class WriteError(DinoNoiseError, OSError):
    """A file cannot be written: the disk is full, the folder may not be written to, the path is impossible."""

    def __init__(self, path: Path | str, cause: OSError) -> None:
        super().__init__(cause.errno, cause.strerror)
        self.path = Path(path)
        self.cause = cause

    def __str__(self) -> str:
        named = self.cause.filename
        is_ours = named is None or self.path.parent.is_relative_to(Path(os.fsdecode(named)).parent)
        advice = _WRITE_ADVICE.get(self.cause.errno or 0, "Mend that") if is_ours else "Mend that"
        return (
            f"cannot write {self.path}: {self._reason()}. {advice} and run the same command again: finished files are "
            "kept"
        )

    def _reason(self) -> str:
        """Without the name of the temporary file, or of a folder above, which tell nothing new."""
        named = self.cause.filename
        known = named is None or self.path.parent in (path := Path(os.fsdecode(named)), path.parent)
        return self.cause.strerror if known and self.cause.strerror else str(self.cause)

    def __reduce__(self) -> tuple[type[WriteError], tuple[Path, OSError]]:
        return type(self), (self.path, self.cause)


class BusyError(DinoNoiseError, RuntimeError):
    """Another process is at the same work."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what

    def __str__(self) -> str:
        return f"{self.what} is being run by another process: wait for it, or end it first"


_WRITE_ADVICE = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), "Make room on its disk"),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "Allow writing there"),
    **dict.fromkeys((errno.ENOTDIR, errno.EEXIST), "A part of this path is a file: choose another path"),
    errno.ENAMETOOLONG: "Shorten the name",
}


class ShardError(DinoNoiseError, ValueError):
    """A tar shard cannot be read, or its members make no data set."""


class PairError(DinoNoiseError, ValueError):
    """The denoised folder does not pair with the noisy one."""

    @classmethod
    def missing(cls, denoised_root: Path | str, missing: Sequence[str], total: int) -> PairError:
        """``missing``: relative paths without a denoised twin, in order; the first five are named."""
        shown = "".join(f"\n  {name}" for name in missing[:5])
        more = f"\n  … and {len(missing) - 5} more" if len(missing) > 5 else ""
        return cls(
            f"{len(missing)} of {total} images have no denoised twin under {denoised_root}:{shown}{more}\n"
            "Run `dinov2-noise denoise apply` again with the same folders: it continues where it stopped."
        )


class CheckpointError(DinoNoiseError, ValueError):
    """Weights belong to another architecture, or a checkpoint file cannot be read."""


class DivergedError(DinoNoiseError, RuntimeError):
    """Training cannot go on: a loss is not finite, or optimizer steps are skipped one after the other."""


class MonitorLogError(DinoNoiseError, ValueError):
    """A line of ``monitor.jsonl`` is damaged."""


class OutputFolderError(DinoNoiseError, FileExistsError):
    """The output folder already holds other results."""


class PluginError(DinoNoiseError, RuntimeError):
    """The plug-in is not active where it must be, or does not fit this version of DINOv2."""
