"""StyleGAN3 generator, configurations T and R (Karras et al. 2021, arXiv:2106.12423).

The text of this file is embedded in every network pickle and executed by the code base that reads it, so it imports
nothing but what all StyleGAN2-ADA and StyleGAN3 descendants provide. Module, parameter, buffer and attribute names are
the interface that other tools rely on; docs/checkpoints.md lists them. The discriminator is that of StyleGAN2.

Signals are continuous: a layer's features are samples, at its sampling rate, of signals that are limited to a band.
Shapes: N batch, C channels, H and W samples, O and I output and input channels of a layer, K its kernel size. Pairs of
sizes are (width, height). Networks of float64 weights compute in float64.
"""
import math

import numpy as np
import scipy.special
import torch

from torch_utils import persistence
from torch_utils.ops import bias_act, upfirdn2d

try:
    from torch_utils.ops import filtered_lrelu as _op
except ImportError:  # a code base that only knows StyleGAN2
    _op = None


def _filtered_lrelu(x, fu, fd, b, up, down, padding, gain, slope, clamp):
    """Leaky ReLU between two filters (arXiv:2106.12423, section 3.2): [N, C, H, W] → [N, C, H', W']."""
    if _op is not None:
        options = {"up": up, "down": down, "padding": padding, "gain": gain, "slope": slope, "clamp": clamp}
        return _op.filtered_lrelu(x, fu=fu, fd=fd, b=b, **options)
    x = bias_act.bias_act(x, b)
    x = upfirdn2d.upfirdn2d(x, fu, up=up, padding=padding, gain=up**2)
    x = bias_act.bias_act(x, act="lrelu", alpha=slope, gain=gain, clamp=clamp)
    return upfirdn2d.upfirdn2d(x, fd, down=down)


def modulated_conv2d(x, w, s, demodulate=True, padding=0, input_gain=None):
    """Convolution whose input channels are scaled per sample (arXiv:1912.04958, section 2.2).

    Args:
        x: activations [N, I, H, W].
        w: weights [O, I, K, K].
        s: scale of every input channel, [N, I].
        demodulate: scale the weights of every sample and output channel to unit norm.
        padding: zeros on every side.
        input_gain: factor of x that demodulation does not cancel; None, or broadcastable to [N, I].

    Returns:
        [N, O, H + 2 * padding - K + 1, W + 2 * padding - K + 1], x's dtype.
    """
    n = x.shape[0]
    if demodulate:  # these factors cancel, and keep the numbers in range
        w = w * w.square().mean([1, 2, 3], keepdim=True).rsqrt()
        s = s * s.square().mean().rsqrt()
    if x.device.type != "cuda":  # one convolution for all samples: faster, and a graph for any batch when exported
        energy = w.square().sum(dim=[2, 3])  # [O, I]
        scale = (s.square() @ energy.t() + 1e-8).rsqrt() if demodulate else None  # [N, O]
        s = s if input_gain is None else s * input_gain
        y = torch.nn.functional.conv2d(x * s.to(x.dtype)[:, :, None, None], w.to(x.dtype), padding=padding)
        return y if scale is None else y * scale.to(x.dtype)[:, :, None, None]
    own = w[None] * s[:, None, :, None, None]  # [N, O, I, K, K]
    if demodulate:
        own = own * (own.square().sum(dim=[2, 3, 4], keepdim=True) + 1e-8).rsqrt()
    if input_gain is not None:
        own = own * input_gain.expand(n, w.shape[1])[:, None, :, None, None]
    x = x.reshape(1, -1, *x.shape[2:])  # the samples become the groups of one convolution
    y = torch.nn.functional.conv2d(x, own.flatten(0, 1).to(x.dtype), padding=padding, groups=n)
    return y.reshape(n, -1, *y.shape[2:])


def _pair(size):
    """An image size, one number or (width, height), as [width, height]."""
    width, height = (size, size) if np.ndim(size) == 0 else size
    return [int(width), int(height)]


@persistence.persistent_class
class FullyConnectedLayer(torch.nn.Module):
    """Dense layer with equalized learning rate (arXiv:1710.10196, sec. 4.1): [N, in_features] → [N, out_features]."""

    def __init__(
        self, in_features, out_features, activation="linear", bias=True, lr_multiplier=1, weight_init=1, bias_init=0
    ):
        super().__init__()
        self.in_features = in_features
        self.out_features = out_features
        self.activation = activation
        self.weight_gain = lr_multiplier / math.sqrt(in_features)
        self.bias_gain = lr_multiplier
        self.weight = torch.nn.Parameter(torch.randn([out_features, in_features]) * (weight_init / lr_multiplier))
        start = np.broadcast_to(np.asarray(bias_init, dtype=np.float32), [out_features])
        self.bias = torch.nn.Parameter(torch.from_numpy(start / lr_multiplier)) if bias else None

    def forward(self, x):
        weight = (self.weight * self.weight_gain).to(x.dtype)
        bias = None if self.bias is None else (self.bias * self.bias_gain).to(x.dtype)
        if self.activation == "linear" and bias is not None:
            return torch.addmm(bias, x, weight.t())
        return bias_act.bias_act(x.matmul(weight.t()), bias, act=self.activation)


def _normalize(x):
    """Scales every row of x to a mean square of one."""
    return x * (x.square().mean(dim=1, keepdim=True) + 1e-8).rsqrt()


@persistence.persistent_class
class MappingNetwork(torch.nn.Module):
    """z [N, z_dim] and c [N, c_dim] → w [N, num_ws, w_dim].

    `update_emas` updates the moving average `w_avg` of its outputs, for truncation (arXiv:1812.04948, section 2.2);
    nothing else does, so what callers of StyleGAN2's mapping pass as `skip_w_avg_update` makes no difference.
    """

    def __init__(self, z_dim, c_dim, w_dim, num_ws, num_layers=2, lr_multiplier=0.01, w_avg_beta=0.998):
        super().__init__()
        self.z_dim = z_dim
        self.c_dim = c_dim
        self.w_dim = w_dim
        self.num_ws = num_ws
        self.num_layers = num_layers
        self.w_avg_beta = w_avg_beta
        self.embed = FullyConnectedLayer(c_dim, w_dim) if c_dim > 0 else None
        inputs = z_dim + (w_dim if c_dim > 0 else 0)
        for i in range(num_layers):
            layer = FullyConnectedLayer(inputs, w_dim, activation="lrelu", lr_multiplier=lr_multiplier)
            setattr(self, f"fc{i}", layer)
            inputs = w_dim
        self.register_buffer("w_avg", torch.zeros([w_dim]))

    def forward(self, z, c, truncation_psi=1, truncation_cutoff=None, update_emas=False, skip_w_avg_update=False):
        x = _normalize(z.to(self.w_avg.dtype))
        if self.c_dim > 0:
            x = torch.cat([x, _normalize(self.embed(c.to(self.w_avg.dtype)))], dim=1)
        for i in range(self.num_layers):
            x = getattr(self, f"fc{i}")(x)
        if update_emas:
            self.w_avg.copy_(x.detach().mean(dim=0).lerp(self.w_avg, self.w_avg_beta))
        ws = x[:, None].repeat(1, self.num_ws, 1)
        if truncation_psi == 1:
            return ws
        cutoff = self.num_ws if truncation_cutoff is None else truncation_cutoff
        return torch.cat([self.w_avg.lerp(ws[:, :cutoff], truncation_psi), ws[:, cutoff:]], dim=1)


@persistence.persistent_class
class SynthesisInput(torch.nn.Module):
    """Fourier features, rotated and shifted by w (arXiv:2106.12423, appendix F): w [N, w_dim] → [N, C, H, W].

    `transform`, which users may set to [3, 3] or [N, 3, 3], is the inverse of a transform of the image, in units of its
    width. Frequencies are in cycles per image width.
    """

    def __init__(self, w_dim, channels, size, sampling_rate, bandwidth):
        super().__init__()
        self.w_dim = w_dim
        self.channels = channels
        self.size = _pair(size)
        self.sampling_rate = sampling_rate
        self.bandwidth = bandwidth
        direction = torch.randn([channels, 2])
        radius = direction.square().sum(dim=1, keepdim=True).sqrt()
        freqs = direction / (radius * radius.square().exp() ** 0.25) * bandwidth  # uniform in a disc
        phases = torch.rand([channels]) - 0.5
        self.weight = torch.nn.Parameter(torch.randn([channels, channels]))
        self.affine = FullyConnectedLayer(w_dim, 4, weight_init=0, bias_init=[1, 0, 0, 0])
        self.register_buffer("transform", torch.eye(3))
        self.register_buffer("freqs", freqs)
        self.register_buffer("phases", phases)

    def forward(self, w):
        freqs, phases = self._transformed(self.affine(w))  # [N, C, 2], [N, C]
        excess = (freqs.norm(dim=2) - self.bandwidth) / (self.sampling_rate / 2 - self.bandwidth)
        amplitudes = (1 - excess).clamp(0, 1)
        x, y = (self._positions(count, freqs) for count in self.size)
        cycles = freqs[:, None, None, :, 0] * x[:, None] + freqs[:, None, None, :, 1] * y[:, None, None]
        waves = torch.sin((cycles + phases[:, None, None]) * (2 * math.pi)) * amplitudes[:, None, None]  # [N, H, W, C]
        mixed = waves.matmul((self.weight / math.sqrt(self.weight.shape[1])).t())
        return mixed.permute(0, 3, 1, 2)

    def _transformed(self, t):
        """Frequencies and phases after the transform of w, [N, 4], and that of the user."""
        a, b, x, y = (t / t[:, :2].norm(dim=1, keepdim=True)).unbind(dim=1)
        zeros, ones = torch.zeros_like(a), torch.ones_like(a)
        rotation = torch.stack([a, -b, zeros, b, a, zeros, zeros, zeros, ones], dim=1).reshape(-1, 3, 3)
        shift = torch.stack([ones, zeros, -x, zeros, ones, -y, zeros, zeros, ones], dim=1).reshape(-1, 3, 3)
        total = rotation.matmul(shift).matmul(self.transform.to(t.dtype))
        phases = self.phases + self.freqs.matmul(total[:, :2, 2:])[:, :, 0]
        return self.freqs.matmul(total[:, :2, :2]), phases

    def _positions(self, count, like):
        """Centres of the samples along an axis, in image widths from the middle."""
        steps = torch.arange(count, dtype=like.dtype, device=like.device)
        return (steps + 0.5 - count / 2) / self.sampling_rate


@persistence.persistent_class
class SynthesisLayer(torch.nn.Module):
    """Modulated convolution and alias-free nonlinearity: x [N, I, in_h, in_w], w [N, w_dim] → [N, O, out_h, out_w]."""

    def __init__(
        self, w_dim, is_torgb, is_critically_sampled, use_fp16, in_channels, out_channels, in_size, out_size,
        in_sampling_rate, out_sampling_rate, in_cutoff, out_cutoff, in_half_width, out_half_width, conv_kernel=3,
        filter_size=6, lrelu_upsampling=2, use_radial_filters=False, conv_clamp=256, magnitude_ema_beta=0.999
    ):
        super().__init__()
        self.w_dim = w_dim
        self.is_torgb = is_torgb
        self.is_critically_sampled = is_critically_sampled
        self.use_fp16 = use_fp16
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.in_size = _pair(in_size)
        self.out_size = _pair(out_size)
        self.in_sampling_rate = in_sampling_rate
        self.out_sampling_rate = out_sampling_rate
        self.tmp_sampling_rate = max(in_sampling_rate, out_sampling_rate) * (1 if is_torgb else lrelu_upsampling)
        self.in_cutoff = in_cutoff
        self.out_cutoff = out_cutoff
        self.in_half_width = in_half_width
        self.out_half_width = out_half_width
        self.conv_kernel = 1 if is_torgb else conv_kernel
        self.conv_clamp = conv_clamp
        self.magnitude_ema_beta = magnitude_ema_beta
        self.up_factor = self._factor(in_sampling_rate)
        self.down_factor = self._factor(out_sampling_rate)
        self.up_taps = filter_size * self.up_factor if self.up_factor > 1 and not is_torgb else 1
        self.down_taps = filter_size * self.down_factor if self.down_factor > 1 and not is_torgb else 1
        self.down_radial = use_radial_filters and not is_critically_sampled
        self.padding = self._padding()
        self.affine = FullyConnectedLayer(w_dim, in_channels, bias_init=1)
        self.weight = torch.nn.Parameter(torch.randn([out_channels, in_channels, self.conv_kernel, self.conv_kernel]))
        self.bias = torch.nn.Parameter(torch.zeros([out_channels]))
        rate = self.tmp_sampling_rate
        self.register_buffer("magnitude_ema", torch.ones([]))
        self.register_buffer("up_filter", self.design_lowpass_filter(self.up_taps, in_cutoff, in_half_width * 2, rate))
        self.register_buffer("down_filter", self.design_lowpass_filter(
            self.down_taps, out_cutoff, out_half_width * 2, rate, radial=self.down_radial
        ))

    def _factor(self, sampling_rate):
        """The rate of the nonlinearity divided by that of an input or output."""
        if self.tmp_sampling_rate % sampling_rate:
            raise ValueError(f"sampling rate: {self.tmp_sampling_rate} is no multiple of {sampling_rate}")
        return int(self.tmp_sampling_rate // sampling_rate)

    def _padding(self):
        """[left, right, top, bottom] at the rate of the nonlinearity, so that the output has its size."""
        sides = []
        for given, wanted in zip(self.in_size, self.out_size):
            total = (wanted - 1) * self.down_factor + 1 - (given + self.conv_kernel - 1) * self.up_factor
            total += self.up_taps + self.down_taps - 2
            before = (total + self.up_factor) // 2
            sides += [before, total - before]
        return sides

    @staticmethod
    def design_lowpass_filter(numtaps, cutoff, width, fs, radial=False):
        """A Kaiser-windowed low-pass filter (arXiv:2106.12423, appendix C.1); None for a single tap.

        Args:
            numtaps: taps per axis.
            cutoff, width, fs: cutoff frequency, width of the transition band, sampling rate, in the same unit.
            radial: the two-dimensional filter whose response depends on the length of the frequency.

        Returns:
            float32 tensor, separable [numtaps] or radial [numtaps, numtaps], with sum 1.
        """
        if numtaps == 1:
            return None
        offsets = np.arange(numtaps) - (numtaps - 1) / 2
        attenuation = 2.285 * (numtaps - 1) * math.pi * width / (fs / 2) + 7.95
        beta = 0.0
        if attenuation > 50:
            beta = 0.1102 * (attenuation - 8.7)
        elif attenuation > 21:
            beta = 0.5842 * (attenuation - 21) ** 0.4 + 0.07886 * (attenuation - 21)
        inside = np.sqrt(1 - (2 * offsets / (numtaps - 1)) ** 2)
        window = scipy.special.i0(beta * inside) / scipy.special.i0(beta)
        if radial:
            radius = np.hypot(offsets[:, None], offsets) / fs
            taps = scipy.special.j1(2 * math.pi * cutoff * radius) / (math.pi * radius) * np.outer(window, window)
        else:
            taps = np.sinc(2 * cutoff * offsets / fs) * window
        return torch.as_tensor(taps / taps.sum(), dtype=torch.float32)

    def forward(self, x, w, noise_mode="random", force_fp32=False, update_emas=False):
        if noise_mode not in ("random", "const", "none"):
            raise ValueError(f"noise_mode: expected 'random', 'const' or 'none', found {noise_mode!r}")
        if list(x.shape[1:]) != [self.in_channels, self.in_size[1], self.in_size[0]]:
            raise ValueError(f"expected features [N, {self.in_channels}, {self.in_size[1]}, {self.in_size[0]}], "
                             f"found {list(x.shape)}")
        if update_emas:
            magnitude = x.detach().to(self.magnitude_ema.dtype).square().mean()
            self.magnitude_ema.copy_(magnitude.lerp(self.magnitude_ema, self.magnitude_ema_beta))
        styles = self.affine(w)
        if self.is_torgb:
            styles = styles / math.sqrt(self.in_channels * self.conv_kernel**2)
        half = self.use_fp16 and not force_fp32 and x.device.type == "cuda"
        dtype = torch.float16 if half else self.weight.dtype
        x = modulated_conv2d(
            x.to(dtype), self.weight, styles, demodulate=not self.is_torgb, padding=self.conv_kernel - 1,
            input_gain=self.magnitude_ema.rsqrt(),
        )
        gain, slope = (1, 1) if self.is_torgb else (math.sqrt(2), 0.2)
        return _filtered_lrelu(x, self.up_filter, self.down_filter, self.bias.to(dtype), self.up_factor,
                               self.down_factor, self.padding, gain, slope, self.conv_clamp)


@persistence.persistent_class
class SynthesisNetwork(torch.nn.Module):
    """ws [N, num_ws, w_dim] → images [N, img_channels, img_resolution, img_resolution], nominally in [-1, 1].

    Cutoff and stopband frequencies grow geometrically from layer to layer up to the last `num_critical`
    (arXiv:2106.12423, section 3.2). Widths follow from the cutoffs by `channel_base` and `channel_max`, or are given by
    `layer_channels`: that of the input, then of the outputs of all layers but the last.
    """

    def __init__(
        self, w_dim, img_resolution, img_channels, channel_base=32768, channel_max=512, num_layers=14, num_critical=2,
        first_cutoff=2, first_stopband=2**2.1, last_stopband_rel=2**0.3, margin_size=10, output_scale=0.25,
        num_fp16_res=4, layer_channels=None, **layer_kwargs
    ):
        super().__init__()
        self.w_dim = w_dim
        self.num_ws = num_layers + 2
        self.img_resolution = img_resolution
        self.img_channels = img_channels
        self.num_layers = num_layers
        self.num_critical = num_critical
        self.margin_size = margin_size
        self.output_scale = output_scale
        self.num_fp16_res = num_fp16_res

        last_cutoff = img_resolution / 2
        last_stopband = last_cutoff * last_stopband_rel
        cutoffs, stopbands = [], []
        for i in range(num_layers + 1):
            exponent = min(i / (num_layers - num_critical), 1)
            cutoffs.append(first_cutoff * (last_cutoff / first_cutoff) ** exponent)
            stopbands.append(first_stopband * (last_stopband / first_stopband) ** exponent)
        rates = [2 ** math.ceil(math.log2(min(stopband * 2, img_resolution))) for stopband in stopbands]
        half_widths = [max(s, rate / 2) - cutoff for s, rate, cutoff in zip(stopbands, rates, cutoffs)]
        sizes = [rate + margin_size * 2 for rate in rates]
        sizes[-2:] = [img_resolution] * 2
        stock = [round(min(channel_base / 2 / cutoff, channel_max)) for cutoff in cutoffs[:-1]]
        widths = [stock[0], *stock] if layer_channels is None else list(layer_channels)
        if len(widths) != num_layers + 1:
            raise ValueError(f"layer_channels: expected {num_layers + 1} widths for {num_layers} layers, "
                             f"found {len(widths)}")
        widths = [*widths, img_channels]

        self.input = SynthesisInput(
            w_dim=w_dim, channels=widths[0], size=sizes[0], sampling_rate=rates[0], bandwidth=cutoffs[0]
        )
        self.layer_names = []
        for i in range(num_layers + 1):
            before = max(i - 1, 0)
            layer = SynthesisLayer(
                w_dim=w_dim,
                is_torgb=i == num_layers,
                is_critically_sampled=i >= num_layers - num_critical,
                use_fp16=rates[i] * 2**num_fp16_res > img_resolution,
                in_channels=widths[i],
                out_channels=widths[i + 1],
                in_size=sizes[before],
                out_size=sizes[i],
                in_sampling_rate=rates[before],
                out_sampling_rate=rates[i],
                in_cutoff=cutoffs[before],
                out_cutoff=cutoffs[i],
                in_half_width=half_widths[before],
                out_half_width=half_widths[i],
                **layer_kwargs,
            )
            self.layer_names.append(f"L{i}_{sizes[i]}_{widths[i + 1]}")
            setattr(self, self.layer_names[-1], layer)

    def forward(self, ws, **layer_kwargs):
        if ws.ndim != 3 or list(ws.shape[1:]) != [self.num_ws, self.w_dim]:
            raise ValueError(f"synthesis: expected ws [N, {self.num_ws}, {self.w_dim}], found {list(ws.shape)}")
        of_layer = ws.to(self.input.weight.dtype).unbind(dim=1)
        x = self.input(of_layer[0])
        for name, w in zip(self.layer_names, of_layer[1:]):
            x = getattr(self, name)(x, w, **layer_kwargs)
        if self.output_scale != 1:
            x = x * self.output_scale
        return x.to(self.input.weight.dtype)


@persistence.persistent_class
class Generator(torch.nn.Module):
    """z [N, z_dim] and labels c [N, c_dim] → images [N, img_channels, img_resolution, img_resolution].

    Options of the synthesis network are given flat; a `synthesis_kwargs` of them overrides those.
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
        options = dict(flat_synthesis_kwargs, **synthesis_kwargs)
        self.synthesis = SynthesisNetwork(
            w_dim=w_dim, img_resolution=img_resolution, img_channels=img_channels, **options
        )
        self.num_ws = self.synthesis.num_ws
        self.mapping = MappingNetwork(z_dim=z_dim, c_dim=c_dim, w_dim=w_dim, num_ws=self.num_ws, **mapping_kwargs)

    def forward(self, z, c, truncation_psi=1, truncation_cutoff=None, update_emas=False, **synthesis_kwargs):
        ws = self.mapping(z, c, truncation_psi, truncation_cutoff, update_emas)
        return self.synthesis(ws, update_emas=update_emas, **synthesis_kwargs)
