"""Keeps the channels that the others cannot reconstruct.

Channels are removed in small steps, always those that the others reconstruct best. For every layer that reads them,
the weights of the remaining channels are refitted in closed form (ridge least squares, as `dgl.refit` will do). The
error that this adds to the layer's outputs is weighted by how much the image depends on them. The score is that error,
so it can be compared across layers, or the largest of a channel removed before, so that no score is below that of a
channel removed earlier. Where scores are equal for that reason, the order of removal is not told from them.

Source: the removal step is that of Optimal Brain Surgeon (Hassibi and Stork 1993), for groups of weights; which
targets count, and their weights, are ours.
"""
import dataclasses
import math
from typing import Any

import torch

from dnnlib.errors import UserError
from dnnlib.progress import Progress
from torch_utils import distributed
from torch_utils.network_types import Generator
from training.architectures import class_path

from ..plan import Plan
from ..reach import reachable
from ..refit import rows, solve
from . import RECONSTRUCTED
from .readings import PlacesOf, reader_of
from .registry import ScoreOptions
from .sampling import REACH_SAMPLES, latents

NUM_SAMPLES = 64  # up to 128 px; fewer at higher resolutions, whose images have more pixels
MIN_SAMPLES = 8
_FULL_SIDE = 128
MAX_ROWS = 1 << 14  # of one layer: 3.5 for each unknown of 512 channels; a ranking needs fewer than the refit
RIDGE = 3e-5  # times the mean square of each style; small, so that what little else can give counts for much
STEP = 32  # at once goes 1 / 32 of what is left, at least one channel
DROP = 0.8  # what is gone is dropped from the matrices when they hold fewer than that part
_PASS_PIXELS = 32 * 64**2  # of the images of one pass


def score(network: torch.nn.Module, plan: Plan, options: ScoreOptions) -> dict[str, torch.Tensor]:
    """Set name → squared error of the image that the removal of a channel added, or that of one removed before it, if
    that was larger, [C] float64.

    Raises:
        UserError: the network is no generator of StyleGAN2 or StyleGAN3.
    """
    if class_path(network) not in RECONSTRUCTED:
        raise UserError(f"reconstruct is for generators of StyleGAN2 and StyleGAN3, found a {class_path(network)}; use "
                        "another score", field="score")
    G: Any = network
    training = G.training
    consumers = {name: [_Consumer(G.get_submodule(c.layer)) for c in plan.consumers[name]] for name in plan.sets}
    try:
        _measure(G.eval(), [c for of_set in consumers.values() for c in of_set], options)
    finally:
        G.train(training)
    z, c = latents(G, REACH_SAMPLES, torch.Generator().manual_seed(0))
    reaches = reachable(G, plan, plan.applied(z, c, REACH_SAMPLES))
    scores = {}
    with Progress(len(plan.sets), "channels to keep", unit="set", enabled=_is_shown()) as bar:
        for name, size in plan.sets.items():
            scores[name] = _eliminate([c.system() for c in consumers[name]], size).cpu() * reaches[name]
            bar.update(1)
    return scores


def _is_shown() -> bool | None:
    """Whether progress may be shown: by one process."""
    return None if distributed.is_main() else False


@dataclasses.dataclass
class _System:
    """A layer's linear system: `weight` [O, C, T] scaled by how much its outputs count, and the inverse of the Gram
    matrix of its inputs with a ridge, [C, T, C, T].
    """
    weight: torch.Tensor
    inverse: torch.Tensor


class _Consumer:
    """What a layer that reads a channel set is measured by; hooks collect it while the generator runs.

    Args:
        layer: one that `readings.reader_of` knows.
    """

    def __init__(self, layer: Any) -> None:
        self.layer, self.read = layer, reader_of(layer)
        size = layer.weight[0].numel()
        self.gram = layer.weight.new_zeros([size, size])
        self.energy = layer.weight.new_zeros([layer.weight.shape[1]]).double()  # squared styles of the inputs
        self.gain = layer.weight.new_zeros([len(layer.weight)]).double()  # squared demodulation
        self.sensitivity = torch.zeros_like(self.gain)  # squared derivative of the image, over all pixels
        self.num_rows = self.num_images = self.num_derivatives = 0

    def watch(self, places: PlacesOf) -> list[Any]:
        """Hooks for one pass."""
        return [self.layer.register_forward_hook(lambda layer, inputs, output: self._note(inputs, output, places))]

    @torch.no_grad()
    def _note(self, inputs: Any, output: torch.Tensor, places: PlacesOf) -> None:
        reading = self.read(inputs, output, places)
        self.num_images += len(output)
        self.gain += reading.gain
        self.energy += reading.energy
        self.gram += solve.gram(reading.rows)
        self.num_rows += len(reading.rows)
        if output.requires_grad:
            output.register_hook(self._derivative)

    def _derivative(self, gradient: torch.Tensor) -> None:
        self.sensitivity += gradient.double().square().sum(dim=[0, 2, 3])
        self.num_derivatives += len(gradient)

    @torch.no_grad()
    def system(self) -> _System:
        """The system, in float64."""
        weight = rows.weight_matrix(self.layer).double()
        taps = weight.shape[1] // len(self.energy)
        gram = self.gram.double() / self.num_rows
        ridge = RIDGE * (self.energy / self.num_images).repeat_interleave(taps)
        gram.diagonal().add_(ridge + 1e-9 * gram.diagonal().mean().clamp_min(1e-30))
        counts = (self.gain / self.num_images * self.sensitivity / self.num_derivatives).sqrt()
        shape = [len(self.energy), taps]
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(gram))
        return _System((weight * counts[:, None]).unflatten(1, shape),
                       inverse.unflatten(1, shape).unflatten(0, shape))


def _num_samples(wanted: int, side: int) -> int:
    """How many of the latents layers of this side are measured on."""
    return min(wanted, max(MIN_SAMPLES, wanted * _FULL_SIDE**2 // side**2))


def _measure(G: Generator, consumers: list[_Consumer], options: ScoreOptions) -> None:
    """Runs the generator on random latents and takes derivatives of a random projection of each image.

    Of the latents that the last layers are not measured on, there are no images and no derivatives.
    """
    generator = torch.Generator().manual_seed(options.seed)
    count = options.num_samples or NUM_SAMPLES
    size = max(1, min(options.batch, _PASS_PIXELS // G.img_resolution**2))
    zs, cs = latents(G, count, generator)

    has_blocks = hasattr(G.synthesis, "block_resolutions")  # StyleGAN3's layers are all of about one size

    def num_samples(side: int) -> int:
        return _num_samples(count, side) if has_blocks else count

    def places(layer: torch.nn.Module, pixels: int, images: int) -> torch.Tensor:
        return rows.Places(num_samples(math.isqrt(pixels)), pixels, layer, MAX_ROWS, generator)(images)

    hooks = [hook for consumer in consumers for hook in consumer.watch(places)]
    try:
        with Progress(count, "features", unit="img", enabled=_is_shown()) as bar:
            whole = num_samples(G.img_resolution)
            for z, c in zip(zs[:whole].split(size), cs[:whole].split(size)):
                with torch.no_grad():
                    ws = G.mapping(z, c, skip_w_avg_update=True)
                with torch.enable_grad():
                    img = G.synthesis(ws.requires_grad_(True), noise_mode="const", force_fp32=True)
                    projection = torch.randn(img.shape, generator=generator).to(img)
                    torch.autograd.grad((img * projection).sum(), ws)
                bar.update(len(z))
            size = max(1, min(options.batch, _PASS_PIXELS // _FULL_SIDE**2))
            for z, c in zip(zs[whole:].split(size), cs[whole:].split(size)) if whole < count else ():
                wanted = [res for res in G.synthesis.block_resolutions if bar.done < num_samples(res)]
                _run_blocks(G, z, c, wanted)
                bar.update(len(z))
    finally:
        for hook in hooks:
            hook.remove()


@torch.no_grad()
def _run_blocks(G: Generator, z: torch.Tensor, c: torch.Tensor, resolutions: list[int]) -> None:
    """Runs the first blocks of a generator, those of these resolutions, for z [N, z_dim] and labels c [N, c_dim]."""
    ws = G.mapping(z, c, skip_w_avg_update=True)  # [N, num_ws, w_dim], all alike
    state = (None, None)
    for res in resolutions:
        block = getattr(G.synthesis, f"b{res}")
        state = block(*state, ws[:, : block.num_conv + block.num_torgb], noise_mode="const", force_fp32=True)


def _eliminate(systems: list[_System], size: int) -> torch.Tensor:
    """Errors at which the channels go, [C] float64, not falling in the order in which they go."""
    device = systems[0].weight.device
    held = torch.arange(size, device=device)  # channel of each that the systems hold
    left = held  # positions in `held` of those that are not gone; the others are dropped once they are many
    errors = torch.zeros([size], dtype=torch.float64, device=device)
    worst = 0.0
    while len(left) > 0:
        costs = torch.zeros([len(left)], dtype=torch.float64, device=device)
        for system in systems:
            own = system.inverse[left, :, left]  # [C, T, T]
            weight = system.weight[:, left].transpose(0, 1)  # [C, O, T]
            costs += (weight @ torch.linalg.inv(own) * weight).sum(dim=[1, 2])
        order = costs.argsort(stable=True)
        num_gone = max(1, len(left) // STEP)
        goes = left[order[:num_gone]]
        for index in order[:num_gone].tolist():  # costs within a step may fall short of what went before
            worst = max(worst, float(costs[index]))
            errors[held[left[index]]] = worst
        for system in systems:
            _remove(system, goes)
        left = left[order[num_gone:].sort().values]
        if len(left) < DROP * len(held):
            for system in systems:
                system.weight = system.weight[:, left].contiguous()
                system.inverse = system.inverse[left][:, :, left].contiguous()
            held, left = held[left], torch.arange(len(left), device=device)
    return errors


def _remove(system: _System, goes: torch.Tensor) -> None:
    """Takes channels out of a system and refits the weights of the others, in place; removed ones become 0."""
    taps = system.weight.shape[2]
    unknowns = (goes[:, None] * taps + torch.arange(taps, device=goes.device)).flatten()
    size = system.weight[0].numel()
    weight, inverse = system.weight.view(-1, size), system.inverse.view(size, size)
    across = inverse[unknowns]  # [G·T, C·T]
    solved = torch.linalg.solve(across[:, unknowns], across)
    weight.addmm_(weight[:, unknowns], solved, alpha=-1)
    inverse.addmm_(across.t(), solved, alpha=-1)
