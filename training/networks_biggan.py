"""BigGAN and BigGAN-deep (Brock et al. 2019, arXiv:1809.11096): class-conditional, spectrally normalised.

Names, shapes and arithmetic are those of the public PyTorch checkpoints. The text of this file is embedded in every
network pickle and executed by the code base that reads it, so it imports nothing but torch and torch_utils.persistence.

Shapes: N batch, C channels, H and W pixels, K conditioning vector. Labels are integers [N] or one-hot rows [N, c_dim];
rows may also mix classes.
"""
import math
from typing import NamedTuple

import torch
import torch.nn.functional as F

from torch_utils import persistence

MODELS = ("BigGAN", "BigGANdeep")
BOTTOM = 4  # side of the generator's first activations

# Widths of the streams between residual blocks, in units of the channel multiplier, by image size.
# Generator: before the first block, then after every stage. Discriminator: from the first convolution on.
GENERATOR_STREAMS = {
    32: (4, 4, 4, 4),
    64: (16, 16, 8, 4, 2),
    128: (16, 16, 8, 4, 2, 1),
    256: (16, 16, 8, 8, 4, 2, 1),
    512: (16, 16, 8, 8, 4, 2, 1, 1),
}
DISCRIMINATOR_STREAMS = {
    32: (4, 4, 4, 4),
    64: (1, 2, 4, 8, 16),
    128: (1, 2, 4, 8, 16, 16),
    256: (1, 2, 4, 8, 8, 16, 16),
}


class Block(NamedTuple):
    """One residual block: its place in `blocks`, its widths, and what goes with it."""

    stage: int
    index: int
    in_channels: int
    hidden_channels: int
    out_channels: int
    resample: bool  # doubles (generator) or halves (discriminator) the resolution
    attention: bool  # self-attention follows, at index + 1 of the same stage

    @property
    def name(self):
        """Dotted name in the network."""
        return f"blocks.{self.stage}.{self.index}"


def generator_blocks(streams, model="BigGAN", depth=2, attention="0"):
    """The plan of a generator.

    Args:
        streams: widths before the first stage and after every stage.
        model: one of MODELS.
        depth: blocks per stage of BigGAN-deep.
        attention: resolutions after whose stage attention is inserted, joined by underscores; "0" is none.
    """
    blocks = []
    for stage, out in enumerate(streams[1:]):
        width = streams[stage]
        attended = BOTTOM << (stage + 1) in _resolutions(attention)
        if model == "BigGAN":
            blocks.append(Block(stage, 0, width, out, out, True, attended))
            continue
        for i in range(stage * depth, (stage + 1) * depth):
            last = i == (stage + 1) * depth - 1
            blocks.append(Block(i, 0, width, width // 4, out if last else width, last, attended and last))
    return blocks


def discriminator_blocks(img_resolution, img_channels, streams, model="BigGAN", depth=2, attention="0", wide=True):
    """The plan of a discriminator; arguments as in `generator_blocks`.

    Attention goes by the resolution that a block puts out, except at 32 px, where all blocks answer to 16. Without
    `wide`, the hidden width of a block is its input's instead of its output's.
    """
    halvings = 2 if img_resolution == 32 else int(math.log2(img_resolution // BOTTOM))
    widths = [img_channels, *streams] if model == "BigGAN" else streams
    blocks = []
    for stage, out in enumerate(widths[1:]):
        width = widths[stage]
        label = 16 if img_resolution == 32 else img_resolution >> min(stage + 1, halvings)
        attended, down = label in _resolutions(attention), stage < halvings
        if model == "BigGAN":
            blocks.append(Block(stage, 0, width, out if wide else width, out, down, attended))
            continue
        for i in range(depth):
            entry = width if i == 0 else out
            blocks.append(Block(stage, i, entry, out // 4, out, down and i == 0, attended and i == depth - 1))
    return blocks


def _resolutions(text):
    parts = str(text).split("_")
    if not all(part.isdigit() for part in parts):
        raise ValueError(f"attention: expected resolutions joined by underscores, such as 32_64, or 0, found {text!r}")
    return {int(part) for part in parts}


def _check_choice(name, value, known):
    if value not in known:
        raise ValueError(f"{name}: expected one of {', '.join(map(str, known))}, found {value!r}")


def _streams(name, channels, multiplier, img_resolution, table):
    """Widths as given, or by the table."""
    if channels is None:
        return [step * multiplier for step in table[img_resolution]]
    if len(channels) != len(table[img_resolution]):
        raise ValueError(f"{name}: expected {len(table[img_resolution])} widths for {img_resolution}x{img_resolution} "
                         f"images, found {len(channels)}")
    return list(channels)


def _options(arguments):
    """A constructor's arguments as the network keeps them."""
    return {name: value for name, value in arguments.items() if name not in ("self", "__class__", "skip_init")}


def _check_labels(c, c_dim):
    if (c.ndim == 1 and not c.is_floating_point()) or (c.ndim == 2 and c.shape[1] == c_dim):
        return
    raise ValueError(f"labels: expected integers [N] or one-hot rows [N, {c_dim}], found {c.dtype} {list(c.shape)}")


# ----------------------------------------------------------------------------------------------------------------------
# Layers


class _SpectralNorm:
    """Divides a weight, viewed as a matrix [out, rest], by an estimated largest singular value (arXiv:1802.05957).

    The estimate takes one step of power iteration from the stored vector `u0` in every call. In training mode the
    step's result is stored; in eval mode it is not. `u1`, `u2`, ... follow the next singular values, `sv0`, ... record
    the values; neither influences the layer.
    """

    def _add_vectors(self, rows, spectral):
        """`spectral`: num_svs, num_itrs (steps per call in training mode) and eps; None leaves the weight alone."""
        self.num_svs = 0
        if spectral is not None:
            self.num_svs, self.num_itrs, self.sn_eps = (spectral[name] for name in ("num_svs", "num_itrs", "eps"))
        for i in range(self.num_svs):
            self.register_buffer(f"u{i}", torch.randn([1, rows]))
            self.register_buffer(f"sv{i}", torch.ones([1]))

    def normalized_weight(self):
        """The weight that the layer computes with."""
        if self.num_svs == 0:
            return self.weight
        matrix = self.weight.flatten(1)
        pairs = self._iterate(matrix.detach())
        values = [left @ matrix @ right.t() for left, right in pairs]  # [1, 1]; differentiable in the weight alone
        if self.training:
            for i, value in enumerate(values):
                getattr(self, f"u{i}").copy_(pairs[i][0])
                getattr(self, f"sv{i}").copy_(value.detach().flatten())
        return self.weight / values[0].squeeze()

    def _iterate(self, matrix):
        """(left [1, out], right [1, rest]) vector of every singular value, orthogonal to those before them."""
        lefts = [getattr(self, f"u{i}") for i in range(self.num_svs)]
        for _ in range(self.num_itrs if self.training else 1):
            pairs = []
            for left in lefts:
                right = _orthonormal(left @ matrix, [known for _, known in pairs], self.sn_eps)
                pairs.append((_orthonormal(right @ matrix.t(), [known for known, _ in pairs], self.sn_eps), right))
            lefts = [left for left, _ in pairs]
        return pairs


def _orthonormal(x, directions, eps):
    """x [1, n] less its parts along orthonormal directions [1, n], brought to length one."""
    if directions:
        basis = torch.cat(directions)
        x = x - x @ basis.t() @ basis
    return F.normalize(x, eps=eps)


@persistence.persistent_class
class Conv2d(_SpectralNorm, torch.nn.Conv2d):
    """Convolution that keeps the resolution: [N, in_channels, H, W] → [N, out_channels, H, W]."""

    def __init__(self, in_channels, out_channels, kernel_size, spectral, bias=True):
        super().__init__(in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=bias)
        self._add_vectors(out_channels, spectral)

    def forward(self, x):
        return F.conv2d(x, self.normalized_weight(), self.bias, padding=self.padding)


@persistence.persistent_class
class Linear(_SpectralNorm, torch.nn.Linear):
    """Dense layer: [N, in_features] → [N, out_features]."""

    def __init__(self, in_features, out_features, spectral, bias=True):
        super().__init__(in_features, out_features, bias=bias)
        self._add_vectors(out_features, spectral)

    def forward(self, x):
        return F.linear(x, self.normalized_weight(), self.bias)


@persistence.persistent_class
class Embedding(_SpectralNorm, torch.nn.Embedding):
    """A vector per class: labels → [N, embedding_dim]."""

    def __init__(self, num_embeddings, embedding_dim, spectral=None):
        super().__init__(num_embeddings, embedding_dim)
        self._add_vectors(num_embeddings, spectral)

    def forward(self, c):
        weight = self.normalized_weight()
        return F.embedding(c, weight) if c.ndim == 1 else c.to(weight.dtype) @ weight


class _BatchStatistics:
    """Normalisation by the batch's statistics in training mode, by stored averages of them in eval mode."""

    def _add_statistics(self, num_channels, eps):
        self.eps = eps
        self.register_buffer("stored_mean", torch.zeros([num_channels]))
        self.register_buffer("stored_var", torch.ones([num_channels]))

    def _normalize(self, x):
        # Divides by the biased variance, averages the unbiased one.
        return F.batch_norm(x, self.stored_mean, self.stored_var, training=self.training, momentum=0.1, eps=self.eps)


@persistence.persistent_class
class ConditionalBatchNorm(_BatchStatistics, torch.nn.Module):
    """Batch norm whose gain and bias depend on a conditioning vector [N, K] (`shared`) or on the label itself.

    `condition_dim` is K or the number of classes.
    """

    def __init__(self, num_channels, condition_dim, shared, eps, spectral):
        super().__init__()
        self._add_statistics(num_channels, eps)
        for name in ("gain", "bias"):
            layer = Embedding(condition_dim, num_channels)
            if shared:
                layer = Linear(condition_dim, num_channels, spectral, bias=False)
            setattr(self, name, layer)

    def forward(self, x, y):
        gain, bias = (part(y)[:, :, None, None] for part in (self.gain, self.bias))
        return self._normalize(x) * (1 + gain) + bias


@persistence.persistent_class
class BatchNorm(_BatchStatistics, torch.nn.Module):
    """Batch norm with a learned gain and bias."""

    def __init__(self, num_channels, eps=1e-5):
        super().__init__()
        self.gain = torch.nn.Parameter(torch.ones([num_channels]))
        self.bias = torch.nn.Parameter(torch.zeros([num_channels]))
        self._add_statistics(num_channels, eps)

    def forward(self, x):
        return self._normalize(x) * self.gain[:, None, None] + self.bias[:, None, None]


@persistence.persistent_class
class SelfAttention(torch.nn.Module):
    """Adds to every position what it attends to (arXiv:1805.08318, equations 1 to 3): [N, C, H, W] → the same.

    Keys and values are max-pooled to half the resolution; the scores are not scaled.
    """

    def __init__(self, num_channels, spectral):
        super().__init__()
        if num_channels < 8:
            raise ValueError(f"attention: expected at least 8 channels, found {num_channels}")
        self.gamma = torch.nn.Parameter(torch.zeros([]))
        self.theta = Conv2d(num_channels, num_channels // 8, 1, spectral, bias=False)
        self.phi = Conv2d(num_channels, num_channels // 8, 1, spectral, bias=False)
        self.g = Conv2d(num_channels, num_channels // 2, 1, spectral, bias=False)
        self.o = Conv2d(num_channels // 2, num_channels, 1, spectral, bias=False)

    def forward(self, x):
        queries = self.theta(x).flatten(2)  # [N, C/8, H*W]
        keys = F.max_pool2d(self.phi(x), 2).flatten(2)  # [N, C/8, H*W/4]
        values = F.max_pool2d(self.g(x), 2).flatten(2)  # [N, C/2, H*W/4]
        weights = torch.bmm(queries.transpose(1, 2), keys).softmax(dim=2)
        attended = torch.bmm(values, weights.transpose(1, 2))  # [N, C/2, H*W]
        return self.gamma * self.o(attended.reshape(*attended.shape[:2], *x.shape[2:])) + x


@persistence.persistent_class
class Sequence(torch.nn.ModuleList):
    """A list of modules whose pickle names nothing but what this file defines."""


def _double(x):
    return F.interpolate(x, scale_factor=2, mode="nearest")


def _add_blocks(network, plan, make_block, spectral):
    """`network.blocks`: stage by stage the blocks of the plan, attention behind its block."""
    network.blocks = Sequence()
    for block in plan:
        if min(block.hidden_channels, block.out_channels) < 1:
            raise ValueError(f"{block.name}: too narrow for {network.options['model']}: it would have no channels")
        if block.stage == len(network.blocks):
            network.blocks.append(Sequence())
        network.blocks[block.stage].append(make_block(block))
        if block.attention:
            network.blocks[block.stage].append(SelfAttention(block.out_channels, spectral))


_INITIALIZERS = {
    "ortho": torch.nn.init.orthogonal_,
    "N02": lambda weight: torch.nn.init.normal_(weight, std=0.02),
    "xavier": torch.nn.init.xavier_uniform_,
    "glorot": torch.nn.init.xavier_uniform_,
}


def _initialize(network, init):
    """Weights of convolutions, dense layers and embeddings; biases keep torch's default, which is not zero."""
    for module in network.modules():
        if isinstance(module, (torch.nn.Conv2d, torch.nn.Linear, torch.nn.Embedding)):
            _INITIALIZERS[init](module.weight)


def _spectral(param, num_svs, num_itrs, eps):
    return {"num_svs": num_svs, "num_itrs": num_itrs, "eps": eps} if param == "SN" else None


# ----------------------------------------------------------------------------------------------------------------------
# Generator


@persistence.persistent_class
class GeneratorBlock(torch.nn.Module):
    """Residual block: x [N, in_channels, H, W], condition y → [N, out_channels, 2H, 2W]."""

    def __init__(self, in_channels, hidden_channels, out_channels, norm, spectral):
        super().__init__()
        self.conv1 = Conv2d(in_channels, hidden_channels, 3, spectral)
        self.conv2 = Conv2d(hidden_channels, out_channels, 3, spectral)
        self.conv_sc = Conv2d(in_channels, out_channels, 1, spectral)
        self.bn1 = ConditionalBatchNorm(in_channels, **norm)
        self.bn2 = ConditionalBatchNorm(hidden_channels, **norm)

    def forward(self, x, y):
        h = self.conv1(_double(F.relu(self.bn1(x, y))))
        h = self.conv2(F.relu(self.bn2(h, y)))
        return h + self.conv_sc(_double(x))


@persistence.persistent_class
class DeepGeneratorBlock(torch.nn.Module):
    """Bottleneck block of BigGAN-deep: x [N, in_channels, H, W], y → [N, out_channels, H, W], or twice the size.

    The shortcut is the input's first channels.
    """

    def __init__(self, in_channels, hidden_channels, out_channels, resample, norm, spectral):
        super().__init__()
        self.out_channels = out_channels
        self.resample = resample
        self.conv1 = Conv2d(in_channels, hidden_channels, 1, spectral)
        self.conv2 = Conv2d(hidden_channels, hidden_channels, 3, spectral)
        self.conv3 = Conv2d(hidden_channels, hidden_channels, 3, spectral)
        self.conv4 = Conv2d(hidden_channels, out_channels, 1, spectral)
        self.bn1 = ConditionalBatchNorm(in_channels, **norm)
        self.bn2 = ConditionalBatchNorm(hidden_channels, **norm)
        self.bn3 = ConditionalBatchNorm(hidden_channels, **norm)
        self.bn4 = ConditionalBatchNorm(hidden_channels, **norm)

    def forward(self, x, y):
        h = F.relu(self.bn2(self.conv1(F.relu(self.bn1(x, y))), y))
        shortcut = x[:, : self.out_channels]
        if self.resample:
            h, shortcut = _double(h), _double(shortcut)
        h = self.conv3(F.relu(self.bn3(self.conv2(h), y)))
        return self.conv4(F.relu(self.bn4(h, y))) + shortcut


@persistence.persistent_class
class OutputLayer(torch.nn.Module):
    """The last activations [N, C, H, W] → images in [-1, 1]. The gap in the names is the activation."""

    def __init__(self, in_channels, img_channels, spectral):
        super().__init__()
        self.add_module("0", BatchNorm(in_channels))
        self.add_module("2", Conv2d(in_channels, img_channels, 3, spectral))

    def forward(self, x):
        norm, conv = self.children()
        return conv(F.relu(norm(x))).tanh()


@persistence.persistent_class
class BigGANGenerator(torch.nn.Module):
    """z [N, z_dim] and labels c → images [N, img_channels, img_resolution, img_resolution] in [-1, 1].

    `z_dim` is what is left of the argument `dim_z` after rounding; `options` are the constructor's arguments.
    """

    def __init__(
        self,
        c_dim,  # number of classes
        img_resolution,  # 32, 64, 128, 256 or 512
        img_channels=3,
        model="BigGAN",  # or BigGANdeep
        G_ch=64,  # channel multiplier
        G_channels=None,  # widths of the streams, where they are not those of the multiplier
        dim_z=128,  # of z; with `hier` rounded down to a multiple of the number of stages + 1
        hier=False,  # every stage has its own piece of z
        G_shared=False,  # one embedding of the labels for all layers
        shared_dim=0,  # its width; 0 is dim_z
        G_attn="64",  # resolutions with attention, joined by underscores; 0 is none
        G_depth=2,  # blocks per stage of BigGANdeep
        G_param="SN",  # or none, without spectral normalisation
        G_init="ortho",  # initial weights: ortho, N02 or xavier
        num_G_SVs=1,  # singular values followed
        num_G_SV_itrs=1,  # power iterations per pass in training mode
        SN_eps=1e-12,
        BN_eps=1e-5,  # of conditional batch norms; that of the output layer is always 1e-5
        skip_init=False,  # leave weights as torch makes them
    ):
        super().__init__()
        self.options = _options(locals())
        _check_choice("img_resolution", img_resolution, GENERATOR_STREAMS)
        _check_choice("model", model, MODELS)
        _check_choice("G_param", G_param, ("SN", "none"))
        _check_choice("G_init", G_init, _INITIALIZERS)
        if c_dim < 1:
            raise ValueError(f"c_dim: BigGAN needs at least one class, found {c_dim}")
        if model == "BigGANdeep" and not hier:
            raise ValueError("hier: BigGANdeep needs it")
        if hier and not G_shared:
            raise ValueError("G_shared: needed where hier is")
        self.c_dim = c_dim
        self.img_resolution = img_resolution
        self.img_channels = img_channels
        self.hier = hier
        self.deep = model == "BigGANdeep"

        streams = _streams("G_channels", G_channels, G_ch, img_resolution, GENERATOR_STREAMS)
        num_pieces = len(streams) if hier and not self.deep else 1
        if dim_z < num_pieces:
            raise ValueError(f"dim_z: expected at least {num_pieces}, one number for every piece, found {dim_z}")
        self.piece_dim = dim_z // num_pieces
        self.z_dim = self.piece_dim * num_pieces
        embedding_dim = (shared_dim or dim_z) if G_shared else 0
        spectral = _spectral(G_param, num_G_SVs, num_G_SV_itrs, SN_eps)
        condition_dim = embedding_dim + self.piece_dim if hier else (embedding_dim or c_dim)
        norm = {"condition_dim": condition_dim, "shared": G_shared, "eps": BN_eps, "spectral": spectral}

        self.shared = Embedding(c_dim, embedding_dim) if G_shared else None
        first_dim = condition_dim if self.deep else self.piece_dim
        self.linear = Linear(first_dim, streams[0] * BOTTOM**2, spectral)

        def make_block(block):
            args = block.in_channels, block.hidden_channels, block.out_channels
            if self.deep:
                return DeepGeneratorBlock(*args, block.resample, norm=norm, spectral=spectral)
            return GeneratorBlock(*args, norm=norm, spectral=spectral)

        _add_blocks(self, generator_blocks(streams, model, G_depth, G_attn), make_block, spectral)
        self.output_layer = OutputLayer(streams[-1], img_channels, spectral)
        if not skip_init:
            _initialize(self, G_init)

    def forward(self, z, c, truncation_psi=1, truncation_cutoff=None, noise_mode="const", force_fp32=True):
        """Images.

        Args:
            z: latents; columns beyond z_dim are ignored.
            c: labels.
            truncation_psi: factor of z.
            truncation_cutoff: not known here; for callers of any generator.
            noise_mode, force_fp32: without meaning here: there is no noise, and no half precision.
        """
        if truncation_cutoff is not None:
            raise ValueError(f"truncation_cutoff: BigGAN scales all of z alike; expected None, "
                             f"found {truncation_cutoff}")
        if z.ndim != 2 or z.shape[1] < self.z_dim:
            raise ValueError(f"z: expected [N, {self.z_dim}], found {list(z.shape)}")
        _check_labels(c, self.c_dim)
        z = z[:, : self.z_dim] if truncation_psi == 1 else z[:, : self.z_dim] * truncation_psi
        first, conditions = self.conditions(z, c)
        x = self.linear(first).reshape(z.shape[0], -1, BOTTOM, BOTTOM)
        for stage, y in zip(self.blocks, conditions):
            for layer in stage:
                x = layer(x) if isinstance(layer, SelfAttention) else layer(x, y)
        return self.output_layer(x)

    def conditions(self, z, c):
        """The input of the first layer, and the condition of every stage's norms: the class, then z [N, z_dim]."""
        y = c if self.shared is None else self.shared(c)
        if self.deep:
            y = torch.cat([y, z], dim=1)
            return y, [y] * len(self.blocks)
        if not self.hier:
            return z, [y] * len(self.blocks)
        first, *rest = z.split(self.piece_dim, dim=1)
        return first, [torch.cat([y, piece], dim=1) for piece in rest]


# ----------------------------------------------------------------------------------------------------------------------
# Discriminator


@persistence.persistent_class
class DiscriminatorBlock(torch.nn.Module):
    """Residual block: [N, in_channels, H, W] → [N, out_channels, H, W], or half the size.

    The first block of a network has no activation in front, and pools its shortcut before projecting it.
    """

    def __init__(self, in_channels, hidden_channels, out_channels, resample, is_first, spectral):
        super().__init__()
        self.resample = resample
        self.is_first = is_first
        self.conv1 = Conv2d(in_channels, hidden_channels, 3, spectral)
        self.conv2 = Conv2d(hidden_channels, out_channels, 3, spectral)
        self.conv_sc = None
        if in_channels != out_channels or resample:
            self.conv_sc = Conv2d(in_channels, out_channels, 1, spectral)

    def _pool(self, x):
        return F.avg_pool2d(x, 2) if self.resample else x

    def forward(self, x):
        h = x if self.is_first else F.relu(x)
        h = self._pool(self.conv2(F.relu(self.conv1(h))))
        if self.conv_sc is None:
            return h + x
        return h + (self.conv_sc(self._pool(x)) if self.is_first else self._pool(self.conv_sc(x)))


@persistence.persistent_class
class DeepDiscriminatorBlock(torch.nn.Module):
    """Bottleneck block of BigGAN-deep: [N, in_channels, H, W] → [N, out_channels, H, W], or half the size.

    The shortcut is the input, and behind it as many channels of a projection as are missing.
    """

    def __init__(self, in_channels, hidden_channels, out_channels, resample, spectral):
        super().__init__()
        self.resample = resample
        self.conv1 = Conv2d(in_channels, hidden_channels, 1, spectral)
        self.conv2 = Conv2d(hidden_channels, hidden_channels, 3, spectral)
        self.conv3 = Conv2d(hidden_channels, hidden_channels, 3, spectral)
        self.conv4 = Conv2d(hidden_channels, out_channels, 1, spectral)
        self.conv_sc = None
        if in_channels != out_channels:
            self.conv_sc = Conv2d(in_channels, out_channels - in_channels, 1, spectral)

    def forward(self, x):
        h = F.relu(x)
        for conv in (self.conv1, self.conv2, self.conv3):
            h = F.relu(conv(h))
        if self.resample:
            h, x = F.avg_pool2d(h, 2), F.avg_pool2d(x, 2)
        if self.conv_sc is not None:
            x = torch.cat([x, self.conv_sc(x)], dim=1)
        return self.conv4(h) + x


@persistence.persistent_class
class BigGANDiscriminator(torch.nn.Module):
    """Images [N, img_channels, img_resolution, img_resolution] and labels c → scores [N, 1] (arXiv:1802.05637).

    `options` are the constructor's arguments.
    """

    def __init__(
        self,
        c_dim,  # number of classes
        img_resolution,  # 32, 64, 128 or 256
        img_channels=3,
        model="BigGAN",  # or BigGANdeep
        D_ch=64,  # channel multiplier
        D_channels=None,  # widths of the streams, where they are not those of the multiplier
        D_wide=True,  # hidden width of a BigGAN block is that of its output, not of its input
        D_attn="64",  # resolutions with attention, joined by underscores; 0 is none
        D_depth=2,  # blocks per stage of BigGANdeep
        D_param="SN",  # or none, without spectral normalisation
        D_init="ortho",  # initial weights: ortho, N02 or xavier
        num_D_SVs=1,  # singular values followed
        num_D_SV_itrs=1,  # power iterations per pass in training mode
        SN_eps=1e-12,
        skip_init=False,  # leave weights as torch makes them
    ):
        super().__init__()
        self.options = _options(locals())
        _check_choice("img_resolution", img_resolution, DISCRIMINATOR_STREAMS)
        _check_choice("model", model, MODELS)
        _check_choice("D_param", D_param, ("SN", "none"))
        _check_choice("D_init", D_init, _INITIALIZERS)
        if c_dim < 1:
            raise ValueError(f"c_dim: BigGAN needs at least one class, found {c_dim}")
        self.c_dim = c_dim
        self.img_resolution = img_resolution
        self.img_channels = img_channels

        streams = _streams("D_channels", D_channels, D_ch, img_resolution, DISCRIMINATOR_STREAMS)
        spectral = _spectral(D_param, num_D_SVs, num_D_SV_itrs, SN_eps)
        deep = model == "BigGANdeep"
        self.input_conv = Conv2d(img_channels, streams[0], 3, spectral) if deep else None

        def make_block(block):
            args = block.in_channels, block.hidden_channels, block.out_channels, block.resample
            if deep:
                return DeepDiscriminatorBlock(*args, spectral=spectral)
            return DiscriminatorBlock(*args, is_first=block.stage == 0, spectral=spectral)

        plan = discriminator_blocks(img_resolution, img_channels, streams, model, D_depth, D_attn, D_wide)
        _add_blocks(self, plan, make_block, spectral)
        self.linear = Linear(streams[-1], 1, spectral)
        self.embed = Embedding(c_dim, streams[-1], spectral)
        if not skip_init:
            _initialize(self, D_init)

    def forward(self, img, c, force_fp32=True):
        """Scores, unbounded; force_fp32 is without meaning here: there is no half precision."""
        expected = [self.img_channels, self.img_resolution, self.img_resolution]
        if list(img.shape[1:]) != expected:
            raise ValueError(f"img: expected [N, {', '.join(map(str, expected))}], found {list(img.shape)}")
        _check_labels(c, self.c_dim)
        x = img if self.input_conv is None else self.input_conv(img)
        for stage in self.blocks:
            for layer in stage:
                x = layer(x)
        features = F.relu(x).sum(dim=[2, 3])  # [N, C]
        return self.linear(features) + (self.embed(c) * features).sum(dim=1, keepdim=True)


Generator = BigGANGenerator  # the names under which the classes are pickled must differ from StyleGAN2's
Discriminator = BigGANDiscriminator
