"""What the watch of docs/health.md costs a training step, in one run: medians, and their ratio to the step.

"watch" is all that is added to a step that is not measured, less the reads of single loss terms that it replaces; both
are timed by themselves, since a per mille of a step drowns in the noise of steps. "measured step" is one in
``health.period_iterations``.
Usage: python benchmarks/watch_cost.py [--arch vit_tiny] [--batch 8] [--crops 64 32 4] [--rounds 20]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import step_time
import torch

from dinov2_noise.health.koleo import KoLeo
from dinov2_noise.upstream.train.kept_tokens import kept_tokens


def seconds(work: Callable[[], Any], rounds: int) -> float:
    """Median time of ``work``."""
    times = []
    for _ in range(rounds):
        torch.cuda.synchronize()
        start = time.perf_counter()
        work()
        torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def train_step(model: Any, optimizer: torch.optim.Optimizer, images: dict[str, Any]) -> None:
    """Forward, backward, optimizer and EMA."""
    optimizer.zero_grad(set_to_none=True)
    model.forward_backward(images, teacher_temp=0.05)
    if model.fp16_scaler is None:
        optimizer.step()
    else:  # fp16 on a GPU, as upstream's loop
        model.fp16_scaler.step(optimizer)
        model.fp16_scaler.update()
    model.update_teacher(0.99)


def compare(model: Any, images: dict[str, Any], options: argparse.Namespace) -> dict[str, float]:
    """Seconds of a step, of what the watch adds to it, and of a measurement."""
    from dinov2.loss import KoLeoLoss

    optimizer = torch.optim.AdamW(model.get_params_groups(), lr=1e-5)
    train_step(model, optimizer, images)
    watch, many = model._watch, 50 * options.rounds
    losses = dict(model.forward_backward(images, teacher_temp=0.05))
    with kept_tokens(model) as kept:
        model.forward_backward(images, teacher_temp=0.05)
    step = watch.begin(images, 0)
    tokens = kept.student
    return {
        "step": seconds(lambda: train_step(model, optimizer, images), options.rounds),
        "watched": seconds(lambda: watch.checked(losses, watch.begin(images, 1)).items(), many),
        "read": seconds(lambda: {name: value.item() for name, value in losses.items()}, many),
        "koleo": seconds(lambda: KoLeo()(tokens), many),
        "koleo upstream": seconds(lambda: KoLeoLoss()(tokens), many),
        "measurement": seconds(lambda: watch.measure(kept, step, 0.05), options.rounds),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--arch", default="vit_tiny")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--crops", type=int, nargs=3, default=[64, 32, 4], help="global px, local px, local crops")
    parser.add_argument("--prototypes", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args()

    import tempfile

    import dinov2.distributed as distributed

    distributed.enable(overwrite=True)
    model = step_time.build(options, "NC")
    with tempfile.TemporaryDirectory() as folder:
        model.cfg.train.output_dir = folder
        found = compare(model, step_time.batch(options, 0), options)
    added = found["watched"] - found["read"] + 2 * (found["koleo"] - found["koleo upstream"])
    print(f"{options.arch}, batch {options.batch}, crops {options.crops}, {options.rounds} rounds, medians")
    print(f"step          {found['step'] * 1e3:9.2f} ms")
    print(f"watch         {added * 1e3:9.3f} ms   {added / found['step']:8.3%} of a step")
    share = found["measurement"] / found["step"] / 100
    print(f"a measurement {found['measurement'] * 1e3:9.2f} ms   {share:8.3%} of 100 steps")


if __name__ == "__main__":
    main()
