"""Noise that is correlated over about a pixel: denoise every second (third, …) pixel by itself.

Neighbor2Neighbor needs noise that is independent between neighbouring pixels. Pixels ``stride`` apart share far less of
a correlated noise, so that each of the ``stride**2`` sub-sampled images (phases) has nearly white noise.

Source: pixel-shuffle downsampling, Zhou et al., "When AWGN-based Denoiser Meets Real Noises", AAAI 2020,
arXiv 1904.03485. Differences: the denoiser is trained on the phases too, and their results are interleaved as they are.
"""

from __future__ import annotations

from torch import Tensor, nn

from neighbor2neighbor.unet import SIDE_MULTIPLE_PX


def to_phases(images: Tensor, stride: int) -> Tensor:
    """Split images into every ``stride``-th pixel of every ``stride``-th row.

    Args:
        images: ``(B, C, H, W)``.
        stride: s; must divide H and W.

    Returns:
        ``(B*s*s, C, H/s, W/s)``; those of an image follow each other: number ``i*s + j`` begins at row i, column j.

    Raises:
        ValueError: the sides are no multiples of ``stride``.
    """
    batch, channels, height, width = images.shape
    if stride < 1 or height % stride or width % stride:
        raise ValueError(f"sides must be multiples of the stride {stride}, got {tuple(images.shape)}")
    if stride == 1:
        return images
    cells = images.reshape(batch, channels, height // stride, stride, width // stride, stride)
    return cells.permute(0, 3, 5, 1, 2, 4).reshape(-1, channels, height // stride, width // stride)


def from_phases(phases: Tensor, stride: int) -> Tensor:
    """Interleave phases again, the inverse of :func:`to_phases`.

    Args:
        phases: ``(B*s*s, C, h, w)``.
        stride: s.

    Returns:
        ``(B, C, h*s, w*s)``.

    Raises:
        ValueError: the number of phases is no multiple of ``stride**2``.
    """
    count, channels, height, width = phases.shape
    if stride < 1 or count % stride**2:
        raise ValueError(f"stride {stride} makes {stride**2} phases of an image, got {count} in all")
    if stride == 1:
        return phases
    cells = phases.reshape(-1, stride, stride, channels, height, width)
    return cells.permute(0, 3, 4, 1, 5, 2).reshape(-1, channels, height * stride, width * stride)


class Strided(nn.Module):
    """Denoise the phases of an image one by one, and interleave the results.

    Args:
        net: maps ``(B, C, h, w)`` to the same shape.
        stride: s; pixels so far apart are taken for neighbours.

    Attributes:
        side_multiple_px: sides must be multiples of this: s times what ``net`` wants (32 where it does not say).

    Raises:
        ValueError: the stride is not at least 1.
    """

    def __init__(self, net: nn.Module, stride: int) -> None:
        super().__init__()
        if stride < 1:
            raise ValueError(f"stride must be at least 1, got {stride}")
        self.net = net
        self.stride = stride
        self.side_multiple_px = stride * int(getattr(net, "side_multiple_px", SIDE_MULTIPLE_PX))

    def forward(self, x: Tensor) -> Tensor:
        """Denoise ``x`` ``(B, C, H, W)``.

        Raises:
            ValueError: a side is not a multiple of ``side_multiple_px``.
        """
        if x.shape[-1] % self.side_multiple_px or x.shape[-2] % self.side_multiple_px:
            raise ValueError(f"sides must be multiples of {self.side_multiple_px} px, got {tuple(x.shape)}")
        return from_phases(self.net(to_phases(x, self.stride)), self.stride)
