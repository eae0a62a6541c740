"""What a training step costs, next to plain DINOv2: seconds and peak memory, for each way of training.

Times: all arms live in one process and take turns, so that a noisy machine is noisy for all of them; given are medians,
and the ratio to the first arm's step of the same round with the middle half of its values. Memory: a fresh process per
arm, two steps; on a GPU what torch allocated at most, on a CPU the largest resident size (with the interpreter's own
share). Batches are random and ready in memory: reading and augmenting images is not part of it.

Usage: python benchmarks/step_time.py [--vit-s] [--arms plain NC NCT] [--attention] [--compile]
The defaults are toy sizes for two CPU cores (about 3 minutes): fixed costs weigh more there than in a real run.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf

DENOISED = {"name": "denoised", "epochs": 1, "view": "denoised"}
NOISY = {"name": "noisy", "epochs": 1, "view": "noisy"}
NC = {"curriculum": {"stages": [DENOISED, NOISY]}}
NCT = {"curriculum": {"stages": [DENOISED, NOISY | {"anchor": {"weight": 1.6}}]}}
TEACHER_DENOISED = {"curriculum": {"stages": [DENOISED, NOISY | {"teacher_view": "denoised"}]}}
# What each arm's config adds to upstream's.
ARMS: dict[str, dict[str, Any]] = {
    "plain": {},
    "NC": NC,
    "NCT": NCT,
    "teacher_view denoised": TEACHER_DENOISED,
    "NCT, 4 micro-batches": NCT | {"step": {"micro_batches": 4}},
    "NCT, compiled blocks": NCT | {"step": {"compile": True}},
}
COMPILED = "NCT, compiled blocks"
# As published for ImageNet-100, but for the batch of 40: three arms of 4 images fit 16 GiB.
VIT_S = {"arch": "vit_small", "crops": [224, 96, 8], "prototypes": 65536, "batch": 4, "rounds": 8}


def build(options: argparse.Namespace, arm: str) -> Any:
    """Upstream's model, wrapped as for training, for one arm."""
    from dinov2.configs import dinov2_default_config
    from dinov2.train.ssl_meta_arch import SSLMetaArch

    from dinov2_noise.upstream.utils.config import prepare

    content: dict[str, Any] = {
        "student": {"arch": options.arch, "patch_size": 16, "drop_path_rate": options.drop_path},
        "crops": dict(zip(("global_crops_size", "local_crops_size", "local_crops_number"), options.crops, strict=True)),
        "train": {"batch_size_per_gpu": options.batch, "output_dir": tempfile.mkdtemp()},
        "optim": {"epochs": 2},
        "dino": {"head_n_prototypes": options.prototypes},
    }
    cfg = OmegaConf.merge(dinov2_default_config, content, ARMS[arm])
    prepare(cfg, argparse.Namespace(), dinov2_default_config)
    torch.manual_seed(0)
    model = SSLMetaArch(cfg).to(torch.device("cuda"))
    model.prepare_for_distributed_training()
    model.train()
    return model


def batch(options: argparse.Namespace, stage: int) -> dict[str, Any]:
    """Random crops with the masks upstream would draw on average: half of the crops, 30 % of their patches."""
    n, (global_px, local_px, n_local) = options.batch, options.crops
    n_patches = (global_px // 16) ** 2
    masks = torch.zeros(2 * n, n_patches, dtype=torch.bool)
    masks[:n, : max(1, round(0.3 * n_patches))] = True
    indices = masks.flatten().nonzero().flatten()
    content = {
        "collated_global_crops": torch.randn(2 * n, 3, global_px, global_px),
        "collated_local_crops": torch.randn(n_local * n, 3, local_px, local_px),
        "collated_masks": masks,
        "mask_indices_list": indices,
        "masks_weight": (1 / masks.sum(-1).clamp(min=1)).unsqueeze(-1).expand_as(masks)[masks],
        "upperbound": len(indices),
        "n_masked_patches": torch.full((1,), len(indices)),
        "stage": stage,
        "number": stage * options.batch * 1250,  # the first sample of the stage: upstream's epochs have 1,250 steps
    }
    if stage:
        content["collated_global_crops_anchor"] = torch.randn(2 * n, 3, global_px, global_px)
    if torch.cuda.is_available():
        content = {key: value.half() if value_is_image(value) else value for key, value in content.items()}
    return content


def value_is_image(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.ndim == 4


class Trainer:
    """One arm, past its first step and, where it has one, past the switch to its noisy stage."""

    def __init__(self, options: argparse.Namespace, arm: str) -> None:
        self._clock = time.process_time if options.cpu_time else time.perf_counter
        self._model = build(options, arm)
        self._optimizer = torch.optim.AdamW(self._model.get_params_groups(), lr=1e-5)
        self._images = batch(options, 0)
        self.step()
        self._images = batch(options, 1 if ARMS[arm] else 0)

    def step(self) -> float:
        """Seconds of forward, backward, optimizer and EMA."""
        torch.cuda.synchronize()
        start = self._clock()
        self._optimizer.zero_grad(set_to_none=True)
        self._model.forward_backward(dict(self._images), teacher_temp=0.05)
        if self._model.fp16_scaler is None:
            self._optimizer.step()
        else:  # fp16 on a GPU, as upstream's loop
            self._model.fp16_scaler.step(self._optimizer)
            self._model.fp16_scaler.update()
        self._model.update_teacher(0.99)
        torch.cuda.synchronize()
        return self._clock() - start


def peak_memory_mib() -> float:
    """Of this process so far."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 2**10


def memory_of_a_fresh_process(arm: str) -> float | None:
    """MiB, or None where the arm does not run; the reason is printed."""
    command = [sys.executable, __file__, *sys.argv[1:], "--memory-of", arm]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return float(done.stdout.splitlines()[-1])
    reason = done.stderr.splitlines() or [f"the process ended with status {done.returncode}"]
    print(f"{arm}: no memory measured, {reason[-1]}")
    return None


def measure_times(options: argparse.Namespace) -> dict[str, list[float]]:
    """Seconds per step and arm, round by round; two rounds for warming up are left out."""
    trainers = {arm: Trainer(options, arm) for arm in options.arms}
    times: dict[str, list[float]] = {arm: [] for arm in trainers}
    for turn in range(options.rounds + 2):
        for arm, trainer in trainers.items():
            seconds = trainer.step()
            if turn >= 2:
                times[arm].append(seconds)
    return times


def print_table(options: argparse.Namespace, times: dict[str, list[float]], memory: dict[str, float | None]) -> None:
    """One line per arm."""
    where = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {torch.get_num_threads()} threads"
    print(
        f"{options.arch}, batch {options.batch}, crops 2x{options.crops[0]} + {options.crops[2]}x{options.crops[1]}, "
        f"{options.prototypes} prototypes, drop path {options.drop_path}, {options.rounds} rounds, "
        f"{where}{', CPU time' if options.cpu_time else ''}"
    )
    base = options.arms[0]
    ratio = f"x {base}"
    print(f"{'':24}{'s/step':>8}{ratio:>9}{'middle half':>16}{'peak MiB':>10}{ratio:>9}")
    for arm, values in times.items():
        ratios = [value / plain for value, plain in zip(values, times[base], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        line = f"{arm:24}{statistics.median(values):8.3f}{middle:9.3f}{f'{low:.3f} - {high:.3f}':>16}"
        of_arm, of_base = memory.get(arm), memory.get(base)
        print(line + (f"{of_arm:10.0f}{of_arm / of_base:9.2f}" if of_arm and of_base else f"{'-':>10}{'-':>9}"))


def compare_attention(options: argparse.Namespace) -> None:
    """The built-in attention against xFormers' on the packed crops of one ViT-S step, forward and backward, fp16."""
    from dinov2_noise import xformers_ops

    theirs = xformers_ops.xformers_ops()
    if theirs is None:
        missing = "no CUDA device" if not torch.cuda.is_available() else "xFormers is not installed or not usable"
        print(f"attention: skipped, {missing}")
        return
    n, (global_px, local_px, n_local) = options.batch, options.crops
    lengths = [(global_px // 16) ** 2 + 1] * (2 * n) + [(local_px // 16) ** 2 + 1] * (n_local * n)
    qkv = torch.randn(3, 1, sum(lengths), 6, 64, device="cuda", dtype=torch.half, requires_grad=True)
    times: dict[str, list[float]] = {"built-in": [], "xFormers": []}
    for turn in range(options.rounds + 3):
        for name, ops in (("built-in", xformers_ops), ("xFormers", theirs)):
            torch.cuda.synchronize()
            start = time.perf_counter()
            for _ in range(12):
                mask = ops.fmha.BlockDiagonalMask.from_seqlens(lengths)
                ops.memory_efficient_attention(*qkv, attn_bias=mask).sum().backward()
            torch.cuda.synchronize()
            if turn >= 3:
                times[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(values) for name, values in times.items()}
    print(
        f"attention of 12 layers: built-in {1e3 * medians['built-in']:.2f} ms, xFormers {1e3 * medians['xFormers']:.2f}"
    )
    print(f"built-in takes {medians['built-in'] / medians['xFormers']:.2f} x the time of xFormers")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--vit-s", action="store_true", help=f"preset {VIT_S}; other options change it")
    parser.add_argument("--arch", default="vit_tiny")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--crops", type=int, nargs=3, default=[64, 32, 4], help="global px, local px, local crops")
    parser.add_argument("--prototypes", type=int, default=2048)
    parser.add_argument(
        "--drop-path", type=float, default=0.0, help="upstream's default, 0.3, makes the student cheaper"
    )
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--arms", nargs="+", choices=[*ARMS], default=[arm for arm in ARMS if arm != COMPILED])
    parser.add_argument("--compile", action="store_true", help="also NCT with step.compile")
    parser.add_argument("--attention", action="store_true", help="also the built-in attention against xFormers (GPU)")
    parser.add_argument(
        "--cpu-time", action="store_true", help="CPU seconds of all threads, for a machine in use (CPU)"
    )
    parser.add_argument("--no-memory", action="store_true", help="times only")
    parser.add_argument("--memory-of", choices=[*ARMS], help=argparse.SUPPRESS)
    if "--vit-s" in sys.argv:
        parser.set_defaults(**VIT_S)
    options = parser.parse_args()
    if options.compile:
        options.arms.append(COMPILED)
    return options


def main() -> None:
    options = parse()
    # Memory first: later this process has a process group, whose environment the fresh ones must not inherit.
    fresh = [] if options.no_memory or options.memory_of else options.arms
    memory = {arm: memory_of_a_fresh_process(arm) for arm in fresh}
    import dinov2.distributed as distributed

    distributed.enable(overwrite=True)
    if options.memory_of:
        Trainer(options, options.memory_of).step()
        print(peak_memory_mib())
        return
    print_table(options, measure_times(options), memory)
    if options.attention:
        compare_attention(options)


if __name__ == "__main__":
    main()
