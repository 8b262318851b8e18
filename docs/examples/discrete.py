"""A small autoregressive model of discrete pixels, guided by the discriminator of a trained GAN with REINFORCE.

    python -m docs.examples.discrete

p(x) = Π p(pixel_i | pixels before), each one of 16 grey levels, by a recurrent network over the 256 pixels of a 16 px
image. What is drawn has no gradient, so the teacher's term joins through the score function (Williams 1992):
∇ E r(x') = E [(r(x') - b) ∇ log p(x')] with r = λ · softplus(-D_T(x')), and b the mean of r over the other images of
the batch (Kool et al. 2019), which keeps the estimate unbiased. The likelihood is exact.
"""
import math

import torch
import torch.nn.functional as F
from torch import nn

from . import common

SIDE = 16
DIMS = SIDE * SIDE
LEVELS = 16
HIDDEN = 96


class Pixels(nn.Module):
    """Images as grey levels [N, dims] int64 in raster order, and a distribution of every pixel given those before.

    Args:
        dims: pixels of an image.
        levels: of grey.
        hidden: width of the recurrent network.
    """

    def __init__(self, dims: int = DIMS, levels: int = LEVELS, hidden: int = HIDDEN) -> None:
        super().__init__()
        self.dims, self.levels = dims, levels
        self.embed = nn.Embedding(levels + 1, hidden)  # the last one stands before the first pixel
        self.place = nn.Parameter(torch.randn([dims, hidden]) * 0.1)
        self.side = math.isqrt(dims)
        self.cell = nn.GRU(2 * hidden, hidden, batch_first=True)  # reads the pixels to the left and above
        self.head = nn.Linear(hidden, levels)

    def _inputs(self, left: torch.Tensor, above: torch.Tensor, first: int) -> torch.Tensor:
        """Embedded neighbours [N, n] of the pixels from `first` on, [N, n, 2·hidden]."""
        place = self.place[first : first + left.shape[1]]
        return torch.cat([self.embed(left) + place, self.embed(above) + place], dim=2)

    def log_probs(self, x: torch.Tensor) -> torch.Tensor:
        """log p of every level of every pixel given those before, [N, dims, levels]; all pixels at once."""
        before = F.pad(x, [self.side, 0], value=self.levels)
        left, above = before[:, self.side - 1 : -1], before[:, : self.dims]
        return self.head(self.cell(self._inputs(left, above, 0))[0]).log_softmax(dim=2)

    def log_prob(self, x: torch.Tensor) -> torch.Tensor:
        """log p(x) in nats, [N]."""
        return self.log_probs(x).gather(2, x[..., None]).sum(dim=[1, 2])

    @torch.no_grad()
    def sample(self, count: int) -> torch.Tensor:
        """Grey levels [N, dims]."""
        x = torch.full([count, self.side + self.dims], self.levels)
        state = None
        for i in range(self.dims):
            at = self.side + i
            hidden, state = self.cell(self._inputs(x[:, at - 1 : at], x[:, i : i + 1], i), state)
            x[:, at] = torch.distributions.Categorical(logits=self.head(hidden[:, 0])).sample()
        return x[:, self.side :]


def levels_of(img: torch.Tensor) -> torch.Tensor:
    """[N, 1, 16, 16] in [-1, 1] → grey levels [N, 256]."""
    return ((img.flatten(1) + 1) / 2 * (LEVELS - 1)).round().clamp(0, LEVELS - 1).long()


def images_of(x: torch.Tensor) -> torch.Tensor:
    """Grey levels [N, 256] → images [N, 1, 32, 32] in [-1, 1], as the teacher's are."""
    return common.doubled((x.float() / (LEVELS - 1) * 2 - 1).reshape(-1, 1, SIDE, SIDE))


def surrogate(log_prob: torch.Tensor, cost: torch.Tensor) -> torch.Tensor:
    """A scalar whose gradient is an unbiased estimate of that of the mean cost.

    Args:
        log_prob: of the samples, [N].
        cost: of each, [N], without gradient; at least 2.
    """
    baseline = (cost.sum() - cost) / (len(cost) - 1)
    return ((cost - baseline) * log_prob).mean()


def train(data: torch.Tensor, term: common.Term, steps: int, batch: int = common.BATCH) -> Pixels:
    """Trains with the term on grey levels [N, 256]."""
    model = Pixels()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for step in range(steps):
        loss = -model.log_prob(data[torch.randint(len(data), [batch])]).mean() / DIMS
        if term.weight:
            x = model.sample(batch)
            with torch.no_grad():
                cost = common.costs(term, images_of(x), cur_nimg=step * batch)
            loss = loss + surrogate(model.log_prob(x), cost)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return model


def measure(model: Pixels, data: torch.Tensor) -> dict[str, float]:
    """The likelihood of grey levels [N, 256]; of LEVELS levels, so at most their logarithm if nothing is learned."""
    log_prob = torch.cat([model.log_prob(x) for x in data.split(100)])
    return {"bits_per_dim": -float(log_prob.mean()) / DIMS / math.log(2)}


EXAMPLE = common.Example(
    name="discrete",
    weight=0.03,
    prepare=lambda images: levels_of(common.halved(images)),
    shown=images_of,
    train=train,
    draw=lambda model, count: images_of(model.sample(count)),
    measure=measure,
)
main = common.command(EXAMPLE, "Train an autoregressive model of discrete pixels without and with the teacher's term, "
                               "and show what the teacher thinks of its samples.")

if __name__ == "__main__":
    main()
