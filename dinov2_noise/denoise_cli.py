"""``dinov2-noise denoise …``: train a self-supervised denoiser, and apply it or any other."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

denoise_app = typer.Typer(no_args_is_help=True, help="Train a self-supervised denoiser on noisy images, and apply it.")


@denoise_app.command("train")
def denoise_train(
    noisy: Annotated[Path, typer.Argument(help="Folder of noisy images; no clean image is read.")],
    output: Annotated[Path, typer.Argument(help="New folder for weights, config and loss log.")],
    epochs: Annotated[int, typer.Option(help="Passes over the images.")] = 100,
    steps: Annotated[int | None, typer.Option(help="Optimizer steps, instead of --epochs.")] = None,
    batch_size: Annotated[int, typer.Option(help="Crops per step.")] = 4,
    crop: Annotated[int, typer.Option(help="Side of the random crops in pixels, a multiple of 64.")] = 256,
    lr: Annotated[float, typer.Option(help="Initial learning rate.")] = 3e-4,
    n_feature: Annotated[int, typer.Option(help="Width of the network.")] = 48,
    residual: Annotated[
        bool, typer.Option("--residual", help="Predict the noise instead of the image: starts faster.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Seed of weights and crops.")] = 0,
    images_per_class: Annotated[
        int | None, typer.Option(help="Train on at most so many images of each folder.")
    ] = None,
    min_side: Annotated[int | None, typer.Option(help="Leave out images with a side below, in pixels.")] = None,
    max_side: Annotated[int | None, typer.Option(help="Leave out images with a side above, in pixels.")] = None,
) -> None:
    """Train Neighbor2Neighbor on noisy images alone. The defaults are the published ones."""
    from dinov2_noise.denoise import train_denoiser

    weights = train_denoiser(
        noisy,
        output,
        images_per_class=images_per_class,
        side_range_px=None if min_side is max_side is None else (min_side or 0, max_side or 1_000_000),
        epochs=epochs,
        steps=steps,
        batch_size=batch_size,
        crop_px=crop,
        learning_rate=lr,
        n_feature=n_feature,
        residual=residual,
        seed=seed,
    )
    print(f"weights: {weights}")


@denoise_app.command("apply")
def denoise_apply(
    noisy: Annotated[Path, typer.Argument(help="Folder of noisy images.")],
    destination: Annotated[Path, typer.Argument(help="New folder for the denoised images (PNG).")],
    weights: Annotated[Path, typer.Option(help="denoiser.pth of `denoise train`, or published weights.")],
    batch_size: Annotated[int, typer.Option(help="Images per forward pass.")] = 16,
) -> None:
    """Denoise every image of a folder."""
    from dinov2_noise.denoise import apply_denoiser

    count = apply_denoiser(noisy, destination, weights=weights, batch_size=batch_size)
    print(f"{destination}: {count} images written")
