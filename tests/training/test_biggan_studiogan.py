"""StudioGAN's BigGANs: converted where that is exact, refused with the reason where it is not."""
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.test_biggan_checkpoints import small
from tests.training.test_networks_biggan import GENERATORS
from torch_utils.checkpoint import CheckpointError
from training import networks_biggan
from training.biggan import checkpoints as biggan_checkpoints
from training.biggan import estimates as biggan_estimates
from training.biggan import studiogan as biggan_studiogan
from training.networks_biggan import Generator

STUDIO_NAMES = {"linear": "linear0", "output_layer.0": "bn4", "output_layer.2": "conv2d5", "conv1": "conv2d1",
                "conv2": "conv2d2", "conv_sc": "conv2d0", "theta": "conv1x1_theta", "phi": "conv1x1_phi",
                "g": "conv1x1_g", "o": "conv1x1_attn"}


def studiogan_state(G: Any, converged: bool) -> dict[str, torch.Tensor]:
    """A generator as StudioGAN would have stored it: with its own v, and u and v as averages unless converged.

    Its weights become ones whose singular values differ.
    """
    places, number = {}, 0
    for i, stage in enumerate(G.blocks):
        for j in range(len(stage)):
            places[f"blocks.{i}.{j}"], number = f"blocks.{number}.0", number + 1
    state: dict[str, torch.Tensor] = {}
    for name, layer in G.named_modules():
        parts = name.split(".")
        if parts[0] == "blocks" and len(parts) >= 3:
            inner = [STUDIO_NAMES.get(part, part) for part in parts[3:]]
            foreign = ".".join([places[".".join(parts[:3])], *inner])
        else:
            foreign = STUDIO_NAMES.get(name, name)
        if hasattr(layer, "u0"):
            layer.weight.normal_()
            u, _, v = torch.linalg.svd(layer.weight.flatten(1), full_matrices=False)
            length = 1 if converged else 0.98  # an average of vectors that keep turning is shorter
            state |= {f"{foreign}.weight_orig": layer.weight, f"{foreign}.weight_u": u[:, 0] * length,
                      f"{foreign}.weight_v": v[0] * length}
            if layer.bias is not None:
                state[f"{foreign}.bias"] = layer.bias
        elif isinstance(layer, networks_biggan.Embedding):
            state[f"{foreign}.weight"] = layer.weight
        elif isinstance(layer, networks_biggan.SelfAttention):
            state[f"{foreign}.sigma"] = layer.gamma[None]
        elif hasattr(layer, "stored_mean"):
            foreign += ".bn" if parts[0] == "blocks" else ""
            state |= {f"{foreign}.running_mean": layer.stored_mean, f"{foreign}.running_var": layer.stored_var,
                      f"{foreign}.num_batches_tracked": torch.tensor(5)}
            if parts[0] == "output_layer":
                state |= {f"{foreign}.weight": layer.gain, f"{foreign}.bias": layer.bias}
    return state


def as_studiogan_computes(G: Any, length: float) -> Any:
    """The function of a StudioGAN file: weights over u W v as stored, and 1e-4 in every batch norm."""
    folded = biggan_estimates.fold_spectral_norm(G)
    for name, layer in G.named_modules():
        if hasattr(layer, "u0"):
            sigma = torch.linalg.svdvals(layer.weight.flatten(1))[0] * length**2
            folded.get_submodule(name).weight.copy_(layer.weight / sigma)
    for module in folded.modules():
        if hasattr(module, "stored_mean"):
            module.eps = 1e-4
    return folded


@pytest.mark.parametrize("converged", [True, False])
@torch.no_grad()
def test_a_studiogan_generator_computes_the_same(converged: bool, tmp_path: Path) -> None:
    G = small(Generator, {**GENERATORS["hier64"], "G_attn": "16", "G_channels": [32, 16, 24, 16, 12]})
    state = studiogan_state(G, converged)
    path = tmp_path / "model=G_ema-best-weights-step=1000.pth"
    torch.save({"state_dict": state, "optimizer": {"state": {}}}, path)
    loaded = biggan_checkpoints.load_generator(tmp_path, suffix="best")
    assert (loaded.options["BN_eps"], loaded.options["SN_eps"]) == (1e-4, 1e-6)
    torch.manual_seed(0)
    z, c = torch.randn([3, G.z_dim]), torch.tensor([0, 1, 2])
    expected = as_studiogan_computes(G, 1 if converged else 0.98)(z, c)
    torch.testing.assert_close(loaded(z, c), expected, rtol=0, atol=2e-5)


def test_studiogan_files_without_a_counterpart(tmp_path: Path) -> None:
    G = small(Generator, GENERATORS["hier64"])
    state = studiogan_state(G, converged=True)
    path = tmp_path / "G.pth"
    torch.save({**state, "blocks.0.0.conv2d3.weight_orig": torch.zeros([1])}, path)
    with pytest.raises(CheckpointError, match=r"G\.pth: a StudioGAN generator with deep blocks"):
        biggan_checkpoints.load_generator(path)
    torch.save({"state_dict": {"linear1.weight_orig": torch.zeros([1]), "step": torch.zeros([1])}}, path)
    with pytest.raises(CheckpointError, match=r"G\.pth: a StudioGAN discriminator has no exact counterpart"):
        biggan_checkpoints.load_discriminator(path)
    state["linear0.weight_u"] = state["linear0.weight_u"] * 2
    with pytest.raises(CheckpointError, match="linear: no vector gives the spectral norm"):
        biggan_studiogan.convert(state)
