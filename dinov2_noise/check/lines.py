"""What a check found, in lines for a person: the verdict first, then the files, then the noise."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np

from dinov2_noise.check.duplicates import Indices
from dinov2_noise.check.kinds import MIN_BINS
from dinov2_noise.check.look import FAULTS
from dinov2_noise.check.noise import LINEAR_RANGES, NoiseFindings, at_intensities
from dinov2_noise.check.run import Findings
from dinov2_noise.check.tally import SHOWN, Tally
from dinov2_noise.check.twins import Twins
from dinov2_noise.check.verdict import range_advice, verdict_lines
from dinov2_noise.check.words import many, more, named_lines, share, size_text
from dinov2_noise.decoding import ValueRange
from dinov2_noise.noise.audit import MIN_PATCHES
from dinov2_noise.noise.clipping import PoissonGaussian
from dinov2_noise.noise.models import FloatArray
from neighbor2neighbor.training import CROP_MULTIPLE_PX

GLOBAL_CROP_PX = 224
"""Of DINOv2's published configs; a smaller image is enlarged to it."""

_SHOWN_INTENSITIES = (16, 64, 128, 192, 240)
_VERDICTS = {
    "independent": "independent between pixels: Neighbor2Neighbor's assumption is met",
    "correlated": "correlated: {warning}",
    "unclear": "unclear: too little noise to tell correlated noise from the picture itself",
}

Line = tuple[str, str]


def report_lines(found: Findings) -> list[Line]:
    """Pairs of a word and what is said of it; further lines of a text are indented by two blanks."""
    lines = [*verdict_lines(found), *_files(found), *_sizes(found.tally), *_channels(found.tally)]
    lines += [*_values(found.tally, found.checked.spec.values), *_duplicates(found)]
    for word, twins in (("denoised", found.denoised), ("clean", found.clean)):
        if twins is not None:
            lines.append((word, _twins_text(twins)))
    lines += _groups(found)
    return lines if found.noise is None else [*lines, *_noise(found.noise, found)]


def _files(found: Findings) -> Iterator[Line]:
    tally, root = found.tally, found.checked.spec.root
    text = f"{len(tally)} in {found.checked.label}, {size_text(int(tally.size_bytes.sum()))}"
    yield "images", text + (f"; {tally.opened} of them decoded" if tally.opened < len(tally) else "")
    causes = "; ".join(f"{count} {FAULTS[fault]}" for fault, count in tally.faults.most_common())
    files = [f"{root / named.path}: {named.text}" for named in tally.named]
    yield "unusable", (f"{tally.bad}: {causes}" if tally.bad else "none") + named_lines(files, tally.bad)
    kinds: Counter[str] = Counter()
    for (_, kind), count in tally.formats.items():
        kinds[kind] += count
    if kinds:
        yield "formats", f"{_counted(kinds)}; suffixes {', '.join(sorted({suffix for suffix, _ in tally.formats}))}"
    if tally.misnamed_count():
        files = [f"{root / named.path} {named.text}" for named in tally.misnamed]
        yield "misnamed", f"{tally.misnamed_count()}, read all the same" + named_lines(files, tally.misnamed_count())


def _sizes(tally: Tally) -> Iterator[Line]:
    sides = tally.good_sides()
    if not len(sides):
        return
    (width, height), most = Counter(map(tuple, sides.tolist())).most_common(1)[0]
    text = (
        f"sides from {sides.min()} to {sides.max()} px, most often {width}x{height} ({many(most, 'image')})"
        if most < len(sides)
        else f"all {width}x{height} px"
    )
    small, enlarged = tally.below(CROP_MULTIPLE_PX), tally.below(GLOBAL_CROP_PX)
    if small:
        text += f"; below {CROP_MULTIPLE_PX} px, too small to train the denoiser on: {small}"
    if enlarged:
        text += f"; below {GLOBAL_CROP_PX} px, enlarged by DINOv2's global crops: {enlarged}"
    yield "sizes", text


def _channels(tally: Tally) -> Iterator[Line]:
    if not tally.channels:
        return
    notes = []
    if any("alpha" in word for word in tally.channels):
        notes.append("alpha is dropped")
    if any(word.startswith("gray") for word in tally.channels):
        notes.append("gray becomes three equal channels")
    if "CMYK" in tally.channels:
        notes.append("CMYK becomes RGB without its colour profile")
    yield "channels", "; ".join([_counted(tally.channels), *notes])
    yield "bit depth", _counted(tally.depths)


def _values(tally: Tally, values: ValueRange) -> Iterator[Line]:
    """One line for each kind of number that is not plain 8 bit; a range holds for all images of a set alike."""
    for name, depth in tally.values.items():
        text = f"{name}: from {depth.low:.6g} to {depth.high:.6g}; read with range {values.name}"
        if depth.missing:
            text += f"; no data (NaN) in {many(depth.missing, 'image')}, up to {share(depth.holes)} of one: black"
        if depth.images < tally.depths.total():
            text += f"; {many(depth.images, 'image')} beside {tally.depths.total() - depth.images} of other depth"
        advice = range_advice(name, depth, values)
        yield "values", text + (f"\n  {advice.text}" if advice else "")


def _duplicates(found: Findings) -> Iterator[Line]:
    path = found.checked.images.relative_path

    def named(group: Indices) -> str:
        return " = ".join([*(path(int(index)) for index in group[:3]), *more(len(group), 3)])

    equal = found.duplicates
    parts = (("same bytes", equal.exact), ("same pixels in other files", equal.pixels))
    texts = [f"{sum(map(len, groups)) - len(groups)} with the {what}" for what, groups in parts if groups]
    groups = [*equal.exact, *equal.pixels]
    yield "duplicates", ("; ".join(texts) or "none") + named_lines(list(map(named, groups[:SHOWN])), len(groups))
    if equal.leaked:
        yield (
            "leaked",
            (
                f"{many(len(equal.leaked), 'image')} in more than one split: training sees what is tested on"
                + named_lines(list(map(named, equal.leaked[:SHOWN])), len(equal.leaked))
            ),
        )


def _groups(found: Findings) -> Iterator[Line]:
    if len(found.groups) < 2:
        return
    order = found.groups.most_common()
    (largest, most), (smallest, fewest) = order[0], order[-1]
    spread = f"of {fewest} ({smallest}) to {most} ({largest}) images" if fewest < most else f"of {many(most, 'image')}"
    yield ("classes" if found.is_labelled else "folders"), f"{len(order)}, {spread}{' each' * (fewest == most)}"


def _counted(counts: Counter[str]) -> str:
    if len(counts) == 1:
        return next(iter(counts))
    total = counts.total()
    return ", ".join(f"{word} {count} ({share(count / total)})" for word, count in counts.most_common())


def _twins_text(twins: Twins) -> str:
    parts = [f"{many(twins.pairs, 'pair')} with {twins.root}"]
    counts = ((twins.missing, "missing"), (twins.unlike, "of another size or unreadable"), (twins.extra, "extra"))
    parts += [f"{count} {what}" for count, what in counts if count]
    files = [f"{word}: {text}" for word, texts in twins.examples.items() for text in texts]
    return "; ".join([*parts, *twins.faults, *twins.notes]) + named_lines(files, len(files))


def _noise(found: NoiseFindings, report: Findings) -> Iterator[Line]:
    """From the most important on; where images are too small to tell, that alone."""
    if found.correlation.is_too_small or found.curve is None:
        text = f"an estimate needs {MIN_PATCHES} patches of 8x8 pixels, and {many(found.n_images, 'image')} gave"
        yield "noise", f"the images are too small to tell: {text} {found.correlation.n_patches}"
        yield from _ends(found)
        return
    yield "noise", _level(found)
    if found.is_clear:
        curve = found.curve
        shown = np.unique(np.linspace(0, len(curve.mean_255) - 1, len(_SHOWN_INTENSITIES)).round().astype(int))
        points = [f"{_level_text(curve.std_255[i])} at {curve.mean_255[i]:.0f}" for i in shown]
        yield "σ by intensity", f"{', '.join(points)} (of 255, as stored)"
        yield "kind of noise", _kind(found, report.checked.spec.values)
    at = ", ".join(f"{round(rho, 2) + 0.0:+.2f} at {lag}" for lag, rho in found.correlation.autocorrelation.items())
    yield "autocorrelation", f"{at} (px down, px right)"
    yield "neighbours", _VERDICTS[found.correlation.verdict].format(warning=found.correlation.warning())
    yield from _ends(found)
    if found.bias is not None:
        values = at_intensities(_SHOWN_INTENSITIES, found.bias)
        points = [f"{round(value):+d} at {x}" for x, value in zip(_SHOWN_INTENSITIES, values, strict=True)]
        yield "bias", f"{', '.join(points)} (mean of noisy - clean, of 255; from {_source(found)})"


def _level(found: NoiseFindings) -> str:
    sigma = found.correlation.sigma_255
    text = f"σ about {_level_text(sigma)} of 255, as stored"
    if not found.is_clear:
        text += "; so little may as well be fine texture"
    if found.snr_db is not None:
        text += f"; signal-to-noise ratio {'' if _exact(found) else 'about '}{found.snr_db:.1f} dB"
    known = f"; known to be {found.known}" if found.known else ""
    return f"{text}{known} ({many(found.n_images, 'image')})"


def _level_text(sigma_255: float) -> str:
    return f"{sigma_255:.0f}" if sigma_255 >= 9.5 else f"{sigma_255:.2g}"


def _kind(found: NoiseFindings, values: ValueRange) -> str:
    if found.correlation.verdict == "correlated":
        return "not judged: correlated noise has another curve"
    if values.kind not in LINEAR_RANGES:
        return f"not judged: range {values.name} stretches each image in its own way"
    if found.curve is None or len(found.curve.mean_255) < MIN_BINS:
        return "not judged: nearly all of the picture has one intensity"
    if found.kind is None:
        return "like none of Gaussian, Poisson, multiplicative, clipped at black and white"
    noise = found.kind.fit.noise
    text = f"looks {found.kind.words}"
    if isinstance(noise, PoissonGaussian):
        photons = f"{1 / noise.a:.3g} photons at white, " if noise.a > 0 else ""
        return f"{text}: {photons}read noise σ {255 * noise.b**0.5:.1f} of 255"
    return f"{text}, closest to {noise.name}"


def _ends(found: NoiseFindings) -> Iterator[tuple[str, str]]:
    def per_channel(values: FloatArray) -> str:
        return " ".join(share(float(value)) for value in (values[:1] if is_gray else values))

    is_gray = len({*zip(found.black, found.white, strict=True)}) == 1
    channels = "" if is_gray else " (red, green, blue)"
    yield "saturated", f"black {per_channel(found.black)}, white {per_channel(found.white)}{channels}"


def _exact(found: NoiseFindings) -> bool:
    return found.bias is not None and found.bias.source == "clean images"


def _source(found: NoiseFindings) -> str:
    assert found.bias is not None
    return {
        "clean images": "the clean images, exact",
        "known noise": f"the clipping of {found.known}",
        "fitted noise": "the clipping of the noise that fits best",
    }[found.bias.source]
