"""Latents, labels and gradients that several scores share."""
import copy
from typing import Any

import torch

from ..plan import Plan
from ..reach import by_channel, reachable, reading_weight

REACH_SAMPLES = 16  # latents that tell which readers are multiplied by a style of 0 whatever the latent


def latents(G: Any, count: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """z [count, z_dim] and uniformly drawn labels c [count, c_dim], on G's device."""
    z = torch.randn([count, G.z_dim], generator=generator)
    c = torch.zeros([count, G.c_dim])
    if G.c_dim > 0:
        c.scatter_(1, torch.randint(G.c_dim, [count, 1], generator=generator), 1)
    device = next(G.parameters()).device
    return z.to(device), c.to(device)


class WeightGradients:
    """A private copy of a generator whose channel-reading weights have gradients.

    Attributes:
        G: the copy; run it, and pass what to differentiate to `magnitudes`.
    """

    def __init__(self, network: torch.nn.Module, plan: Plan) -> None:
        self.G: Any = copy.deepcopy(network).eval().requires_grad_(False)
        self._plan = plan
        z, c = latents(self.G, REACH_SAMPLES, torch.Generator().manual_seed(0))
        self._reachable = reachable(network, plan, plan.applied(z, c, REACH_SAMPLES))
        names = {f"{consumer.layer}.weight" for readers in plan.consumers.values() for consumer in readers}
        self._weights = [self.G.get_parameter(name).requires_grad_(True) for name in sorted(names)]

    def magnitudes(self, loss: torch.Tensor) -> dict[str, torch.Tensor]:
        """Set name → mean |∂ loss / ∂ weight| over all weights that read a channel, [C] float64.

        A channel that cannot reach the output counts 0, whatever the weights that read it could do if they were not 0.
        """
        gradients = torch.autograd.grad(loss, self._weights, allow_unused=True)
        for weight, gradient in zip(self._weights, gradients):
            weight.grad = gradient
        magnitudes = {}
        for name, size in self._plan.sets.items():
            total, count = torch.zeros([size], dtype=torch.float64), 0
            for consumer in self._plan.consumers[name]:
                gradient = self.G.get_parameter(f"{consumer.layer}.weight").grad
                shaped = reading_weight(self.G, self._plan, name, consumer)
                count += shaped.shape[0] * shaped.shape[2]
                if gradient is not None:
                    used = by_channel(gradient, self._plan, name, consumer)
                    total += used.abs().sum(dim=[0, 2]).cpu()
            magnitudes[name] = total / count * self._reachable[name]
        for weight in self._weights:
            weight.grad = None
        return magnitudes
