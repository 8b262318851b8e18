"""A small autoregressive model, row by row, guided by the discriminator of a trained GAN.

    python -m docs.examples.autoregressive

p(x) = Π p(row_i | rows above), each a Gaussian whose mean and covariance a recurrent network gives; 16 px, doubled for
the teacher. L = -log p(x) / dims + λ · softplus(-D_T(x')). x' is drawn from the model: row = mean + L · noise, so its
gradient runs through all rows above it (reparameterisation: Kingma and Welling 2014, arXiv:1312.6114; the second term
is DGL-GAN's, arXiv:2112.06502). The likelihood is exact.
"""
import math

import torch
from torch import nn

from . import common

SIDE = 16
DIMS = SIDE * SIDE
HIDDEN = 128
MAX_PIXEL = 1.5  # drawn pixels are clamped to ± this for the teacher; beyond 1 they keep a gradient


class Rows(nn.Module):
    """Images [N, 1, 16, 16] in [-1, 1], a distribution of every row given those above."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRU(2 * SIDE, HIDDEN, batch_first=True)  # reads a row and where it is
        self.head = nn.Sequential(nn.Linear(HIDDEN, HIDDEN), nn.SiLU(), nn.Linear(HIDDEN, 2 * SIDE + SIDE * SIDE))
        self.place = nn.Parameter(torch.randn([SIDE, SIDE]) * 0.1)

    def _gaussian(self, hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean [..., 16] and lower triangular factor [..., 16, 16] of the covariance."""
        mean, log_std, below = self.head(hidden).split([SIDE, SIDE, SIDE * SIDE], dim=-1)
        std = (3 * torch.tanh(log_std / 3) - 2).exp()  # 0.007 to 2.7
        unit = torch.eye(SIDE, dtype=below.dtype) + torch.tril(below.unflatten(-1, (SIDE, SIDE)), diagonal=-1) * 0.1
        return mean, std[..., None] * unit

    def _inputs(self, rows: torch.Tensor, first: int) -> torch.Tensor:
        """Rows [N, n, 16] above those from `first` on, and the places of the latter, [N, n, 32]."""
        place = self.place[first : first + rows.shape[1]].expand(len(rows), -1, -1)
        return torch.cat([rows, place], dim=2)

    def log_prob(self, x: torch.Tensor) -> torch.Tensor:
        """log p(x) in nats, [N]; all rows at once."""
        rows = x[:, 0]
        above = torch.cat([torch.zeros_like(rows[:, :1]), rows[:, :-1]], dim=1)
        mean, factor = self._gaussian(self.cell(self._inputs(above, 0))[0])
        noise = torch.linalg.solve_triangular(factor, (rows - mean)[..., None], upper=False)[..., 0]
        log_det = factor.diagonal(dim1=-2, dim2=-1).log().sum(dim=[1, 2])
        return -log_det - (noise.square().sum(dim=[1, 2]) + DIMS * math.log(2 * math.pi)) / 2

    def draw(self, noise: torch.Tensor) -> torch.Tensor:
        """The images [N, 1, 16, 16] of standard normal noise [N, 16, 16], differentiable in the weights."""
        row, state, rows = torch.zeros_like(noise[:, :1]), None, []
        for i in range(SIDE):
            hidden, state = self.cell(self._inputs(row, i), state)
            mean, factor = self._gaussian(hidden)
            row = mean + (factor @ noise[:, i : i + 1, :, None])[..., 0]
            rows.append(row)
        return torch.cat(rows, dim=1)[:, None]

    def sample(self, count: int) -> torch.Tensor:
        """Images [N, 1, 16, 16]."""
        return self.draw(torch.randn([count, SIDE, SIDE]))


def train(data: torch.Tensor, term: common.Term, steps: int, batch: int = common.BATCH) -> Rows:
    """Trains with the term on images [N, 1, 16, 16]."""
    model = Rows()
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    for step in range(steps):
        x = common.dequantized(data[torch.randint(len(data), [batch])])
        loss = -model.log_prob(x).mean() / DIMS
        if term.weight:
            samples = model.sample(batch).clamp(-MAX_PIXEL, MAX_PIXEL)
            loss = loss + common.guidance(term, common.doubled(samples), cur_nimg=step * batch)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return model


def measure(model: Rows, data: torch.Tensor) -> dict[str, float]:
    """The likelihood of images [N, 1, 16, 16]."""
    return {"bits_per_dim": common.bits_per_dim(model.log_prob(data), DIMS)}


EXAMPLE = common.Example(
    name="autoregressive",
    weight=0.3,
    prepare=common.halved,
    shown=common.doubled,
    train=train,
    draw=lambda model, count: common.doubled(model.sample(count).clamp(-1, 1)),
    measure=measure,
)
main = common.command(EXAMPLE, "Train an autoregressive model without and with the teacher's term, and show what the "
                               "teacher thinks of its samples.")

if __name__ == "__main__":
    main()
