"""The frozen teacher of NCT: the EMA teacher as it stood at the switch, or one from a file, asked about the denoised
twins of the global crops.

"Ditch the Denoiser", arXiv 2505.12191, section on denoised-teacher regularization. As in the published code its
tokens pass through the *current* EMA teacher's heads (``heads: ema``) or its own (``heads: frozen``), and it has
centers of its own.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict

from dinov2_noise.curriculum.stages import Stage
from dinov2_noise.errors import CheckpointError
from dinov2_noise.upstream.runtime import Run
from dinov2_noise.upstream.train.teacher_file import TeacherFile, read_teacher


class FrozenTeacher(nn.Module):
    """A copy of the teacher that is filled at the switch, saved with the model, and never trained.

    Args:
        architecture: upstream's `SSLMetaArch`, before FSDP wraps it.
        run: tells whether own heads are needed, and which files are.

    Raises:
        CheckpointError: a teacher's file does not fit; found here, not epochs later at the switch.
    """

    frozen: Tensor
    architecture: Any
    dino_loss: Any
    ibot_patch_loss: Any

    def __init__(self, architecture: Any, run: Run) -> None:
        super().__init__()
        own_heads = _own_heads(run.curriculum.stages)
        self.networks = nn.ModuleDict({"backbone": copy.deepcopy(architecture.teacher["backbone"])})
        if own_heads:
            self.networks.update(_copy_heads(architecture))
        self.networks.requires_grad_(False)
        self._files = {stage.index: self._read(stage, architecture, run) for stage in run.stages_with_teacher_files}
        self.dino_loss = copy.deepcopy(architecture.dino_loss)
        self.ibot_patch_loss = copy.deepcopy(architecture.ibot_patch_loss) if architecture.do_ibot else None
        self.register_buffer("frozen", torch.zeros((), dtype=torch.uint8))
        # Not a submodule: the architecture owns us.
        object.__setattr__(self, "architecture", architecture)

    def _read(self, stage: Stage, architecture: Any, run: Run) -> TeacherFile:
        assert stage.anchor is not None
        assert stage.anchor.teacher is not None
        needs_heads = _own_heads(run.curriculum.anchored_to(stage))
        networks = {name: net for name, net in self.networks.items() if needs_heads or name == "backbone"}
        return read_teacher(stage.anchor.teacher, networks, architecture)

    @property
    def is_frozen(self) -> bool:
        """Whether the switch has been passed."""
        return bool(self.frozen.item())

    def wrap(self) -> None:
        """Shard as upstream shards the teacher."""
        from dinov2.fsdp import get_fsdp_wrapper
        from dinov2.models.vision_transformer import BlockChunk

        for name, network in self.networks.items():
            model_cfg = self.architecture.cfg.compute_precision.teacher[name]
            self.networks[name] = get_fsdp_wrapper(model_cfg, modules_to_wrap={BlockChunk})(network)

    @torch.no_grad()
    def freeze(self, stage: Stage) -> None:
        """Take the EMA teacher's weights (shard by shard) and centers as they are now, or those of the stage's file.

        Centers that the file lacks, or has for another number of prototypes, are the run's own so far.
        """
        assert stage.anchor is not None
        file = self._files.pop(stage.index, None)
        if file is None and stage.anchor.teacher is not None:
            raise CheckpointError(
                f"stage {stage.name!r} begins, but its teacher {stage.anchor.teacher!r} has not been read: start the "
                "same command again"
            )
        if file is None:
            for name, network in self.networks.items():
                sources = self.architecture.teacher[name].parameters()
                for mine, theirs in zip(network.parameters(), sources, strict=True):
                    mine.copy_(theirs)
        else:
            whole = StateDictOptions(full_state_dict=True)
            for name, state in file.networks.items():
                set_model_state_dict(self.networks[name], dict(state), options=whole)
        self._take_centers({} if file is None else file.centers)
        self.frozen.fill_(1)

    def _take_centers(self, given: dict[str, Tensor]) -> None:
        for name in ("dino_loss", "ibot_patch_loss"):
            mine: Any = getattr(self, name)
            theirs: Any = getattr(self.architecture, name, None)
            if mine is None or theirs is None:
                continue
            for loss in (mine, theirs):
                loss.apply_center_update()  # an update of the last step may still be under way
            center = given.get(name, theirs.center)
            mine.center.copy_(center if center.shape == mine.center.shape else theirs.center)

    @torch.no_grad()
    def targets(self, images: dict[str, Any], teacher_temp: float, *, heads: str) -> tuple[Tensor, Tensor | None]:
        """Target probabilities for a batch; ``heads`` is ``ema`` or ``frozen``.

        Returns:
            (2B, K) for the student's global crops, each from the *other* crop's twin, and (M, K) for its masked
            patches, or None without iBOT.
        """
        from dinov2.fsdp import reshard_fsdp_model

        crops = images["collated_global_crops_anchor"].cuda(non_blocking=True)
        tokens = self.networks["backbone"](crops, is_training=True)
        cls_first, cls_second = tokens["x_norm_clstoken"].chunk(2)
        cls = torch.cat((cls_second, cls_first))
        masked = None
        if self.ibot_patch_loss is not None:
            indices = images["mask_indices_list"].cuda(non_blocking=True)
            masked = tokens["x_norm_patchtokens"].flatten(0, 1).index_select(0, indices)
        cls, masked = self._through_heads(
            cls, masked, self.networks if heads == "frozen" else self.architecture.teacher
        )
        reshard_fsdp_model(self.networks)
        return self._probabilities(cls, masked, images, teacher_temp)

    def _through_heads(self, cls: Tensor, masked: Tensor | None, heads: Any) -> tuple[Tensor, Tensor | None]:
        if masked is None:
            return heads["dino_head"](cls), None
        if self.architecture.ibot_separate_head:
            return heads["dino_head"](cls), heads["ibot_head"](masked)
        both = heads["dino_head"](torch.cat((cls, masked)))
        return both[: len(cls)], both[len(cls) :]

    def _probabilities(
        self, cls: Tensor, masked: Tensor | None, images: dict[str, Any], teacher_temp: float
    ) -> tuple[Tensor, Tensor | None]:
        if self.architecture.cfg.train.centering == "sinkhorn_knopp":
            cls_probabilities = self.dino_loss.sinkhorn_knopp_teacher(cls, teacher_temp=teacher_temp)
            if masked is None:
                return cls_probabilities, None
            count = images["n_masked_patches"].clone().cuda(non_blocking=True)  # summed over ranks in place
            return cls_probabilities, self.ibot_patch_loss.sinkhorn_knopp_teacher(
                masked, teacher_temp=teacher_temp, n_masked_patches_tensor=count
            )
        cls_probabilities = self.dino_loss.softmax_center_teacher(cls, teacher_temp=teacher_temp)
        self.dino_loss.update_center(cls)
        if masked is None:
            return cls_probabilities, None
        loss = self.ibot_patch_loss
        # Upstream hands patches over as one batch entry, (1, M, K), and averages over M.
        masked_probabilities = loss.softmax_center_teacher(masked.unsqueeze(0), teacher_temp=teacher_temp).squeeze(0)
        loss.update_center(masked.unsqueeze(0))
        return cls_probabilities, masked_probabilities


def _own_heads(stages: Sequence[Stage]) -> bool:
    """Whether any of the stages' anchors reads the frozen teacher through heads of its own."""
    return any(stage.anchor is not None and stage.anchor.heads == "frozen" for stage in stages)


def _copy_heads(architecture: Any) -> dict[str, nn.Module]:
    """Heads of the same shape as the teacher's; weight-normed layers cannot be deep-copied, so they are built anew."""
    cfg, heads = architecture.cfg, {}
    with torch.random.fork_rng(devices=[]):
        for name, section in (("dino_head", cfg.dino), ("ibot_head", cfg.ibot)):
            if name in architecture.teacher:
                heads[name] = type(architecture.teacher[name])(
                    in_dim=architecture.embed_dim,
                    out_dim=section.head_n_prototypes,
                    hidden_dim=section.head_hidden_dim,
                    bottleneck_dim=section.head_bottleneck_dim,
                    nlayers=section.head_nlayers,
                )
    return heads
