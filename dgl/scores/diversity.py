"""Keeps the channels that make images differ (DCP: Chung et al., CVPR 2024, "Diversity-aware Channel Pruning").

Every latent is moved along principal directions of w; the score of a channel is the variance over the directions of the
mean gradient magnitude of sum |moved image - image| over all weights that read it, summed over latents.
"""
import torch

from dnnlib.errors import UserError

from ..plan import Plan
from .registry import ScoreOptions
from .sampling import WeightGradients, latents

NUM_SAMPLES = 50
NUM_DIRECTIONS = 8  # per latent
NUM_COMPONENTS = 40  # that they are drawn from
STEP = 5.0  # length of a move in w
PCA_SAMPLES = 10000


def score(network: torch.nn.Module, plan: Plan, options: ScoreOptions) -> dict[str, torch.Tensor]:
    """Set name → variance of gradient magnitudes of each channel, [C]. One latent at a time, so no batch size matters.

    Raises:
        UserError: the network has no styles.
    """
    if not hasattr(network, "mapping"):
        raise UserError(f"diversity needs a generator with styles, a {type(network).__name__} has none", field="score")
    generator = torch.Generator().manual_seed(options.seed)
    gradients = WeightGradients(network, plan)
    directions = principal_directions(gradients.G, generator)
    zs, cs = latents(gradients.G, options.num_samples or NUM_SAMPLES, generator)
    total = {name: torch.zeros([size], dtype=torch.float64) for name, size in plan.sets.items()}
    for z, c in zip(zs.split(1), cs.split(1)):
        with torch.no_grad():
            ws = gradients.G.mapping(z, c)
        chosen = torch.randperm(len(directions), generator=generator)[:NUM_DIRECTIONS]
        magnitudes_of: dict[str, list[torch.Tensor]] = {name: [] for name in plan.sets}
        for direction in directions[chosen.to(directions.device)]:
            img = gradients.G.synthesis(ws, noise_mode="const")
            moved = gradients.G.synthesis(ws + STEP * direction, noise_mode="const")
            for name, magnitude in gradients.magnitudes((moved - img).abs().sum()).items():
                magnitudes_of[name].append(magnitude)
        for name, magnitudes in magnitudes_of.items():
            total[name] += torch.stack(magnitudes).var(dim=0, unbiased=False)
    return total


@torch.no_grad()
def principal_directions(G: torch.nn.Module, generator: torch.Generator) -> torch.Tensor:
    """Unit vectors [K, w_dim] along which w varies most, by a PCA of mapped latents; signs are fixed."""
    z, c = latents(G, PCA_SAMPLES, generator)
    w = G.mapping(z, c, skip_w_avg_update=True)[:, 0].double()  # type: ignore[operator]
    centred = w - w.mean(dim=0)
    _, vectors = torch.linalg.eigh(centred.t() @ centred / len(w))  # ascending eigenvalues
    directions = vectors.t().flip(0)[:NUM_COMPONENTS]
    largest = directions.gather(1, directions.abs().argmax(dim=1, keepdim=True))
    return (directions * largest.sign()).float()
