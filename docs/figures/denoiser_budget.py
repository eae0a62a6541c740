"""Draw docs/img/denoiser-budget.png: PSNR over optimizer steps, from the record of benchmarks/denoise_budget.py.

Usage: python docs/figures/denoiser_budget.py BUDGET.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from matplotlib import pyplot as plt

from dinov2_noise.report.figures import COLOURS, FAINT, INK, STYLE

OUTPUT = Path(__file__).parent.parent / "img" / "denoiser-budget.png"
PUBLISHED_DB, MARGIN_DB = 32.08, 0.5
KINDS = {
    "unclipped": ("noise as in the paper's test", "o", COLOURS[0]),
    "8 bit": ("8-bit noisy images", "s", COLOURS[1]),
}


def draw(record: Path) -> None:
    points = json.loads(record.read_text())["points"]
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(7.6, 4.2), layout="constrained")
        steps = [point["step"] for point in points]
        for kind, (label, marker, colour) in KINDS.items():
            measured = {point["step"]: point["psnr_db"][kind] for point in points if kind in point["psnr_db"]}
            if measured:
                axes.plot([*measured], [*measured.values()], marker=marker, color=colour, label=label)
        axes.axhline(PUBLISHED_DB, color=INK, linewidth=1)
        axes.axhspan(PUBLISHED_DB - MARGIN_DB, PUBLISHED_DB, color="#e5e7eb", zorder=0)
        axes.text(steps[0], PUBLISHED_DB + 0.05, "published, after 100 epochs: 32.08 dB", va="bottom", fontsize=10)
        axes.text(steps[0], PUBLISHED_DB - MARGIN_DB / 2, "within 0.5 dB", va="center", fontsize=10, color=FAINT)
        axes.set_xscale("log")
        axes.set_xticks(steps, [f"{step:,}" for step in steps], rotation=35)
        axes.minorticks_off()
        axes.set_xlabel("optimizer steps")
        axes.set_ylabel("PSNR on Kodak, gauss25 (dB)")
        axes.legend(loc="lower right", frameon=False)
        figure.savefig(OUTPUT, dpi=130)


if __name__ == "__main__":
    draw(Path(sys.argv[1]))
