"""What must hold before a checkpoint is loaded: the same networks, and the same images per step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch.distributed as dist

from dinov2_noise.errors import CheckpointError
from dinov2_noise.upstream import runtime
from dinov2_noise.upstream.checkpoint_files import waiting_group


def require_same_model(weights: Mapping[str, Any], model: Mapping[str, Any], source: str) -> None:
    """fvcore would skip what does not fit and train on.

    Raises:
        CheckpointError: names or shapes differ; the first five are named. On all ranks, or on none.
    """
    # Moved to the CPU from GPUs, the whole model is on rank 0 only: its verdict counts.
    verdict = [_differences(weights, model) if dist.get_rank() == 0 else None]
    dist.broadcast_object_list(verdict, src=0)
    differing = verdict[0]
    if differing:
        rows = "".join(f"\n  {row}" for row in differing[:5])
        raise CheckpointError(
            f"checkpoint {source} belongs to another architecture or config; {len(differing)} entries differ:{rows}\n"
            "Resume with the config.yaml saved beside it, or train into a new --output-dir."
        )


def _differences(weights: Mapping[str, Any], model: Mapping[str, Any]) -> list[str]:
    differing = [f"{name}: missing in the checkpoint" for name in model if name not in weights]
    differing += [f"{name}: not in the model" for name in weights if name not in model]
    differing += [
        f"{name}: shape {tuple(weights[name].shape)}, the model has {tuple(tensor.shape)}"
        for name, tensor in model.items()
        if name in weights and tuple(weights[name].shape) != tuple(tensor.shape)
    ]
    return differing


def require_same_start(source: str, iteration: int, planned: int | None, problem: Exception | None) -> None:
    """Each rank reads the file by itself, and a shared folder may look different on another machine; collective.

    Args:
        iteration: of the checkpoint as this rank read it; training goes on with the next.
        planned: what this rank's config took for that next one, from the name in ``last_checkpoint``; None if it took
            none from there.
        problem: why this rank could not read the checkpoint.

    Raises:
        CheckpointError: it was not read by all, or not as the same; says what each saw. This rank's own ``problem``.
    """
    seen: list[Any] = [None] * dist.get_world_size()
    told = None if problem is None else (str(problem) or type(problem).__name__)
    dist.all_gather_object(seen, (iteration, planned, told), group=waiting_group())
    if problem is not None:
        raise problem
    for rank, (*_, message) in enumerate(seen):
        if message is not None:
            raise CheckpointError(f"rank {rank}: {message}")
    if all(read == iteration and plan in (None, iteration + 1) for read, plan, _ in seen):
        return
    ranks: dict[tuple[int, int | None], list[int]] = {}
    for rank, (read, plan, _) in enumerate(seen):
        ranks.setdefault((read, plan), []).append(rank)
    rows = "".join(
        f"\n  {_ranks(those)}: the checkpoint was saved after iteration {read}"
        + ("" if plan is None else f", last_checkpoint was read as going on with {plan}")
        for (read, plan), those in ranks.items()
    )
    raise CheckpointError(
        f"checkpoint {source} is not what every process expects:{rows}\nIf the folder is shared by several machines, "
        "some still see an older state: start again in a minute. If the file was renamed, give it its old name."
    )


def _ranks(those: list[int]) -> str:
    shown = ", ".join(map(str, those[:4])) + (", …" if len(those) > 4 else "")
    return f"rank{'s' if len(those) > 1 else ''} {shown}"


def global_batch() -> int | None:
    """Images per step over all ranks, of a run with a curriculum."""
    run = runtime.current()
    return None if run is None else int(run.cfg.train.batch_size_per_gpu) * dist.get_world_size()


def require_same_batch(saved: int | None, source: str) -> None:
    """Another number of processes is welcome as long as a step stays the same step.

    Raises:
        CheckpointError: the checkpoint was made with another number of images per step.
    """
    now, world_size = global_batch(), dist.get_world_size()
    if saved is None or now is None or saved == now:
        return
    if saved % world_size == 0:
        remedy = f"set train.batch_size_per_gpu={saved // world_size}"
    else:
        remedy = (
            f"{world_size} processes cannot share {saved} images equally, so start a number that divides {saved}, "
            f"with train.batch_size_per_gpu={saved} divided by it"
        )
    raise CheckpointError(
        f"checkpoint {source} was made with {saved} images per step, this run has {now} on {world_size} "
        f"processes: {remedy}; or choose another --output-dir"
    )
