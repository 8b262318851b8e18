"""A small normalising flow (affine couplings) guided by the discriminator of a trained GAN.

    python -m docs.examples.flow

L = -log p(x) / dims + λ · softplus(-D_T(x')),  x' drawn from the flow (RealNVP: Dinh et al. 2017, arXiv:1605.08803; the
second term is DGL-GAN's, arXiv:2112.06502). Drawing is one pass without a loop over pixels, so its gradient is cheap.
The images are halved to 16 px for the flow; what it draws is doubled again for the teacher.
"""
import math

import torch
from torch import nn

from . import common

SIDE = 16
DIMS = SIDE * SIDE
HIDDEN = 256
COUPLINGS = 6


class Coupling(nn.Module):
    """y = x on one half of the dimensions; y = x · exp(s) + t on the other, s and t functions of the first half."""

    def __init__(self, flip: bool) -> None:
        super().__init__()
        self.flip = flip
        self.net = nn.Sequential(nn.Linear(DIMS // 2, HIDDEN), nn.SiLU(), nn.Linear(HIDDEN, HIDDEN), nn.SiLU(),
                                 nn.Linear(HIDDEN, DIMS))
        nn.init.zeros_(self.net[-1].weight)
        nn.init.zeros_(self.net[-1].bias)

    def _parts(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        a, b = x[:, 0::2], x[:, 1::2]
        return (b, a) if self.flip else (a, b)

    def _whole(self, fixed: torch.Tensor, moved: torch.Tensor) -> torch.Tensor:
        a, b = (moved, fixed) if self.flip else (fixed, moved)
        return torch.stack([a, b], dim=2).flatten(1)

    def _affine(self, fixed: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        log_scale, shift = self.net(fixed).chunk(2, dim=1)
        return 2 * torch.tanh(log_scale / 2), shift

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Towards the latent: y [N, DIMS] and log |det ∂y/∂x| [N]."""
        fixed, moved = self._parts(x)
        log_scale, shift = self._affine(fixed)
        return self._whole(fixed, moved * log_scale.exp() + shift), log_scale.sum(dim=1)

    def inverse(self, y: torch.Tensor) -> torch.Tensor:
        """Back towards the image."""
        fixed, moved = self._parts(y)
        log_scale, shift = self._affine(fixed)
        return self._whole(fixed, (moved - shift) * (-log_scale).exp())


class Flow(nn.Module):
    """Images [N, 1, 16, 16] in [-1, 1] ↔ latents [N, 256] of unit variance, pixels shifted and scaled at first."""

    def __init__(self, data: torch.Tensor) -> None:
        super().__init__()
        self.mean = nn.Parameter(data.flatten(1).mean(dim=0))
        self.log_std = nn.Parameter(data.flatten(1).std(dim=0).clamp_min(0.05).log())
        self.couplings = nn.ModuleList(Coupling(flip=bool(number % 2)) for number in range(COUPLINGS))

    def log_prob(self, x: torch.Tensor) -> torch.Tensor:
        """log p(x) in nats, [N]."""
        z = (x.flatten(1) - self.mean) * (-self.log_std).exp()
        log_det = -self.log_std.sum()
        for coupling in self.couplings:
            z, part = coupling(z)
            log_det = log_det + part
        return log_det - (z.square().sum(dim=1) + DIMS * math.log(2 * math.pi)) / 2

    def sample(self, count: int) -> torch.Tensor:
        """Images [N, 1, 16, 16] of standard normal latents."""
        z = torch.randn([count, DIMS])
        for coupling in reversed(self.couplings):
            z = coupling.inverse(z)
        return (z * self.log_std.exp() + self.mean).reshape(count, 1, SIDE, SIDE)


def train(data: torch.Tensor, term: common.TeacherDiscriminatorTerm, steps: int, batch: int = common.BATCH) -> Flow:
    """Trains with the term; uniform noise of one grey level keeps the likelihood finite."""
    model = Flow(data)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for step in range(steps):
        x = data[torch.randint(len(data), [batch])]
        x = common.dequantized(x)
        loss = -model.log_prob(x).mean() / DIMS
        if term.weight:
            samples = common.doubled(model.sample(batch).clamp(-1.5, 1.5))
            loss = loss + common.guidance(term, samples, cur_nimg=step * batch)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return model


def measure(model: Flow, data: torch.Tensor) -> dict[str, float]:
    """The likelihood of images [N, 1, 16, 16]."""
    return {"bits_per_dim": common.bits_per_dim(model.log_prob(data), DIMS)}


EXAMPLE = common.Example(
    name="flow",
    weight=0.3,
    prepare=common.halved,
    shown=common.doubled,
    train=train,
    draw=lambda model, count: common.doubled(model.sample(count).clamp(-1, 1)),
    measure=measure,
)
main = common.command(EXAMPLE, "Train a flow without and with the teacher's term, and show what the teacher thinks of "
                               "its samples.")

if __name__ == "__main__":
    main()
