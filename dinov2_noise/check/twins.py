"""Do two folders pair? Twins that are missing, too many, of another size; and what made them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dinov2_noise.check.source import CheckedSet
from dinov2_noise.check.tally import BAD, SHOWN, Tally
from dinov2_noise.data.pairs import check_range, stem_of
from dinov2_noise.decoding import image_size
from dinov2_noise.errors import DinoNoiseError, ImageError, MissingFolderError, OutputFolderError, PairError
from dinov2_noise.files import MANIFEST_NAME, list_images, read_manifest
from dinov2_noise.noise.pool import stream_jobs


@dataclass
class Twins:
    """How a folder of twins pairs with the images.

    Attributes:
        root: of the twins.
        pairs: images that have one.
        missing, extra: numbers of images without twin, and of twins without image.
        unlike: pairs whose sizes differ, or whose twin's header cannot be read.
        examples: the first few of each of these, by the words ``missing``, ``extra``, ``unlike``.
        faults: what must be mended besides: an incomplete folder, another range, other weights.
        notes: what else is known of the folder.
    """

    root: Path
    pairs: int = 0
    missing: int = 0
    extra: int = 0
    unlike: int = 0
    examples: dict[str, list[str]] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        """Extra twins do no harm."""
        return not (self.missing or self.unlike or self.faults)


def compare(checked: CheckedSet, tally: Tally, root: Path, *, what: str, workers: int, progress: bool) -> Twins:
    """Find the twin of every image that can be used, and compare sizes.

    Args:
        checked, tally: the images, and what is known of them.
        root: of the twins: same paths, any suffix.
        what: ``denoised`` or ``clean``, for messages.
        workers, progress: see `check`.

    Raises:
        MissingFolderError: ``root`` does not exist or holds no images, or not one image has its twin there.
    """
    names, found = list_images(root, what=f"{what} folder"), Twins(root)
    indices = tally.usable()
    paths = [checked.images.relative_path(int(index)) for index in indices]
    place = _places(_hashes(paths), _hashes(names))
    _count(found, "missing", [path for path, at in zip(paths, place, strict=True) if at < 0])
    if len(indices) and found.missing == len(indices):
        raise MissingFolderError(
            f"none of the {len(indices)} images of {checked.label} has a twin in the {what} folder {root}: twins have "
            f"the same path, as {paths[0]}, with any suffix, and there is {names[0]}; give the folder that corresponds "
            f"to {checked.spec.root}"
        )
    found.pairs = len(indices) - found.missing
    _count(found, "extra", _extra(checked, tally, names, place))
    has_twin = place >= 0
    twins = [names[at] for at in place[has_twin]]
    sizes = stream_jobs(_Size(root), twins, workers=workers, description=f"{what} sizes" if progress else None)
    own = tally.sides_px[indices[has_twin]].tolist()
    pairs = zip((paths[i] for i in np.flatnonzero(has_twin)), twins, own, sizes, strict=True)
    _count(found, "unlike", _unlike(pairs))
    return found


@dataclass(frozen=True)
class _Size:
    """(width, height) of a twin, or why it has none; picklable."""

    root: Path

    def __call__(self, name: str) -> tuple[int, int] | str:
        try:
            return image_size(self.root / name)
        except ImageError as failure:
            return str(failure.cause)


def _unlike(pairs: Iterable[tuple[str, str, list[int], tuple[int, int] | str]]) -> list[str]:
    unlike = []
    for path, twin, own, theirs in pairs:
        if isinstance(theirs, str):
            unlike.append(f"{twin}: {theirs}")
        elif own[0] and tuple(own) != theirs:
            unlike.append(f"{path} has {own[0]}x{own[1]} px, {twin} has {theirs[0]}x{theirs[1]}")
    return unlike


def _extra(checked: CheckedSet, tally: Tally, names: Sequence[str], place: NDArray[np.int64]) -> list[str]:
    """Twins of no image; those of images that cannot be used are not counted, nor are those of other splits."""
    spare = np.ones(len(names), bool)
    spare[place[place >= 0]] = False
    if not spare.any() or checked.spec.subset is not None or checked.spec.list_file is not None:
        return []
    bad = {stem_of(checked.images.relative_path(int(index))) for index in np.flatnonzero(tally.state == BAD)}
    split = checked.spec.split
    prefix = "" if split is None else f"{split.lower()}/"
    extra = (names[at] for at in np.flatnonzero(spare).tolist())
    return [name for name in extra if name.startswith(prefix) and stem_of(name) not in bad]


def _count(found: Twins, word: str, names: list[str]) -> None:
    setattr(found, word, len(names))
    found.examples[word] = names[:SHOWN]


def _hashes(paths: Iterable[str]) -> NDArray[np.int64]:
    """64 bits of each stem: instead of a table of a million names."""
    return np.fromiter((hash(stem_of(path)) for path in paths), np.int64)


def _places(wanted: NDArray[np.int64], present: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where in ``present`` each of ``wanted`` is; -1 where it is not."""
    order = np.argsort(present, kind="stable")
    at = np.minimum(np.searchsorted(present, wanted, sorter=order), len(present) - 1)
    return np.where(present[order[at]] == wanted, order[at], -1)


def examine_denoised(found: Twins, checked: CheckedSet, weights: Path | None) -> None:
    """Read the manifest of a denoised folder: is it complete, and made from these images, weights and range?

    Raises:
        MissingFolderError: ``weights`` does not exist.
    """
    manifest = _manifest(found.root)
    if manifest.get("command") != "denoise apply":
        found.notes.append("no manifest of `denoise apply`: what made it is not known")
        return
    parameters = manifest.get("parameters", {})
    if manifest.get("complete") is not True:
        found.faults.append("it is not complete: run the same `dinov2-noise denoise apply` again")
    if manifest.get("skipped"):
        found.notes.append(f"{len(manifest['skipped'])} images were skipped when it was made")
    try:
        check_range(checked.spec.values, found.root, checked.spec.root)
    except PairError as fault:
        found.faults.append(str(fault))
    _compare_source(found, checked, parameters)
    sha = str(parameters.get("weights_sha256", ""))
    if sha:
        found.notes.append(f"weights {sha[:12]}")
    if weights is not None and sha != _sha256(weights):
        found.faults.append(f"it was made with other weights than {weights}")


def _compare_source(found: Twins, checked: CheckedSet, parameters: dict[str, Any]) -> None:
    """By what was denoised: the noise and its seed where these are known, else the folder's name."""
    then = parameters.get("source_parameters", {})
    noise = checked.spec.noise
    own = _manifest(checked.spec.root).get("parameters", {})
    now = own if noise is None else {"noise": noise.name, "seed": checked.spec.noise_seed}
    differing = [key for key in ("noise", "seed") if key in then and key in now and then[key] != now[key]]
    for key in differing:
        found.faults.append(f"it was made from images with {key} {then[key]}, and here it is {now[key]}")
    source = str(parameters.get("source"))
    if noise is None and not differing and source != str(checked.spec.root.resolve()):
        found.notes.append(f"made from {source}")


def _manifest(folder: Path) -> dict[str, Any]:
    """Empty where there is none of ours."""
    if not (folder / MANIFEST_NAME).is_file():
        return {}
    try:
        return read_manifest(folder)
    except OutputFolderError:
        return {}


def _sha256(weights: Path) -> str:
    try:
        return hashlib.sha256(weights.read_bytes()).hexdigest()
    except FileNotFoundError as cause:
        raise MissingFolderError(f"weights {weights} do not exist: check the path") from cause
    except OSError as cause:
        raise DinoNoiseError(f"cannot read the weights {weights}: {cause}") from cause
