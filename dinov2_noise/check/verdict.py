"""What is good, what must be mended, what to mind, and the commands that come next."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from dinov2_noise.check.run import Findings
from dinov2_noise.check.source import CheckedSet
from dinov2_noise.check.tally import Depth
from dinov2_noise.check.twins import Twins
from dinov2_noise.check.words import many, share
from dinov2_noise.decoding import ValueRange, parse_range
from neighbor2neighbor.training import CROP_MULTIPLE_PX

HIGH_CONTRAST = 100.0
"""Above it a picture has its faint parts within a grey level of black unless they are stretched."""
NARROW = 1 / 8
"""Of black to white: pictures that use less of it are flat."""
FAINT_SIGMA_255 = 0.5
"""Weaker noise is lost in rounding to 8 bits, which is what the denoiser reads and writes."""


@dataclass
class Advice:
    """Sentences, each in the order of their weight."""

    good: list[str] = field(default_factory=list)
    mend: list[str] = field(default_factory=list)
    mind: list[str] = field(default_factory=list)
    next: list[str] = field(default_factory=list)


def verdict_lines(report: Findings) -> Iterator[tuple[str, str]]:
    """The block that stands first."""
    found, total = advice(report), len(report.tally)
    if report.good:
        headline = f"ready: {'the one image' if total == 1 else f'all {total} images'} can be used"
        headline += f", with {many(len(found.mind), 'warning')}" if found.mind else ""
    elif report.tally.bad:
        headline = f"NOT READY: {report.tally.bad} of {many(total, 'image')} cannot be used"
    else:
        headline = "NOT READY: the images do not pair"
    yield "verdict", headline
    for word, texts in (("  good", found.good), ("  mend", found.mend), ("  mind", found.mind), ("  next", found.next)):
        for number, text in enumerate(texts):
            yield ("" if number else word), text


def advice(report: Findings) -> Advice:
    """All that follows from what was found."""
    found = Advice()
    _of_files(report, found)
    _of_pairs(report, found)
    _of_noise(report, found)
    found.next += _commands(report)
    return found


def _of_files(report: Findings, found: Advice) -> None:
    tally, duplicates = report.tally, report.duplicates
    broken = tally.bad - tally.faults["range"]
    if broken:
        without = (
            ""
            if report.checked.is_sharded
            else (", or train without them (`--write-list FILE` writes the names of the others)")
        )
        found.mend.append(
            f"repair or remove {many(broken, 'file')} (`--list-bad FILE` writes all their names){without}"
        )
    elif not tally.bad:
        found.good.append("every file that was looked at can be read")
    for name, depth in tally.values.items():
        hint = range_advice(name, depth, report.checked.spec.values)
        if hint:
            (found.mend if tally.faults["range"] else found.mind).append(f"values ({name}): {hint.text}")
    if tally.faults["range"] and not found.mend:
        found.mend.append(f"{many(tally.faults['range'], 'image')}: choose another range of values (see unusable)")
    if tally.values and len(tally.depths) > 1:
        found.mind.append(
            "images of several bit depths: a range holds for all of them, so keep each depth in its folder"
        )
    if duplicates.leaked:
        found.mind.append(f"{many(len(duplicates.leaked), 'image')} in more than one split: take them out of one")
    extra = sum(len(group) - 1 for group in (*duplicates.exact, *duplicates.pixels))
    if extra:
        found.mind.append(f"{many(extra, 'duplicate')}: they weigh twice in training")
    else:
        found.good.append("no duplicates")
    small = tally.below(CROP_MULTIPLE_PX)
    if small:
        found.mind.append(
            f"{many(small, 'image')} below {CROP_MULTIPLE_PX} px: `denoise train` needs `--min-side {CROP_MULTIPLE_PX}`"
        )


class RangeAdvice(NamedTuple):
    """Why another range would suit better, in words, and the best of those that would."""

    text: str
    best: ValueRange


def range_advice(name: str, depth: Depth, values: ValueRange) -> RangeAdvice | None:
    """Which range would suit better than that of the stored type; None where it does.

    Args:
        name: ``16 bit``, ``float 32 bit``, …
        depth: of all images of this depth.
        values: the range they are read with.
    """
    if values.kind != "dtype":
        return None
    if depth.contrast > HIGH_CONTRAST:
        return _advice(
            f"the brightest pixels are {depth.contrast:.0f} times as far from black as the median: most of the "
            "picture would be black",
            "asinh",
        )
    is_float = name.startswith("float")
    if depth.ends is None or (is_float and (depth.low < depth.ends[0] or depth.high > depth.ends[1])):
        same = f"`--range fixed:{depth.low:.6g},{depth.high:.6g}`"
        return _advice(
            f"this type has no black and white of its own (where values mean the same in every image, {same})",
            "percentile:0.5,99.5",
        )
    black, white = depth.ends
    used = 2 ** max(1, math.ceil(math.log2(max(depth.high, 1) + 1)))
    if not is_float and black == 0 and 2 * used <= white + 1 and depth.spread > NARROW * used:
        bits, of = round(math.log2(used)), round(math.log2(white + 1))
        times = round((white + 1) / used)
        return _advice(
            f"only {bits} of {of} bits are used, so that images are {times} times too dark", f"fixed:0,{used - 1}"
        )
    if depth.spread < NARROW * (white - black):
        best = "window" if depth.has_window else "asinh" if depth.high - depth.low > 5 * depth.spread else None
        part = depth.spread / (white - black)
        return _advice(
            f"98 % of an image's pixels lie within {share(part)} of the range from black to white, which is "
            f"{_grey_levels(256 * part)}",
            best or "percentile:0.5,99.5",
        )
    return None


def _grey_levels(count: float) -> str:
    return "less than one grey level of 256" if count < 1 else f"{count:.0f} grey levels of 256"


def _advice(why: str, text: str) -> RangeAdvice:
    best = parse_range(text)
    return RangeAdvice(f"{why}: try `--range {text}` (in a dataset string range={text.replace(':', ',')})", best)


def _of_pairs(report: Findings, found: Advice) -> None:
    for word, twins in (("denoised", report.denoised), ("clean", report.clean)):
        if twins is None:
            continue
        found.mend += [f"{word} folder: {text}" for text in _faults(twins)]
        if twins.good:
            found.good.append(f"every image has its {word} twin, of its size")
        if twins.extra:
            found.mind.append(f"{word} folder: {many(twins.extra, 'extra image')}: nothing reads them")


def _faults(twins: Twins) -> Iterator[str]:
    yield from twins.faults
    if twins.missing:
        yield f"{many(twins.missing, 'image')} without twin: run the command that made it again, it continues"
    if twins.unlike:
        yield f"{many(twins.unlike, 'twin')} of another size or unreadable: delete them and make them again"


def _of_noise(report: Findings, found: Advice) -> None:
    noise = report.noise
    if noise is None:
        return
    sigma, should = noise.correlation.sigma_255, noise.known or report.denoised or report.clean
    if noise.correlation.is_too_small:
        found.mind.append("nothing can be said about the noise: the images are too small to tell")
    elif not noise.is_clear:
        words = "hardly any noise is seen"
        (found.mind if should else found.good).append(
            f"{words}: are these the noisy images?" if should else f"{words}: the images look clean"
        )
    elif sigma < FAINT_SIGMA_255:
        found.mind.append(
            f"the noise, σ {sigma:.2g} of 255, is lost where images are rounded to 8 bits, as the denoiser does: "
            "choose a range that spreads the values"
        )
    elif noise.correlation.verdict == "correlated":
        found.mind.append("the noise is correlated between pixels: the denoiser would keep it (see neighbours)")
    else:
        found.good.append("the noise is independent between pixels: a denoiser can be trained on it")


def _commands(report: Findings) -> Iterator[str]:
    """To be copied; what must be mended first comes first."""
    checked, tally = report.checked, report.tally
    values = checked.spec.values
    data, option = shlex.quote(checked.label), ""
    if checked.is_folder and values.kind != "dtype":
        option = f" --range {values.name}"
    if tally.bad > tally.faults["range"]:
        usable = "" if checked.is_sharded or not len(tally.usable()) else " --write-list usable.txt"
        yield f"dinov2-noise check {data}{option} --list-bad bad.txt{usable}"
    hints = (range_advice(name, depth, values) for name, depth in tally.values.items())
    best = next((hint.best for hint in hints if hint), None)
    if best is not None and len(tally.depths) == 1:
        yield _with_range(checked, best)
    elif report.denoised is not None:
        if report.good:
            string = checked.label if not checked.is_folder else _string(report)
            given = "" if "denoised=" in string else f":denoised={report.denoised.root}"
            yield f"dinov2-noise train nct --output RUN {shlex.quote(f'train.dataset_path={string}{given}')}"
    elif len(tally.usable()):
        yield from _of_usable(report, data, option)


def _with_range(checked: CheckedSet, best: ValueRange) -> str:
    if checked.is_folder:
        return f"dinov2-noise check {shlex.quote(checked.label)} --range {best.name}"
    return f"dinov2-noise check {shlex.quote(f'{checked.label}:range={best.token}')}"


def _of_usable(report: Findings, data: str, option: str) -> Iterator[str]:
    """``data``: the images; ``option``: their range."""
    checked, tally, noise = report.checked, report.tally, report.noise
    if noise is None or noise.correlation.is_too_small:
        return
    if not noise.is_clear:
        if checked.is_folder:  # clean images
            skip = f" --skip-bad {tally.bad}" if tally.bad else ""
            yield f"dinov2-noise add-noise {data} NOISY --noise gauss100{option}{skip}"
        return
    if noise.correlation.sigma_255 < FAINT_SIGMA_255:
        return
    if tally.bad and checked.is_folder:
        data, option = shlex.quote(f"{_string(report)}:list=usable.txt"), ""
    stride = " --stride 2" if noise.correlation.verdict == "correlated" else ""
    small = f" --min-side {CROP_MULTIPLE_PX}" if tally.below(CROP_MULTIPLE_PX) else ""
    yield f"dinov2-noise denoise train {data} DENOISER{option}{stride}{small}"


def _string(report: Findings) -> str:
    """The dataset string of a folder."""
    values = report.checked.spec.values
    return f"ImageFolder:root={report.checked.label}" + ("" if values.kind == "dtype" else f":range={values.token}")
