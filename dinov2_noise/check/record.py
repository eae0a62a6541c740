"""What a check found, as numbers for machines."""

from __future__ import annotations

from collections import Counter
from typing import Any

from dinov2_noise.check.lines import GLOBAL_CROP_PX
from dinov2_noise.check.noise import NoiseFindings
from dinov2_noise.check.run import Findings
from dinov2_noise.check.tally import Named, Tally
from dinov2_noise.check.twins import Twins
from dinov2_noise.check.verdict import advice
from dinov2_noise.evaluation.records import versions
from neighbor2neighbor.training import CROP_MULTIPLE_PX

_GROUPS = 1000  # of duplicates that are listed


def record(found: Findings) -> dict[str, Any]:
    """All of the report, for `dinov2_noise.files.write_json`; keys say what a value is, sizes are in px."""
    tally, advised = found.tally, advice(found)
    return {
        "kind": "check",
        "data": found.checked.label,
        "range": found.checked.spec.values.name,
        "good": found.good,
        "mend": advised.mend,
        "mind": advised.mind,
        "next": advised.next,
        "images": len(tally),
        "decoded": tally.opened,
        "bytes": int(tally.size_bytes.sum()),
        "unusable": {"count": tally.bad, "by_cause": dict(tally.faults), "first": _named(tally.named)},
        "formats": [
            {"suffix": suffix, "format": kind, "images": count} for (suffix, kind), count in tally.formats.most_common()
        ],
        "misnamed": {"count": tally.misnamed_count(), "first": _named(tally.misnamed)},
        "channels": dict(tally.channels),
        "depths": dict(tally.depths),
        "values": {depth: values._asdict() for depth, values in tally.values.items()},
        "sizes_px": _sizes(tally),
        "duplicates": _duplicates(found),
        "groups": {"labelled": found.is_labelled, "images": dict(found.groups.most_common())},
        "denoised": _twins(found.denoised),
        "clean": _twins(found.clean),
        "noise": None if found.noise is None else _noise(found.noise),
        "versions": versions(),
    }


def _sizes(tally: Tally) -> dict[str, Any]:
    sides = tally.good_sides()
    if not len(sides):
        return {}
    pairs = Counter(map(tuple, sides.tolist()))
    return {
        "smallest_side": int(sides.min()),
        "largest_side": int(sides.max()),
        "most_frequent": [[*size, count] for size, count in pairs.most_common(5)],
        "below_denoiser": tally.below(CROP_MULTIPLE_PX),
        "enlarged_by_crops": tally.below(GLOBAL_CROP_PX),
    }


def _duplicates(found: Findings) -> dict[str, Any]:
    path = found.checked.images.relative_path
    return {
        word: {
            "groups": len(groups),
            "images": sum(map(len, groups)),
            "first": [[path(int(index)) for index in group] for group in groups[:_GROUPS]],
        }
        for word, groups in found.duplicates._asdict().items()
    }


def _twins(twins: Twins | None) -> dict[str, Any] | None:
    return None if twins is None else {**vars(twins), "root": str(twins.root), "good": twins.good}


def _named(named: list[Named]) -> list[dict[str, str]]:
    return [{"path": item.path, "text": item.text} for item in named]


def _noise(found: NoiseFindings) -> dict[str, Any]:
    curve, kind, bias, near = found.curve, found.kind, found.bias, found.correlation
    numbers: dict[str, Any] = {
        "images": found.n_images,
        "too_small": near.is_too_small,
        "clear": found.is_clear,
        "sigma_255": near.sigma_255,
        "snr_db": found.snr_db,
        "verdict": near.verdict,
        "autocorrelation": {f"{down},{right}": rho for (down, right), rho in near.autocorrelation.items()},
        "known": found.known,
        "black": found.black.tolist(),
        "white": found.white.tolist(),
    }
    numbers["curve"] = curve and {key: getattr(curve, key).tolist() for key in ("mean_255", "std_255", "patches")}
    numbers["bias"] = bias and {
        "clean_255": bias.clean_255.tolist(),
        "bias_255": bias.bias_255.tolist(),
        "source": bias.source,
    }
    numbers["like"] = kind and {
        "words": kind.words,
        "closest": kind.fit.noise.name,
        "misfit": kind.fit.misfit,
        "sensor": {"a": kind.sensor.a, "b": kind.sensor.b},
    }
    return numbers
