"""Keeps the channels whose scales survive a training for sparsity (GAN Slimming: Wang et al., ECCV 2020).

Every channel gets a scale s, 1 at first, by which all layers that read it multiply it. Proximal gradient steps minimise
|G_s(z) - G(z)|² / Var G(z) + p Σ |s| over the scales of the whole network, with the weights fixed, while the penalty p
rises from 0. The score is the mean of s over the steps: channels whose scales reach 0 first score lowest. No data takes
part.
"""
from typing import Any

import torch

from dnnlib.errors import UserError
from torch_utils.network_types import Generator
from training.architectures import class_path

from ..plan import Plan
from ..reach import reachable
from .registry import ScoreOptions
from .sampling import REACH_SAMPLES, latents

NUM_SAMPLES = 1600
BATCH = 8  # latents per step
MOVE = 0.25  # step size, times channels / sets²: the curvature along all scales at once is 2 sets² / channels
_PASS_PIXELS = 8 * 128**2  # of the images of one pass
PENALTY = 2.0  # p in the last step, times sets / channels: the mean slope of the error if all scales fall at once


def score(network: torch.nn.Module, plan: Plan, options: ScoreOptions) -> dict[str, torch.Tensor]:
    """Set name → mean scale of each channel during the training, [C] float64; 0 if it cannot reach the image.

    Raises:
        UserError: the network is no StyleGAN2 generator.
    """
    if class_path(network) != "training.networks.Generator":
        raise UserError(f"slimming is for StyleGAN2 generators, found a {class_path(network)}; use another score",
                        field="score")
    G: Any = network
    device = next(G.parameters()).device
    scales = {name: torch.ones([size], device=device) for name, size in plan.sets.items()}
    totals = {name: torch.zeros([size], dtype=torch.float64) for name, size in plan.sets.items()}
    count = options.num_samples or NUM_SAMPLES
    zs, cs = latents(G, count, torch.Generator().manual_seed(options.seed))
    batches = list(zip(zs.split(BATCH), cs.split(BATCH)))
    num_channels, num_sets = sum(plan.sets.values()), len(plan.sets)
    move, penalty = MOVE * num_channels / num_sets**2, PENALTY * num_sets / num_channels
    was_training, trained = G.training, [p for p in G.parameters() if p.requires_grad]
    G.eval().requires_grad_(False)
    try:
        for number, (z, c) in enumerate(batches):
            gradients = _mean_gradients(G, plan, scales, z, c)
            threshold = move * penalty * (number + 1) / len(batches)
            for name, gradient in gradients.items():
                scales[name] = (scales[name] - move * gradient - threshold).clamp_min(0)
                totals[name] += scales[name].cpu().double() / len(batches)
    finally:
        G.train(was_training)
        for parameter in trained:
            parameter.requires_grad_(True)
    z, c = latents(G, REACH_SAMPLES, torch.Generator().manual_seed(0))
    reaches = reachable(G, plan, plan.applied(z, c, REACH_SAMPLES))
    return {name: total * reaches[name] for name, total in totals.items()}


def _mean_gradients(
    G: Generator, plan: Plan, scales: dict[str, torch.Tensor], z: torch.Tensor, c: torch.Tensor
) -> dict[str, torch.Tensor]:
    """`_gradients` of a step, in passes that fit into memory, averaged over its latents."""
    size = max(1, _PASS_PIXELS // G.img_resolution**2)
    parts = [(len(some_z) / len(z), _gradients(G, plan, scales, some_z, some_c))
             for some_z, some_c in zip(z.split(size), c.split(size))]
    return {name: sum((share * part[name] for share, part in parts), torch.zeros_like(scales[name])) for name in scales}


def _gradients(
    G: Generator, plan: Plan, scales: dict[str, torch.Tensor], z: torch.Tensor, c: torch.Tensor
) -> dict[str, torch.Tensor]:
    """Set name → derivative [C] of the relative error by its scales, for latents z [N, z_dim], c [N, c_dim]."""
    leaves = {name: scale.clone().requires_grad_(True) for name, scale in scales.items()}
    with torch.no_grad():
        ws = G.mapping(z, c, skip_w_avg_update=True)
        target = G.synthesis(ws, noise_mode="const", force_fp32=True)
        spread = (target - target.mean()).square().mean().clamp_min(1e-8)
    with torch.enable_grad(), _scaled(G, plan, leaves):
        error = (G.synthesis(ws, noise_mode="const", force_fp32=True) - target).square().mean() / spread
        gradients = torch.autograd.grad(error, list(leaves.values()))
    return dict(zip(leaves, gradients))


class _scaled:
    """Within this, the layers that read a channel set [C] multiply what they read by its scales [C]."""

    def __init__(self, G: Generator, plan: Plan, scales: dict[str, torch.Tensor]) -> None:
        self._layers = [(G.get_submodule(consumer.layer), scales[name])
                        for name, consumers in plan.consumers.items() for consumer in consumers]
        self._hooks: list[Any] = []

    def __enter__(self) -> None:
        for layer, scale in self._layers:
            def multiply(module: torch.nn.Module, inputs: tuple[Any, ...], by: torch.Tensor = scale) -> tuple[Any, ...]:
                return (inputs[0] * by[:, None, None].to(inputs[0].dtype), *inputs[1:])

            self._hooks.append(layer.register_forward_pre_hook(multiply))

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()
