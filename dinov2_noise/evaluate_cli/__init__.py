"""``dinov2-noise evaluate …``: how good and how robust a finished backbone is."""

from __future__ import annotations

import typer

from dinov2_noise.evaluate_cli.corruptions import compare, corruptions
from dinov2_noise.evaluate_cli.dense import dense
from dinov2_noise.evaluate_cli.fourier import fourier
from dinov2_noise.evaluate_cli.probes import compare_probes, knn, linear
from dinov2_noise.evaluate_cli.retrieval import retrieval

evaluate_app = typer.Typer(no_args_is_help=True, help="Measure how good and how robust a finished backbone is.")
for command in (corruptions, compare, fourier, linear, knn, compare_probes, retrieval, dense):
    evaluate_app.command()(command)
