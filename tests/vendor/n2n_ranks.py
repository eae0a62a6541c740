"""Run by test_n2n_parallel.py: the same trainings by one process and by two (gloo), as forks of this one.

Usage: n2n_ranks.py FOLDER

Leaves ``<case>-one.pth``, ``<case>-0.pth`` and ``<case>-1.pth`` in FOLDER: records, state and error of each.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import torch
from torch import distributed as dist

from neighbor2neighbor import Trainer, TrainingConfig, TrainingDivergedError

SMALL: dict[str, Any] = {"steps": 3, "batch_size": 4, "crop_px": 64, "learning_rate": 1e-3, "n_feature": 4}
CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "strided": {"ema": 0.9, "stride": 2, "crop_px": 128, "steps": 2},
    "fp16": {"precision": "fp16", "steps": 2},
    "resumed": {},
    "broken": {},
}
N_IMAGES, BROKEN = 7, 5


def images(case: str) -> list[torch.Tensor]:
    """Smooth images with noise; of the broken ones, one is not finite, and is drawn by one of two processes."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(N_IMAGES, 3, 9, 9, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, size=(130, 150), mode="bilinear")
    noisy = [*(smooth + 0.1 * torch.randn(smooth.shape, generator=generator))]
    if case == "broken":
        noisy[BROKEN] = torch.full_like(noisy[BROKEN], float("nan"))
    return noisy


def run_case(case: str, folder: Path, name: str, rank: int = 0, world_size: int = 1) -> None:
    config = TrainingConfig(**SMALL | CASES[case])
    trainer = Trainer(images(case), config, rank=rank, world_size=world_size)
    if case == "resumed" and world_size > 1:
        trainer.load_state_dict(torch.load(folder / "resumed-half.pth", weights_only=True))
    records, error = [], ""
    try:
        for record in trainer.steps():
            records.append(tuple(record))
            if case == "resumed" and world_size == 1 and record.step == 1:
                torch.save(trainer.state_dict(), folder / "resumed-half.pth")
    except TrainingDivergedError as cause:
        error = str(cause)
    torch.save({"records": records, "state": trainer.state_dict(), "error": error}, folder / f"{case}-{name}.pth")


def two(folder: Path, rank: int) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    for case in CASES:
        run_case(case, folder, str(rank), rank, 2)
    dist.destroy_process_group()


if __name__ == "__main__":
    torch.set_num_threads(1)  # threads would not survive a fork
    target = Path(sys.argv[1])
    for case in CASES:
        run_case(case, target, "one")
    child = os.fork()
    two(target, rank=0 if child else 1)
    if child:
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
