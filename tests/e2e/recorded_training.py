"""Run by test_fast_nct_run.py: upstream's own ``dinov2.train.train`` as ``__main__``, noting what the model is given.

Usage: recorded_training.py FOLDER [arguments of upstream's script]

``FOLDER/<iteration>.pth`` holds a step's collated batch, the size of each input of the backbones, the largest gradient
of the student's position grid, and how many steps the optimizer has made since it began or was restarted.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from typing import Any

import torch
from dinov2.train.ssl_meta_arch import SSLMetaArch
from torch import Tensor

from dinov2_noise.upstream import runtime

folder, sys.argv = Path(sys.argv[1]), ["train.py", *sys.argv[2:]]
forward_backward = SSLMetaArch.forward_backward


def recorded(self: Any, images: dict[str, Any], teacher_temp: float) -> Any:
    seen: list[tuple[str, list[int]]] = []

    def note(name: str) -> Any:
        def hook(_module: Any, inputs: tuple[Any, ...], _options: Any) -> None:
            crops = inputs[0] if isinstance(inputs[0], list) else [inputs[0]]
            seen.append((name, [int(crop.shape[-1]) for crop in crops]))

        return hook

    backbones = {"student": self.student.backbone, "teacher": self.teacher.backbone}
    if hasattr(self, "frozen_teacher"):
        backbones["frozen"] = self.frozen_teacher.networks["backbone"]
    hooks = [part.register_forward_pre_hook(note(name), with_kwargs=True) for name, part in backbones.items()]
    losses = forward_backward(self, images, teacher_temp)
    for hook in hooks:
        hook.remove()
    (grid,) = (p for name, p in self.student.backbone.named_parameters() if name.endswith("pos_embed"))
    batch = {key: value for key, value in images.items() if isinstance(value, (Tensor, int))}
    steps = {int(state["step"]) for state in runtime.current().optimizer.state.values()}
    facts = {"seen": seen, "grid_gradient": float(grid.grad.abs().max()), "grid_shape": list(grid.shape)}
    facts["optimizer_steps"] = sorted(steps)
    torch.save(batch | facts, folder / f"{self._iteration(images)}.pth")
    return losses


SSLMetaArch.forward_backward = recorded
folder.mkdir(exist_ok=True)
runpy.run_module("dinov2.train.train", run_name="__main__", alter_sys=True)
