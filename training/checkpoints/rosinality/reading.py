"""Files in rosinality's layout → our networks."""
import logging
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from dnnlib import EasyDict
from torch_utils import misc
from torch_utils.checkpoint import CheckpointError, foreign_name

from ...networks import Discriminator, Generator
from .. import widths
from ..rebuilding import MAX_RESOLUTION, blank, fill, some
from ..stylegan2 import base_size
from .layout import KERNEL, ROLES, Table, discriminator_table, generator_table, shape_there

MEAN_SAMPLES = 1 << 14  # latents whose mean stands in for a `latent_avg` that a file lacks

_log = logging.getLogger(__name__)


def reads(data: object) -> bool:
    """Whether a file's content is of this layout, or a pSp or e4e bundle with such a generator."""
    if not isinstance(data, dict):
        return False
    if isinstance(data.get("state_dict"), dict):
        return any(isinstance(name, str) and name.startswith("decoder.style.") for name in data["state_dict"])
    return any(isinstance(data.get(key), dict) and _is_state_dict(data[key]) for key in ROLES.values())


def _is_state_dict(value: dict) -> bool:
    return bool(value) and all(isinstance(name, str) for name in value) and any(
        name.removeprefix("module.").startswith(("style.", "conv1.", "convs.", "final_conv.")) for name in value
    )


def roles(data: Mapping[str, Any]) -> list[str]:
    """Which of 'G', 'D' and 'G_ema' a file of this layout has networks for; a single generator is both."""
    states = _states(data)
    return [role for role, key in ROLES.items() if key in states or (role != "D" and states.keys() & {"g", "g_ema"})]


def build(role: str, data: Mapping[str, Any]) -> torch.nn.Module | None:
    """One network of such a file.

    Args:
        role: 'G', 'D' or 'G_ema'. Where a file has one generator only, it is both.
        data: the file's content.

    Returns:
        The network on the CPU, in eval mode, without gradients; None if the file has none for this role.

    Raises:
        CheckpointError: tensors are missing, unknown or of another shape, or it is another architecture.
    """
    states = _states(data)
    wanted = ROLES[role]
    if wanted not in states and role != "D":
        wanted = next((key for key in ("g_ema", "g") if key in states), wanted)
        if wanted in states:
            _log.warning("%s: the file has no %s, so its %s is used", role, ROLES[role], wanted)
    if wanted not in states:
        return None
    tensors = _tensors(states[wanted])
    if role == "D":
        return _discriminator(tensors)
    G = _generator(tensors)
    average = data.get("latent_avg") if role == "G_ema" else None
    if role == "G_ema" and average is None:
        _log.warning("the file has no latent_avg; the mean of %d latents takes its place", MEAN_SAMPLES)
    _set_average(G, average)
    return G


def _states(data: Mapping[str, Any]) -> dict[str, Any]:
    """Role there → state dict."""
    bundle = data.get("state_dict")
    if isinstance(bundle, dict):
        prefix = "decoder."
        return {"g_ema": {name.removeprefix(prefix): value for name, value in bundle.items()
                          if name.startswith(prefix)}}
    return {key: data[key] for key in ROLES.values() if data.get(key) is not None}


def _tensors(state: object) -> dict[str, torch.Tensor]:
    """A state dict without the prefix of a parallel wrapper.

    Raises:
        CheckpointError: it holds anything else than float32 tensors, or is of another architecture.
    """
    stranger = foreign_name(state)
    if not isinstance(state, dict) or stranger is not None:
        content = stranger or f"a {type(state).__name__}"
        raise CheckpointError(f"expected a state dict of tensors, found {content}; save network.state_dict() instead "
                              "of the network")
    tensors = {str(name).removeprefix("module."): value for name, value in state.items()}
    if any(".iwt." in name or ".dwt." in name or name.startswith("from_rgbs.") for name in tensors):
        raise CheckpointError("this is a SWAGAN, another architecture, which cannot be read")
    for name, value in tensors.items():
        if not isinstance(value, torch.Tensor) or value.dtype != torch.float32:
            kind = value.dtype if isinstance(value, torch.Tensor) else type(value).__name__
            raise CheckpointError(f"{name}: expected a float32 tensor, found {kind}")
    return tensors


def _shape(tensors: Mapping[str, torch.Tensor], name: str, rank: int) -> tuple[int, ...]:
    if name not in tensors or tensors[name].ndim != rank:
        shape = list(tensors[name].shape) if name in tensors else "nothing"
        raise CheckpointError(f"{name}: expected a tensor of {rank} axes, found {shape}")
    return tuple(tensors[name].shape)


def _resolution(count: int) -> int:
    if not 0 < count < int(math.log2(MAX_RESOLUTION)) - 1:
        raise CheckpointError(f"the state dict has {count} blocks above 4x4; expected 1 to 12")
    return 4 << count


def _generator(tensors: dict[str, torch.Tensor]) -> Any:
    resolution = _resolution(sum(name.startswith("to_rgbs.") and name.endswith(".conv.weight") for name in tensors))
    num_layers = sum(name.startswith("style.") and name.endswith(".weight") for name in tensors)
    w_dim = _shape(tensors, "style.1.weight", 2)[1]
    convs = ["conv1", *(f"convs.{n}" for n in range(2 * (resolution.bit_length() - 3)))]
    widths = [_shape(tensors, "input.input", 4)[1], *(_shape(tensors, f"{c}.conv.weight", 5)[1] for c in convs)]
    base = base_size(*_shape(tensors, "input.input", 4)[2:])
    kernels = {_shape(tensors, f"{c}.conv.weight", 5)[3] for c in convs}
    if kernels != {3}:
        raise CheckpointError(f"kernels of the convolutions: expected 3x3, found sizes {sorted(kernels)}")
    arguments = EasyDict(
        z_dim=w_dim, c_dim=0, w_dim=w_dim, img_resolution=resolution, img_channels=3,
        mapping_kwargs=EasyDict(num_layers=num_layers),
        synthesis_kwargs=EasyDict(**_width_arguments(resolution, widths, discriminator=False), num_fp16_res=0,
                                  conv_clamp=None, **base),
    )
    tensors = {**_drawn_noises(tensors, resolution, base.get("base_size", [4, 4])), **tensors}
    return _filled(Generator, arguments, tensors, generator_table(resolution, num_layers), kernel=KERNEL * 4)


def _discriminator(tensors: dict[str, torch.Tensor]) -> Any:
    blocks = sum(name.startswith("convs.") and name.endswith(".skip.1.weight") for name in tensors)
    resolution = _resolution(blocks)
    widths = [_shape(tensors, "convs.0.0.weight", 4)[0]]
    for i in range(1, blocks + 1):
        widths += [_shape(tensors, f"convs.{i}.{name}.weight", 4)[0] for name in ("conv1.0", "conv2.1")]
    widths += [_shape(tensors, "final_conv.0.weight", 4)[0], _shape(tensors, "final_linear.0.weight", 2)[0]]
    arguments = EasyDict(
        c_dim=0, img_resolution=resolution, img_channels=3, num_fp16_res=0, conv_clamp=None,
        epilogue_kwargs=EasyDict(mbstd_group_size=4, mbstd_num_channels=1),
        **_width_arguments(resolution, widths, discriminator=True),
    )
    return _filled(Discriminator, arguments, tensors, discriminator_table(resolution), kernel=KERNEL)


def _width_arguments(resolution: int, channels: list[int], discriminator: bool) -> dict[str, Any]:
    stock = widths.stock_arguments(resolution, channels, discriminator)
    return {**stock} if stock is not None else {"layer_channels": channels}


def _drawn_noises(
    tensors: Mapping[str, torch.Tensor], resolution: int, base: list[int]
) -> dict[str, torch.Tensor]:
    """Noise inputs for a file from before they were saved."""
    if any(name.startswith("noises.") for name in tensors):
        return {}
    _log.warning("the file has no noise inputs; they are drawn from seed 0")
    source = torch.Generator().manual_seed(0)
    sizes = [2 ** ((n + 5) // 2) for n in range(2 * (resolution.bit_length() - 1) - 3)]
    return {f"noises.noise_{n}": torch.randn([1, 1, *(side * r // 4 for side in base)], generator=source)
            for n, r in enumerate(sizes)}


def _filled(cls: Any, arguments: dict, tensors: dict[str, torch.Tensor], table: Table, kernel: torch.Tensor) -> Any:
    """A network with the tensors of a state dict."""
    module = blank(cls, arguments, sum(tensor.numel() for tensor in tensors.values()))
    own = dict(misc.named_params_and_buffers(module))
    given = {name: tensor for name, tensor in own.items() if name.endswith(("resample_filter", "w_avg"))}
    unknown = sorted(tensors.keys() - table.keys())
    missing = [name for name, (here, _) in table.items() if here and name not in tensors]
    if unknown or missing:
        raise CheckpointError(f"the state dict does not fit a StyleGAN2 of {module.img_resolution}x"
                              f"{module.img_resolution}; missing: {some(missing)}; unknown: {some(unknown)}")
    for name, (here, front) in table.items():
        if not here:
            if name in tensors and not (tensors[name].shape == kernel.shape
                                        and torch.allclose(tensors[name], kernel, atol=1e-6)):
                raise CheckpointError(f"{name}: only networks with the resampling filter [1, 3, 3, 1] can be read")
            continue
        given[here] = _without_axes(name, tensors[name], own[here], front)
    fill(module, given)
    return module


def _without_axes(name: str, tensor: torch.Tensor, target: torch.Tensor, front: tuple[int, ...]) -> torch.Tensor:
    expected = shape_there(target, front)
    if list(tensor.shape) != expected:
        raise CheckpointError(f"{name}: expected shape {expected}, found {list(tensor.shape)}")
    return tensor.reshape(target.shape)


@torch.no_grad()
def _set_average(G: Any, latent_avg: Any) -> None:
    """The average w, as the file has it or from many latents."""
    if latent_avg is None:
        z = np.random.RandomState(0).randn(MEAN_SAMPLES, G.z_dim)
        ws = [G.mapping(chunk, None)[:, 0] for chunk in torch.from_numpy(z).split(1024)]
        G.mapping.w_avg.copy_(torch.cat(ws).mean(dim=0))
        return
    if not isinstance(latent_avg, torch.Tensor) or latent_avg.shape[-1:] != (G.w_dim,):
        raise CheckpointError(f"latent_avg: expected a tensor of {G.w_dim} numbers, found {latent_avg!r:.80}")
    rows = latent_avg.reshape(-1, G.w_dim)
    if not torch.equal(rows, rows[:1].expand_as(rows)):
        raise CheckpointError("latent_avg: its rows differ, and a network has one average w only")
    G.mapping.w_avg.copy_(rows[0])
