"""How much training the denoiser needs: PSNR on the Kodak photographs over optimizer steps, for one run.

Trains the published network (48 features) on a folder of noisy photographs and measures the mean of the weights (see
`--ema`) at a growing number of steps, on noise as the paper tests it (not clipped, not rounded) and on 8-bit noisy
images. The paper's figure for gauss25, 32.08 dB, is of the first kind. Points before the last one belong to a run whose
learning rate has not fallen to its end yet: a run that ends there would do a little better.

Usage: python benchmarks/denoise_budget.py NOISY TEST OUT.json [--sigma 25] [--steps 5000] [...]
NOISY is a folder made by `dinov2-noise add-noise`, TEST one of clean photographs. An interrupted run continues from
OUT.pth. Runs on a GPU when there is one. docs/figures/denoiser_budget.py draws OUT.json.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dinov2_noise.decoding import load_rgb
from dinov2_noise.denoise.device import choose_device
from dinov2_noise.files import atomic_path, list_images, write_json
from neighbor2neighbor import Trainer, TrainingConfig, denoise_image, to_uint8

MARKS = (100, 200, 350, 500, 700, 1000, 1500, 2000, 3000)  # then every 1000 steps, or a tenth of the run
TEST_SEED = 0


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("noisy", type=Path, help="folder of noisy training photographs")
    parser.add_argument("test", type=Path, help="folder of clean test photographs")
    parser.add_argument("output", type=Path, help="JSON file")
    parser.add_argument("--sigma", type=float, default=25.0, help="of the Gaussian noise, on the 8-bit scale")
    parser.add_argument("--steps", type=int, default=5000)
    parser.add_argument("--n-feature", type=int, default=48)
    parser.add_argument("--crop", type=int, default=128, help="px")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--ema", type=float, default=0.999)
    parser.add_argument("--plain", action="store_true", help="the network as published, instead of a residual one")
    parser.add_argument("--test-crop", type=int, help="measure on centre squares of so many px")
    parser.add_argument("--device", default="auto")
    return parser.parse_args()


def photograph(path: Path) -> Tensor:
    """uint8 (3, H, W)."""
    return torch.from_numpy(np.array(load_rgb(path))).permute(2, 0, 1).contiguous()


class Test:
    """Clean photographs and their noisy versions of both kinds, on the [0, 1] scale, (3, H, W) each."""

    def __init__(self, folder: Path, sigma_255: float, crop_px: int | None) -> None:
        self.clean = [_centre(photograph(folder / name), crop_px) for name in list_images(folder, what="test folder")]
        rng = np.random.default_rng(TEST_SEED)
        self.noisy: dict[str, list[Tensor]] = {"unclipped": [], "8 bit": []}
        for clean in self.clean:
            noisy = clean.double() / 255 + torch.from_numpy(rng.normal(0, sigma_255 / 255, tuple(clean.shape)))
            self.noisy["unclipped"].append(noisy.float())
            self.noisy["8 bit"].append((noisy.clamp(0, 1) * 255).to(torch.uint8).float() / 255)

    def psnr_db(self, kind: str, model: nn.Module, device: torch.device) -> float:
        """Mean over the images; the output is rounded to 8 bits."""
        scores = []
        for clean, noisy in zip(self.clean, self.noisy[kind], strict=True):
            difference = to_uint8(denoise_image(model, noisy.to(device))).cpu().double() - clean
            scores.append(10 * np.log10(255**2 / float(difference.square().mean())))
        return float(np.mean(scores))


def _centre(image: Tensor, side_px: int | None) -> Tensor:
    if side_px is None:
        return image
    top, left = (max(0, (side - side_px) // 2) for side in image.shape[-2:])
    return image[:, top : top + side_px, left : left + side_px]


class Run:
    """The training run, its points and its files."""

    def __init__(self, chosen: argparse.Namespace) -> None:
        self.chosen = chosen
        self.snapshot = chosen.output.with_suffix(".pth")
        self.device = choose_device(chosen.device)
        images = [photograph(chosen.noisy / name) for name in list_images(chosen.noisy, what="noisy folder")]
        config = TrainingConfig(
            steps=chosen.steps,
            batch_size=chosen.batch,
            crop_px=chosen.crop,
            learning_rate=chosen.lr,
            n_feature=chosen.n_feature,
            residual=not chosen.plain,
            ema=chosen.ema,
        )
        self.trainer = Trainer(images, config, device=self.device)
        self.test = Test(chosen.test, chosen.sigma, chosen.test_crop)
        self.points: list[dict[str, Any]] = []
        self.seconds = 0.0
        if self.snapshot.is_file():
            state = torch.load(self.snapshot, map_location=self.device, weights_only=True)
            self.trainer.load_state_dict(state["trainer"])
            self.seconds = state["seconds"]
            self.points = json.loads(chosen.output.read_text())["points"]

    def execute(self) -> None:
        steps, clock = self.chosen.steps, time.perf_counter if self.device.type == "cuda" else time.process_time
        marks = {*MARKS, *range(0, steps, max(1000, steps // 10)), steps}
        started = clock()
        for record in self.trainer.steps():
            if record.step in marks:
                self.seconds += clock() - started
                self._measure(record.step)
                started = clock()

    def _measure(self, step: int) -> None:
        model = self.trainer.denoiser()
        scores = {kind: self.test.psnr_db(kind, model, self.device) for kind in self.test.noisy}
        self.points.append({"step": step, "training_seconds": round(self.seconds, 1), "psnr_db": scores})
        print(self.points[-1], flush=True)
        self._save()

    def _save(self) -> None:
        noisy = {kind: self.test.psnr_db(kind, nn.Identity(), torch.device("cpu")) for kind in self.test.noisy}
        settings = {name: str(value) for name, value in vars(self.chosen).items()}
        device = torch.cuda.get_device_name() if self.device.type == "cuda" else "cpu"
        machine = {"device": device, "threads": torch.get_num_threads(), "torch": torch.__version__}
        record = {"settings": settings, **machine, "noisy_psnr_db": noisy, "points": self.points}
        with atomic_path(self.snapshot) as temporary:
            torch.save({"trainer": self.trainer.state_dict(), "seconds": self.seconds}, temporary)
        write_json(self.chosen.output, record)


if __name__ == "__main__":
    Run(options()).execute()
