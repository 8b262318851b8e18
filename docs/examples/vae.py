"""A small variational autoencoder whose decoder is guided by the discriminator of a trained GAN.

    python -m docs.examples.vae

L = |x - dec(z)|² / 2s² + KL(q(z|x) ‖ N(0, 1)) + λ · softplus(-D_T(dec(z')))  with z' drawn from the prior (Kingma and
Welling 2014, arXiv:1312.6114; the last term is DGL-GAN's, arXiv:2112.06502). A VAE alone draws blurred images; the
discriminator sees that they are.
"""
import torch
from torch import nn

from . import common

LATENT = 16
SIGMA = 0.3  # of the pixels' Gaussian


class VAE(nn.Module):
    """Images [N, 1, 32, 32] ↔ latents [N, 16]."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(1, 16, 4, 2, 1), nn.SiLU(), nn.Conv2d(16, 32, 4, 2, 1), nn.SiLU(), nn.Conv2d(32, 32, 4, 2, 1),
            nn.SiLU(), nn.Flatten(), nn.Linear(32 * 16, 2 * LATENT),
        )  # fmt: skip
        self.decoder = nn.Sequential(
            nn.Linear(LATENT, 32 * 16), nn.SiLU(), nn.Unflatten(1, (32, 4, 4)), nn.ConvTranspose2d(32, 32, 4, 2, 1),
            nn.SiLU(), nn.ConvTranspose2d(32, 16, 4, 2, 1), nn.SiLU(), nn.ConvTranspose2d(16, 1, 4, 2, 1), nn.Tanh(),
        )  # fmt: skip

    def negative_elbo(self, x: torch.Tensor) -> torch.Tensor:
        """An upper bound of -log p(x) up to a constant, per image [N]."""
        mean, log_var = self.encoder(x).chunk(2, dim=1)
        z = mean + torch.randn_like(mean) * (log_var / 2).exp()
        distance = (self.decoder(z) - x).square().sum(dim=[1, 2, 3]) / (2 * SIGMA**2)
        kl = (mean.square() + log_var.exp() - log_var - 1).sum(dim=1) / 2
        return distance + kl

    def sample(self, count: int) -> torch.Tensor:
        """Images of latents from the prior."""
        return self.decoder(torch.randn([count, LATENT]))


def train(data: torch.Tensor, term: common.TeacherDiscriminatorTerm, steps: int, batch: int = common.BATCH) -> VAE:
    """Trains with the term; a pixel's and a logit's nats weigh alike, so the bound is divided by the pixels."""
    model = VAE()
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    for step in range(steps):
        x = data[torch.randint(len(data), [batch])]
        loss = model.negative_elbo(x).mean() / x[0].numel()
        loss = loss + common.guidance(term, model.sample(batch), cur_nimg=step * batch)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    return model


def measure(model: VAE, data: torch.Tensor) -> dict[str, float]:
    """The mean bound of images [N, 1, 32, 32]."""
    return {"negative_elbo": float(torch.cat([model.negative_elbo(x) for x in data.split(100)]).mean())}


EXAMPLE = common.Example(
    name="vae",
    weight=0.03,
    prepare=lambda images: images,
    shown=lambda images: images,
    train=train,
    draw=lambda model, count: model.sample(count),
    measure=measure,
)
main = common.command(EXAMPLE, "Train a VAE without and with the teacher's term, and show what the teacher thinks of "
                               "its samples.")

if __name__ == "__main__":
    main()
