"""The denoising network: a U-Net without normalisation layers.

Source: Huang et al., "Neighbor2Neighbor", CVPR 2021, arXiv 2101.02824, which takes the architecture of Laine et al.,
"High-Quality Self-Supervised Deep Image Denoising", NeurIPS 2019, arXiv 1901.10277. Parameter names are those of the
published weights, so that such a file loads. Differences: ``residual``; the width of the output stage follows
``n_feature`` unless set; the initial weights (see :meth:`UNet.reset_parameters`).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SIDE_MULTIPLE_PX = 32  # five poolings by two
LEAKY_SLOPE = 0.2


class UpsampleConcat(nn.Module):
    """Double the size by a transposed convolution, then append the skip connection's channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.deconv = nn.ConvTranspose2d(channels, channels, kernel_size=2, stride=2)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """``x`` ``(B, C, H, W)``, ``skip`` ``(B, S, 2H, 2W)`` -> ``(B, C+S, 2H, 2W)``."""
        return torch.cat([self.deconv(x), skip], dim=1)


def _conv3(in_channels: int, out_channels: int) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1)


def _conv1(in_channels: int, out_channels: int) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, kernel_size=1)


class UNet(nn.Module):
    """Denoiser ``f: (B, C, H, W) -> (B, C', H, W)``, H and W multiples of 32, values on the [0, 1] scale.

    With the defaults it has 1,259,475 parameters. With ``residual`` the output is ``x + net(x)`` (not in the paper):
    the network starts as the identity and learns in far fewer steps.

    Args:
        in_channels: C.
        out_channels: C'; must equal C with ``residual``.
        n_feature: channels of the encoder; the decoder has twice as many.
        residual: add the input to the output.
        n_output_feature: channels of the output stage; default ``2 * n_feature``, 96 in the paper's network.
        generator: source of the initial weights; default: torch's global one.

    Attributes:
        side_multiple_px: sides must be multiples of this.

    Raises:
        ValueError: ``residual`` with different numbers of channels.
    """

    side_multiple_px = SIDE_MULTIPLE_PX

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 3,
        n_feature: int = 48,
        residual: bool = False,
        *,
        n_output_feature: int | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if residual and in_channels != out_channels:
            raise ValueError(f"residual needs as many channels out as in, got {in_channels} in, {out_channels} out")
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.n_feature = n_feature
        self.residual = residual
        self.n_output_feature = 2 * n_feature if n_output_feature is None else n_output_feature
        self._build_encoder()
        self._build_decoder()
        self.reset_parameters(generator)

    def _build_encoder(self) -> None:
        n = self.n_feature
        self.enc_conv0 = _conv3(self.in_channels, n)
        self.enc_conv1 = _conv3(n, n)
        self.enc_conv2 = _conv3(n, n)
        self.enc_conv3 = _conv3(n, n)
        self.enc_conv4 = _conv3(n, n)
        self.enc_conv5 = _conv3(n, n)
        self.enc_conv6 = _conv3(n, n)

    def _build_decoder(self) -> None:
        n, out = self.n_feature, self.n_output_feature
        self.up5 = UpsampleConcat(n)
        self.dec_conv5a = _conv3(2 * n, 2 * n)
        self.dec_conv5b = _conv3(2 * n, 2 * n)
        self.up4 = UpsampleConcat(2 * n)
        self.dec_conv4a = _conv3(3 * n, 2 * n)
        self.dec_conv4b = _conv3(2 * n, 2 * n)
        self.up3 = UpsampleConcat(2 * n)
        self.dec_conv3a = _conv3(3 * n, 2 * n)
        self.dec_conv3b = _conv3(2 * n, 2 * n)
        self.up2 = UpsampleConcat(2 * n)
        self.dec_conv2a = _conv3(3 * n, 2 * n)
        self.dec_conv2b = _conv3(2 * n, 2 * n)
        self.up1 = UpsampleConcat(2 * n)
        self.dec_conv1a = _conv3(2 * n + self.in_channels, out)
        self.dec_conv1b = _conv3(out, out)
        self.nin_a = _conv1(out, out)
        self.nin_b = _conv1(out, out)
        self.nin_c = _conv1(out, self.out_channels)

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw new weights: Kaiming normal for the leaky slope, zero biases; with ``residual`` a zero last layer."""
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
                nn.init.kaiming_normal_(module.weight, a=LEAKY_SLOPE, generator=generator)
                if module.bias is not None:
                    module.bias.zero_()
        if self.residual:
            self.nin_c.weight.zero_()

    def forward(self, x: Tensor) -> Tensor:
        """Denoise ``x`` ``(B, C, H, W)``.

        Raises:
            ValueError: a side is not a multiple of 32.
        """
        if x.shape[-1] % SIDE_MULTIPLE_PX or x.shape[-2] % SIDE_MULTIPLE_PX:
            raise ValueError(f"sides must be multiples of {SIDE_MULTIPLE_PX} px, got {tuple(x.shape)}: pad the image")
        output = self._decode(*self._encode(x))
        return x + output if self.residual else output

    def _encode(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The deepest features ``(B, n, H/32, W/32)`` and the skips, deepest first; the last skip is the input."""
        skips = [x]
        x = _act(self.enc_conv0(x))
        for conv in (self.enc_conv1, self.enc_conv2, self.enc_conv3, self.enc_conv4):
            x = F.max_pool2d(_act(conv(x)), 2)
            skips.append(x)
        x = F.max_pool2d(_act(self.enc_conv5(x)), 2)
        return _act(self.enc_conv6(x)), skips[::-1]

    def _decode(self, x: Tensor, skips: list[Tensor]) -> Tensor:
        levels = (
            (self.up5, self.dec_conv5a, self.dec_conv5b),
            (self.up4, self.dec_conv4a, self.dec_conv4b),
            (self.up3, self.dec_conv3a, self.dec_conv3b),
            (self.up2, self.dec_conv2a, self.dec_conv2b),
            (self.up1, self.dec_conv1a, self.dec_conv1b),
        )
        for (up, conv_a, conv_b), skip in zip(levels, skips, strict=True):
            x = _act(conv_b(_act(conv_a(up(x, skip)))))
        output: Tensor = self.nin_c(_act(self.nin_b(_act(self.nin_a(x)))))
        return output


def _act(x: Tensor) -> Tensor:
    return F.leaky_relu(x, LEAKY_SLOPE, inplace=True)
