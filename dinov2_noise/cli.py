"""The command ``dinov2-noise``."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from dinov2_noise.data_cli import data_app
from dinov2_noise.denoise_cli import denoise_app
from dinov2_noise.errors import DinoNoiseError
from dinov2_noise.evaluate_cli import evaluate_app
from dinov2_noise.noise_cli import noise_app
from dinov2_noise.report_cli import report
from dinov2_noise.toy_cli import toy_app
from dinov2_noise.use_cli import use_app

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Noise-robust self-supervised pretraining, as a plug-in for DINOv2.",
)
app.add_typer(data_app)
app.add_typer(noise_app)
app.add_typer(use_app)
app.add_typer(denoise_app, name="denoise")
app.add_typer(evaluate_app, name="evaluate")
app.add_typer(toy_app, name="toy")
app.command()(report)
console = Console()
_INTERRUPTED = 130


@app.command()
def patch(
    path: Annotated[Path | None, typer.Argument(help="A DINOv2 checkout; by default the importable dinov2.")] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Only tell whether the patch is there (exit status 1 if not).")
    ] = False,
    reverse: Annotated[bool, typer.Option("--reverse", help="Take the patch out.")] = False,
) -> None:
    """Let a DINOv2 checkout load its plug-ins (12 lines at the end of dinov2/__init__.py)."""
    from dinov2_noise import patching

    init = patching.find_init(path)
    if check:
        patched = patching.is_patched(init)
        print(f"{init}: {'patched' if patched else 'not patched'}")
        raise typer.Exit(0 if patched else 1)
    if reverse:
        print(f"{init}: {'patch removed' if patching.reverse(init) else 'was not patched'}")
    else:
        print(f"{init}: {'patched' if patching.patch(init) else 'was patched already'}")


@app.command()
def doctor() -> None:
    """Tell what holds on this machine; exit status 1 if something stands in the way."""
    from dinov2_noise.doctor import examine

    findings = examine()
    table = Table(show_header=False, box=None, pad_edge=False)
    for finding in findings:
        table.add_row(finding.name, finding.value, "" if finding.good else f"✗ {finding.remedy}")
    console.print(table)
    raise typer.Exit(0 if all(finding.good for finding in findings) else 1)


@app.command()
def configs(
    name: Annotated[str | None, typer.Argument(help="Print this config, whole.")] = None,
    grep: Annotated[str, typer.Option(help="List only lines that hold this text.")] = "",
) -> None:
    """List the training configs, one line each: presets and all published experiments; or print one."""
    from dinov2_noise.configs import listing, read

    print(listing(grep) if name is None else read(name).rstrip())


@app.command()
def weights(
    file: Annotated[Path, typer.Argument(help="A weights file, or a folder that holds one.")],
    config: Annotated[str | None, typer.Option(help="Also tell how it fits the model of this config or name.")] = None,
) -> None:
    """Tell what is in a weights file: kind, size, position grid, registers."""
    from dinov2_noise.weights import describe, load_backbone, read

    found = read(file)
    print(describe(found))
    if config is not None:
        from dinov2_noise.upstream.backbone import build_backbone

        print(load_backbone(build_backbone(config), found).table())


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": False})
def train(
    context: typer.Context,
    config: Annotated[str, typer.Argument(help="A config file, or the name of a shipped one.")],
    output: Annotated[Path | None, typer.Option(help="Output folder of the run; not for --estimate.")] = None,
    gpus: Annotated[
        int, typer.Option(help="Processes on this machine, one per GPU (CPU processes where there is none).")
    ] = 1,
    no_resume: Annotated[
        bool, typer.Option("--no-resume", help="Start afresh even if OUTPUT holds checkpoints of this config.")
    ] = False,
    estimate: Annotated[
        bool, typer.Option("--estimate", help="Only count what it will cost; the next three add hours to that.")
    ] = False,
    rate: Annotated[str | None, typer.Option(help="Estimate hours at so much per GPU, as 40TFLOPs.")] = None,
    measure: Annotated[bool, typer.Option("--measure", help="Estimate hours at this machine's measured rate.")] = False,
    like: Annotated[Path | None, typer.Option(help="Estimate hours at the speed of the run in this folder.")] = None,
) -> None:
    """Start upstream's training on this machine, without SLURM; append key=value to change the config."""
    if estimate:
        from dinov2_noise.upstream.estimate import estimate as count

        print(count(config, context.args, processes=gpus, rate=rate, measure=measure, like=like))
        return
    if rate is not None or measure or like is not None:
        raise typer.BadParameter("they belong to --estimate", param_hint="--rate, --measure, --like")
    if output is None:
        raise typer.BadParameter("it is missing", param_hint="--output")
    from dinov2_noise.launch import run as launch
    from dinov2_noise.launch import train_command

    launch(train_command(config, output, context.args, processes=gpus, resume=not no_resume))


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": False})
def run(
    context: typer.Context,
    recipe: Annotated[Path, typer.Argument(help="A recipe file; append variable=value to change its variables.")],
    workdir: Annotated[Path | None, typer.Option(help="Records, logs and runs; by default runs/RECIPE.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell what would be run.")] = False,
    slurm: Annotated[bool, typer.Option("--slurm", help="Submit each step as a SLURM job.")] = False,
    slurm_option: Annotated[
        list[str] | None, typer.Option(help="key=value for sbatch, such as partition=gpu; repeatable.")
    ] = None,
    only: Annotated[str, typer.Option(help="Only these steps, separated by commas.")] = "",
    start: Annotated[str | None, typer.Option("--from", help="This step and those that need it.")] = None,
    force: Annotated[str, typer.Option(help="Do these steps anew; what they left is renamed.")] = "",
) -> None:
    """Run a recipe: all steps of an experiment, those that are done skipped."""
    from dinov2_noise.recipes.command import Request, run_recipe

    names, anew = [*filter(None, only.split(","))], [*filter(None, force.split(","))]
    request = Request(dry_run, slurm, slurm_option or [], names, start, anew)
    run_recipe(recipe, context.args, workdir, request)


@app.command()
def demo(
    output: Annotated[Path, typer.Argument(help="Output folder; an interrupted demo continues there.")] = Path(
        "demo-output"
    ),
) -> None:
    """Run the whole path on photographs inside the scikit-image wheel and write a report."""
    from dinov2_noise.demo.run import run_demo

    run_demo(output)


def main() -> None:
    """Entry point: known errors are printed without a traceback, with exit status 1."""
    try:
        app()
    except (DinoNoiseError, OSError) as error:
        Console(stderr=True, highlight=False).print(f"[bold red]error:[/] {type(error).__name__}:", end=" ")
        print(error, file=sys.stderr)
        if "TORCHELASTIC_ERROR_FILE" in os.environ:  # one of several processes: the launcher's last line shall name it
            from dinov2_noise.upstream.heartbeat import record

            record(error)
        sys.exit(1)
    except (KeyboardInterrupt, SystemExit) as ended:
        # typer makes an exit with status 130 of an interrupt
        if isinstance(ended, SystemExit) and ended.code != _INTERRUPTED:
            raise
        print("interrupted: start the same command again to continue", file=sys.stderr)
        sys.exit(_INTERRUPTED)
