"""Code that says ``cuda`` runs on a CPU, in a process that asked for it."""

from __future__ import annotations

import torch
from helpers import run_python

from dinov2_noise.cpu import CudaToCpu

CALLS = """
import torch
from dinov2_noise import cpu
cpu.use_cpu(); cpu.use_cpu()
x = torch.ones(2)
assert x.cuda() is x and x.cuda(non_blocking=True) is x
assert x.to("cuda").device.type == x.to(torch.device("cuda", 0)).device.type == "cpu"
assert torch.tensor([1.0], device="cuda").device.type == "cpu"
assert torch.zeros(2, device=torch.device("cuda")).device.type == "cpu"
model = torch.nn.Linear(2, 2).cuda().to(torch.device("cuda"))
assert next(model.parameters()).device.type == "cpu"
assert torch.full((1,), 3, device=torch.cuda.current_device()).item() == 3
torch.cuda.synchronize()
model(x).sum().backward()
print("all on the CPU", torch.equal(model.weight.grad, torch.ones(2, 2)))
"""


def test_upstreams_ways_to_say_cuda() -> None:
    done = run_python("-c", CALLS)
    assert done.stdout.strip() == "all on the CPU True", done.stderr


def test_the_mode_changes_devices_only() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, 3, generator=generator)
    with CudaToCpu():
        inside = (x @ x).to(torch.float64, copy=True)
    assert torch.equal(inside, (x @ x).double())
