"""Refits a sliced StyleGAN3 generator to its teacher, layer by layer in closed form, without data.

As `dgl.refit.generator`: targets are the teacher's pre-activations, here over the whole canvas with its margin, and the
student's features are those of the layers before after their own fit. What differs:

- The input layer maps Fourier features linearly, so its weights are a plain least squares. Wide networks have far more
  features than a band so narrow has independent ones, so hardly anything is lost.
- There is no noise. A layer's stored magnitude divides its input. The teacher's changes in proportion to the mean
  square of what the layer reads in student and teacher, and is divided by the square of the fit's mean scale. Leaky
  ReLU and filters commute with a scale, so the layer then has the teacher's; clamping, which does not, is not reached
  by trained networks. In adversarial training the magnitudes are updated from there, as in any training; in
  distillation they stay.
"""
import dataclasses
from typing import Any

import torch

from torch_utils.network_types import Generator

from ..scores.sampling import latents
from . import rows, solve, walk
from .report import LayerFit, layer_fit
from .walk import BATCH_BYTES, Pair


@dataclasses.dataclass
class _Batch:
    """Some latents on their way through both networks."""
    w: torch.Tensor  # [n, w_dim]
    x: Pair  # features of teacher and student [n, C, H, W]

    def __len__(self) -> int:
        return len(self.w)

    def split(self, size: int) -> "list[_Batch]":
        """Parts of at most `size` latents."""
        return [_Batch(w, [a, b]) for w, a, b in zip(self.w.split(size), *(x.split(size) for x in self.x))]


@dataclasses.dataclass(frozen=True)
class Convolution:
    """What `rows` must know of a layer's convolution: all positions that its kernel touches are outputs."""
    weight: torch.Tensor
    padding: int


def num_layers(G: Generator) -> int:
    """How many layers a refit of a generator fits."""
    return 1 + len(G.synthesis.layer_names)


class Walk(walk.Walk):
    """One pass through all layers of StyleGAN3."""

    def run(self) -> list[LayerFit]:
        """Fits all layers; returns their rows of the report."""
        self.batches: list[_Batch] = []
        self._input([net.synthesis.input for net in self.nets])
        names = [net.synthesis.layer_names for net in self.nets]
        for number, pair in enumerate(zip(*names)):
            layers = [net.synthesis.get_submodule(name) for net, name in zip(self.nets, pair)]
            self._thin_out(layers)
            self._layer(f"L{number}", layers)
        return self.fits

    def _places(self, size: int, layer: Any) -> rows.Places:
        """Positions for a layer whose outputs have `size` pixels."""
        num = sum(len(batch.w) for batch in self.batches)
        return rows.Places(num, size, layer, self.options.max_rows, self.generator)

    def _thin_out(self, layers: list[Any]) -> None:
        """Drops latents that are too many for a layer, and splits the rest into passes."""
        side = max(*layers[0].in_size, *layers[0].out_size)
        bytes_each = 4 * sum(max(layer.weight.shape[:2]) for layer in layers) * side**2
        # a layer computes at a multiple of its sampling rate
        kept = self._passes(self.batches, side, bytes_each, 4 * bytes_each)
        self.batches = [_Batch(batch.w, [x.clone() for x in batch.x]) for batch in kept]

    def _input(self, layers: list[Any]) -> None:
        """Fits the map of Fourier features, on the teacher's channels that are kept."""
        wide, narrow = layers
        teacher = self.nets[0]
        side = max(wide.size)
        bytes_each = 4 * side**2 * (len(wide.freqs) + len(narrow.freqs))
        z, c = latents(teacher, self._room(side, bytes_each), self.generator)
        ws = teacher.mapping(z, c)[:, 0]
        self.batches = [_Batch(w, [layer(w) for layer in layers]) for w in ws.split(max(1, BATCH_BYTES // bytes_each))]
        places = self._places(wide.size[0] * wide.size[1], narrow)
        weight = narrow.weight.clone()
        narrow.weight.copy_(torch.eye(len(weight)) * len(weight) ** 0.5)  # so that its outputs are the features
        inputs, targets = [], []
        for batch in self.batches:
            at = places(len(batch.w))
            inputs.append(rows.gather(narrow(batch.w), at))
            targets.append(rows.gather(batch.x[0][:, self.keep["input"]], at))
        flat = torch.cat(inputs).flatten(0, 1)
        gain = len(weight) ** -0.5
        ridge = self.options.ridge * _INPUT_RIDGE * flat.double().square().mean(dim=0)
        fit = solve.linear(flat, torch.cat(targets).flatten(0, 1), weight * gain, None, ridge)
        narrow.weight.copy_(fit.weight / gain)
        self._done("input", fit)
        for batch in self.batches:
            batch.x[1] = narrow(batch.w)

    def _layer(self, name: str, layers: list[Any]) -> None:
        """Fits a layer's convolution to the teacher's before bias and nonlinearity, and runs it."""
        wide, narrow = layers
        kept = slice(None) if wide.is_torgb else self.keep[name]
        padding = wide.conv_kernel - 1
        pair = [Convolution(layer.weight, padding) for layer in layers]
        energy_wide, energy = (sum(batch.x[i].double().square().mean() * len(batch.w) for batch in self.batches)
                               for i in (0, 1))
        narrow.magnitude_ema.copy_(wide.magnitude_ema * energy / energy_wide)
        gains = [layer.magnitude_ema.rsqrt() for layer in layers]
        places = self._places((wide.in_size[0] + padding) * (wide.in_size[1] + padding), narrow)
        inputs, targets, styles = [], [], []
        for batch in self.batches:
            at = places(len(batch.w))
            s_wide, s_narrow = (styles_of(layer, batch.w) for layer in layers)
            scaled = batch.x[0] * (s_wide * gains[0])[:, :, None, None]
            target = rows.patches(scaled, pair[0], at) @ rows.weight_matrix(pair[0])[kept].t()
            if not wide.is_torgb:
                of_weights = wide.weight[kept].square().sum(dim=[2, 3])  # [O, I]
                target = target * (s_wide.square() @ of_weights.t() + 1e-8).rsqrt()[:, None]
            targets.append(target)
            inputs.append(rows.patches(batch.x[1] * (s_narrow * gains[1])[:, :, None, None], pair[1], at))
            styles.append(s_narrow)
        if wide.is_torgb:
            self._image(name, narrow, torch.cat(inputs).flatten(0, 1), torch.cat(targets).flatten(0, 1), styles)
            return
        fit = solve.demodulated(torch.cat(inputs), torch.cat(targets), rows.weight_matrix(pair[1]), torch.cat(styles),
                                self.options.ridge, self.options.iterations)  # fmt: skip
        rows.set_weight(narrow, fit.weight)
        mean = fit.scale.log().mean().exp()  # taken up by the magnitude; what is left, by bias and the next layer
        narrow.magnitude_ema.div_(mean**2)
        narrow.bias.copy_(narrow.bias / (fit.scale / mean))
        self._done(name, fit)
        for batch in self.batches:
            batch.x = [layer(x, batch.w, force_fp32=True) for layer, x in zip(layers, batch.x)]

    def _image(
        self, name: str, narrow: Any, inputs: torch.Tensor, targets: torch.Tensor, styles: list[torch.Tensor]
    ) -> None:
        """Fits the layer that makes the image, which is linear, from rows [R, C] and targets [R, img_channels]."""
        ridge = self.options.ridge * torch.cat(styles).double().square().mean(dim=0)
        fit = solve.linear(inputs, targets + narrow.bias, rows.weight_matrix(narrow), narrow.bias, ridge)
        assert fit.bias is not None
        rows.set_weight(narrow, fit.weight)
        narrow.bias.copy_(fit.bias)
        self._done(name, fit)

    def _done(self, name: str, fit: solve.Fit) -> None:
        self.fits.append(layer_fit(name, fit))
        self.advance()


_INPUT_RIDGE = 1e-4  # of that of other layers: features are known exactly, and hardly depend on the latent


def styles_of(layer: Any, w: torch.Tensor) -> torch.Tensor:
    """The factors of a layer's input channels [n, I] for w [n, w_dim]."""
    styles = layer.affine(w)
    return styles / (layer.in_channels * layer.conv_kernel**2) ** 0.5 if layer.is_torgb else styles
