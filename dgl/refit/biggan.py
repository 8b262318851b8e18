"""Refits a sliced BigGAN generator to its teacher, layer by layer in closed form, without data.

As `dgl.refit.generator`, but nothing is demodulated, so every fit is one ridge least squares. The student has no
spectral normalisation (`prepared`), which would take away the scale of a fitted weight. Its batch statistics follow its
own features, so that a normalised channel keeps the mean and the variance that its teacher's has.
"""
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F

from training.biggan.estimates import fold_spectral_norm

from ..scores.sampling import latents
from . import rows, solve, walk
from .report import LayerFit, layer_fit
from .walk import Pair

_MAX_BILINEAR = 4096  # unknowns of the queries of attention, up to which its scores are fitted


@dataclasses.dataclass
class _Batch:
    """Some latents on their way through both networks."""
    conditions: list[torch.Tensor]  # of the norms of every stage, [n, K]
    x: Pair  # features [n, C, H, W]

    def __len__(self) -> int:
        return len(self.x[0])

    def split(self, size: int) -> "list[_Batch]":
        """Parts of at most `size` latents."""
        parts = zip(zip(*(y.split(size) for y in self.conditions)), zip(*(x.split(size) for x in self.x)))
        return [_Batch(list(conditions), list(x)) for conditions, x in parts]


@dataclasses.dataclass(frozen=True)
class _Kernel:
    """What `dgl.refit.rows` must know of a convolution."""
    weight: torch.Tensor  # [O, C, K, K]
    padding: int


def prepared(G: Any) -> Any:
    """What a slice that will be refitted is cut out of: the generator with spectral normalisation folded in."""
    return fold_spectral_norm(G) if G.options["G_param"] == "SN" else G


def num_layers(G: Any) -> int:
    """How many layers a refit of a generator fits; the two branches that a block adds are fitted together."""
    return sum(2 + 4 * (len(stage) - 1) for stage in G.blocks) + 1


def _double(x: torch.Tensor) -> torch.Tensor:
    return F.interpolate(x, scale_factor=2, mode="nearest")


class Walk(walk.Walk):
    """One pass through all layers of BigGAN.

    Args:
        teacher: the generator that was sliced.
        student: a slice of what `prepared` makes of it.
        keep: channel set → kept channels, ascending int64 [C'].
        options, advance: as of `dgl.refit.walk.Walk`.

    Raises:
        ValueError: the student is spectrally normalised.
    """

    def __init__(self, teacher: Any, student: Any, keep: Mapping[str, torch.Tensor], *args: Any) -> None:
        if student.options["G_param"] != "none":
            raise ValueError("Walk: expected a slice of `prepared(teacher)`, found spectral normalisation")
        super().__init__(prepared(teacher), student, keep, *args)
        self.batches = self._start()

    def run(self) -> list[LayerFit]:
        """Fits all layers; returns their rows of the report."""
        for i, stages in enumerate(zip(*(net.blocks for net in self.nets))):
            self._thin_out([stage[0] for stage in stages])
            self._block(i, [stage[0] for stage in stages])
            if len(stages[0]) > 1:
                self._attention(i, [stage[1] for stage in stages])
        self._image([net.output_layer for net in self.nets])
        return self.fits

    def _start(self) -> list[_Batch]:
        """The first layer's outputs; a slice of it is exact."""
        teacher = self.nets[0]
        z, c = latents(teacher, self._num_latents(8), self.generator)
        first, conditions = teacher.conditions(z, c)
        x = [net.linear(first).reshape(len(z), -1, 4, 4) for net in self.nets]
        return [_Batch(list(conditions), x)]

    def _thin_out(self, blocks: list[Any]) -> None:
        """Drops latents that are too many for a block, and splits the rest into passes."""
        res = 2 * self.batches[0].x[0].shape[2]
        channels = sum(max(block.conv1.in_channels, block.conv2.in_channels) for block in blocks)
        bytes_each = 4 * channels * res**2
        kept = self._passes(self.batches, res, bytes_each, bytes_each)
        self.batches = [_Batch(batch.conditions, [x.clone() for x in batch.x]) for batch in kept]

    def _places(self, unknowns: int) -> rows.Places:
        """Positions for an output of the present resolution."""
        num = sum(len(batch.x[0]) for batch in self.batches)
        size = self.batches[0].x[0].shape[2] ** 2
        return rows.Places(num, size, _Kernel(torch.empty([1, unknowns]), 0), self.options.max_rows, self.generator)

    # Layers.

    def _block(self, i: int, blocks: list[Any]) -> None:
        """A residual block: its first convolution, then the second one and the shortcut, whose sum is its output."""
        name, (wide, narrow) = f"blocks.{i}.0", blocks
        entries = [[_double(x) for x in batch.x] for batch in self.batches]
        self._norm([block.bn1 for block in blocks], self.keep[f"stream{i}"])
        self._apply(lambda k, batch: _double(F.relu(blocks[k].bn1(batch.x[k], batch.conditions[i]))))
        hidden = self.keep[f"{name}.hidden"]
        self._convolution(f"{name}.conv1", wide.conv1, narrow.conv1, hidden)

        self._norm([block.bn2 for block in blocks], hidden)
        self._apply(lambda k, batch: F.relu(blocks[k].bn2(batch.x[k], batch.conditions[i])))
        kept = self.keep[f"stream{i + 1}"]
        layers = [_Kernel(narrow.conv2.weight, 1), _Kernel(narrow.conv_sc.weight, 0)]
        weights = torch.cat([layer.weight.flatten(1) for layer in layers], dim=1)
        places = self._places(weights.shape[1])
        inputs, targets = [], []
        for batch, entry in zip(self.batches, entries):
            at = places(len(batch.x[0]))
            batch.x[0] = wide.conv2(batch.x[0]) + wide.conv_sc(entry[0])
            inputs.append(torch.cat([rows.patches(x, layer, at) for x, layer in zip((batch.x[1], entry[1]), layers)],
                                    dim=2))
            targets.append(rows.gather(batch.x[0][:, kept], at))
        fit = self._fit(f"{name}.conv2+conv_sc", inputs, targets, weights, narrow.conv2.bias + narrow.conv_sc.bias)
        assert fit.bias is not None
        parts = fit.weight.split([layer.weight[0].numel() for layer in layers], dim=1)
        for layer, part in zip((narrow.conv2, narrow.conv_sc), parts):
            layer.weight.copy_(part.reshape(layer.weight.shape))
        narrow.conv2.bias.copy_(fit.bias - narrow.conv_sc.bias)
        for batch, entry in zip(self.batches, entries):
            batch.x[1] = narrow.conv2(batch.x[1]) + narrow.conv_sc(entry[1])

    def _attention(self, i: int, layers: list[Any]) -> None:
        """Values and keys are fitted each, queries to the scores, and what they lead to to the teacher's sum."""
        name, (wide, narrow) = f"blocks.{i}.1", layers
        kept = self.keep[f"stream{i + 1}"]
        entries = [batch.x for batch in self.batches]
        parts = [("g", "v"), ("phi", "qk"), ("theta", "qk")]
        by_scores = narrow.theta.weight.numel() <= _MAX_BILINEAR
        for part, chosen in parts[:2] if by_scores else parts:
            self.batches = [_Batch(batch.conditions, list(x)) for batch, x in zip(self.batches, entries)]
            self._convolution(f"{name}.{part}", getattr(wide, part), getattr(narrow, part),
                              self.keep[f"{name}.{chosen}"], run=False)
        if by_scores:
            self._queries(f"{name}.theta", wide, narrow, entries)
        places = self._places(narrow.o.in_channels)
        inputs, targets, values = [], [], []
        for x in entries:
            at = places(len(x[0]))
            attended = _attended(narrow, x[1])
            target = wide(x[0])
            inputs.append(rows.patches(attended * narrow.gamma, _Kernel(narrow.o.weight, 0), at))
            targets.append(rows.gather(target[:, kept] - x[1], at))
            values.append(target)
        fit = self._fit(f"{name}.o", inputs, targets, narrow.o.weight.flatten(1), None)
        narrow.o.weight.copy_(fit.weight.reshape(narrow.o.weight.shape))
        for batch, x, target in zip(self.batches, entries, values):
            batch.x = [target, narrow(x[1])]

    def _queries(self, name: str, wide: Any, narrow: Any, entries: list[Pair]) -> None:
        """Fits the queries to the teacher's scores, which are linear in them for given keys.

        Softmax does not see what all keys have in common, so the keys are centred.
        """
        inputs, targets = [], []
        unknowns = narrow.theta.weight.numel()
        size = self.batches[0].x[0].shape[2] ** 2
        num = sum(len(x[0]) for x in entries)
        kernel = _Kernel(torch.empty([1, unknowns]), 0)
        places = rows.Places(num, size * (size // 4), kernel, self.options.max_rows, self.generator)
        for x in entries:
            at = places(len(x[0])).to(self.device)
            queries, keys = at // (size // 4), at % (size // 4)
            theta = rows.gather(wide.theta(x[0]), queries)  # [n, P, C/8]
            features = rows.gather(x[1], queries)  # [n, P, C']
            of_keys = [rows.gather(_centred_keys(layer, own), keys) for layer, own in zip((wide, narrow), x)]
            targets.append((theta * of_keys[0]).sum(dim=2, keepdim=True))
            inputs.append((of_keys[1][..., None] * features[:, :, None]).flatten(2))
        fit = self._fit(name, inputs, targets, narrow.theta.weight.flatten()[None], None)
        narrow.theta.weight.copy_(fit.weight.reshape(narrow.theta.weight.shape))

    def _image(self, layers: list[Any]) -> None:
        """The output convolution, to the teacher's values before the final tanh."""
        pairs = [list(layer.children()) for layer in layers]
        kept = self.keep[f"stream{len(self.nets[0].blocks)}"]
        self._norm([norm for norm, _ in pairs], kept)
        self._apply(lambda k, batch: F.relu(pairs[k][0](batch.x[k])))
        (_, wide), (_, narrow) = pairs
        self._convolution("output_layer.2", wide, narrow, None)

    # What they share.

    def _apply(self, function: Callable[[int, _Batch], torch.Tensor]) -> None:
        """Replaces the features of teacher (0) and student (1) of every batch."""
        for batch in self.batches:
            batch.x = [function(k, batch) for k in (0, 1)]

    def _norm(self, norms: list[Any], kept: torch.Tensor) -> None:
        """Gives the student's norm statistics with which its outputs have the teacher's means and variances."""
        wide, narrow = norms
        (mean_t, var_t), (mean_s, var_s) = (
            _moments([batch.x[k] if k else batch.x[k][:, kept] for batch in self.batches]) for k in (0, 1))
        stored_mean, stored_var = wide.stored_mean[kept].double(), wide.stored_var[kept].double()
        ratio = torch.where(var_t > 1e-12, var_s / var_t.clamp_min(1e-30), torch.ones_like(var_t))
        var = ((stored_var + wide.eps) * ratio - narrow.eps).clamp_min(0)
        narrow.stored_mean.copy_(mean_s - (mean_t - stored_mean) * ratio.sqrt())
        narrow.stored_var.copy_(var)

    def _convolution(
        self, name: str, wide: Any, narrow: Any, kept: torch.Tensor | None, run: bool = True
    ) -> None:
        """Fits a convolution to the teacher's outputs, and runs it."""
        kernel = _Kernel(narrow.weight, narrow.padding[0])
        places = self._places(kernel.weight[0].numel())
        inputs, targets = [], []
        for batch in self.batches:
            at = places(len(batch.x[0]))
            inputs.append(rows.patches(batch.x[1], kernel, at))
            batch.x[0] = wide(batch.x[0])
            targets.append(rows.gather(batch.x[0] if kept is None else batch.x[0][:, kept], at))
        fit = self._fit(name, inputs, targets, kernel.weight.flatten(1), narrow.bias)
        narrow.weight.copy_(fit.weight.reshape(narrow.weight.shape))
        if fit.bias is not None:
            narrow.bias.copy_(fit.bias)
        if run:
            for batch in self.batches:
                batch.x[1] = narrow(batch.x[1])

    def _fit(
        self,
        name: str,
        inputs: Sequence[torch.Tensor],
        targets: Sequence[torch.Tensor],
        weight: torch.Tensor,
        bias: torch.Tensor | None,
    ) -> solve.Fit:
        """Least squares of rows [n, P, K] of every batch to targets [n, P, O], around present weights [O, K]."""
        flat, wanted = torch.cat(list(inputs)).flatten(0, 1), torch.cat(list(targets)).flatten(0, 1)
        scarcity = max(1.0, flat.shape[1] / len(flat))  # unknowns per row, where there are too few rows
        ridge = self.options.ridge * scarcity * flat.double().square().mean(dim=0)
        fit = solve.linear(flat, wanted, weight, bias, ridge)
        self.fits.append(layer_fit(name, fit))
        self.advance()
        return fit


def _moments(parts: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and variance of every channel over features [n, C, H, W], float64 [C] each."""
    count = sum(x[:, 0].numel() for x in parts)
    mean = torch.stack([x.double().sum(dim=[0, 2, 3]) for x in parts]).sum(dim=0) / count
    squares = [(x.double() - mean[:, None, None]).square().sum(dim=[0, 2, 3]) for x in parts]
    var = torch.stack(squares).sum(dim=0) / count
    return mean, var


def _centred_keys(layer: Any, x: torch.Tensor) -> torch.Tensor:
    """Keys of an attention less their mean, [N, C/8, H/2, W/2]."""
    keys = F.max_pool2d(layer.phi(x), 2)
    return keys - keys.mean(dim=[2, 3], keepdim=True)


def _attended(layer: Any, x: torch.Tensor) -> torch.Tensor:
    """What the last convolution of an attention reads, [N, C/2, H, W]."""
    read: list[torch.Tensor] = []
    handle = layer.o.register_forward_pre_hook(lambda module, inputs: read.append(inputs[0]))
    try:
        layer(x)
    finally:
        handle.remove()
    return read[0]
