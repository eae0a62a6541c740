"""Run by test_joint_batch.py: two steps of training, by each of two ranks or by one rank with both ranks' batches.

Usage: joint_batch.py DATASET OUTPUT BATCH_SIZE [FOLDER WITH THE RANKS' DUMPS]

Each rank leaves ``rank<r>.pth`` in OUTPUT: its batches, losses, gradient norms, centers, and, whole, the student's and
the teacher's weights.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from dinov2.train.ssl_meta_arch import SSLMetaArch
from dinov2.utils.config import setup
from omegaconf import OmegaConf
from real_batches import loader
from torch import Tensor
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

N_PATCHES, N_MASKED = 16, 5
HEAD = {"head_n_prototypes": 16, "head_hidden_dim": 24, "head_bottleneck_dim": 8}
CONFIG: dict[str, Any] = {
    "train": {"OFFICIAL_EPOCH_LENGTH": 1, "num_workers": 0},
    "student": {"arch": "vit_tiny", "patch_size": 16, "drop_path_rate": 0.0, "layerscale": 1.0, "block_chunks": 2},
    # KoLeo looks for neighbours within a rank, so it depends on the ranks.
    "dino": {**HEAD, "koleo_loss_weight": 0.0},
    "ibot": HEAD,
    "optim": {"epochs": 2, "warmup_epochs": 0},
    "crops": {"global_crops_size": 64, "local_crops_size": 32, "local_crops_number": 2},
    "curriculum": {
        "stages": [
            {"name": "denoised", "epochs": 1, "view": "denoised"},
            {"name": "noisy", "epochs": 1, "view": "noisy", "anchor": {"weight": 1.6}},
        ]
    },
}


def equally_many(n_masked: int) -> Any:
    """`N_MASKED` patches at random in each masked crop: upstream's iBOT center is the mean of the ranks' means, which
    is the joint batch's mean only when all ranks have masked equally many patches.
    """
    mask = np.zeros(N_PATCHES, dtype=bool)
    if n_masked > 0:
        mask[np.random.default_rng(torch.initial_seed() + n_masked).permutation(N_PATCHES)[:N_MASKED]] = True
    return mask.reshape(4, 4)


def join(batches: list[dict[str, Any]]) -> dict[str, Any]:
    """One batch of several, crop-major as each of them; what follows from the masks is computed anew."""
    joint = dict(batches[0])
    n_images = batches[0]["collated_global_crops"].shape[0] // 2
    for key in (key for key in joint if key.startswith("collated_")):
        joint[key] = torch.cat([batch[key].unflatten(0, (-1, n_images)) for batch in batches], dim=1).flatten(0, 1)
    masks = joint["collated_masks"]
    joint["mask_indices_list"] = masks.flatten().nonzero().flatten()
    joint["masks_weight"] = (1 / masks.sum(-1).clamp(min=1)).unsqueeze(-1).expand_as(masks)[masks]
    joint["n_masked_patches"] = masks.sum().view(1)
    joint["upperbound"] = sum(batch["upperbound"] for batch in batches)
    return joint


def centers(model: Any) -> dict[str, Tensor]:
    found = {}
    for owner_name, owner in (("own", model), ("anchor", model.frozen_teacher)):
        for name in ("dino_loss", "ibot_patch_loss"):
            loss = getattr(owner, name)
            loss.apply_center_update()
            found[f"{owner_name}.{name}"] = loss.center.clone()
    return found


def whole(network: torch.nn.Module) -> dict[str, Tensor]:
    state = get_model_state_dict(network, options=StateDictOptions(full_state_dict=True))
    return {name: value.clone() for name, value in state.items()}


def unequal_rows(model: Any) -> Tensor:
    """How the iBOT center moves when rank r has 2 + 3 r patches, all of whose logits are r + 1."""
    loss, rank = model.ibot_patch_loss, dist.get_rank()
    before = loss.center.clone()
    loss.update_center(torch.full((1, 2 + 3 * rank, before.shape[-1]), rank + 1.0))
    loss.apply_center_update()
    return loss.center - loss.center_momentum * before


def train(model: Any, batches: list[dict[str, Any]]) -> dict[str, Any]:
    """Both steps as in upstream's loop, at a constant learning rate."""
    # Some gradients (of the keys' biases) are 0 but for rounding, and by Adam's division a step of full length.
    optimizer = torch.optim.AdamW(model.get_params_groups(), lr=1e-3, eps=1e-4)
    steps = []
    for images in batches:
        optimizer.zero_grad(set_to_none=True)
        losses = model.forward_backward(dict(images), teacher_temp=0.05)
        norms = [network.clip_grad_norm_(3.0) for network in model.student.values()]
        optimizer.step()
        model.update_teacher(0.9)
        for value in losses.values():
            dist.all_reduce(value)
        means = {name: float(value) / dist.get_world_size() for name, value in losses.items()}
        steps.append({"losses": means, "norms": [float(norm) for norm in norms], "centers": centers(model)})
    return {"steps": steps, "student": whole(model.student), "teacher": whole(model.teacher)}


def main() -> None:
    dataset, output, batch_size, *dumps = sys.argv[1:]
    content = OmegaConf.merge(CONFIG, {"train": {"batch_size_per_gpu": int(batch_size)}})
    OmegaConf.save(content, f"{output}/config-in.yaml")
    cfg = setup(argparse.Namespace(config_file=f"{output}/config-in.yaml", output_dir=output, opts=[]))
    model: Any = SSLMetaArch(cfg)
    model.prepare_for_distributed_training()
    model.train()
    initial = whole(model.student)
    found = loader(cfg, dataset, mask_generator=equally_many)
    draws = [tuple(draw) for draw in itertools.islice(found.sampler, 2 * int(batch_size))]
    batches = list(itertools.islice(found, 2))
    if dumps:
        ranks = [torch.load(path, weights_only=True) for path in sorted(Path(dumps[0]).glob("rank*.pth"))]
        batches = [join([rank["batches"][step] for rank in ranks]) for step in range(2)]
    result = train(model, batches) | {"initial": initial, "draws": draws, "batches": batches}
    torch.save(result | {"unequal": unequal_rows(model)}, f"{output}/rank{dist.get_rank()}.pth")


main()
