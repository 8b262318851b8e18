"""Refits a sliced StyleGAN2 discriminator to its teacher, layer by layer in closed form, on given images.

As `dgl.refit.generator`, but its layers are plain convolutions, so every fit is one ridge least squares with a free
bias, and resolutions fall: at the top few images are enough and more do not fit into memory, further down more are
added, which run through the blocks that are fitted already.
"""
import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch

from torch_utils.network_types import Discriminator
from torch_utils.ops import upfirdn2d

from . import rows, solve
from .report import LayerFit, RefitOptions, Report, layer_fit, psnr

_BATCH_BYTES = 64 << 20  # features of one pass
_DEFAULT_GROUP = 4  # images per pass of b4 where the minibatch standard deviation is of the whole batch
_NUM_CHECKED = 64

Images = Callable[[int], torch.Tensor]  # number of images → so many that were not given before, [n, C, H, W] in [-1, 1]


@dataclasses.dataclass
class _Batch:
    """Some images on their way through both networks."""
    x: list[torch.Tensor]  # features of teacher and student [n, C, H, W]; empty before the first block
    img: torch.Tensor  # the image at this resolution, for the blocks that read it


@torch.no_grad()
def refit_discriminator(
    teacher: Discriminator,
    student: Discriminator,
    keep: Mapping[str, torch.Tensor],
    options: RefitOptions,
    images: Images,
    advance: Callable[[], None] = lambda: None,
) -> Report:
    """Refits a discriminator in place.

    Args:
        teacher: a StyleGAN2 discriminator of any architecture.
        student: its slice.
        keep: channel set → kept channels, ascending int64 [C'].
        options: see `RefitOptions`.
        images: gives images; a teacher's own will do.
        advance: called after each of the `num_layers(student)` layers.
    """
    check = _Check(teacher, images)
    before = check(student)
    layers = _Walk(teacher, student, keep, options, images, advance).run()
    return Report(layers, before, check(student))


def num_layers(D: Discriminator) -> int:
    """How many layers a refit of a discriminator fits."""
    return sum(2 + hasattr(getattr(D, f"b{res}"), "skip") for res in D.block_resolutions) + 3


class _Check:
    """PSNR of a student's logits to the teacher's; the peak is twice the deviation of the teacher's."""

    def __init__(self, teacher: Discriminator, images: Images) -> None:
        mbstd = teacher.b4.mbstd
        self.group = _DEFAULT_GROUP if mbstd is None or mbstd.group_size is None else mbstd.group_size
        self.images = images(-(-_NUM_CHECKED // self.group) * self.group)
        self.expected = self._run(teacher)

    def _run(self, D: Discriminator) -> torch.Tensor:
        """What `out` gives, before the labels are projected on it, [n, cmap_dim or 1]."""
        logits: list[torch.Tensor] = []
        handle = D.b4.out.register_forward_hook(lambda module, inputs, output: logits.append(output))
        try:
            for part in self.images.split(self.group):
                D(part, torch.zeros([len(part), D.c_dim], device=part.device), force_fp32=True)
        finally:
            handle.remove()
        return torch.cat(logits)

    def __call__(self, student: Discriminator) -> float:
        return psnr(self._run(student), self.expected, 2 * float(self.expected.std()))


class _Walk:
    """One pass through all layers."""

    def __init__(
        self,
        teacher: Discriminator,
        student: Discriminator,
        keep: Mapping[str, torch.Tensor],
        options: RefitOptions,
        images: Images,
        advance: Callable[[], None],
    ) -> None:
        self.nets = [teacher, student]
        device = next(teacher.parameters()).device
        self.keep = {name: kept.to(device) for name, kept in keep.items()}
        self.options = options
        self.images = images
        self.advance = advance
        self.generator = torch.Generator().manual_seed(options.seed)
        self.fits: list[LayerFit] = []
        self.batches: list[_Batch] = []

    def run(self) -> list[LayerFit]:
        """Fits all layers; returns their rows of the report."""
        resolutions = self.nets[0].block_resolutions
        for number, res in enumerate(resolutions):
            blocks = [getattr(net, f"b{res}") for net in self.nets]
            self._add_images(blocks, resolutions[:number])
            self._block(f"b{res}", blocks)
        self._add_images([net.b4 for net in self.nets], resolutions)
        self._epilogue([net.b4 for net in self.nets])
        return self.fits

    def _add_images(self, blocks: list[Any], passed: list[int]) -> None:
        """As many images as memory allows at this resolution, brought through the blocks that are fitted."""
        res = blocks[0].resolution
        bytes_each = 4 * res**2 * sum(block.conv0.weight.shape[1] for block in blocks if hasattr(block, "conv0"))
        bytes_each = max(bytes_each, 4 * res**2 * sum(block.conv.weight.shape[1] for block in blocks
                                                      if hasattr(block, "conv")))
        wanted = self.options.num_latents * max(256 // self.nets[0].img_resolution, 1)
        wanted = max(4, min(wanted, self.options.memory // bytes_each))
        missing = wanted - sum(len(batch.img) for batch in self.batches)
        top_bytes = 4 * self.nets[0].img_resolution ** 2 * sum(net.b4.in_channels for net in self.nets)
        size = max(1, _BATCH_BYTES // max(bytes_each, top_bytes // 8))
        while missing > 0:
            batch = _Batch([], self.images(min(size, missing)))
            missing -= len(batch.img)
            for earlier in passed:
                pair = [getattr(net, f"b{earlier}") for net in self.nets]
                _enter(pair, batch)
                batch.x = [_run_block(block, x) for block, x in zip(pair, batch.x)]
            self.batches.append(batch)
        for batch in self.batches:
            _enter(blocks, batch)

    def _block(self, name: str, blocks: list[Any]) -> None:
        """One block: two convolutions, and a shortcut that is fitted to the rest of the teacher's sum."""
        has_skip = hasattr(blocks[0], "skip")
        entries = [batch.x for batch in self.batches] if has_skip else []
        half = math.sqrt(0.5)
        self._layer(f"{name}.conv0", [block.conv0 for block in blocks])
        self._layer(f"{name}.conv1", [block.conv1 for block in blocks], gain=half if has_skip else 1.0)
        if not has_skip:
            return
        wide, narrow = (block.skip for block in blocks)
        kept = self.keep[f"{name}.conv1"]
        places = self._places(math.prod(self.batches[0].x[0].shape[2:]), narrow)
        inputs, targets = [], []
        for batch, entry in zip(self.batches, entries):
            at = places(len(batch.img))
            batch.x[0] = batch.x[0] + wide(entry[0], gain=half)
            missing = rows.gather(batch.x[0][:, kept], at) - rows.gather(batch.x[1], at)
            targets.append(missing / half)
            inputs.append(rows.patches(entry[1], narrow, at))
        self._fit(f"{name}.skip", narrow, torch.cat(inputs).flatten(0, 1), torch.cat(targets).flatten(0, 1))
        for batch, entry in zip(self.batches, entries):
            batch.x[1] = batch.x[1] + narrow(entry[1], gain=half)

    def _places(self, size: int, layer: torch.nn.Module) -> rows.Places:
        """Positions for a layer whose outputs have `size` pixels."""
        num = sum(len(batch.img) for batch in self.batches)
        return rows.Places(num, size, layer, self.options.max_rows, self.generator)

    def _layer(self, name: str, layers: list[Any], gain: float = 1.0) -> None:
        """Fits a convolution to the teacher's pre-activations, and runs it."""
        wide, narrow = layers
        kept = self.keep[name]
        places = self._places(math.prod(self.batches[0].x[0].shape[2:]) // wide.down**2, narrow)
        matrix, bias = rows.weight_matrix(wide)[kept] * wide.weight_gain, wide.bias[kept]
        inputs, targets = [], []
        for batch in self.batches:
            at = places(len(batch.img))
            targets.append(rows.patches(batch.x[0], wide, at) @ matrix.t() + bias)
            inputs.append(rows.patches(batch.x[1], narrow, at))
        self._fit(name, narrow, torch.cat(inputs).flatten(0, 1), torch.cat(targets).flatten(0, 1))
        for batch in self.batches:
            batch.x = [layer(x, gain=gain) for layer, x in zip(layers, batch.x)]

    def _fit(self, name: str, layer: Any, inputs: torch.Tensor, targets: torch.Tensor) -> None:
        """Sets weight and bias of a plain layer from rows [R, K] and targets [R, O]."""
        is_convolution = layer.weight.ndim == 4
        matrix = rows.weight_matrix(layer) if is_convolution else layer.weight
        bias_gain = getattr(layer, "bias_gain", 1.0)
        bias = None if layer.bias is None else layer.bias * bias_gain
        scarcity = max(1.0, inputs.shape[1] / len(inputs))  # unknowns per row, where there are too few rows
        ridge = self.options.ridge * scarcity * inputs.double().square().mean(dim=0)
        fit = solve.linear(inputs, targets, matrix * layer.weight_gain, bias, ridge)
        if is_convolution:
            rows.set_weight(layer, fit.weight / layer.weight_gain)
        else:
            layer.weight.copy_(fit.weight / layer.weight_gain)
        if fit.bias is not None:
            layer.bias.copy_(fit.bias / bias_gain)
        self.fits.append(layer_fit(name, fit))
        self.advance()

    def _epilogue(self, blocks: list[Any]) -> None:
        """The last convolution, which also reads a statistic over groups of images, and two dense layers."""
        mbstd = blocks[0].mbstd
        group = _DEFAULT_GROUP if mbstd is None or mbstd.group_size is None else mbstd.group_size
        pair = [torch.cat([batch.x[i] for batch in self.batches]) for i in (0, 1)]
        num = max(len(pair[0]) // group * group, 1)
        if mbstd is not None:
            pair = [torch.cat([block.mbstd(part) for part in x[:num].split(group)]) for block, x in zip(blocks, pair)]
        self.batches = [_Batch(pair, pair[0])]
        self._layer("b4.conv", [block.conv for block in blocks])
        pair = [x.flatten(1) for x in self.batches[0].x]
        for name in ("fc", "out"):
            wide, narrow = (getattr(block, name) for block in blocks)
            targets = pair[0] @ wide.weight.t() * wide.weight_gain + wide.bias * wide.bias_gain
            self._fit(f"b4.{name}", narrow, pair[1], targets[:, self.keep["b4.fc"]] if name == "fc" else targets)
            pair = [layer(x) for layer, x in zip((wide, narrow), pair)]


def _enter(blocks: list[Any], batch: _Batch) -> None:
    """What the convolutions of a block read, in place: features, image, or both; and the image for the next block."""
    if hasattr(blocks[0], "fromrgb"):
        of_image = [block.fromrgb(batch.img) for block in blocks]
        batch.x = [a + b for a, b in zip(batch.x, of_image)] if batch.x else of_image
    if blocks[0].architecture == "skip" and hasattr(blocks[0], "resample_filter"):
        batch.img = upfirdn2d.downsample2d(batch.img, blocks[0].resample_filter)


def _run_block(block: Any, x: torch.Tensor) -> torch.Tensor:
    """The convolutions of a block, after `_enter`."""
    if block.architecture != "resnet":
        return block.conv1(block.conv0(x))
    half = math.sqrt(0.5)
    return block.skip(x, gain=half) + block.conv1(block.conv0(x), gain=half)
