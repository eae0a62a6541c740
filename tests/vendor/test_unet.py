"""The network: size, names, receptive structure, initial weights."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from neighbor2neighbor import UNet

# name -> (out, in, kernel) of the published weights; transposed convolutions are stored (in, out, kernel)
PUBLISHED = {
    "enc_conv0": (48, 3, 3),
    **{f"enc_conv{i}": (48, 48, 3) for i in range(1, 7)},
    "up5.deconv": (48, 48, 2),
    "dec_conv5a": (96, 96, 3),
    "dec_conv5b": (96, 96, 3),
    **{f"up{i}.deconv": (96, 96, 2) for i in (4, 3, 2, 1)},
    **{f"dec_conv{i}a": (96, 144, 3) for i in (4, 3, 2)},
    **{f"dec_conv{i}b": (96, 96, 3) for i in (4, 3, 2)},
    "dec_conv1a": (96, 99, 3),
    "dec_conv1b": (96, 96, 3),
    "nin_a": (96, 96, 1),
    "nin_b": (96, 96, 1),
    "nin_c": (3, 96, 1),
}


def test_parameters_are_exactly_the_published_ones() -> None:
    expected = {}
    for name, (out, channels, kernel) in PUBLISHED.items():
        expected[f"{name}.weight"] = (out, channels, kernel, kernel)
        expected[f"{name}.bias"] = (out,)
    model = UNet()
    assert {name: tuple(value.shape) for name, value in model.state_dict().items()} == expected
    assert sum(parameter.numel() for parameter in model.parameters()) == 1_259_475


def functional_unet(w: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """The same network, written layer by layer from its description."""

    def conv(name: str, x: torch.Tensor) -> torch.Tensor:
        y = F.conv2d(x, w[f"{name}.weight"], w[f"{name}.bias"], padding=w[f"{name}.weight"].shape[-1] // 2)
        return torch.where(y > 0, y, 0.2 * y)

    def up(level: int, x: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        y = F.conv_transpose2d(x, w[f"up{level}.deconv.weight"], w[f"up{level}.deconv.bias"], stride=2)
        y = torch.cat((y, skip), dim=1)
        return conv(f"dec_conv{level}b", conv(f"dec_conv{level}a", y))

    p1 = F.max_pool2d(conv("enc_conv1", conv("enc_conv0", x)), 2)
    p2 = F.max_pool2d(conv("enc_conv2", p1), 2)
    p3 = F.max_pool2d(conv("enc_conv3", p2), 2)
    p4 = F.max_pool2d(conv("enc_conv4", p3), 2)
    bottom = conv("enc_conv6", F.max_pool2d(conv("enc_conv5", p4), 2))
    y = up(1, up(2, up(3, up(4, up(5, bottom, p4), p3), p2), p1), x)
    return F.conv2d(conv("nin_b", conv("nin_a", y)), w["nin_c.weight"], w["nin_c.bias"])


def randomized(model: UNet, seed: int) -> UNet:
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * 0.1
    return model


@pytest.mark.parametrize("residual", [False, True])
def test_output_equals_the_layers_one_by_one(residual: bool) -> None:
    model = randomized(UNet(n_feature=6, residual=residual), seed=0)
    x = torch.rand(2, 3, 64, 32, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    expected = functional_unet(model.state_dict(), x) + (x if residual else 0)
    torch.testing.assert_close(model(x), expected, rtol=1e-10, atol=1e-12)


def test_residual_network_starts_as_the_identity_and_can_learn() -> None:
    model = UNet(n_feature=4, residual=True, generator=torch.Generator().manual_seed(0))
    x = torch.rand(1, 3, 32, 32)
    assert torch.equal(model(x), x)
    model(x).square().mean().backward()
    assert model.nin_c.weight.grad is not None
    assert float(model.nin_c.weight.grad.abs().sum()) > 0


def test_initial_weights_keep_the_signal_and_depend_on_the_generator_alone() -> None:
    state = torch.random.get_rng_state()
    models = [UNet(n_feature=16, generator=torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)]
    torch.random.set_rng_state(state)
    weights = [torch.cat([p.detach().flatten() for p in model.parameters()]) for model in models]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    x = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    assert 0.05 < float(models[0](x).detach().std() / x.std()) < 20


def test_sides_and_channels_are_checked() -> None:
    with pytest.raises(ValueError, match="multiples of 32"):
        UNet(n_feature=4)(torch.zeros(1, 3, 32, 48))
    with pytest.raises(ValueError, match="as many channels"):
        UNet(in_channels=1, out_channels=3, residual=True)
