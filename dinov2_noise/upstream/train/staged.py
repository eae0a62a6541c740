"""`SSLMetaArch` follows the curriculum: restarts, freezes a teacher at the switch, adds the anchor to the loss."""

from __future__ import annotations

import logging
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from dinov2_noise.anchor import AnchorTerms, anchor_terms
from dinov2_noise.curriculum.stages import Stage
from dinov2_noise.errors import CheckpointError, PluginError
from dinov2_noise.upstream import rng, runtime
from dinov2_noise.upstream.train.frozen_teacher import FrozenTeacher

logger = logging.getLogger("dinov2")


class _Targets(NamedTuple):
    """What the frozen teacher says of one batch: probabilities (2B, K) in swapped order, and (M, K) or None."""

    cls: Tensor
    masked: Tensor | None


# The denoised twins of the global crops, (2B, C, H, W), in a batch.
_TWINS = "collated_global_crops_anchor"


def _displayed(terms: AnchorTerms) -> dict[str, Tensor]:
    """Terms as upstream shows its own: before their weight, iBOT halved."""
    return {
        "anchor_dino_local_crops_loss": terms.dino_local.detach(),
        "anchor_dino_global_crops_loss": terms.dino_global.detach(),
        "anchor_ibot_loss": terms.ibot.detach() / 2,
    }


class Staged:
    """Follows the curriculum: restarts, chooses what the teachers see, freezes one at the switch, adds the anchor."""

    cfg: Any
    student: nn.ModuleDict
    teacher: nn.ModuleDict
    fp16_scaler: Any

    def __init__(self, cfg: Any) -> None:
        super().__init__(cfg)  # type: ignore[call-arg]
        self._run = runtime.current()
        self._stage: Stage | None = None
        self._teacher_crops: Tensor | None = None
        self._targets: _Targets | None = None
        self._terms: AnchorTerms | None = None
        self._student_logits: dict[str, Tensor] = {}
        if self._run is None and cfg.get("curriculum") is not None:
            raise PluginError(
                "the config has a curriculum, but dinov2_noise did not see it: build the config with "
                "dinov2.utils.config.setup"
            )
        if self._run is not None and any(stage.anchor is not None for stage in self._run.curriculum.stages):
            self.frozen_teacher = FrozenTeacher(self, self._run)
        self._fresh_scaler_state = self.fp16_scaler.state_dict() if self.fp16_scaler is not None else {}

    @property
    def _anchored(self) -> FrozenTeacher | None:
        found = getattr(self, "frozen_teacher", None)
        assert found is None or isinstance(found, FrozenTeacher)
        return found

    def prepare_for_distributed_training(self) -> None:
        """Upstream's wrapping, the same for the frozen teacher, and hooks: one keeps the student's logits, one shows
        the EMA teacher other crops.
        """
        super().prepare_for_distributed_training()  # type: ignore[misc]
        if self._run is not None and any(stage.teacher_view == "denoised" for stage in self._run.curriculum.stages):
            self.teacher["backbone"].register_forward_pre_hook(self._show_teacher_crops, with_kwargs=True)
        if self._anchored is None:
            return
        self._anchored.wrap()
        for name in ("dino_head", "ibot_head"):
            if name in self.student:
                self.student[name].register_forward_hook(self._keep_logits(name))

    def _show_teacher_crops(
        self, _module: nn.Module, inputs: tuple[Any, ...], options: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return inputs if self._teacher_crops is None else (self._teacher_crops, *inputs[1:]), options

    def _keep_logits(self, name: str) -> Any:
        def hook(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
            if self._targets is not None:
                self._student_logits[name] = output

        return hook

    def train(self) -> None:
        """As upstream's, which takes no mode; the frozen teacher stays in evaluation mode."""
        super().train()  # type: ignore[misc]
        if self._anchored is not None:
            self._anchored.eval()

    def forward_backward(self, images: dict[str, Any], teacher_temp: float) -> dict[str, Tensor]:
        """Upstream's step; in an anchored stage with the three anchor terms in the loss and, without their weight, in
        the result.
        """
        if self._run is None:
            return super().forward_backward(images, teacher_temp)  # type: ignore[misc, no-any-return]
        rng.restore_pending(self._run)
        stage = self._enter_stage(images)
        if stage.needs_twin:
            images = images | {_TWINS: images[_TWINS].cuda(non_blocking=True)}
        self._teacher_crops = images[_TWINS] if stage.teacher_view == "denoised" else None
        self._targets = None
        if stage.anchor is not None:
            assert self._anchored is not None
            self._targets = _Targets(*self._anchored.targets(images, teacher_temp, heads=stage.anchor.heads))
        self._images = images
        losses: dict[str, Tensor] = super().forward_backward(images, teacher_temp)  # type: ignore[misc]
        if self._terms is not None:
            losses |= _displayed(self._terms)
        self._targets = self._terms = None
        self._student_logits.clear()
        return losses

    def backprop_loss(self, loss: Tensor) -> None:
        if self._targets is not None:
            assert self._stage is not None
            assert self._stage.anchor is not None
            anchor = self._stage.anchor
            self._terms = self._anchor_terms(self._targets)
            weight = self._stage.anchor_weight_at(self._iteration(self._images))
            loss = loss + weight * self._terms.weighted(anchor.dino_local, anchor.dino_global, anchor.ibot)
        super().backprop_loss(loss)  # type: ignore[misc]

    def _anchor_terms(self, targets: _Targets) -> AnchorTerms:
        """Split the student's logits as upstream packs them: [local CLS, global CLS, masked patches]."""
        n_local, n_global = self.cfg.crops.local_crops_number, targets.cls.shape[0]
        n_images = n_global // 2
        packed = self._student_logits["dino_head"].flatten(0, -2)
        sizes = [n_local * n_images, n_global, len(packed) - n_local * n_images - n_global]
        local, global_, patches = packed.split(sizes)  # one concatenation backward, where slices fill three
        if "ibot_head" in self._student_logits:
            patches = self._student_logits["ibot_head"]
        n_masked = 0 if targets.masked is None else targets.masked.shape[0]
        return anchor_terms(
            student_local=local,
            student_global=global_,
            student_masked=None if targets.masked is None else patches[:n_masked],
            target_global=targets.cls,
            target_masked=targets.masked,
            masks_weight=self._images["masks_weight"].cuda(non_blocking=True),
            n_local_crops=n_local,
        )

    def _enter_stage(self, images: dict[str, Any]) -> Stage:
        """The batch's stage; at its first iteration do what the switch demands."""
        assert self._run is not None
        if "stage" not in images:
            raise PluginError(
                "a curriculum is configured, but the batch names no stage: the data loader is not dinov2-noise's"
            )
        stage: Stage = self._run.curriculum.stages[images["stage"]]
        if self._stage is stage:
            return stage
        previous, self._stage = self._stage, stage
        if previous is not None or self._iteration(images) == stage.first_iteration:
            self._switch(stage)
        elif stage.anchor is not None and self._anchored is not None and not self._anchored.is_frozen:
            raise CheckpointError(
                f"resumed inside stage {stage.name!r}, whose anchor needs a frozen teacher, from a checkpoint "
                "that holds none: resume from one of this run's own checkpoints"
            )
        return stage

    def _iteration(self, images: dict[str, Any]) -> int:
        world_size = torch.distributed.get_world_size()
        return int(images["number"]) // (int(self.cfg.train.batch_size_per_gpu) * world_size)

    def _switch(self, stage: Stage) -> None:
        assert self._run is not None
        logger.info("dinov2-noise: stage %r begins: view %s", stage.name, stage.view)
        before = self._run.curriculum.stages[stage.index - 1] if stage.index > 0 else None
        if self._anchored is not None and stage in self._run.curriculum.freezing_stages:
            self._anchored.freeze(stage)
        if stage.restart and before is not None:
            self._restart()

    def _restart(self) -> None:
        """Fresh optimizer state and gradient scale, in place: upstream's loop holds references to both."""
        assert self._run is not None
        if self._run.optimizer is None:
            raise PluginError(
                "a stage restarts the optimizer, but dinov2-noise has not seen it: FSDPCheckpointer was built "
                "without it"
            )
        self._run.optimizer.state.clear()
        if self._fresh_scaler_state:
            self.fp16_scaler.load_state_dict(self._fresh_scaler_state)
        logger.info("dinov2-noise: optimizer state and schedules start afresh")
