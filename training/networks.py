"""StyleGAN2 generator and discriminator (Karras et al. 2020, arXiv:1912.04958 and arXiv:2006.06676).

The text of this file is embedded in every network pickle and executed by the code base that reads it, so it imports
nothing but what all StyleGAN2-ADA descendants provide. Module, parameter, buffer and attribute names are the interface
that editing tools rely on; docs/checkpoints.md lists them.

Shapes: N batch, C channels, H and W pixels, O and I output and input channels of a layer, K its kernel size.
"""
import math

import torch

from torch_utils import persistence
from torch_utils.ops import bias_act, conv2d_resample, fma, upfirdn2d

RESAMPLE_TAPS = (1, 3, 3, 1)
SQUARE = (4, 4)  # height and width of the lowest resolution; others make images of another shape

# A convolution and all that surrounds it as one operation, where the code base has it. Its other operations are then at
# least as fast on a CPU with channels_last as without.
_scaled_conv2d = getattr(conv2d_resample, "scaled_conv2d", None)


def normalize_2nd_moment(x, dim=1, eps=1e-8):
    """Scales x to a mean square of one along `dim`."""
    return x * (x.square().mean(dim=dim, keepdim=True) + eps).rsqrt()


def modulated_conv2d(
    x, weight, styles, noise=None, up=1, down=1, padding=0, resample_filter=None, demodulate=True, flip_weight=True,
    fused_modconv=True
):
    """Convolution whose input channels are scaled per sample (arXiv:1912.04958, section 2.2, equations 1 and 3).

    Args:
        x: activations [N, I, H, W].
        weight: [O, I, K, K].
        styles: scale of every input channel, [N, I].
        noise: added after demodulation; None, or broadcastable to the output.
        up, down, padding, resample_filter, flip_weight: as in conv2d_resample.
        demodulate: scale every output channel to unit expected variance.
        fused_modconv: multiply the scales into weights of each sample's own; if false, into what goes in and comes
            out of a convolution that all samples share. Results agree but for rounding.

    Returns:
        [N, O, H', W'], x's dtype.
    """
    if x.dtype == torch.float16 and demodulate:  # demodulation cancels these factors; they keep the sums in range
        weight = weight / (weight.abs().amax(dim=[1, 2, 3], keepdim=True) * math.sqrt(weight[0].numel()))
        styles = styles / styles.abs().amax(dim=1, keepdim=True)
    scale = _demodulation(weight, styles) if demodulate else None  # [N, O]
    resample = {"f": resample_filter, "up": up, "down": down, "padding": padding, "flip_weight": flip_weight}
    if fused_modconv:
        y = _conv_fused(x, weight, styles, scale, resample)
        return y if noise is None else y.add_(noise)

    x = x * styles.to(x.dtype)[:, :, None, None]
    y = conv2d_resample.conv2d_resample(x=x, w=weight.to(x.dtype), **resample)
    if scale is None:
        return y if noise is None else y.add_(noise.to(y.dtype))
    scale = scale.to(y.dtype)[:, :, None, None]
    return y * scale if noise is None else fma.fma(y, scale, noise.to(y.dtype))


def _demodulation(weight, styles):
    """1 / L2 norm of the modulated weights of every sample and output channel, [N, O]."""
    taps = weight.new_ones([weight[0, 0].numel()])
    energy = weight.square().flatten(2) @ taps  # [O, I]; a sum over so few is slower than a product
    return (styles.square() @ energy.t() + 1e-8).rsqrt()


def _conv_fused(x, weight, styles, scale, resample):
    """The samples of the batch become the groups of one convolution."""
    n, channels, h, w = x.shape
    per_sample = weight[None] * styles[:, None, :, None, None]  # [N, O, I, K, K]
    if scale is not None:
        per_sample = per_sample * scale[:, :, None, None, None]
    per_sample = per_sample.flatten(0, 1).to(x.dtype)
    x = x.reshape(1, n * channels, h, w)
    y = conv2d_resample.conv2d_resample(x=x, w=per_sample, groups=n, **resample)
    return y.reshape(n, -1, y.shape[2], y.shape[3])


def _computes_fused(x):
    """Whether layers are one operation: on a CPU, where passes over images cost."""
    return _scaled_conv2d is not None and x.device.type == "cpu"


def _compute_format(use_fp16, channels_last, force_fp32, device):
    """dtype and memory format of a block's activations; half precision only where it is fast, on CUDA devices."""
    if device.type == "cpu" and _scaled_conv2d is not None:
        return torch.float32, torch.channels_last
    if not use_fp16 or force_fp32 or device.type != "cuda":
        return torch.float32, torch.contiguous_format
    return torch.float16, torch.channels_last if channels_last else torch.contiguous_format


def _register(module, parameters, buffers):
    """Gives a module tensors by name; their order is that of its state dict."""
    for name, tensor in parameters.items():
        module.register_parameter(name, torch.nn.Parameter(tensor))
    for name, tensor in buffers.items():
        module.register_buffer(name, tensor)


def _default_gain(activation):
    return float(bias_act.activation_funcs[activation].def_gain)


def _conv_weight(out_channels, in_channels, kernel_size, channels_last=False):
    """Standard normal weights [O, I, K, K] in the memory format of the activations that they meet."""
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return torch.randn([out_channels, in_channels, kernel_size, kernel_size]).to(memory_format=layout)


def _equalizing_gain(weight):
    """What brings the outputs of standard normal weights [O, I, K, K] to unit variance."""
    return 1 / math.sqrt(weight[0].numel())


def _channel_table(channel_base, channel_max, resolutions):
    return {res: min(channel_base // res, channel_max) for res in resolutions}


def _fp16_from(img_resolution, num_fp16_res):
    """The lowest resolution that computes in half precision; the 4x4 blocks never do."""
    return max(2 ** (int(math.log2(img_resolution)) + 1 - num_fp16_res), 8)


def _check_ws(whose, ws, count, w_dim):
    if ws.ndim != 3 or ws.shape[1] != count or ws.shape[2] != w_dim:
        raise ValueError(f"{whose}: expected ws [N, {count}, {w_dim}], found {list(ws.shape)}")


def _check_resolution(img_resolution, base_size):
    if img_resolution < 4 or img_resolution & (img_resolution - 1):
        raise ValueError(f"img_resolution: expected a power of two of at least 4, found {img_resolution}")
    if len(base_size) != 2 or max(base_size) != 4 or min(base_size) < 1:
        raise ValueError(f"base_size: expected a height and a width from 1 to 4, one of them 4, found {base_size}")


def _scaled(base_size, resolution):
    """[height, width] of images whose longer side is `resolution`."""
    return [side * resolution // 4 for side in base_size]


def _unless_square(base_size):
    """The argument for parts of a network, left out of square ones, which all code bases know."""
    return {} if tuple(base_size) == SQUARE else {"base_size": list(base_size)}


# ----------------------------------------------------------------------------------------------------------------------
# Layers


@persistence.persistent_class
class FullyConnectedLayer(torch.nn.Module):
    """Dense layer with equalized learning rate (arXiv:1710.10196, sec. 4.1): [N, in_features] → [N, out_features]."""

    def __init__(self, in_features, out_features, bias=True, activation="linear", lr_multiplier=1, bias_init=0):
        super().__init__()
        self.activation = activation
        self.bias_gain = lr_multiplier
        self.weight_gain = lr_multiplier / math.sqrt(in_features)
        self.weight = torch.nn.Parameter(torch.randn([out_features, in_features]).div_(lr_multiplier))
        start = torch.full([out_features], float(bias_init))
        self.bias = torch.nn.Parameter(start) if bias else None

    def forward(self, x):
        transposed = (self.weight.t() * self.weight_gain).to(x.dtype)
        shift = None if self.bias is None else (self.bias * self.bias_gain).to(x.dtype)
        if shift is None or self.activation != "linear":
            return bias_act.bias_act(x @ transposed, shift, act=self.activation)
        return torch.addmm(shift, x, transposed)


@persistence.persistent_class
class Conv2dLayer(torch.nn.Module):
    """Convolution with equalized learning rate, resampling and activation: [N, I, H, W] → [N, O, H*up/down, W*up/down].

    A layer that is not trainable keeps its weight and bias as buffers of the same names (Freeze-D, arXiv:2002.10964).
    """

    def __init__(
        self, in_channels, out_channels, kernel_size, bias=True, activation="linear", up=1, down=1,
        resample_filter=RESAMPLE_TAPS, conv_clamp=None, channels_last=False, trainable=True
    ):
        super().__init__()
        weight = _conv_weight(out_channels, in_channels, kernel_size, channels_last)
        self.up = up
        self.down = down
        self.padding = kernel_size // 2
        self.weight_gain = _equalizing_gain(weight)
        self.activation = activation
        self.act_gain = _default_gain(activation)
        self.conv_clamp = conv_clamp
        self.register_buffer("resample_filter", upfirdn2d.setup_filter(resample_filter))
        self._hold("weight", weight, trainable)
        self._hold("bias", torch.zeros([out_channels]) if bias else None, trainable)

    def _hold(self, name, tensor, trainable):
        if tensor is None:
            setattr(self, name, None)
        elif trainable:
            setattr(self, name, torch.nn.Parameter(tensor))
        else:
            self.register_buffer(name, tensor)

    def forward(self, x, gain=1):
        weight = (self.weight * self.weight_gain).to(x.dtype)
        if _computes_fused(x) and self.up == self.down == 1:
            how = {"act": self.activation, "gain": self.act_gain * gain, "clamp": _limit(self, gain)}
            return _scaled_conv2d(x, weight, padding=self.padding, b=self.bias, **how)
        x = conv2d_resample.conv2d_resample(
            x=x,
            w=weight,
            f=self.resample_filter,
            up=self.up,
            down=self.down,
            padding=self.padding,
            flip_weight=self.up == 1,
        )
        return _activate(x, self, gain)


def _activate(x, layer, gain):
    """Bias, activation and clamp of a convolution layer."""
    b = None if layer.bias is None else layer.bias.to(x.dtype)
    return bias_act.bias_act(x, b, act=layer.activation, gain=layer.act_gain * gain, clamp=_limit(layer, gain))


def _limit(layer, gain):
    """The clamp of a layer, which scales with the gain of the call."""
    return None if layer.conv_clamp is None else layer.conv_clamp * gain


# ----------------------------------------------------------------------------------------------------------------------
# Generator


@persistence.persistent_class
class MappingNetwork(torch.nn.Module):
    """z [N, z_dim] and c [N, c_dim] → w [N, num_ws, w_dim] (or [N, w_dim] if num_ws is None).

    Keeps the moving average `w_avg` of its outputs, for truncation (arXiv:1812.04948, section 2.2): in training mode
    while `tracks_in_training`, as in StyleGAN2-ADA, and whenever `update_emas` is passed, as in the stylegan3 tree.
    """

    def __init__(
        self, z_dim, c_dim, w_dim, num_ws, num_layers=8, embed_features=None, layer_features=None,
        activation="lrelu", lr_multiplier=0.01, w_avg_beta=0.995
    ):
        super().__init__()
        self.z_dim = z_dim
        self.c_dim = c_dim
        self.w_dim = w_dim
        self.num_ws = num_ws
        self.num_layers = num_layers
        self.w_avg_beta = w_avg_beta
        self.tracks_in_training = True
        embedded = 0
        if c_dim > 0:
            embedded = w_dim if embed_features is None else embed_features
            self.embed = FullyConnectedLayer(c_dim, embedded)
        hidden = w_dim if layer_features is None else layer_features
        widths = [z_dim + embedded] + [hidden] * (num_layers - 1) + [w_dim]
        for i in range(num_layers):
            layer = FullyConnectedLayer(widths[i], widths[i + 1], activation=activation, lr_multiplier=lr_multiplier)
            setattr(self, f"fc{i}", layer)
        if self._averages():
            self.register_buffer("w_avg", torch.zeros([w_dim]))

    def forward(self, z, c, truncation_psi=1, truncation_cutoff=None, skip_w_avg_update=False, update_emas=False):
        inputs = []
        if self.z_dim > 0:
            inputs.append(normalize_2nd_moment(z.to(torch.float32)))
        if self.c_dim > 0:
            inputs.append(normalize_2nd_moment(self.embed(c.to(torch.float32))))
        x = torch.cat(inputs, dim=1) if len(inputs) > 1 else inputs[0]
        for i in range(self.num_layers):
            x = getattr(self, f"fc{i}")(x)

        tracks = self.training and self.tracks_in_training and not skip_w_avg_update
        if self._averages() and (tracks or update_emas):
            self._track(x.detach())
        if self.num_ws is not None:
            x = x[:, None, :].repeat(1, self.num_ws, 1)
        return x if truncation_psi == 1 else self._truncate(x, truncation_psi, truncation_cutoff)

    def _averages(self):
        return self.num_ws is not None and self.w_avg_beta is not None

    def _track(self, batch):
        torch.lerp(batch.mean(dim=0), self.w_avg, self.w_avg_beta, out=self.w_avg)

    def _truncate(self, ws, psi, cutoff):
        if not self._averages():
            raise ValueError("truncation_psi: this mapping network keeps no average w, so only 1 is possible")
        if cutoff is None:
            return self.w_avg.lerp(ws, psi)
        return torch.cat([self.w_avg.lerp(ws[:, :cutoff], psi), ws[:, cutoff:]], dim=1)


@persistence.persistent_class
class SynthesisLayer(torch.nn.Module):
    """Modulated convolution, noise and activation: x [N, I, H/up, W/up], w [N, w_dim] → [N, O, H, W]."""

    weight: torch.Tensor

    def __init__(
        self, in_channels, out_channels, w_dim, resolution, kernel_size=3, up=1, use_noise=True, activation="lrelu",
        resample_filter=RESAMPLE_TAPS, conv_clamp=None, channels_last=False, base_size=SQUARE
    ):
        super().__init__()
        self.resolution = resolution
        self.noise_size = _scaled(base_size, resolution)
        self.up = up
        self.padding = kernel_size // 2
        self.use_noise = use_noise
        self.activation = activation
        self.act_gain = _default_gain(activation)
        self.conv_clamp = conv_clamp
        self.affine = FullyConnectedLayer(w_dim, in_channels, bias_init=1)
        learnt = {"weight": _conv_weight(out_channels, in_channels, kernel_size, channels_last)}
        fixed = {"resample_filter": upfirdn2d.setup_filter(resample_filter)}
        if use_noise:
            learnt["noise_strength"] = torch.zeros([])
            fixed["noise_const"] = torch.randn(self.noise_size)
        _register(self, {**learnt, "bias": torch.zeros([out_channels])}, fixed)

    def forward(self, x, w, noise_mode="random", fused_modconv=True, gain=1):
        if noise_mode not in ("random", "const", "none"):
            raise ValueError(f"noise_mode: expected 'random', 'const' or 'none', found {noise_mode!r}")
        return self._convolve(x, self.affine(w), self._noise(x, noise_mode), fused_modconv, gain)

    def _convolve(self, x, styles, noise, fused_modconv, gain=1):
        """Everything after styles [N, I] and noise, which is None or as large as the output, are known."""
        resample = {"up": self.up, "padding": self.padding, "flip_weight": self.up == 1}
        if not fused_modconv and _computes_fused(x):
            scale = _demodulation(self.weight, styles)
            how = {"act": self.activation, "gain": self.act_gain * gain, "clamp": _limit(self, gain)}
            return _scaled_conv2d(
                x, self.weight, self.resample_filter, styles=styles, scale=scale, noise=noise, b=self.bias, **resample,
                **how,
            )
        x = modulated_conv2d(
            x,
            self.weight,
            styles,
            noise,
            resample_filter=self.resample_filter,
            fused_modconv=fused_modconv,
            **resample,
        )
        return _activate(x, self, gain)

    def _noise(self, x, mode):
        if not self.use_noise or mode == "none":
            return None
        if mode == "const":
            return self.noise_const * self.noise_strength
        return torch.randn([x.shape[0], 1, *self.noise_size], device=x.device) * self.noise_strength


@persistence.persistent_class
class ToRGBLayer(torch.nn.Module):
    """Modulated 1x1 convolution to image channels, without demodulation: [N, I, H, W] → [N, img_channels, H, W]."""

    weight: torch.Tensor

    def __init__(self, in_channels, out_channels, w_dim, kernel_size=1, conv_clamp=None, channels_last=False):
        super().__init__()
        self.affine = FullyConnectedLayer(w_dim, in_channels, bias_init=1)
        weight = _conv_weight(out_channels, in_channels, kernel_size, channels_last)
        _register(self, {"weight": weight, "bias": torch.zeros([out_channels])}, {})
        self.conv_clamp = conv_clamp
        self.weight_gain = _equalizing_gain(weight)

    def forward(self, x, w, fused_modconv=True):
        styles = self.affine(w) * self.weight_gain
        if not fused_modconv and _computes_fused(x) and self.weight.shape[2] == 1:
            n, _, height, width = x.shape
            weight = self.weight[None, :, :, 0, 0] * styles[:, None, :]  # few enough to have one per sample
            x = x.flatten(2).transpose(1, 2) @ weight.transpose(1, 2)  # [N, H * W, O]
            x = x.transpose(1, 2).reshape(n, -1, height, width)
        else:
            x = modulated_conv2d(x, self.weight, styles, demodulate=False, fused_modconv=fused_modconv)
        return bias_act.bias_act(x, self.bias.to(x.dtype), clamp=self.conv_clamp)


@persistence.persistent_class
class SynthesisBlock(torch.nn.Module):
    """All layers of one resolution: x [N, I, H/2, W/2], img [N, img_channels, H/2, W/2] → the same at [H, W].

    `mid_channels` is the width between the block's two convolutions (in the first block, of its constant) where that
    differs from `out_channels`. `base_size` is the [height, width] of the first block.
    """

    def __init__(
        self, in_channels, out_channels, w_dim, resolution, img_channels, is_last, architecture="skip",
        resample_filter=RESAMPLE_TAPS, conv_clamp=None, use_fp16=False, fp16_channels_last=False, mid_channels=None,
        base_size=SQUARE, **layer_kwargs
    ):
        super().__init__()
        if architecture not in ("orig", "skip", "resnet"):
            raise ValueError(f"architecture: expected 'orig', 'skip' or 'resnet', found {architecture!r}")
        self.in_channels = in_channels
        self.w_dim = w_dim
        self.resolution = resolution
        self.img_channels = img_channels
        self.is_last = is_last
        self.architecture = architecture
        self.use_fp16 = use_fp16
        self.channels_last = use_fp16 and fp16_channels_last
        self.register_buffer("resample_filter", upfirdn2d.setup_filter(resample_filter))
        self.num_conv = 1 if in_channels == 0 else 2
        self.num_torgb = int(is_last or architecture == "skip")

        mid = out_channels if mid_channels is None else mid_channels
        common = {"conv_clamp": conv_clamp, "channels_last": self.channels_last}
        layer = {"w_dim": w_dim, "resolution": resolution, **common, **_unless_square(base_size), **layer_kwargs}
        if in_channels == 0:
            self.const = torch.nn.Parameter(torch.randn([mid, *_scaled(base_size, resolution)]))
        else:
            self.conv0 = SynthesisLayer(in_channels, mid, up=2, resample_filter=resample_filter, **layer)
        self.conv1 = SynthesisLayer(mid, out_channels, **layer)
        if self.num_torgb:
            self.torgb = ToRGBLayer(out_channels, img_channels, w_dim=w_dim, **common)
        if in_channels != 0 and architecture == "resnet":
            self.skip = Conv2dLayer(
                in_channels,
                out_channels,
                kernel_size=1,
                bias=False,
                up=2,
                resample_filter=resample_filter,
                channels_last=self.channels_last,
            )

    def forward(self, x, img, ws, force_fp32=False, fused_modconv=None, **layer_kwargs):
        _check_ws(f"synthesis block b{self.resolution}", ws, self.num_conv + self.num_torgb, self.w_dim)
        dtype, layout = _compute_format(self.use_fp16, self.channels_last, force_fp32, ws.device)
        if fused_modconv is None:  # per-sample weights pay off where a grouped convolution is one kernel
            alone = dtype == torch.float32 or ws.shape[0] == 1
            fused_modconv = ws.device.type == "cuda" and not self.training and alone
        call = {"fused_modconv": fused_modconv, **layer_kwargs}
        of_layer = ws.unbind(dim=1)
        if self.in_channels == 0:
            x = self.const[None].repeat(ws.shape[0], 1, 1, 1)
        x = self._features(x.to(dtype=dtype, memory_format=layout), of_layer, call)
        return x, self._image(x, img, of_layer[-1], fused_modconv)

    def _features(self, x, of_layer, call):
        if self.in_channels == 0:
            return self.conv1(x, of_layer[0], **call)
        if self.architecture != "resnet":
            return self.conv1(self.conv0(x, of_layer[0], **call), of_layer[1], **call)
        half = math.sqrt(0.5)
        shortcut = self.skip(x, gain=half)
        return shortcut.add_(self.conv1(self.conv0(x, of_layer[0], **call), of_layer[1], gain=half, **call))

    def _image(self, x, smaller, w, fused_modconv):
        """The image of the blocks before, at twice its size, and what this block adds to it."""
        before = None if smaller is None else upfirdn2d.upsample2d(smaller, self.resample_filter)
        if not self.num_torgb:
            return before
        rgb = self.torgb(x, w, fused_modconv=fused_modconv)
        rgb = rgb.to(dtype=torch.float32, memory_format=torch.contiguous_format)
        return rgb if before is None else before.add_(rgb)


@persistence.persistent_class
class SynthesisNetwork(torch.nn.Module):
    """ws [N, num_ws, w_dim] → images [N, img_channels, img_resolution, img_resolution], nominally in [-1, 1].

    Widths are `min(channel_base // resolution, channel_max)`, or, layer by layer, `layer_channels`: the constant, b4's
    convolution, then conv0 and conv1 of every higher resolution. `base_size` is the [height, width] of the constant;
    images have its shape, and `img_resolution` is their longer side.
    """

    def __init__(
        self, w_dim, img_resolution, img_channels, channel_base=32768, channel_max=512, num_fp16_res=0,
        layer_channels=None, base_size=SQUARE, **block_kwargs
    ):
        super().__init__()
        _check_resolution(img_resolution, base_size)
        size_log2 = img_resolution.bit_length() - 1
        self.w_dim = w_dim
        self.img_channels = img_channels
        self.img_resolution = img_resolution
        self.img_resolution_log2 = size_log2
        self.img_size = _scaled(base_size, img_resolution)
        self.block_resolutions = [2**i for i in range(2, size_log2 + 1)]
        if layer_channels is None:
            table = _channel_table(channel_base, channel_max, self.block_resolutions)
            layer_channels = [table[res] for res in self.block_resolutions for _ in range(2)]
        if len(layer_channels) != 2 * len(self.block_resolutions):
            raise ValueError(f"layer_channels: expected {2 * len(self.block_resolutions)} widths for "
                             f"{img_resolution}x{img_resolution} images, found {len(layer_channels)}")
        fp16_from = _fp16_from(img_resolution, num_fp16_res)
        self.num_ws = 0
        previous = 0
        for res, mid, out in zip(self.block_resolutions, layer_channels[::2], layer_channels[1::2]):
            block = SynthesisBlock(
                previous,
                out,
                w_dim=w_dim,
                resolution=res,
                img_channels=img_channels,
                is_last=res == img_resolution,
                use_fp16=res >= fp16_from,
                **({} if mid == out else {"mid_channels": mid}),
                **_unless_square(base_size),
                **block_kwargs,
            )
            self.num_ws += block.num_conv + (block.num_torgb if block.is_last else 0)
            setattr(self, f"b{res}", block)
            previous = out

    def forward(self, ws, update_emas=False, **block_kwargs):
        _check_ws("synthesis", ws, self.num_ws, self.w_dim)
        state = (None, None)
        for block, of_block in self._blocks():
            state = block(*state, ws[:, of_block].to(torch.float32), **block_kwargs)
        return state[1]

    def _blocks(self):
        """Every block and which ws it gets; a block's torgb shares its w with the next block's first convolution."""
        first = 0
        for res in self.block_resolutions:
            block = getattr(self, f"b{res}")
            yield block, slice(first, first + block.num_conv + block.num_torgb)
            first += block.num_conv


@persistence.persistent_class
class Generator(torch.nn.Module):
    """z [N, z_dim] and labels c [N, c_dim] → images [N, img_channels, img_resolution, img_resolution].

    Options of the synthesis network are given as `synthesis_kwargs`, as in StyleGAN2-ADA, or flat, as in the stylegan3
    tree; those of `synthesis_kwargs` override flat ones. With flat ones, `w_avg` is updated as in that tree, too.
    """

    def __init__(
        self, z_dim, c_dim, w_dim, img_resolution, img_channels, mapping_kwargs={},  # noqa: B006 (never modified)
        synthesis_kwargs={}, **flat_synthesis_kwargs  # noqa: B006
    ):
        super().__init__()
        self.z_dim = z_dim
        self.c_dim = c_dim
        self.w_dim = w_dim
        self.img_resolution = img_resolution
        self.img_channels = img_channels
        size = {"img_resolution": img_resolution, "img_channels": img_channels}
        self.synthesis = SynthesisNetwork(w_dim=w_dim, **size, **{**flat_synthesis_kwargs, **synthesis_kwargs})
        self.img_size = self.synthesis.img_size
        self.num_ws = self.synthesis.num_ws
        self.mapping = MappingNetwork(z_dim=z_dim, c_dim=c_dim, w_dim=w_dim, num_ws=self.num_ws, **mapping_kwargs)
        self.mapping.tracks_in_training = not flat_synthesis_kwargs

    def forward(self, z, c, truncation_psi=1, truncation_cutoff=None, update_emas=False, **synthesis_kwargs):
        averaging = {"update_emas": True} if update_emas else {}
        ws = self.mapping(z, c, truncation_psi=truncation_psi, truncation_cutoff=truncation_cutoff, **averaging)
        return self.synthesis(ws, **synthesis_kwargs)


# ----------------------------------------------------------------------------------------------------------------------
# Discriminator


@persistence.persistent_class
class DiscriminatorBlock(torch.nn.Module):
    """All layers of one resolution: x [N, tmp, H, W] and/or img [N, img_channels, H, W] → x [N, O, H/2, W/2].

    Layers are numbered from `first_layer_idx` on; those below `freeze_layers` are not trained. `mid_channels` is the
    width between the block's two convolutions where that differs from `tmp_channels`.
    """

    def __init__(
        self, in_channels, tmp_channels, out_channels, resolution, img_channels, first_layer_idx,
        architecture="resnet", activation="lrelu", resample_filter=RESAMPLE_TAPS, conv_clamp=None, use_fp16=False,
        fp16_channels_last=False, freeze_layers=0, mid_channels=None
    ):
        super().__init__()
        if in_channels not in (0, tmp_channels):
            raise ValueError(f"in_channels: expected 0 or tmp_channels ({tmp_channels}), found {in_channels}")
        if architecture not in ("orig", "skip", "resnet"):
            raise ValueError(f"architecture: expected 'orig', 'skip' or 'resnet', found {architecture!r}")
        self.in_channels = in_channels
        self.resolution = resolution
        self.img_channels = img_channels
        self.first_layer_idx = first_layer_idx
        self.architecture = architecture
        self.use_fp16 = use_fp16
        self.channels_last = use_fp16 and fp16_channels_last
        self.register_buffer("resample_filter", upfirdn2d.setup_filter(resample_filter))
        self.num_layers = 0

        def layer(i, o, kernel_size, **kwargs):
            trainable = self.first_layer_idx + self.num_layers >= freeze_layers
            self.num_layers += 1
            return Conv2dLayer(i, o, kernel_size, trainable=trainable, channels_last=self.channels_last, **kwargs)

        mid = tmp_channels if mid_channels is None else mid_channels
        active = {"activation": activation, "conv_clamp": conv_clamp}
        halving = {"down": 2, "resample_filter": resample_filter}
        if in_channels == 0 or architecture == "skip":
            self.fromrgb = layer(img_channels, tmp_channels, 1, **active)
        self.conv0 = layer(tmp_channels, mid, 3, **active)
        self.conv1 = layer(mid, out_channels, 3, **active, **halving)
        if architecture == "resnet":
            self.skip = layer(tmp_channels, out_channels, 1, bias=False, **halving)

    def forward(self, x, img, force_fp32=False):
        x, img = self._enter(x, img, force_fp32)
        if self.architecture != "resnet":
            return self.conv1(self.conv0(x)), img
        half = math.sqrt(0.5)
        shortcut = self.skip(x, gain=half)
        return shortcut.add_(self.conv1(self.conv0(x), gain=half)), img

    def _enter(self, x, img, force_fp32):
        """The input of the convolutions from features and image, and the image for the next block, if it reads one."""
        device = (img if x is None else x).device
        dtype, layout = _compute_format(self.use_fp16, self.channels_last, force_fp32, device)
        inputs = [] if x is None else [x.to(dtype=dtype, memory_format=layout)]
        smaller = None
        if self.in_channels == 0 or self.architecture == "skip":
            inputs.append(self.fromrgb(img.to(dtype=dtype, memory_format=layout)))
        if self.architecture == "skip":
            smaller = upfirdn2d.downsample2d(img, self.resample_filter)
        return inputs[0] if len(inputs) == 1 else torch.add(*inputs), smaller


@persistence.persistent_class
class MinibatchStdLayer(torch.nn.Module):
    """Appends the mean standard deviation over groups of samples as channels: [N, C, H, W] → [N, C + F, H, W].

    Sample n belongs to group n mod (N / group size); arXiv:1710.10196, section 3.
    """

    def __init__(self, group_size, num_channels=1):
        super().__init__()
        self.group_size = group_size
        self.num_channels = num_channels

    def forward(self, x):
        n, c, h, w = x.shape
        group = n if self.group_size is None else min(self.group_size, n)
        if n % group != 0:
            raise ValueError(f"minibatch std: batch of {n} is not a multiple of the group size {group}")
        members = x.reshape(group, -1, self.num_channels, c // self.num_channels, h, w)
        variance = (members - members.mean(dim=0)).square().mean(dim=0)  # [N / group, F, C / F, H, W]
        deviation = (variance + 1e-8).sqrt().mean(dim=[2, 3, 4])  # [N / group, F]
        maps = deviation.repeat(group, 1)[:, :, None, None]
        return torch.cat([x, maps.expand(-1, -1, h, w)], dim=1)


@persistence.persistent_class
class DiscriminatorEpilogue(torch.nn.Module):
    """The last layers: x [N, I, R, R] (and img, label map cmap [N, cmap_dim]) → logits [N, 1].

    `mid_channels` are the widths of `conv` and `fc` where they differ from `in_channels`. `base_size` is the
    [height, width] of x where that is not square.
    """

    def __init__(
        self, in_channels, cmap_dim, resolution, img_channels, architecture="resnet", mbstd_group_size=4,
        mbstd_num_channels=1, activation="lrelu", conv_clamp=None, mid_channels=None, base_size=SQUARE
    ):
        super().__init__()
        self.in_channels = in_channels
        self.cmap_dim = cmap_dim
        self.resolution = resolution
        self.img_channels = img_channels
        self.architecture = architecture
        widths = mid_channels or (in_channels, in_channels)
        active = {"activation": activation}
        if architecture == "skip":
            self.fromrgb = Conv2dLayer(img_channels, in_channels, 1, **active)
        self.mbstd = MinibatchStdLayer(mbstd_group_size, mbstd_num_channels) if mbstd_num_channels > 0 else None
        self.conv = Conv2dLayer(in_channels + mbstd_num_channels, widths[0], 3, conv_clamp=conv_clamp, **active)
        self.fc = FullyConnectedLayer(widths[0] * math.prod(_scaled(base_size, resolution)), widths[1], **active)
        self.out = FullyConnectedLayer(widths[1], max(cmap_dim, 1))

    def forward(self, x, img, cmap, force_fp32=False):
        plain = {"dtype": torch.float32, "memory_format": torch.contiguous_format}
        x = x.to(**plain)
        if self.architecture == "skip":
            x = x + self.fromrgb(img.to(**plain))
        with_std = x if self.mbstd is None else self.mbstd(x)
        logits = self.out(self.fc(self.conv(with_std).flatten(1)))
        if self.cmap_dim == 0:
            return logits
        return (logits * cmap).sum(dim=1, keepdim=True) / math.sqrt(self.cmap_dim)  # projection, arXiv:1802.05637


@persistence.persistent_class
class Discriminator(torch.nn.Module):
    """Images [N, img_channels, img_resolution, img_resolution] and labels c [N, c_dim] → logits [N, 1].

    Widths are `min(channel_base // resolution, channel_max)`, or, layer by layer, `layer_channels`: the input of the
    first block, then conv0 and conv1 of every block from the highest resolution on, then b4's convolution and b4's fc.
    `base_size` is the [height, width] of what b4 reads; images have its shape.
    """

    def __init__(
        self, c_dim, img_resolution, img_channels, architecture="resnet", channel_base=32768, channel_max=512,
        num_fp16_res=0, conv_clamp=None, cmap_dim=None, block_kwargs={}, mapping_kwargs={},  # noqa: B006
        epilogue_kwargs={}, layer_channels=None,  # noqa: B006 (never modified; empty defaults are interface)
        base_size=SQUARE
    ):
        super().__init__()
        _check_resolution(img_resolution, base_size)
        size_log2 = img_resolution.bit_length() - 1
        self.c_dim = c_dim
        self.img_channels = img_channels
        self.img_resolution = img_resolution
        self.img_resolution_log2 = size_log2
        self.img_size = _scaled(base_size, img_resolution)
        self.block_resolutions = [2**i for i in range(size_log2, 2, -1)]
        if layer_channels is None:
            table = _channel_table(channel_base, channel_max, [*self.block_resolutions, 4])
            layer_channels = [table[img_resolution]]
            for res in self.block_resolutions:
                layer_channels += [table[res], table[res // 2]]
            layer_channels += [table[4], table[4]]
        if len(layer_channels) != 2 * len(self.block_resolutions) + 3:
            raise ValueError(f"layer_channels: expected {2 * len(self.block_resolutions) + 3} widths for "
                             f"{img_resolution}x{img_resolution} images, found {len(layer_channels)}")
        fp16_from = _fp16_from(img_resolution, num_fp16_res)
        common = {"img_channels": img_channels, "architecture": architecture, "conv_clamp": conv_clamp}
        tmp = layer_channels[0]
        layer_idx = 0
        for res, mid, out in zip(self.block_resolutions, layer_channels[1:-2:2], layer_channels[2:-2:2]):
            block = DiscriminatorBlock(
                tmp if res < img_resolution else 0,
                tmp,
                out,
                resolution=res,
                first_layer_idx=layer_idx,
                use_fp16=res >= fp16_from,
                **({} if mid == tmp else {"mid_channels": mid}),
                **block_kwargs,
                **common,
            )
            setattr(self, f"b{res}", block)
            layer_idx += block.num_layers
            tmp = out
        if c_dim == 0:
            cmap_dim = 0
        elif cmap_dim is None:
            cmap_dim = tmp
        elif cmap_dim < 1:
            raise ValueError(f"cmap_dim: a discriminator with labels projects them on at least 1 number, "
                             f"found {cmap_dim}")
        if c_dim > 0:
            self.mapping = MappingNetwork(
                z_dim=0, c_dim=c_dim, w_dim=cmap_dim, num_ws=None, w_avg_beta=None, **mapping_kwargs
            )
        last = list(layer_channels[-2:])
        self.b4 = DiscriminatorEpilogue(
            tmp,
            cmap_dim=cmap_dim,
            resolution=4,
            **({} if last == [tmp, tmp] else {"mid_channels": last}),
            **_unless_square(base_size),
            **epilogue_kwargs,
            **common,
        )

    def forward(self, img, c, update_emas=False, **block_kwargs):
        x = None
        for res in self.block_resolutions:
            x, img = getattr(self, f"b{res}")(x, img, **block_kwargs)
        cmap = self.mapping(None, c) if self.c_dim > 0 else None
        return self.b4(x, img, cmap)
