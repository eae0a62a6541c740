"""Counts the FLOPs of upstream's training step without running it.

Networks and crops are made on torch's ``meta`` device, which has shapes but no numbers, so that even ViT-g needs
neither memory nor time; `torch.utils.flop_counter` counts what upstream's `SSLMetaArch.forward_backward` runs (read
against lines 130-330). The masks are those of its ``collate_data_and_cast``: their number is fixed by the config, their
places do not matter.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from dinov2_noise import xformers_ops
from dinov2_noise.curriculum.cost import StepFlops
from dinov2_noise.curriculum.frequency import Crops
from dinov2_noise.errors import ConfigError


@dataclass(frozen=True)
class Masks:
    """Masked patches in a step of ``n_images``: ``padded`` rows in upstream's buffers, ``expected`` of them used."""

    padded: float
    expected: float


class StepCounter:
    """Counts the steps of a config; equal crops are counted once.

    Args:
        cfg: upstream's merged config.
        micro_batches: parts in which a process computes its batch.
    """

    def __init__(self, cfg: Any, micro_batches: int = 1) -> None:
        self._cfg = cfg
        self._micro_batches = micro_batches
        self._n_images = cfg.train.batch_size_per_gpu // micro_batches
        self._separate_heads = cfg.ibot.separate_head
        self._counted: dict[Crops, StepFlops] = {}

    def step(self, crops: Crops, *, anchored: bool) -> StepFlops:
        """FLOPs per image of a step with these crops; ``anchored``: with the frozen teacher's part."""
        if crops not in self._counted:
            self._counted[crops] = self._count(crops)
        found = self._counted[crops]
        return found if anchored else replace(found, frozen=0.0)

    def _count(self, crops: Crops) -> StepFlops:
        n, cfg = self._n_images, self._cfg
        masks = self.masks(crops)
        forward, backward = self.backbone(crops)
        n_local, n_global = cfg.crops.local_crops_number * n, 2 * n
        student_heads = self._head_flops(n_local + n_global, masks.padded)
        teacher = self._teacher_flops(crops)
        teacher_heads = self._head_flops(n_global, masks.padded, backward=False)
        frozen = teacher + self._head_flops(n_global, masks.expected, backward=False)[0]
        return StepFlops(
            student=forward / n,
            student_heads=student_heads[0] / n,
            backward=(backward + student_heads[1]) / n,
            teacher=(teacher + teacher_heads[0]) / n,
            frozen=frozen / n,
        )

    def masks(self, crops: Crops) -> Masks:
        """Upstream masks ``mask_sample_probability`` of the global crops, in shares that rise evenly over them."""
        section, n_patches, n_crops = self._cfg.ibot, crops.patches_per_side**2, 2 * self._n_images
        if section.loss_weight <= 0:
            return Masks(0, 0)
        n_masked_crops = int(n_crops * section.mask_sample_probability)
        first, last = section.mask_ratio_min_max
        ends = torch.linspace(first, last, n_masked_crops + 1).tolist()
        padded = sum(int(n_patches * end) for end in ends[1:])
        # One is asked for int(N u), u uniform between two ends: on average N times their mean less a half.
        expected = sum(n_patches * (low + high) / 2 - 0.5 for low, high in itertools.pairwise(ends))
        return Masks(expected if self._micro_batches > 1 else padded, max(expected, 0.0))

    @cached_property
    def _networks(self) -> tuple[Any, Any]:
        """Student and teacher backbone, without numbers.

        Raises:
            ConfigError: upstream has none of this name.
        """
        from dinov2.models import build_model_from_cfg, vision_transformer

        section = self._cfg.student
        try:
            with _on_meta():
                student, teacher, _ = build_model_from_cfg(self._cfg)
        except (KeyError, NotImplementedError) as cause:
            known = ", ".join(name for name in vars(vision_transformer) if name.startswith("vit_"))
            raise ConfigError(
                f"DINOv2 has no network of student.arch {section.arch!r} and student.ffn_layer {section.ffn_layer!r}: "
                f"the first is one of {known}, the second mlp, swiglu, swiglufused or identity"
            ) from cause
        return student.train(), teacher.eval()

    def backbone(self, crops: Crops) -> tuple[float, float]:
        """Forward and backward of the student's backbone in one step, for all its images."""
        student = self._networks[0]

        def once() -> tuple[float, ...]:
            forward, output = _flops(lambda: student_output(student, self._cfg, crops, self._n_images, "meta"))
            return forward, _flops(output.backward)[0]

        forward, backward = self._over_blocks(student, once)
        return forward, backward

    def _teacher_flops(self, crops: Crops) -> float:
        images = torch.empty(2 * self._n_images, 3, crops.global_px, crops.global_px, device="meta")
        teacher = self._networks[1]
        with torch.no_grad():
            return self._over_blocks(teacher, lambda: _flops(lambda: teacher(images, is_training=True))[:1])[0]

    def _over_blocks(self, network: Any, count: Callable[[], tuple[float, ...]]) -> tuple[float, ...]:
        """``count()`` for the whole network from counts with one and with two of its blocks, where all are alike."""
        blocks, section = network.blocks, self._cfg.student
        if section.block_chunks > 0 or not section.drop_path_uniform or len(blocks) < 3:
            return count()
        try:
            network.blocks = blocks[:1]
            one = count()
            network.blocks = blocks[:2]
            two = count()
        finally:
            network.blocks = blocks
        return tuple(a + (len(blocks) - 1) * (b - a) for a, b in zip(one, two, strict=True))

    def _head_flops(self, n_cls: float, n_patches: float, *, backward: bool = True) -> tuple[float, float]:
        """Forward and backward of ``n_cls`` class tokens and ``n_patches`` patch tokens through their heads."""
        of_cls, of_patch = self._head("dino"), self._head("ibot" if self._separate_heads else "dino")
        forward = n_cls * of_cls[0] + n_patches * of_patch[0]
        return forward, n_cls * of_cls[1] + n_patches * of_patch[1] if backward else 0.0

    def _head(self, name: str) -> tuple[float, float]:
        if name not in self._heads:
            self._heads[name] = self._token_flops(self._cfg[name])
        return self._heads[name]

    @cached_property
    def _heads(self) -> dict[str, tuple[float, float]]:
        """Section → forward and backward of one token."""
        return {}

    def _token_flops(self, section: Any) -> tuple[float, float]:
        from dinov2.layers import DINOHead

        with warnings.catch_warnings(), _on_meta():
            warnings.simplefilter("ignore", FutureWarning)  # upstream's weight_norm
            width = self._networks[0].embed_dim
            head = DINOHead(
                in_dim=width,
                out_dim=section.head_n_prototypes,
                hidden_dim=section.head_hidden_dim,
                bottleneck_dim=section.head_bottleneck_dim,
                nlayers=section.head_nlayers,
            )
        forward, output = _flops(lambda: head(torch.empty(1, width, device="meta", requires_grad=True)).sum())
        return forward, _flops(output.backward)[0]


class _CpuTables(TorchFunctionMode):
    """Upstream reads the drop path rates of its blocks out of a `torch.linspace`, which needs numbers."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        options = dict(kwargs or {})
        if func is torch.linspace:
            options.setdefault("device", "cpu")
        return func(*args, **options)


@contextmanager
def _on_meta() -> Iterator[None]:
    with torch.device("meta"), _CpuTables():
        yield


@contextmanager
def _built_in_attention() -> Iterator[None]:
    """No xFormers meanwhile: its kernels do not run on ``meta``, and torch does not count them."""
    from dinov2.layers import attention, block

    ours = {
        attention: ("memory_efficient_attention", "unbind", "fmha"),
        block: ("scaled_index_add", "index_select_cat", "fmha"),
    }
    wanted = [(module, name, getattr(xformers_ops, name)) for module, names in ours.items() for name in names]
    wanted += [(module, "XFORMERS_AVAILABLE", True) for module in ours]
    wanted += [(block, "attn_bias_cache", {})]  # its masks are of the one or the other
    before = [(module, name, getattr(module, name)) for module, name, _ in wanted if hasattr(module, name)]
    try:
        for module, name, value in wanted:
            setattr(module, name, value)
        yield
    finally:
        for module, name, value in before:
            setattr(module, name, value)


def _flops(work: Callable[[], Any]) -> tuple[float, Any]:
    # The plain backend of attention: others' kernels differ between devices, and not all are counted.
    with _built_in_attention(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        result = work()
    return float(counter.get_total_flops()), result


def student_output(student: nn.Module, cfg: Any, crops: Crops, n_images: int, device: torch.device | str) -> Tensor:
    """A number that depends on all that the losses see of one step's crops, which are made on ``device``."""
    n_local = cfg.crops.local_crops_number * n_images
    crop_list = [torch.rand(2 * n_images, 3, crops.global_px, crops.global_px, device=device)]
    crop_list.append(torch.rand(n_local, 3, crops.local_px, crops.local_px, device=device))
    masks = torch.zeros(2 * n_images, crops.patches_per_side**2, dtype=torch.bool, device=device)
    global_, local = student(crop_list, masks=[masks, None], is_training=True)
    seen = (global_["x_norm_clstoken"], global_["x_norm_patchtokens"], local["x_norm_clstoken"])
    return torch.stack([tokens.sum() for tokens in seen]).sum()
