"""What was done to stored images, from the manifests of ``add-noise`` and ``denoise apply`` above them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dinov2_noise.errors import OutputFolderError
from dinov2_noise.evaluation.label_sources import Source
from dinov2_noise.evaluation.snr import snr_of_folders
from dinov2_noise.files import MANIFEST_NAME, read_manifest


@dataclass(frozen=True)
class StoredNoise:
    """Noise that lies in the files.

    Attributes:
        name: of the noise, such as ``gauss100``. is_denoised: whether it was taken out again.
        root: of the images. noisy: root of the noisy ones, ``root`` itself unless denoised. clean: root of their
            source; relative paths are the same below all.
    """

    name: str
    is_denoised: bool
    root: Path
    noisy: Path
    clean: Path

    @property
    def label(self) -> str:
        """For tables and names of files."""
        return f"{self.name}-denoised" if self.is_denoised else self.name

    def snr_db(self, source: Source, paths: Sequence[str]) -> float | None:
        """Mean SNR of the noisy images, also where they were denoised since; None where twins are gone."""
        if not (self.clean.is_dir() and self.noisy.is_dir()):
            return None
        own = [(source.root / path).absolute() for path in paths]
        return snr_of_folders(self.clean, self.noisy, [path.relative_to(self.root).as_posix() for path in own])


def stored_noise(source: Source) -> StoredNoise | None:
    """What the images of a source were made from; None where no manifest of ours tells of noise."""
    first = (source.root / source.paths[0]).absolute()
    for folder in first.parents:
        if (folder / MANIFEST_NAME).is_file():
            found = _told(folder)
            if found is not None and all(
                (source.root / path).absolute().is_relative_to(folder) for path in source.paths
            ):
                return found
    return None


def _told(folder: Path) -> StoredNoise | None:
    try:
        manifest = read_manifest(folder)
    except OutputFolderError:  # of some other program
        return None
    parameters: dict[str, Any] = manifest.get("parameters") or {}
    try:
        if manifest.get("command") == "add-noise":
            return StoredNoise(parameters["noise"], False, folder, folder, Path(parameters["source"]))
        if manifest.get("command") == "denoise apply":
            made = parameters["source_parameters"]
            return StoredNoise(made["noise"], True, folder, Path(parameters["source"]), Path(made["source"]))
    except (KeyError, TypeError):  # images that were noisy by nature
        pass
    return None
