"""The KoLeo loss in float32, finite also when images of a batch give the same token.

Sablayrolles, Douze, Schmid, Jégou, "Spreading vectors for similarity search", 2018, arXiv 1806.03198, section 3.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EPS = 1e-8
FLOOR = 1e-6
"""Distance of L2-normalised tokens below which they count as duplicates: ten times float32's rounding."""


def nearest(unit: Tensor) -> Tensor:
    """(N,) index of each row's nearest other row, by cosine; of its own where N is 1.

    Args:
        unit: (N, D), L2-normalised rows.
    """
    with torch.no_grad():
        exact = unit.double()  # upstream lets float32 products round to TF32, which blurs close neighbours
        cosines = exact @ exact.T
        cosines.fill_diagonal_(-1.0)
        return cosines.argmax(dim=1)


class KoLeo(nn.Module):
    r"""-1/N sum_i log(min_{j != i} ||x_i - x_j|| + eps) over L2-normalised tokens.

    Why not the original's arithmetic: it computes in the dtype it is given. In half precision eps = 1e-8 is 0, so two
    equal tokens (near-equal images, no drop path) give log 0, an infinite loss. The gradient scaler then skips the
    step, an infinite loss is not NaN, nothing stops the run, and the loss stays flat for weeks.

    Departures: tokens are converted to float32 first, whatever autocast says. A pair closer than `FLOOR` is a
    duplicate: it counts with the constant -log(FLOOR + eps), about 13.8, and without gradient, which would be the
    direction of rounding errors times up to 1/eps. Farther pairs give the original's value and gradient in float32. A
    token that is not finite still makes the loss NaN.
    """

    def forward(self, student_output: Tensor) -> Tensor:
        """The loss, a float32 scalar.

        Args:
            student_output: (N, D) tokens of N different images, of any floating dtype.
        """
        with torch.autocast(device_type=student_output.device.type, enabled=False):
            unit = F.normalize(student_output.float(), eps=EPS, p=2, dim=-1)
            distances = F.pairwise_distance(unit, unit[nearest(unit)], p=2.0, eps=EPS)
            # `<=` is false for NaN, which so stays NaN.
            distances = torch.where(distances <= FLOOR, torch.full_like(distances, FLOOR), distances)
            return -torch.log(distances + EPS).mean()
