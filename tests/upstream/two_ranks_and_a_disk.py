"""What two processes tell each other about a folder that they do not see alike; run by torchrun with a folder."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn

from dinov2_noise.errors import CheckpointError
from dinov2_noise.upstream.checkpoint_checks import require_same_start
from dinov2_noise.upstream.checkpoint_files import on_first_rank, waiting_group

dist.init_process_group("gloo")
from dinov2.fsdp import FSDPCheckpointer  # noqa: E402

RANK = dist.get_rank()
FOLDER = Path(sys.argv[1])


def expect(kind: type[Exception], pattern: str, act: Callable[[], Any]) -> None:
    with pytest.raises(kind, match=pattern) as caught:
        act()
    assert caught.type is kind, repr(caught.value)


def work(problem: Exception | None) -> None:
    with on_first_rank("the work failed") as is_first:
        if is_first and problem is not None:
            raise problem


def checkpointer(folder: Path) -> Any:
    torch.manual_seed(RANK)
    network = nn.Module()
    network.student = nn.Linear(3, 2)
    return FSDPCheckpointer(network, str(folder))


assert waiting_group() is waiting_group()
assert waiting_group()._get_backend(torch.device("cpu")).options._timeout.total_seconds() == 4 * 3600
work(None)
expect(CheckpointError, "^the work failed: no room$", lambda: work(OSError("no room")))
own = ValueError if RANK == 0 else CheckpointError
expect(own, "not what torch thought", lambda: work(ValueError("not what torch thought")))

# Each rank has a folder of its own, as if the file system showed rank 1 an older state.
folders = [FOLDER / "seen_by_0", FOLDER / "seen_by_1"]
for number, folder in enumerate(folders):
    if RANK == 0:
        folder.mkdir()
    dist.barrier()
    saved = checkpointer(folder)
    saved.save(f"model_000000{number}", iteration=number)
dist.barrier()
resumed = checkpointer(folders[RANK])
assert resumed.resume_or_load("", resume=True)["iteration"] == 0, "rank 0 decides"
resumed = checkpointer(folders[0] if RANK == 0 else FOLDER / "empty")
assert resumed.resume_or_load("", resume=True)["iteration"] == 0
expect(
    CheckpointError,
    "does not exist" if RANK == 1 else "^rank 1: checkpoint .*nowhere.* does not exist",
    lambda: checkpointer(folders[0]).load(str(folders[0] / "model_0000000.pth" if RANK == 0 else FOLDER / "nowhere")),
)
expect(
    CheckpointError,
    r"\n  rank 0: .* after iteration 0\n  rank 1: .* after iteration 1\n",
    lambda: checkpointer(folders[0]).load(str(folders[RANK] / f"model_000000{RANK}.pth")),
)
require_same_start("model_0000007.pth", 7, 8, None)
expect(
    CheckpointError,
    r"rank 0: .* iteration 7, last_checkpoint was read as going on with 8\n  rank 1: .* 7, .* with 4\n",
    lambda: require_same_start("model_0000007.pth", 7, 8 if RANK == 0 else 4, None),
)
print("as expected", flush=True)
dist.destroy_process_group()
