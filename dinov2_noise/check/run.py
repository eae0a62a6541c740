"""The check itself: look at every file, compare, estimate the noise."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from dinov2_noise.check.duplicates import Duplicates, complete_digests, find_duplicates, split_of
from dinov2_noise.check.look import Looker
from dinov2_noise.check.noise import NoiseFindings, examine
from dinov2_noise.check.source import CheckedSet, listed_path, open_set
from dinov2_noise.check.tally import BAD, Tally
from dinov2_noise.check.twins import Twins, compare, examine_denoised
from dinov2_noise.data.listing import written
from dinov2_noise.decoding import ValueRange
from dinov2_noise.errors import ConfigError, DinoNoiseError
from dinov2_noise.files import atomic_path
from dinov2_noise.noise.pool import stream_jobs, worker_count


@dataclass(frozen=True)
class Findings:
    """What `check` found.

    Attributes:
        checked: the images.
        tally: what is known of all together.
        duplicates: images that are there more than once.
        groups: number of usable images per class, or per folder where there are no labels.
        is_labelled: ``groups`` are classes.
        denoised, clean: how these folders pair; None where not asked for.
        noise: None where no image can be read.
    """

    checked: CheckedSet
    tally: Tally
    duplicates: Duplicates
    groups: Counter[str]
    is_labelled: bool
    denoised: Twins | None
    clean: Twins | None
    noise: NoiseFindings | None

    @property
    def good(self) -> bool:
        """Whether all images can be used; duplicates, small images and correlated noise are warnings."""
        return not self.tally.bad and all(twins is None or twins.good for twins in (self.denoised, self.clean))


def check(
    data: str | Path,
    *,
    values: ValueRange | None = None,
    denoised: Path | None = None,
    clean: Path | None = None,
    weights: Path | None = None,
    sample: int | None = None,
    workers: int | None = None,
    progress: bool = True,
) -> Findings:
    """Look at every image of a folder or of a dataset string. Nothing is written.

    Of each image some 60 bytes are kept, besides its name in the listing, so that a million fit into memory.

    Args:
        data: the folder, or the dataset string.
        values: which stored values of a folder's images are black and white; a dataset string has its own ``range=``.
        denoised: root of their denoised twins; by default that of the dataset string.
        clean: root of their clean twins, to measure the noise's bias.
        weights: those that the denoised folder should have been made with.
        sample: decode only so many evenly spaced images; by default all.
        workers: processes; by default one per core.
        progress: show bars on standard error.

    Raises:
        MissingFolderError: a folder does not exist or holds no images, or has not one twin.
        ConfigError: fewer than one worker or image, ``values`` beside a dataset string, or ``weights`` without twins.
        DatasetStringError, MetadataError, NoiseNameError: the string, or the metadata it needs, are wrong.
    """
    if sample is not None and sample < 1:
        raise ConfigError(f"sample must be at least 1 image, not {sample}")
    processes, checked = worker_count(workers), open_set(data, values)
    denoised = checked.denoised if denoised is None else denoised
    if weights is not None and denoised is None:
        raise ConfigError("--weights are compared with what made the denoised folder: give --denoised, too")
    tally = _look(checked, sample, workers=processes, progress=progress)
    complete_digests(tally, checked.spec, workers=processes, progress=progress)
    twins: dict[str, Twins] = {}
    for what, root in (("denoised", denoised), ("clean", clean)):
        if root is not None:
            twins[what] = compare(checked, tally, root, what=what, workers=processes, progress=progress)
    if "denoised" in twins:
        examine_denoised(twins["denoised"], checked, weights)
    groups, is_labelled = _groups(checked, tally)
    return Findings(
        checked,
        tally,
        find_duplicates(tally, checked.images.relative_path),
        groups,
        is_labelled,
        twins.get("denoised"),
        twins.get("clean"),
        examine(checked, tally.decoded(), clean, workers=processes, progress=progress),
    )


def _look(checked: CheckedSet, sample: int | None, *, workers: int, progress: bool) -> Tally:
    count = len(checked)
    tally = Tally(count)
    if sample is None or sample >= count:
        parts: dict[bool, Sequence[int]] = {True: range(count)}
    else:
        chosen = np.unique(np.linspace(0, count - 1, sample).round().astype(int))
        parts = {True: chosen.tolist(), False: np.setdiff1d(np.arange(count), chosen).tolist()}
    for decode, indices in parts.items():
        description = ("check" if decode else "headers") if progress else None
        for look in stream_jobs(Looker(checked.spec, decode), indices, workers=workers, description=description):
            tally.add(look)
    return tally


def _groups(checked: CheckedSet, tally: Tally) -> tuple[Counter[str], bool]:
    """Usable images per class; per first folder where there are no labels."""
    images, groups = checked.images, Counter[str]()
    labels: dict[int, str] = {}
    for index in tally.usable().tolist():
        target, path = images.get_target(index), images.relative_path(index)
        folder = _first_folder(path)
        groups[folder if target is None else labels.setdefault(target, folder or str(target))] += 1
    return groups, bool(labels)


def _first_folder(path: str) -> str:
    """``cats`` of ``train/cats/a.png`` and of ``cats/a.png``."""
    below = path.partition("/")[2] if split_of(path) else path
    return below.partition("/")[0] if "/" in below else ""


def write_lists(found: Findings, *, usable: Path | None = None, bad: Path | None = None) -> None:
    """Write the names of the images that can be used, or cannot, one a line; each file at once or not at all.

    Args:
        found: what `check` returned.
        usable: takes paths relative to the root, as ``ImageFolder:root=…:list=FILE`` reads them.
        bad: takes whole paths.

    Raises:
        MetadataError: a name holds a line break, so that no list can hold it.
        WriteError: the file cannot be written.
    """
    path_of, root, tally = found.checked.images.relative_path, found.checked.spec.root, found.tally
    if usable is not None:
        _write_list(usable, (written(path_of(index)) for index in tally.usable().tolist()))
    if bad is not None:
        unusable = np.flatnonzero(tally.state == BAD).tolist()
        _write_list(bad, (str(root / written(path)) for path in map(partial(_listed, found), unusable)))


def _listed(found: Findings, index: int) -> str:
    """The path of an image that may not be there."""
    try:
        return listed_path(found.checked.images, index)
    except DinoNoiseError:
        return f"image {index}"


def _write_list(file: Path, lines: Iterable[str]) -> None:
    with (
        atomic_path(file) as temporary,
        temporary.open("w", encoding="utf-8", errors="surrogateescape", newline="\n") as opened,
    ):
        opened.writelines(f"{line}\n" for line in lines)
