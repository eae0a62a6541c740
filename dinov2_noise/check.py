"""What is in a folder of images, before a long job is started on it: count, sizes, what cannot be read, the noise."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dinov2_noise.decoding import image_size, load_rgb
from dinov2_noise.denoise.images import ImageFiles
from dinov2_noise.errors import ImageError
from dinov2_noise.files import list_images
from dinov2_noise.noise.audit import NoiseCorrelation, correlation
from dinov2_noise.noise.pool import run_jobs, worker_count
from neighbor2neighbor.training import CROP_MULTIPLE_PX

_SHOWN = 5  # unreadable files that are named
_VERDICTS = {
    "independent": "independent: a denoiser can be trained on this noise",
    "correlated": "correlated; warning: {warning}",
    "unclear": "unclear: too little noise, or too few pixels, to tell correlated noise from the picture itself",
}


@dataclass(frozen=True)
class FolderCheck:
    """What `check_folder` found.

    Attributes:
        root: the folder.
        sizes: (width, height) of the readable images, and how many have it.
        unreadable: one error per image that cannot be used.
        noise: None where no image is readable.
    """

    root: Path
    sizes: Counter[tuple[int, int]]
    unreadable: Sequence[ImageError]
    noise: NoiseCorrelation | None

    @property
    def good(self) -> bool:
        """Whether all images can be used; correlated noise is a warning."""
        return not self.unreadable

    def lines(self) -> list[tuple[str, str]]:
        """The report, as pairs of a word and what is said of it."""
        count = self.sizes.total() + len(self.unreadable)
        lines = [("images", f"{count} in {self.root}"), ("unreadable", self._unreadable())]
        if self.noise is not None:
            at = ", ".join(f"{rho:+.2f} at {lag}" for lag, rho in self.noise.autocorrelation.items())
            lines += [
                ("sizes", self._sizes()),
                ("noise", f"standard deviation about {self.noise.sigma_255:.0f} of 255, as stored"),
                ("autocorrelation", f"{at} (px down, px right)"),
                ("verdict", _VERDICTS[self.noise.verdict].format(warning=self.noise.warning())),
            ]
        return lines

    def _unreadable(self) -> str:
        named = [f"\n  {error.path}: {error.cause}" for error in self.unreadable[:_SHOWN]]
        more = f"\n  … and {len(self.unreadable) - _SHOWN} more" if len(self.unreadable) > _SHOWN else ""
        return f"{len(self.unreadable) or 'none'}{''.join(named)}{more}"

    def _sizes(self) -> str:
        sides = [side for size in self.sizes for side in size]
        small = sum(count for size, count in self.sizes.items() if min(size) < CROP_MULTIPLE_PX)
        (width, height), most = self.sizes.most_common(1)[0]
        text = f"sides from {min(sides)} to {max(sides)} px, most often {width}x{height} ({most} images)"
        return text + (f"; below {CROP_MULTIPLE_PX} px, too small to train on: {small}" * bool(small))


def check_folder(root: Path, *, workers: int | None = None, progress: bool = True) -> FolderCheck:
    """Decode every image of a folder, and estimate the noise on up to 64 of them.

    Args:
        root: the folder; images may lie at any depth.
        workers: processes; by default one per core.
        progress: show a bar on standard error.

    Raises:
        MissingFolderError: it does not exist or holds no images.
        ConfigError: fewer than one worker.
    """
    names = list_images(root)
    failures = run_jobs(_Decodes(root), names, workers=worker_count(workers), description="check" if progress else None)
    bad = {failure.path for failure in failures}
    readable = [name for name in names if root / name not in bad]
    sizes = Counter(image_size(root / name) for name in readable)
    noise = correlation(ImageFiles(root, readable)) if readable else None
    return FolderCheck(root, sizes, failures, noise)


@dataclass(frozen=True)
class _Decodes:
    """Decodes one image; picklable."""

    root: Path

    def __call__(self, relative_path: str) -> ImageError | None:
        try:
            load_rgb(self.root / relative_path)
        except ImageError as failure:
            return failure
        return None
