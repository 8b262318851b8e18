"""What a BigGAN estimates about itself: batch statistics and singular values, brought up to date or folded in."""
import copy
from typing import Any

import torch

from torch_utils.network_types import Generator, Network

from ..networks_biggan import BatchNorm, ConditionalBatchNorm


@torch.no_grad()
def standing_statistics(
    G: Generator,
    batch_size: int,
    num_passes: int = 16,
    generator: torch.Generator | None = None,
) -> None:
    """Replaces the stored batch statistics of a generator by their mean over fresh batches; leaves it in eval mode.

    Passes are in training mode, with z of unit scale and uniform labels; variances are the biased ones. Singular
    vectors move as in training.

    Args:
        G: generator, changed in place.
        batch_size: samples per pass; it decides what the statistics are of, as in training.
        generator: of z and labels, on the CPU; None is torch's own.

    Source: Brock et al. 2019, arXiv:1809.11096, appendix B ("standing statistics").
    """
    like = next(G.parameters())
    norms: list[Any] = [module for module in G.modules() if isinstance(module, BatchNorm | ConditionalBatchNorm)]
    sums = {norm: (torch.zeros_like(norm.stored_mean), torch.zeros_like(norm.stored_var)) for norm in norms}

    def add(norm: torch.nn.Module, inputs: tuple) -> None:
        mean, var = sums[norm]
        mean += inputs[0].mean(dim=[0, 2, 3])
        var += inputs[0].var(dim=[0, 2, 3], unbiased=False)

    handles = [norm.register_forward_pre_hook(add) for norm in norms]
    G.train()
    try:
        for _ in range(num_passes):
            z = torch.randn([batch_size, G.z_dim], generator=generator)
            c = torch.randint(int(G.c_dim), [batch_size], generator=generator)
            G(z.to(like), c.to(like.device))
    finally:
        for handle in handles:
            handle.remove()
        G.eval()
    for norm, (mean, var) in sums.items():
        norm.stored_mean.copy_(mean / num_passes)
        norm.stored_var.copy_(var / num_passes)


@torch.no_grad()
def refine_singular_vectors(network: Any, num_steps: int = 15) -> None:
    """Takes further power iterations in every spectrally normalised layer, as after its weight was cut."""
    for layer in network.modules():
        if getattr(layer, "num_svs", 0):
            training = layer.training
            layer.train()
            for _ in range(num_steps):
                layer.normalized_weight()
            layer.train(training)


@torch.no_grad()
def fold_spectral_norm(network: Network) -> Any:
    """A copy without spectral normalisation whose weights are what the network computes with in eval mode."""
    source = copy.deepcopy(network).eval()
    state = source.state_dict()
    for name, layer in source.named_modules():
        if getattr(layer, "num_svs", 0):
            state[f"{name}.weight"] = layer.normalized_weight()
    param = "G_param" if "G_param" in source.options else "D_param"
    with torch.random.fork_rng(devices=[]):
        folded = type(network)(**{**source.options, param: "none"}, skip_init=True).to(next(source.parameters()))
    folded.load_state_dict({name: state[name] for name in folded.state_dict()})
    return folded.train(network.training).requires_grad_(False)
