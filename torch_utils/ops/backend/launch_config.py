"""Launch configurations: which kernel a call uses, on what grid, with which arguments. Touches no device."""
import functools
import math
from typing import NamedTuple

import torch

from .params import BiasActParams, Params, Upfirdn2dParams

THREADS = 256  # of every block; sg::THREADS in csrc/common.cuh
MAX_INT = 2**31 - 1
_MAX_GRID_YZ = 65535
_ENOUGH_BLOCKS = 1024  # to keep the largest GPUs of today busy; only from there on do blocks get taller
_MIN_ROWS = 64  # of a strip that is cut into several blocks: each reads up to three rows twice

_LAST_PACKED_ACT = 3  # linear, relu and lrelu are compiled for packs of 16 bytes

TAGS = {torch.float16: "f16", torch.bfloat16: "bf16", torch.float32: "f32", torch.float64: "f64"}


class Launch(NamedTuple):
    """The launch configuration of one kernel call; every block has `THREADS` threads."""

    kernel: str
    grid: tuple[int, int, int]
    params: Params


class Tile(NamedTuple):
    """The output that a block of the 4x4 kernels computes per step; a row of the table at the end of kernels.cuh."""

    up: int
    down: int
    channels: int
    width: int
    height: int

    def kernel(self, dtype: torch.dtype) -> str:
        """The name of the kernel with this tile."""
        up, down, channels, width, height = self
        return f"fir4_{TAGS[dtype]}_u{up}d{down}_c{channels}w{width}h{height}"


# (up, down) → tiles for planes: columns → rows, narrow ones first. At up 1, where the length of a row is often odd,
# wide images need the widest: every edge of a tile cuts through a sector of memory.
_TILES = {(1, 1): {32: 32, 128: 16, 256: 8}, (1, 2): {32: 16, 128: 8}, (2, 1): {32: 32, 128: 16}}
_ROWS_CHANNELS_LAST = {(1, 1): 8, (1, 2): 4, (2, 1): 8}
_SECTOR_BYTES = 32  # memory is moved in these; a channels_last tile holds as many channels as fill one


def tile_for(dtype: torch.dtype, up: int, down: int, out_w: int, channels_last: bool) -> Tile:
    """The tile of the 4x4 kernel for an output of this width."""
    if channels_last:
        channels = _SECTOR_BYTES // dtype.itemsize
        return Tile(up, down, channels, THREADS // channels, _ROWS_CHANNELS_LAST[up, down])
    tiles = _TILES[up, down]
    width = next((width for width in tiles if width >= out_w), max(tiles))
    return Tile(up, down, 1, width, tiles[width])


def is_channels_last(x: torch.Tensor) -> bool:
    """Whether images [N, C, H, W] are stored pixel by pixel. Where the shape leaves it open, they are not."""
    if x.is_contiguous():
        return False
    return x.is_contiguous(memory_format=torch.channels_last) or (x.shape[1] > 1 and x.stride(1) < x.stride(3))


class _Geometry(NamedTuple):
    """Everything about an upfirdn2d call but where its data is."""

    dtype: torch.dtype
    x_shape: tuple[int, ...]
    x_stride: tuple[int, ...]
    f_shape: tuple[int, ...]
    f_stride: tuple[int, ...]
    y_shape: tuple[int, ...]
    y_stride: tuple[int, ...]
    channels_last: bool
    up: tuple[int, int]
    down: tuple[int, int]
    pad: tuple[int, int]  # before the image, x and y
    flip: bool
    gain: float
    wide_index: bool


def upfirdn2d(
    x: torch.Tensor,
    f: torch.Tensor,
    y: torch.Tensor,
    up: tuple[int, int],
    down: tuple[int, int],
    pad: tuple[int, int],
    flip: bool,
    gain: float,
    wide_index: bool = False,
) -> Launch | None:
    """The launch that writes the result for images x [N, C, H, W] and a filter f [fh, fw] to y.

    Args:
        x, f, y: any strides for x and f; y is contiguous or channels_last. f is float32, y of x's dtype.
        up, down, pad: x and y; `pad` is what is before the image.
        wide_index: count with 64 bits even if that is not needed.

    Returns:
        None if a number is beyond what the kernels count with.
    """
    configuration = _configure_upfirdn2d(
        _Geometry(
            x.dtype, tuple(x.shape), x.stride(), tuple(f.shape), f.stride(), tuple(y.shape), y.stride(),
            is_channels_last(y), up, down, pad, flip, gain, wide_index,
        )
    )
    if configuration is None:
        return None
    kernel, grid, template = configuration
    params = Upfirdn2dParams.from_buffer_copy(template)
    params.x, params.f, params.y = x.data_ptr(), f.data_ptr(), y.data_ptr()
    return Launch(kernel, grid, params)


@functools.lru_cache(maxsize=4096)
def _configure_upfirdn2d(g: _Geometry) -> tuple[str, tuple[int, int, int], bytes] | None:
    (n, channels, h, w), (fh, fw), (_, _, out_h, out_w) = g.x_shape, g.f_shape, g.y_shape
    reach = [max(size * up, out * down) + abs(pad) + taps for size, up, out, down, pad, taps in
             [(w, g.up[0], out_w, g.down[0], g.pad[0], fw), (h, g.up[1], out_h, g.down[1], g.pad[1], fh)]]
    if max(n, channels, *reach) > MAX_INT:
        return None
    p = Upfirdn2dParams(
        x_stride=g.x_stride, y_stride=g.y_stride, f_stride=g.f_stride, outputs=math.prod(g.y_shape), gain=g.gain,
        n=n, channels=channels, h=h, w=w, out_h=out_h, out_w=out_w, fh=fh, fw=fw,
        up_x=g.up[0], up_y=g.up[1], down_x=g.down[0], down_y=g.down[1], pad_x=g.pad[0], pad_y=g.pad[1],
        flip=g.flip, channels_last=g.channels_last,
    )  # fmt: skip
    tile = _tile(g)
    grid = None if tile is None else _fir4_grid(p, tile)
    if tile is not None and grid is not None:
        return tile.kernel(g.dtype), grid, bytes(p)
    wide = p.outputs > MAX_INT or g.wide_index
    grid = (min(math.ceil(p.outputs / THREADS), MAX_INT), 1, 1)
    return f"upfirdn2d_{TAGS[g.dtype]}_{'i64' if wide else 'i32'}", grid, bytes(p)


def _tile(g: _Geometry) -> Tile | None:
    """The 4x4 kernel's tile, if that kernel can do it and reads side by side what lies side by side."""
    if g.f_shape != (4, 4) or g.up[0] != g.up[1] or g.down[0] != g.down[1] or g.wide_index:
        return None
    side_by_side = g.x_stride[1 if g.channels_last else 3] == 1 or g.x_shape[1 if g.channels_last else 3] == 1
    if (g.up[0], g.down[0]) not in _TILES or not side_by_side:
        return None
    return tile_for(g.dtype, g.up[0], g.down[0], g.y_shape[3], g.channels_last)


def _fir4_grid(p: Upfirdn2dParams, tile: Tile) -> tuple[int, int, int] | None:
    """Cuts the output into strips and, if they are few, these into blocks; fills the numbers into the arguments."""
    p.strips = math.ceil(p.out_w / tile.width)
    p.channel_groups = math.ceil(p.channels / tile.channels)
    columns, images = p.strips * p.channel_groups, min(p.n, _MAX_GRID_YZ)
    wanted = min(math.ceil(_ENOUGH_BLOCKS / (columns * images)), math.ceil(p.out_h / _MIN_ROWS))
    p.rows_per_block = math.ceil(p.out_h / wanted / tile.height) * tile.height
    grid_y = math.ceil(p.out_h / p.rows_per_block)
    return None if columns > MAX_INT else (columns, grid_y, images)


def bias_act(
    order: int,
    ref: torch.Tensor,
    b: torch.Tensor | None,
    dy: torch.Tensor | None,
    ddx: torch.Tensor | None,
    out: torch.Tensor,
    dim: int,
    act: int,
    scalars: tuple[float, float, float],
    wide_index: bool = False,
) -> Launch:
    """The launch that computes bias_act (order 0) or its first or second derivative; see csrc/bias_act.cuh.

    Args:
        ref, dy, ddx, out: of one shape [...] and dtype, all contiguous or all channels_last; dy and ddx only where the
            order needs them.
        b: bias [out.shape[dim]], dense; None for none.
        dim: the axis of the bias.
        act: number of the activation, 1 to 9.
        scalars: alpha, gain and clamp; a negative clamp is none.
        wide_index: count with 64 bits even if that is not needed.
    """
    given = [t for t in (ref, dy, ddx, out) if t is not None]
    numel, per_pack = out.numel(), 16 // out.dtype.itemsize
    step, size = (out.stride(dim), out.shape[dim]) if b is not None and out.shape[dim] > 1 else (numel, 1)
    one_bias_per_pack = size == 1 or step % per_pack == 0
    packed = (
        order <= 1
        and act <= _LAST_PACKED_ACT
        and all(t.data_ptr() % 16 == 0 for t in given)
        and (one_bias_per_pack or (step == 1 and size % per_pack == 0))
    )
    params = BiasActParams(
        ref.data_ptr(), _pointer(b), _pointer(dy), _pointer(ddx), out.data_ptr(), numel, step, size, *scalars, act,
        packed,
    )  # fmt: skip
    threads = math.ceil(numel / (per_pack if packed else 1))
    kernel = f"bias_act{order}_{TAGS[out.dtype]}_{'i64' if numel > MAX_INT or wide_index else 'i32'}"
    return Launch(kernel, (min(math.ceil(threads / THREADS), MAX_INT), 1, 1), params)


def _pointer(tensor: torch.Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()
