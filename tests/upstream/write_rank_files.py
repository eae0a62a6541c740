"""Upstream's own checkpointer writes its files, one per rank, and ours the same state beside them.

Run by torchrun with the options of upstream's training script; then also two small networks under ``small/``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dinov2.fsdp
import torch
import torch.distributed as dist
from dinov2.train import train
from torch import nn
from torch.distributed.fsdp import FullyShardedDataParallel

ours = dinov2.fsdp.FSDPCheckpointer
theirs: Any = next(kind for kind in ours.__mro__[1:] if kind.__module__ == "dinov2.fsdp" and kind is not ours)


class Both(theirs):  # type: ignore[misc]
    def __init__(self, model: nn.Module, save_dir: str, **options: Any) -> None:
        super().__init__(model, save_dir, **options)
        self.reference = ours(model, f"{save_dir}/reference", **options)

    def save(self, name: str, **extra: Any) -> None:
        self.reference.save(name, **extra)
        super().save(name, **extra)


class Odd(nn.Module):
    """Sizes that leave gaps where parameters are aligned, in two units, one inside the other."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 5)
        self.inner = nn.Sequential(nn.Linear(5, 7), nn.LayerNorm(7))
        self.register_buffer("center", torch.arange(3.0))


def save_small(folder: Path, *, use_orig_params: bool) -> None:
    network = nn.Module()
    network.student = Odd()
    torch.save(network.state_dict(), folder / "truth.pth")
    options = {"device_id": torch.device("cpu"), "use_orig_params": use_orig_params}
    network.student.inner = FullyShardedDataParallel(network.student.inner, **options)
    network.student = FullyShardedDataParallel(network.student, **options)
    theirs(network, str(folder)).save("model_0000000", iteration=0)


torch.manual_seed(0)
train.FSDPCheckpointer = Both
arguments = train.get_args_parser().parse_args()
for name in ("reference", "small/aligned", "small/joined"):
    (Path(arguments.output_dir) / name).mkdir(parents=True, exist_ok=True)
train.main(arguments)
for name, use_orig_params in (("aligned", True), ("joined", False)):
    torch.manual_seed(0)
    save_small(Path(arguments.output_dir) / "small" / name, use_orig_params=use_orig_params)
dist.destroy_process_group()
