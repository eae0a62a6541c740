"""The only code that knows ``dinov2``: one file per upstream module, of the same name, attached when that module is
imported.

Read against facebookresearch/dinov2 at b8931f7 (August 2025) and the PyPI wheel ``dinov2==0.0.1.dev2``.
"""

from __future__ import annotations

_ATTACHED_TO = (
    "dinov2.data.augmentations",
    "dinov2.data.collate",
    "dinov2.data.loaders",
    "dinov2.distributed",
    "dinov2.eval.utils",
    "dinov2.fsdp",
    "dinov2.layers.attention",
    "dinov2.layers.block",
    "dinov2.layers.swiglu_ffn",
    "dinov2.logging.helpers",
    "dinov2.models.vision_transformer",
    "dinov2.run.submit",
    "dinov2.train.ssl_meta_arch",
    "dinov2.utils.config",
    "dinov2.utils.utils",
)

SEAMS = {name: name.replace("dinov2.", f"{__name__}.", 1) for name in _ATTACHED_TO}
SEAMS["torchvision"] = f"{__name__}.torchvision_ops"
