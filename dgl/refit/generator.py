"""Refits a sliced StyleGAN2 generator to its teacher, layer by layer in closed form, without data.

Every layer of the student is fitted to the teacher's pre-activations of the channels that it keeps, for the same w and
the same constant noise, on the features that the layers before it give after their own fit. Deviations from the
teacher are thus corrected further up, and what is left out of the channels is made up by those that are kept.

The teacher's and the student's features of all latents are held at once, and replaced layer by layer. There are fewer
latents where images are large, so memory is bounded (`RefitOptions.memory`).
"""
import dataclasses
import math
from typing import Any

import torch

from torch_utils.network_types import Generator
from torch_utils.ops import upfirdn2d

from ..scores.sampling import latents
from . import rows, solve, walk
from .report import LayerFit, layer_fit
from .walk import Pair

_HOMOGENEOUS = ("linear", "relu", "lrelu")  # activations that a channel's scale commutes with


@dataclasses.dataclass
class _Batch:
    """Some latents on their way through both networks."""
    w: torch.Tensor  # [n, w_dim], float32 like all tensors here
    x: Pair  # features [n, C, H, W]
    img: Pair  # images so far [n, img_channels, H, W]; empty before the first torgb

    def __len__(self) -> int:
        return len(self.w)

    def split(self, size: int) -> "list[_Batch]":
        """Parts of at most `size` latents."""
        parts = zip(self.w.split(size), *(t.split(size) for t in (*self.x, *self.img)))
        return [_Batch(part[0], list(part[1:3]), list(part[3:])) for part in parts]


def num_layers(G: Generator) -> int:
    """How many layers a refit of a generator fits."""
    blocks = [getattr(G.synthesis, f"b{res}") for res in G.synthesis.block_resolutions]
    return sum(hasattr(block, name) for block in blocks for name in ("conv0", "conv1", "skip", "torgb"))


class Walk(walk.Walk):
    """One pass through all layers of StyleGAN2."""

    def run(self) -> list[LayerFit]:
        """Fits all layers; returns their rows of the report."""
        self.batches = self._start()
        for res in self.nets[0].synthesis.block_resolutions:
            blocks = [getattr(net.synthesis, f"b{res}") for net in self.nets]
            self._thin_out(blocks)
            self._features(res, blocks)
            if blocks[0].num_torgb:
                self._image(res, blocks)
            else:
                for batch in self.batches:
                    batch.img = [upfirdn2d.upsample2d(img, blocks[0].resample_filter) for img in batch.img]
        return self.fits

    def _start(self) -> list[_Batch]:
        """The mapped latents and the constant, which is the teacher's own."""
        teacher = self.nets[0]
        z, c = latents(teacher, self._num_latents(4), self.generator)
        parts = zip(z.split(256), c.split(256))
        w = torch.cat([teacher.mapping(*part, skip_w_avg_update=True)[:, 0] for part in parts])
        constants = [net.synthesis.b4.const for net in self.nets]
        return [_Batch(w, [const[None].expand(len(w), -1, -1, -1) for const in constants], [])]

    def _thin_out(self, blocks: list[Any]) -> None:
        """Drops latents that are too many for a block, and splits the rest into passes."""
        res = blocks[0].resolution
        channels = max(sum(b.conv1.weight.shape[i] for b in blocks) for i in (0, 1))
        bytes_each = 4 * channels * res**2
        kept = self._passes(self.batches, res, bytes_each, bytes_each)
        self.batches = [_Batch(b.w, [t.clone() for t in b.x], [t.clone() for t in b.img]) for b in kept]

    def _features(self, res: int, blocks: list[Any]) -> None:
        """The convolutions of one block, and its shortcut."""
        has_skip = hasattr(blocks[0], "skip")
        entries = [batch.x for batch in self.batches] if has_skip else []
        if hasattr(blocks[0], "conv0"):
            self._convolution(f"b{res}.conv0", [block.conv0 for block in blocks])
        half = math.sqrt(0.5)
        scale = self._convolution(f"b{res}.conv1", [b.conv1 for b in blocks], gain=half if has_skip else 1.0)
        if has_skip:
            self._shortcut(f"b{res}", [block.skip for block in blocks], entries, half, scale)

    def _places(self, size: int, layer: torch.nn.Module) -> rows.Places:
        """Positions for a layer whose outputs have `size` pixels."""
        num = sum(len(batch.w) for batch in self.batches)
        return rows.Places(num, size, layer, self.options.max_rows, self.generator)

    def _convolution(self, name: str, layers: list[Any], gain: float = 1.0) -> torch.Tensor:
        """Fits a modulated convolution and runs it; returns the scale [O] by which the student's features are short."""
        wide, narrow = layers
        kept = self.keep[name]
        places = self._places(math.prod(wide.noise_size), narrow)
        wide_matrix = rows.weight_matrix(wide)[kept]
        energy = wide.weight[kept].square().sum(dim=[2, 3])  # [O, I]
        inputs, targets, styles = [], [], []
        for batch in self.batches:
            at = places(len(batch.w))
            s_wide, s_narrow = wide.affine(batch.w), narrow.affine(batch.w)
            demodulation = (s_wide.square() @ energy.t() + 1e-8).rsqrt()
            target = rows.patches(batch.x[0] * s_wide[:, :, None, None], wide, at) @ wide_matrix.t()
            targets.append(target * demodulation[:, None])
            inputs.append(rows.patches(batch.x[1] * s_narrow[:, :, None, None], narrow, at))
            styles.append(s_narrow)
        fit = solve.demodulated(
            torch.cat(inputs),
            torch.cat(targets),
            rows.weight_matrix(narrow),
            torch.cat(styles),
            self.options.ridge,
            self.options.iterations,
        )
        rows.set_weight(narrow, fit.weight)
        homogeneous = wide.activation in _HOMOGENEOUS
        if homogeneous:  # what the outputs are too small by is taken from bias and noise too, and so passed on
            narrow.bias.copy_(narrow.bias / fit.scale)
            if narrow.use_noise:
                narrow.noise_strength.copy_(narrow.noise_strength / fit.scale.log().mean().exp())
        self._done(name, fit)
        for batch in self.batches:
            batch.x = [layer(x, batch.w, noise_mode="const", fused_modconv=False, gain=gain)
                       for layer, x in zip(layers, batch.x)]
        return fit.scale if homogeneous else torch.ones_like(fit.scale)

    def _shortcut(self, block: str, layers: list[Any], entries: list[Pair], gain: float, scale: torch.Tensor) -> None:
        """Fits a residual block's shortcut to what its other branch leaves of the teacher's sum, and adds it."""
        wide, narrow = layers
        kept = self.keep[f"{block}.conv1"]
        places = self._places(math.prod(self.batches[0].x[0].shape[2:]), narrow)
        inputs, targets = [], []
        for batch, entry in zip(self.batches, entries):
            at = places(len(batch.w))
            batch.x[0] = batch.x[0] + wide(entry[0], gain=gain)
            wanted = rows.gather(batch.x[0][:, kept], at) / scale.to(batch.w)
            targets.append((wanted - rows.gather(batch.x[1], at)) / gain)
            inputs.append(rows.patches(entry[1], narrow, at))
        flat = torch.cat(inputs).flatten(0, 1)
        matrix = rows.weight_matrix(narrow) * narrow.weight_gain
        ridge = self.options.ridge * flat.double().square().mean(dim=0)
        fit = solve.linear(flat, torch.cat(targets).flatten(0, 1), matrix, None, ridge)
        rows.set_weight(narrow, fit.weight / narrow.weight_gain)
        self._done(f"{block}.skip", fit)
        for batch, entry in zip(self.batches, entries):
            batch.x[1] = batch.x[1] + narrow(entry[1], gain=gain)

    def _image(self, res: int, blocks: list[Any]) -> None:
        """Fits torgb to what is left between the teacher's image at this resolution and the student's so far."""
        wide, narrow = (block.torgb for block in blocks)
        places = self._places(math.prod(self.batches[0].x[0].shape[2:]), narrow)
        inputs, targets, styles = [], [], []
        for batch in self.batches:
            at = places(len(batch.w))
            images = [upfirdn2d.upsample2d(img, blocks[0].resample_filter) for img in batch.img]
            added = wide(batch.x[0], batch.w, fused_modconv=False)
            batch.img = [added + images[0], images[1]] if images else [added]
            wanted = rows.gather(batch.img[0], at)
            targets.append(wanted - rows.gather(images[1], at) if images else wanted)
            style = narrow.affine(batch.w) * narrow.weight_gain
            inputs.append(rows.patches(batch.x[1] * style[:, :, None, None], narrow, at))
            styles.append(style)
        ridge = self.options.ridge * torch.cat(styles).double().square().mean(dim=0)
        fit = solve.linear(torch.cat(inputs).flatten(0, 1), torch.cat(targets).flatten(0, 1),
                           rows.weight_matrix(narrow), narrow.bias, ridge)  # fmt: skip
        assert fit.bias is not None
        rows.set_weight(narrow, fit.weight)
        narrow.bias.copy_(fit.bias)
        self._done(f"b{res}.torgb", fit)
        for batch in self.batches:
            added = narrow(batch.x[1], batch.w, fused_modconv=False)
            batch.img = [batch.img[0], added + batch.img[1] if len(batch.img) > 1 else added]

    def _done(self, name: str, fit: solve.Fit) -> None:
        self.fits.append(layer_fit(name, fit))
        self.advance()
