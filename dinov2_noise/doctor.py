"""What holds on this machine: versions, where DINOv2 is, whether it is patched, and what it will compute with."""

from __future__ import annotations

import importlib
import importlib.util
import platform
import subprocess
import sys
from dataclasses import dataclass

import torch

from dinov2_noise import __version__, patching, plugin
from dinov2_noise.errors import DinoNoiseError
from dinov2_noise.evaluation.records import versions
from dinov2_noise.upstream import SEAMS, importing
from dinov2_noise.xformers_ops import xformers_ops


@dataclass(frozen=True)
class Finding:
    """One line of the report; ``remedy`` is what to do when it is not ``good``."""

    name: str
    value: str
    good: bool = True
    remedy: str = ""


def examine() -> list[Finding]:
    """All findings, in the order a person would ask."""
    return [
        Finding("dinov2-noise", __version__),
        Finding("Python", platform.python_version()),
        _torch(),
        Finding("device", _device()),
        Finding("attention", "xFormers" if xformers_ops() is not None else "built-in (PyTorch's scaled dot product)"),
        *_dinov2(),
    ]


def _torch() -> Finding:
    version = torch.__version__
    old = tuple(int(part) for part in version.split("+")[0].split(".")[:2]) < (2, 4)
    return Finding("torch", version, not old, "install torch >= 2.4")


def _device() -> str:
    if not torch.cuda.is_available():
        return f"CPU, {torch.get_num_threads()} threads, fp32"
    precision = "bf16 and fp16" if torch.cuda.is_bf16_supported() else "fp16"
    return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name(0)}, {precision}"


def _dinov2() -> list[Finding]:
    try:
        init = patching.find_init()
    except DinoNoiseError as missing:
        return [Finding("dinov2", "not importable", False, str(missing))]
    findings = [Finding("dinov2", f"{init.parent} ({versions()['dinov2']})")]
    try:
        patched = patching.is_patched(init)
    except DinoNoiseError as edited:
        return [*findings, Finding("patched", "edited", False, str(edited))]
    remedy = f"run `dinov2-noise patch {init.parent.parent}`"
    findings.append(Finding("patched", "yes" if patched else "no", patched, remedy))
    return [*findings, *_hooks()] if patched else findings


def _hooks() -> list[Finding]:
    """Import upstream in a process of its own, as a training job would, and ask which seams were attached."""
    code = "from dinov2_noise import doctor; doctor.print_hooks()"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    lines = found.stdout.strip().splitlines()
    last_error = (found.stderr.strip().splitlines() or ["no output"])[-1]
    if found.returncode != 0 or not lines:
        return [
            Finding("hooks", f"failed: {last_error}", False, "see the message; the README names the supported versions")
        ]
    return [Finding("hooks", lines[-1])]


def print_hooks() -> None:
    """Import everything we attach to; print how many seams hold, or raise."""
    importlib.import_module("dinov2")
    if not plugin.is_active():
        raise SystemExit("`import dinov2` did not activate the plug-in: is dinov2-noise installed in this environment?")
    names = [name for name in SEAMS if name != "dinov2.run.submit" or importlib.util.find_spec("submitit")]
    missing = [name for name in names if not importing.is_attached(importlib.import_module(name))]
    if missing:
        raise SystemExit(f"not attached: {', '.join(missing)}")
    print(f"{len(names)} attached")
