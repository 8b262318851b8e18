"""Leaky ReLU between an upsampling and a downsampling filter, so that it adds no aliasing.

The nonlinearity of StyleGAN3 (Karras et al. 2021, arXiv:2106.12423, section 3.2 and appendix D): bias, upsample, leaky
ReLU with gain and clamp, downsample. The result is piecewise linear in the input. Gradients of every order are
therefore the same two filters with the slopes of the forward pass in between; for those a backward pass keeps two bits
per upsampled position. Channels are processed in groups, so that the upsampled images never exist all at once.
"""
import dataclasses
import math
from collections.abc import Iterator, Sequence

import torch

from torch_utils.function_context import Context

from . import bias_act, upfirdn2d

Padding = int | Sequence[int]

GROUP_BYTES = {"cpu": 1 << 22, "cuda": 1 << 28}  # upsampled images that exist at a time; on a CPU they fit its cache
_NEGATIVE, _CLIPPED = 1, 2  # bits of a slope code
_CODES_PER_BYTE = 4


def filtered_lrelu(
    x: torch.Tensor,
    fu: torch.Tensor | None = None,
    fd: torch.Tensor | None = None,
    b: torch.Tensor | None = None,
    up: int = 1,
    down: int = 1,
    padding: Padding = 0,
    gain: float = math.sqrt(2),
    slope: float = 0.2,
    clamp: float | None = None,
    flip_filter: bool = False,
    impl: str = "cuda",
) -> torch.Tensor:
    """Adds a bias, upsamples, applies a leaky ReLU, scales, clamps, and downsamples.

    Args:
        x: images [N, C, H, W], any float type.
        fu: filter before the leaky ReLU, float32 [fh, fw] or, separable, [taps]; None is the identity. No gradient.
        fd: filter after it, likewise.
        b: bias [C] of x's dtype, added before the padding; None adds nothing.
        up, down: factors on both axes, at least 1.
        padding: int, (x, y) or (x_before, x_after, y_before, y_after), in pixels of the upsampled image; negative
            values crop.
        gain: factor after the leaky ReLU, above 0. (The gain of zero-stuffing, `up` squared, is added to it.)
        slope: slope for negative values, at least 0; also taken at exactly 0.
        clamp: limit of the absolute value before `fd`; values at the limit pass gradients. None does not clamp.
        flip_filter: correlate instead of convolve.
        impl: 'cuda' uses the fastest implementation of every step, 'ref' the plain torch one.

    Returns:
        [N, C, H', W'], x's dtype, with W' = (W*up + x_before + x_after - (fuw-1) - (fdw-1) + down-1) // down, and H'
        alike. Differentiable in x and b to any order.

    Raises:
        ValueError: an argument is out of its range, or a filter does not fit into the padded image.
    """
    if impl not in ("cuda", "ref"):
        raise ValueError(f"filtered_lrelu: impl is 'cuda' or 'ref', found {impl!r}")
    if x.ndim != 4:
        raise ValueError(f"filtered_lrelu: expected images [N, C, H, W], found shape {tuple(x.shape)}")
    if b is not None and b.shape != (x.shape[1],):
        raise ValueError(f"filtered_lrelu: bias {tuple(b.shape)} does not fit x {tuple(x.shape)}")
    if gain <= 0 or slope < 0 or (clamp is not None and clamp < 0):
        raise ValueError("filtered_lrelu: expected gain > 0, slope >= 0 and clamp >= 0 or None, "
                         f"found {gain}, {slope} and {clamp}")
    if min(up, down) < 1:
        raise ValueError(f"filtered_lrelu: up and down are integers of at least 1, found {up} and {down}")
    before = _Resampling.of(tuple(x.shape[2:]), fu, up, 1, _four(padding), flip_filter, float(up**2), impl)
    after = _Resampling.of(before.out_size, fd, 1, down, (0, 0, 0, 0), flip_filter, 1.0, impl)
    act = _LeakyReLU(float(gain), float(slope), None if clamp is None else float(clamp), impl)
    needs_graph = torch.is_grad_enabled() and (x.requires_grad or (b is not None and b.requires_grad))
    if impl == "ref" or (torch.compiler.is_compiling() and not needs_graph):  # exported programs take any batch
        x = x if b is None else x + b[:, None, None]
        return after(act(before(x)))
    if needs_graph:
        y: torch.Tensor = _FilteredLeakyReLU.apply(x, b, before, act, after)
        return y
    return _forward(x, b, before, act, after, None)


def _four(padding: Padding) -> tuple[int, int, int, int]:
    """(x_before, x_after, y_before, y_after) of any accepted form."""
    values = [padding] if isinstance(padding, int) else [int(p) for p in padding]
    if len(values) == 1:
        values = values * 4
    elif len(values) == 2:
        values = [values[0], values[0], values[1], values[1]]
    if len(values) != 4:
        raise ValueError(f"filtered_lrelu: padding has 1, 2 or 4 values, found {padding}")
    return values[0], values[1], values[2], values[3]


@dataclasses.dataclass(frozen=True)
class _Resampling:
    """One upfirdn2d between images of known sizes (height, width); its adjoint is another one."""

    in_size: tuple[int, int]
    out_size: tuple[int, int]
    f: torch.Tensor | None
    up: int
    down: int
    padding: tuple[int, int, int, int]
    flip: bool
    gain: float
    impl: str

    @classmethod
    def of(
        cls, in_size: tuple[int, ...], f: torch.Tensor | None, up: int, down: int,
        padding: tuple[int, int, int, int], flip: bool, gain: float, impl: str,
    ) -> "_Resampling":
        """The resampling of images of `in_size`; the output's size follows."""
        fh, fw = (1, 1) if f is None else (f.shape[0], f.shape[-1])
        height = in_size[0] * up + padding[2] + padding[3] - fh + 1
        width = in_size[1] * up + padding[0] + padding[1] - fw + 1
        if height < 1 or width < 1:
            raise ValueError(f"filtered_lrelu: a {fw}x{fh} filter does not fit into an image of "
                             f"{width + fw - 1}x{height + fh - 1} after padding")
        size = (height - 1) // down + 1, (width - 1) // down + 1
        return cls((in_size[0], in_size[1]), size, f, up, down, padding, flip, gain, impl)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return upfirdn2d.upfirdn2d(x, self.f, self.up, self.down, self.padding, self.flip, self.gain, self.impl)

    def adjoint(self) -> "_Resampling":
        """The transposed linear map: up and down exchanged, the filter reversed."""
        sides: list[int] = []
        fh, fw = (1, 1) if self.f is None else (self.f.shape[0], self.f.shape[-1])
        for axis, taps in ((1, fw), (0, fh)):
            before = taps - 1 - self.padding[2 * (1 - axis)]
            span = (self.in_size[axis] - 1) * self.up + taps  # of the transposed map, before its decimation
            sides += [before, span - self.out_size[axis] * self.down - before]
        padding = (sides[0], sides[1], sides[2], sides[3])
        return dataclasses.replace(self, in_size=self.out_size, out_size=self.in_size, up=self.down, down=self.up,
                                   padding=padding, flip=not self.flip)


@dataclasses.dataclass(frozen=True)
class _LeakyReLU:
    """clip(gain * lrelu(x; slope), -clamp, clamp)."""

    gain: float
    slope: float
    clamp: float | None
    impl: str

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return bias_act.bias_act(x, None, act="lrelu", alpha=self.slope, gain=self.gain, clamp=self.clamp,
                                 impl=self.impl)

    @property
    def is_linear(self) -> bool:
        """Whether the derivative is the same everywhere."""
        return self.slope == 1 and self.clamp is None

    def codes(self, x: torch.Tensor) -> torch.Tensor:
        """Which derivative applies at every position, uint8 [N, C, H, ceil(W / 4)] with two bits per position."""
        codes = (x <= 0).to(torch.uint8)  # _NEGATIVE
        if self.clamp is not None:
            unclipped = dataclasses.replace(self, clamp=None)(x)
            codes += (unclipped.abs() > self.clamp).to(torch.uint8).mul_(_CLIPPED)
        return _packed(codes)

    def derivatives(self, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
        """Byte of `codes` → derivatives at its four positions, [256, 4]."""
        of_code = torch.tensor([self.gain, self.gain * self.slope, 0.0, 0.0], dtype=dtype, device=device)
        shifts = torch.arange(_CODES_PER_BYTE, device=device) * 2
        return of_code[(torch.arange(256, device=device)[:, None] >> shifts) & 3]


def _packed(codes: torch.Tensor) -> torch.Tensor:
    """Codes below 4, uint8 [..., W], four to a byte: [..., ceil(W / 4)]."""
    missing = -codes.shape[-1] % _CODES_PER_BYTE
    if missing:
        codes = torch.nn.functional.pad(codes, [0, missing])
    packed = codes[..., 0::_CODES_PER_BYTE].clone()
    for i in range(1, _CODES_PER_BYTE):
        packed |= codes[..., i::_CODES_PER_BYTE] << (2 * i)
    return packed


def _groups(planes: int, size: tuple[int, int], x: torch.Tensor) -> Iterator[slice]:
    """Slices of all planes, each of which has about `GROUP_BYTES` at the size of the upsampled images."""
    count = planes
    if not torch.compiler.is_compiling():  # a captured program has no need of loops
        budget = GROUP_BYTES.get(x.device.type, 1 << 28)
        count = max(min(budget // max(size[0] * size[1] * x.element_size(), 1), planes), 1)
    for start in range(0, planes, max(count, 1)):
        yield slice(start, min(start + count, planes))


def _forward(
    x: torch.Tensor,
    b: torch.Tensor | None,
    before: _Resampling,
    act: _LeakyReLU,
    after: _Resampling,
    codes: list[torch.Tensor] | None,
) -> torch.Tensor:
    """The operation, group by group; appends the slope codes of every group to a list, if there is one."""
    n, channels = x.shape[:2]
    flat = x.reshape(1, n * channels, *x.shape[2:])
    shift = None if b is None else b.repeat(n)[:, None, None]
    parts = []
    for group in _groups(n * channels, before.out_size, x):
        part = flat[:, group] if shift is None else flat[:, group] + shift[group]
        part = before(part)
        if codes is not None:
            codes.append(act.codes(part))
        parts.append(after(act(part)))
    return _joined(parts, x, after)


def _joined(parts: list[torch.Tensor], x: torch.Tensor, after: _Resampling) -> torch.Tensor:
    """The groups of channels [1, G, H', W'] as images [N, C, H', W']."""
    if not parts:
        parts = [x.new_empty([1, 0, *after.out_size])]
    whole = parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
    return whole.reshape(*x.shape[:2], *after.out_size)


class _FilteredLeakyReLU(torch.autograd.Function):
    """The operation with its first derivative, which keeps the slope codes and nothing else."""

    @staticmethod
    def forward(
        ctx: Context,
        x: torch.Tensor,
        b: torch.Tensor | None,
        before: _Resampling,
        act: _LeakyReLU,
        after: _Resampling,
    ) -> torch.Tensor:
        codes: list[torch.Tensor] = []
        y = _forward(x, b, before, act, after, None if act.is_linear else codes)
        ctx.save_for_backward(*codes)
        ctx.args = before, act, after
        return y

    @staticmethod
    def backward(ctx: Context, dy: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        before, act, after = ctx.args
        dx = _Linear.apply(dy, after.adjoint(), act, before.adjoint(), *ctx.saved_tensors)
        db = dx.sum([0, 2, 3]) if ctx.needs_input_grad[1] else None
        return dx if ctx.needs_input_grad[0] else None, db, None, None, None


class _Linear(torch.autograd.Function):
    """The operation without bias and with given slopes: a linear map, whose adjoint is of the same kind."""

    @staticmethod
    def forward(
        ctx: Context, x: torch.Tensor, before: _Resampling, act: _LeakyReLU, after: _Resampling, *codes: torch.Tensor
    ) -> torch.Tensor:
        ctx.save_for_backward(*codes)
        ctx.args = before, act, after
        n, channels, height, width = x.shape
        flat = x.reshape(1, n * channels, height, width)
        table = act.derivatives(x.dtype, x.device)
        parts = []
        start = 0
        for packed in codes:
            part = before(flat[:, start : start + packed.shape[1]])
            start += packed.shape[1]
            slopes = table[packed.int()].flatten(-2)[..., : part.shape[-1]]
            parts.append(after(part.mul_(slopes)))
        if not codes:
            for group in _groups(n * channels, before.out_size, x):
                parts.append(after(before(flat[:, group]).mul_(act.gain)))
        return _joined(parts, x, after)

    @staticmethod
    def backward(ctx: Context, dy: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        before, act, after = ctx.args
        dx = _Linear.apply(dy, after.adjoint(), act, before.adjoint(), *ctx.saved_tensors)
        return (dx, None, None, None, *[None] * len(ctx.saved_tensors))
