"""The backbone of a run for evaluation, the features that upstream's probes read, and the pictures it is given.

Read against upstream's `eval/setup.py`, `eval/utils.py` ``ModelWithIntermediateLayers`` and `data/transforms.py`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
from omegaconf import OmegaConf
from PIL import Image
from torch import Tensor, nn

from dinov2_noise import configs
from dinov2_noise.errors import CheckpointError
from dinov2_noise.upstream.backbone import build_backbone
from dinov2_noise.weights import load_backbone, read

logger = logging.getLogger("dinov2")

N_LAST_BLOCKS = 4
"""Blocks whose class tokens upstream's linear probe reads at most."""
CROP_PX = 224

Tokens = list[tuple[Tensor, Tensor]]
"""Of each of the last blocks, the last one at the end: patch tokens (B, N, D) and class token (B, D)."""
Geometry = Literal["upstream", "official"]


def load_backbone_for_evaluation(
    config_file: str | Path, weights: str | Path, device: str | torch.device = "cpu"
) -> nn.Module:
    """The teacher of a run, in evaluation mode: what upstream's `build_model_for_eval` returns.

    No process group is started and no file is written, unlike by upstream's `setup`.

    Args:
        config_file: the ``config.yaml`` beside the run, or a config's name.
        weights: ``teacher_checkpoint.pth``, or another layout that docs/weights.md lists.
        device: where the model is put.

    Raises:
        CheckpointError: the weights cannot be read, or belong to another architecture than the config's.
        ConfigError: there is no such config.
    """
    model = build_backbone(str(config_file))
    report = load_backbone(model, read(weights), required_percent=100)
    logger.info("dinov2-noise: %s", report.table())
    return model.eval().requires_grad_(False).to(device)


def autocast_dtype(config: str | Path, device: torch.device) -> torch.dtype | None:
    """The precision of upstream's evaluations: that of the teacher's backbone on a GPU; None (fp32) on a CPU."""
    if device.type != "cuda":
        return None
    from dinov2.configs import dinov2_default_config

    cfg: Any = OmegaConf.merge(dinov2_default_config, OmegaConf.load(configs.config_file(str(config))))
    name = cfg.compute_precision.teacher.backbone.mixed_precision.param_dtype
    return {"fp16": torch.half, "bf16": torch.bfloat16}.get(name)


class FeatureModel:
    """A backbone as upstream's linear probe uses it.

    Args:
        backbone: upstream's vision transformer.
        dtype: of autocast; None for fp32.
    """

    def __init__(self, backbone: nn.Module, dtype: torch.dtype | None = None) -> None:
        self.backbone = backbone
        self.dtype = dtype
        self.device = next(backbone.parameters()).device
        depth = int(backbone.n_blocks)  # type: ignore[arg-type]
        self.n_blocks = min(N_LAST_BLOCKS, depth)

    @property
    def width(self) -> int:
        """Numbers per token, D."""
        return int(self.backbone.embed_dim)  # type: ignore[arg-type]

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tokens:
        """Tokens after the final norm of the last four blocks, for normalised images (B, 3, H, W)."""
        with torch.autocast(self.device.type, self.dtype or torch.bfloat16, enabled=self.dtype is not None):
            blocks: Any = self.backbone.get_intermediate_layers(  # type: ignore[operator]
                images.to(self.device, non_blocking=True), self.n_blocks, return_class_token=True
            )
        return list(blocks)


def eval_transform(geometry: Geometry = "upstream") -> Callable[[Image.Image | Tensor], Tensor]:
    """From an image to what the backbone is given, (3, 224, 224), normalised.

    The image is RGB, or, of more than 8 bits, a tensor (3, H, W) in [0, 1].

    ``upstream``: shorter side to 256 (bicubic), centre crop, as upstream's probes do for every image. ``official``: the
    same, but an image whose shorter side is 224 already, such as those of ImageNet-C, is only cropped, not enlarged.
    """
    from dinov2.data.transforms import make_classification_eval_transform

    transform = make_classification_eval_transform(crop_size=CROP_PX)
    if geometry == "upstream":
        return transform  # type: ignore[no-any-return]
    return _CropOnly(transform, make_classification_eval_transform(resize_size=CROP_PX, crop_size=CROP_PX))


class _CropOnly:
    """Picks one of two transforms by the image's size; picklable, for loader workers however they start."""

    def __init__(
        self, enlarging: Callable[[Image.Image | Tensor], Tensor], cropping: Callable[[Image.Image | Tensor], Tensor]
    ) -> None:
        self._enlarging, self._cropping = enlarging, cropping

    def __call__(self, image: Image.Image | Tensor) -> Tensor:
        sides = image.shape[-2:] if isinstance(image, Tensor) else image.size
        return (self._cropping if min(sides) == CROP_PX else self._enlarging)(image)


def require_width(found: int, model: FeatureModel, what: str) -> None:
    """Check that ``what`` was made for tokens as wide as the model's.

    Raises:
        CheckpointError: it was not.
    """
    if found != model.width:
        raise CheckpointError(
            f"{what} reads tokens of {found} numbers, the backbone's have {model.width}: it was trained on another "
            "backbone; give the folder of the linear probe of these very weights"
        )
