"""The adaptive-augmentation pipeline: 18 image transforms, each applied with a probability that training can steer.

After Karras et al. 2020, "Training Generative Adversarial Networks with Limited Data" (arXiv:2006.06676), appendix B.

The text of this file travels inside network pickles and is run by trees that hold none of our other packages. It may
import only torch, numpy, dnnlib, torch_utils.{misc, persistence} and the torch_utils.ops that those trees have.
"""
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from torch_utils import misc, persistence
from torch_utils.ops import grid_sample_gradfix, upfirdn2d

# Presets: constructor arguments of AugmentPipe. 'bgc' is the paper's default.

_GROUPS = {
    "blit": ("xflip", "rotate90", "xint"),
    "geom": ("scale", "rotate", "aniso", "xfrac"),
    "color": ("brightness", "contrast", "lumaflip", "hue", "saturation"),
    "filter": ("imgfilter",),
    "noise": ("noise",),
    "cutout": ("cutout",),
}


def _presets() -> dict[str, dict[str, int]]:
    """Each group alone; then 'bg', 'bgc', … up to 'bgcfnc', named by the initials of the groups they unite."""
    alone = {name: dict.fromkeys(members, 1) for name, members in _GROUPS.items()}
    names = list(_GROUPS)
    united = {}
    for count in range(2, len(names) + 1):
        chosen = names[:count]
        united["".join(name[0] for name in chosen)] = {m: 1 for name in chosen for m in _GROUPS[name]}
    return {**alone, **united}


AUGPIPE_PRESETS = _presets()

# Decomposition low-pass filters of Daubechies' least asymmetric wavelets with 2 and 6 vanishing moments.

_SYM2 = np.array([1 - 3**0.5, 3 - 3**0.5, 3 + 3**0.5, 1 + 3**0.5]) / 32**0.5
_SYM6 = [
    *[0.015404109327027373, 0.0034907120842174702, -0.11799011114819057, -0.048311742585633],
    *[0.4910559419267466, 0.787641141030194, 0.3379294217276218, -0.07263752278646252],
    *[-0.021060292512300564, 0.04472490177066578, 0.0017677118642428036, -0.007800708325034148],
]


def _octave_filters() -> np.ndarray:
    """Four symmetric band-pass filters [4, 43], lowest octave first, that add up to the identity."""
    mirrored = _SYM2 * [1, -1, 1, -1]
    low = np.convolve(_SYM2, _SYM2[::-1]) / 2
    high = np.convolve(mirrored, mirrored[::-1]) / 2
    bands = [np.ones(1)]
    for _ in range(3):  # everything so far moves down an octave, and a new highest band joins
        bands = [np.convolve(np.kron(band, [1, 0])[:-1], low) for band in bands]
        bands.append(np.pad(high, (len(bands[0]) - len(high)) // 2))
    return np.stack(bands)


_OCTAVE_POWER = np.array([10, 1, 1, 1]) / 13  # expected power of natural images per octave

# Random numbers


class _Draws:
    """The random parameters of one call, one row per image.

    Zero is every parameter's neutral value (scales are drawn as binary logarithms for that reason). With a percentile
    the numbers are drawn all the same, but each is replaced by that percentile of its distribution.
    """

    def __init__(self, num: int, device: torch.device, percentile: float | None) -> None:
        self.num = num
        self.device = device
        self.percentile = percentile

    def uniform(self, axes: int = 1, at: float | None = None) -> torch.Tensor:
        """[num, axes] in [0, 1); `at` overrides the percentile."""
        u = torch.rand([self.num, axes], device=self.device)
        if self.percentile is None:
            return u
        return torch.full_like(u, self.percentile if at is None else at)

    def symmetric(self, bound: float, axes: int = 1, at: float | None = None) -> torch.Tensor:
        """Uniform in [-bound, bound)."""
        return (self.uniform(axes, at) * 2 - 1) * bound

    def choice(self, count: int) -> torch.Tensor:
        """0 … count-1, as floats."""
        return (self.uniform() * count).floor()

    def normal(self, std: float, axes: int = 1) -> torch.Tensor:
        """Gaussian. The percentiles are, by convention, those of a distribution sqrt(2) narrower."""
        z = torch.randn([self.num, axes], device=self.device)
        if self.percentile is not None:
            z = torch.full_like(z, 2 * self.percentile - 1).erfinv()
        return z * std

    def half_normal(self, std: float) -> torch.Tensor:
        """Magnitude of a Gaussian; percentiles as in `normal`."""
        z = torch.randn([self.num, 1], device=self.device).abs()
        if self.percentile is not None:
            z = torch.full_like(z, self.percentile).erfinv()
        return z * std

    def gate(self, value: torch.Tensor, prob: torch.Tensor) -> torch.Tensor:
        """Keeps each row with probability `prob`, makes it neutral otherwise."""
        u = torch.rand([self.num, 1], device=self.device)
        if self.percentile is not None:
            return value
        return torch.where(u < prob, value, torch.zeros_like(value))


# Transforms that are matrices. Each is the identity plus a few fixed matrices times functions of its parameter, which
# vanish where the parameter is neutral: an image that no gate lets through gets the identity exactly.


class _Transform(NamedTuple):
    """One matrix-valued transform."""

    strength: str  # attribute of the pipe: the multiplier of p
    draw: Callable[[_Draws, Any], torch.Tensor]  # (draws, pipe) → parameter [N, axes]
    weights: Callable[..., torch.Tensor]  # (parameter, [width, height]) → [N, K]
    terms: np.ndarray  # [K, D, D]
    share: int = 1  # transforms with this strength in common: at least one acts with probability strength*p


def _entries(size: int, *terms: dict[tuple[int, int], float]) -> np.ndarray:
    """Matrices [K, size, size] from their nonzero entries, (row, column) → value."""
    matrices = np.zeros([len(terms), size, size])
    for k, term in enumerate(terms):
        for (row, column), value in term.items():
            matrices[k, row, column] = value
    return matrices


# Geometry: 3x3 maps from output to input pixels, inverse to what the image does. Origin in the centre, y down.
_SCALE_X, _SCALE_Y, _SCALE_XY = {(0, 0): 1.0}, {(1, 1): 1.0}, {(0, 0): 1.0, (1, 1): 1.0}
_TURN = _entries(3, _SCALE_XY, {(0, 1): -1.0, (1, 0): 1.0})
_SHIFT = _entries(3, {(0, 2): 1.0}, {(1, 2): 1.0})


def _turn_weights(angle: torch.Tensor, size: torch.Tensor) -> torch.Tensor:
    return torch.cat([angle.cos() - 1, angle.sin()], dim=1)


def _log_scale_weights(v: torch.Tensor, size: torch.Tensor) -> torch.Tensor:
    return torch.exp2(v) - 1


_GEOMETRY = (
    _Transform("xflip", lambda d, pipe: d.choice(2), lambda v, size: -2 * v, _entries(3, _SCALE_X)),
    _Transform("rotate90", lambda d, pipe: d.choice(4) * (math.pi / 2), _turn_weights, _TURN),
    _Transform("xint", lambda d, pipe: d.symmetric(pipe.xint_max, axes=2), lambda v, size: -(v * size).round(), _SHIFT),
    _Transform("scale", lambda d, pipe: d.normal(-pipe.scale_std), _log_scale_weights, _entries(3, _SCALE_XY)),
    _Transform("rotate", lambda d, pipe: d.symmetric(math.pi * pipe.rotate_max), _turn_weights, _TURN, share=2),
    _Transform(
        "aniso",
        lambda d, pipe: d.normal(pipe.aniso_std),
        lambda v, size: torch.cat([torch.exp2(-v) - 1, torch.exp2(v) - 1], dim=1),
        _entries(3, _SCALE_X, _SCALE_Y),
    ),
    _Transform("rotate", lambda d, pipe: d.symmetric(math.pi * pipe.rotate_max, at=0.5), _turn_weights, _TURN, share=2),
    _Transform("xfrac", lambda d, pipe: d.normal(pipe.xfrac_std, axes=2), lambda v, size: -v * size, _SHIFT),
)

# Colour: 4x4 maps of (r, g, b, 1). Luma is the component along (1, 1, 1).
_RGB = {(i, i): 1.0 for i in range(3)}
_LUMA = {(i, j): 1 / 3 for i in range(3) for j in range(3)}
_CHROMA = {(i, j): float(i == j) - 1 / 3 for i in range(3) for j in range(3)}
_AROUND_LUMA = {(i, (i + step) % 3): sign / 3**0.5 for i in range(3) for step, sign in ((1, -1), (2, 1))}

_LIGHTNESS = (
    _Transform(
        "brightness",
        lambda d, pipe: d.normal(pipe.brightness_std),
        lambda v, size: v,
        _entries(4, {(i, 3): 1.0 for i in range(3)}),
    ),
    _Transform("contrast", lambda d, pipe: d.normal(pipe.contrast_std), _log_scale_weights, _entries(4, _RGB)),
    _Transform("lumaflip", lambda d, pipe: d.choice(2), lambda v, size: -2 * v, _entries(4, _LUMA)),
)
_CHROMATICITY = (  # these do nothing to a grey image
    _Transform(
        "hue", lambda d, pipe: d.symmetric(math.pi * pipe.hue_max), _turn_weights, _entries(4, _CHROMA, _AROUND_LUMA)
    ),
    _Transform("saturation", lambda d, pipe: d.normal(pipe.saturation_std), _log_scale_weights, _entries(4, _CHROMA)),
)

# What happens to the pixels


def _margins(inverse: torch.Tensor, width: int, height: int, spare: int) -> tuple[int, int, int, int]:
    """Pixels (left, right, top, bottom) that the output reaches beyond the input, at most one mirror image.

    One set for the whole batch, from the corners under `inverse` [N, 3, 3]; `spare` is room for the filters.
    """
    half = np.array([(width - 1) / 2, (height - 1) / 2])
    signs = np.array([[-1, 1, 1, -1], [-1, -1, 1, 1]])
    corners = np.vstack([signs * half[:, None], np.ones(4)])
    places = inverse[:, :2] @ misc.constant(corners, dtype=inverse.dtype, device=inverse.device)  # [N, 2, 4]
    reach = torch.stack([-places.amin(dim=[0, 2]), places.amax(dim=[0, 2])]).tolist()
    (left, top), (right, bottom) = np.ceil(np.clip(np.array(reach) + spare - half, 0, 2 * half)).astype(int).tolist()
    return left, right, top, bottom


def _affine(scale_x: float, scale_y: float, shift_x: float = 0, shift_y: float = 0) -> np.ndarray:
    return np.array([[scale_x, 0, shift_x], [0, scale_y, shift_y], [0, 0, 1]], dtype=np.float64)


def _warp(
    images: torch.Tensor, inverse: torch.Tensor, margins: tuple[int, int, int, int], taps: torch.Tensor
) -> torch.Tensor:
    """Resamples images [N, C, H, W] under `inverse` [N, 3, 3] at twice the resolution, with low-pass filters `taps`."""
    num, channels, height, width = images.shape
    left, right, top, bottom = margins
    border = taps.shape[0] // 4  # what the last filter needs around the output, in output pixels
    fine = upfirdn2d.upsample2d(F.pad(images, [left, right, top, bottom], mode="reflect"), taps, up=2)
    out_height, out_width = 2 * (height + 2 * border), 2 * (width + 2 * border)

    # From [-1, 1] over the output to its pixels, and from input pixels to [-1, 1] over the padded, doubled input.
    # Doubling moves pixel centres by half a fine pixel.
    from_output = _affine(0.5, 0.5) @ _affine(1, 1, 0.5, 0.5) @ _affine(out_width / 2, out_height / 2)
    doubled = _affine(1, 1, -0.5, -0.5) @ _affine(2, 2) @ _affine(1, 1, (left - right) / 2, (top - bottom) / 2)
    to_input = _affine(2 / fine.shape[3], 2 / fine.shape[2]) @ doubled
    before, after = torch.as_tensor(np.stack([to_input, from_output]), dtype=inverse.dtype).to(inverse.device)

    theta = (before @ inverse @ after)[:, :2].to(images.dtype)
    grid = F.affine_grid(theta, [num, channels, out_height, out_width], align_corners=False)
    fine = grid_sample_gradfix.grid_sample(fine, grid)
    return upfirdn2d.downsample2d(fine, taps, down=2, padding=-2 * border, flip_filter=True)


def _filter_matrices(taps: torch.Tensor, size: int) -> torch.Tensor:
    """Symmetric filters [N, odd] → matrices [N, size, size] that filter a row, endlessly mirrored at both ends."""
    reach = taps.shape[1] // 2
    period = max(2 * (size - 1), 1)
    place = torch.arange(-reach, size + reach, device=taps.device) % period
    mirrored = torch.eye(size, dtype=taps.dtype, device=taps.device)[:, torch.min(place, period - place)]
    return F.conv1d(mirrored[:, None], taps[:, None]).transpose(0, 1)


def _on_active(
    images: torch.Tensor, active: torch.Tensor, transform: Callable[[torch.Tensor, Any], torch.Tensor]
) -> torch.Tensor:
    """images with transform(images[rows], rows) for the active ones [N], the others as they are.

    Only on the CPU, where time goes with the number of images; elsewhere looking at `active` would stall the device.
    """
    if images.device.type != "cpu" or bool(active.all()):
        return transform(images, slice(None))
    rows = active.nonzero()[:, 0]
    if len(rows) == 0:
        return images
    return images.index_copy(0, rows, transform(images[rows], rows))


@persistence.persistent_class
class AugmentPipe(torch.nn.Module):
    """Transforms a batch of images at random; made to be shown to the discriminator, real and generated alike.

    Every transform with a positive multiplier is applied to each image on its own with probability multiplier * p,
    where `p` is a buffer that training adjusts. Order: geometry, colour, octave filter, noise, cutout. The result is
    not clamped. Differentiable twice in the images.

    Args (`*_std` are standard deviations, those of scales and gains in octaves; lengths are fractions of the image):
        xflip, rotate90, xint: multipliers of mirroring, quarter turns, whole-pixel shifts up to `xint_max`.
        scale, rotate, aniso, xfrac: of zoom, rotation up to `rotate_max` half turns, stretching along a random
            direction, shifts.
        brightness, contrast, lumaflip, hue, saturation: of colour changes; hue turns up to `hue_max` half turns.
        imgfilter: of amplifying or damping octaves of spatial frequency; `imgfilter_bands` weighs four, lowest first.
        noise, cutout: of white noise with a half-normal amplitude, and of a blank square of side `cutout_size`.
    """

    p: torch.Tensor
    Hz_geom: torch.Tensor
    Hz_fbank: torch.Tensor
    imgfilter: float
    imgfilter_bands: list[float]
    imgfilter_std: float
    noise: float
    noise_std: float
    cutout: float
    cutout_size: float

    def __init__(
        self,
        xflip: float = 0,
        rotate90: float = 0,
        xint: float = 0,
        xint_max: float = 0.125,
        scale: float = 0,
        rotate: float = 0,
        aniso: float = 0,
        xfrac: float = 0,
        scale_std: float = 0.2,
        rotate_max: float = 1,
        aniso_std: float = 0.2,
        xfrac_std: float = 0.125,
        brightness: float = 0,
        contrast: float = 0,
        lumaflip: float = 0,
        hue: float = 0,
        saturation: float = 0,
        brightness_std: float = 0.2,
        contrast_std: float = 0.5,
        hue_max: float = 1,
        saturation_std: float = 1,
        imgfilter: float = 0,
        imgfilter_bands: Sequence[float] = (1, 1, 1, 1),
        imgfilter_std: float = 1,
        noise: float = 0,
        cutout: float = 0,
        noise_std: float = 0.1,
        cutout_size: float = 0.5,
    ) -> None:
        arguments = {name: value for name, value in locals().items() if name not in ("self", "__class__")}
        super().__init__()
        self.register_buffer("p", torch.ones([]))
        for name, value in arguments.items():
            setattr(self, name, list(value) if name == "imgfilter_bands" else float(value))
        self.register_buffer("Hz_geom", upfirdn2d.setup_filter(_SYM6))
        self.register_buffer("Hz_fbank", torch.as_tensor(_octave_filters(), dtype=torch.float32))

    def forward(self, images: torch.Tensor, debug_percentile: float | None = None) -> torch.Tensor:
        """Transforms images [N, C, H, W] of dynamic range [-1, 1].

        Args:
            images: colour transforms need C = 1 or 3.
            debug_percentile: in (0, 1): every parameter takes this percentile of its distribution, whatever p is.

        Raises:
            ValueError: the shape is not one of these.
        """
        if images.ndim != 4:
            raise ValueError(f"AugmentPipe: expected images [N, C, H, W], found shape {tuple(images.shape)}")
        draws = _Draws(images.shape[0], images.device, debug_percentile)
        for stage in (self._move, self._recolor, self._equalize, self._add_noise, self._cut_out):
            images = stage(images, draws)
        return images

    def _matrices(self, table: Sequence[_Transform], images: torch.Tensor, draws: _Draws) -> list[torch.Tensor]:
        """The matrix [N, D, D] of each enabled transform, in order."""
        size = misc.constant([images.shape[3], images.shape[2]], dtype=torch.float32, device=images.device)
        matrices = []
        for transform in table:
            strength = getattr(self, transform.strength)
            if strength <= 0:
                continue
            prob = strength * self.p
            if transform.share > 1:
                prob = 1 - (1 - prob).clamp(0, 1) ** (1 / transform.share)
            weights = transform.weights(draws.gate(transform.draw(draws, self), prob), size)
            terms = misc.constant(transform.terms, dtype=torch.float32, device=images.device)
            identity = torch.eye(terms.shape[1], device=images.device)
            matrices.append(identity + torch.tensordot(weights, terms, dims=1))
        return matrices

    def _move(self, images: torch.Tensor, draws: _Draws) -> torch.Tensor:
        """Geometry: all transforms in one resampling."""
        matrices = self._matrices(_GEOMETRY, images, draws)
        if not matrices:
            return images
        inverse = functools.reduce(torch.matmul, matrices)
        active = (inverse != torch.eye(3, device=inverse.device)).flatten(1).any(dim=1)
        border = self.Hz_geom.shape[0] // 4

        def warp(some: torch.Tensor, rows: Any) -> torch.Tensor:
            # Margins of the whole batch: they decide what a far-reaching image sees behind the mirror.
            return _warp(some, inverse[rows], _margins(inverse, some.shape[3], some.shape[2], 2 * border), self.Hz_geom)

        return _on_active(images, active, warp)

    def _recolor(self, images: torch.Tensor, draws: _Draws) -> torch.Tensor:
        """Colour: all transforms in one affine map per image."""
        num, channels, height, width = images.shape
        table = _LIGHTNESS + _CHROMATICITY if channels > 1 else _LIGHTNESS
        matrices = self._matrices(table, images, draws)
        if not matrices:
            return images
        if channels not in (1, 3):
            raise ValueError(f"AugmentPipe: colour transforms need images of 1 or 3 channels, found {channels}")
        total = functools.reduce(lambda so_far, matrix: matrix @ so_far, matrices)[:, :3].to(images.dtype)
        mix, offset = total[:, :, :3], total[:, :, 3:]
        if channels == 1:  # of r = g = b the mean is kept
            mix, offset = mix.sum(dim=2, keepdim=True).mean(dim=1, keepdim=True), offset.mean(dim=1, keepdim=True)
        return torch.baddbmm(offset, mix, images.reshape(num, channels, -1)).reshape(num, channels, height, width)

    def _equalize(self, images: torch.Tensor, draws: _Draws) -> torch.Tensor:
        """Octave filter: amplifies one band after the other, keeping the expected power of the image."""
        if self.imgfilter <= 0:
            return images
        columns = []
        for band in self.imgfilter_bands:
            octaves = draws.normal(self.imgfilter_std if band > 0 else 0)
            columns.append(draws.gate(octaves, self.imgfilter * band * self.p))
        gains = torch.exp2(torch.cat(columns, dim=1))  # [N, 4]
        power = misc.constant(_OCTAVE_POWER, dtype=torch.float32, device=images.device)
        gains = gains / (1 + power * (gains**2 - 1)).prod(dim=1, keepdim=True).sqrt()
        taps = (gains @ self.Hz_fbank).to(images.dtype)  # [N, 43]
        active = (gains != 1).any(dim=1)

        def equalize(some: torch.Tensor, rows: Any) -> torch.Tensor:
            along_x = _filter_matrices(taps[rows], some.shape[3])[:, None]
            along_y = _filter_matrices(taps[rows], some.shape[2])[:, None].transpose(2, 3)
            return along_y @ (some @ along_x)

        return _on_active(images, active, equalize)

    def _add_noise(self, images: torch.Tensor, draws: _Draws) -> torch.Tensor:
        if self.noise <= 0:
            return images
        sigma = draws.gate(draws.half_normal(self.noise_std), self.noise * self.p)[:, :, None, None]
        return images + (torch.randn(images.shape, device=images.device) * sigma).to(images.dtype)

    def _cut_out(self, images: torch.Tensor, draws: _Draws) -> torch.Tensor:
        if self.cutout <= 0:
            return images
        side = torch.full([draws.num, 1], self.cutout_size, device=images.device)
        half = draws.gate(side, self.cutout * self.p)[:, :, None] / 2
        center = draws.uniform(axes=2)[:, :, None]
        inside = []
        for axis, length in enumerate((images.shape[3], images.shape[2])):
            pixels = (torch.arange(length, device=images.device) + 0.5) / length
            inside.append((pixels - center[:, axis : axis + 1]).abs() < half)  # [N, 1, length]
        blank = inside[1][:, :, :, None] & inside[0][:, :, None, :]
        return images * (~blank).to(images.dtype)
