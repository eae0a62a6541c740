"""Run by test_frequency_seams.py in a process of its own: batches of a worker started afresh, not forked.

Usage: spawned_workers.py DATASET
"""

from __future__ import annotations

import itertools
import sys

import torch
from staged_batches import BATCH, loader, start
from torch.utils.data import DataLoader


def main() -> None:
    start("fast")
    here = loader(sys.argv[1], num_workers=0)
    settings = {"batch_size": BATCH, "sampler": here.sampler, "collate_fn": here.collate_fn}
    there = DataLoader(here.dataset, num_workers=1, multiprocessing_context="spawn", **settings)
    for found, expected in zip(itertools.islice(there, 2), itertools.islice(here, 2), strict=True):
        for key, value in expected.items():
            same = torch.equal(value, found[key]) if isinstance(value, torch.Tensor) else value == found[key]
            assert same, key
    print(f"the same, {found['collated_global_crops'].shape[-1]} px")


if __name__ == "__main__":
    main()
