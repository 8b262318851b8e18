"""Images of a StyleGAN2 generator on a CPU in less memory: large resolutions in bands of rows, never whole.

Only images and the input of the next block are whole. The images are those of the network itself, but hooks on the
layers of large blocks would see bands. So this is for programs that want images and nothing else.
"""
from typing import Any

import torch

from torch_utils.ops import upfirdn2d

from ..networks import SynthesisBlock, SynthesisNetwork

FROM_RESOLUTION = 512
ROWS = 96  # of a block's output in one band
MARGIN = 4  # rows that a convolution computes beyond those that are needed: a tile of Winograd's transforms


@torch.no_grad()
def generate(G: Any, z: torch.Tensor, c: torch.Tensor, noise_mode: str, **mapping_kwargs: Any) -> torch.Tensor:
    """What `G(z, c, noise_mode=noise_mode, **mapping_kwargs)` gives, without gradients.

    Args:
        G: a generator of any family.
        z: latents [N, z_dim].
        c: labels [N, c_dim].
        noise_mode: 'random', 'const' or 'none'.
        mapping_kwargs: such as truncation_psi.

    Returns:
        Images [N, C, H, W].
    """
    if not _has_bands(getattr(G, "synthesis", None), z.device):
        return G(z, c, noise_mode=noise_mode, **mapping_kwargs)
    return synthesize(G.synthesis, G.mapping(z, c, **mapping_kwargs), noise_mode)


@torch.no_grad()
def synthesize(synthesis: Any, ws: torch.Tensor, noise_mode: str) -> torch.Tensor:
    """What `synthesis(ws, noise_mode=noise_mode)` gives, without gradients.

    Args:
        synthesis: synthesis network. One that is not large or not StyleGAN2's is called as it is, and so is every one
            on another device than a CPU.
        ws: [N, num_ws, w_dim].
        noise_mode: 'random', 'const' or 'none'.

    Returns:
        Images [N, C, H, W].
    """
    if not _has_bands(synthesis, ws.device):
        return synthesis(ws, noise_mode=noise_mode)
    x, img = None, None
    for block, of_block in synthesis._blocks():
        part = ws[:, of_block].to(torch.float32)
        if _in_bands(block):
            x, img = _block(block, x, img, part, noise_mode)
        else:
            x, img = block(x, img, part, noise_mode=noise_mode)
    assert img is not None, "the last block adds to the image"
    return img


def _has_bands(synthesis: Any, device: torch.device) -> bool:
    """Whether some block is computed in bands."""
    is_known = isinstance(synthesis, SynthesisNetwork) and device.type == "cpu"
    return is_known and any(_in_bands(block) for block, _ in synthesis._blocks())


def _in_bands(block: SynthesisBlock) -> bool:
    return block.resolution >= FROM_RESOLUTION and block.num_conv == 2 and block.architecture != "resnet"


def _block(block: Any, x: Any, img: torch.Tensor | None, ws: torch.Tensor, noise_mode: str) -> tuple[Any, Any]:
    """A block as it would be called, in bands.

    Args:
        block: a SynthesisBlock with two convolutions.
        x: its input [N, I, H/2, W/2].
        img: the images so far [N, C, H/2, W/2], if there are any.
        ws: [N, number of layers, w_dim].
        noise_mode: of both layers.

    Returns:
        Features [N, O, H, W], None of the last block; and the images [N, C, H, W], if there are any.
    """
    of_layer = ws.unbind(dim=1)
    num, height, width = len(x), 2 * x.shape[2], 2 * x.shape[3]
    layers = [(layer, layer.affine(w), layer._noise(x, noise_mode))
              for layer, w in zip((block.conv0, block.conv1), of_layer)]
    features = None
    if not block.is_last:
        shape = [num, block.conv1.weight.shape[0], height, width]
        features = torch.empty(shape, memory_format=torch.channels_last)
    if img is not None:
        img = upfirdn2d.upsample2d(img, block.resample_filter)
    elif block.num_torgb:
        img = torch.zeros([num, block.img_channels, height, width])
    for sample in range(num):
        number = slice(sample, sample + 1)
        of_sample = [(layer, styles[number], _part(noise, number)) for layer, styles, noise in layers]
        for first in range(0, height, ROWS):
            rows = slice(first, min(first + ROWS, height))
            band = _band(of_sample, x[number], rows)
            if features is not None:
                features[number, :, rows] = band
            if img is not None and block.num_torgb:
                img[number, :, rows] += block.torgb(band, of_layer[-1][number], fused_modconv=False)
    return features, img


def _band(layers: list[tuple[Any, torch.Tensor, torch.Tensor | None]], x: torch.Tensor, rows: slice) -> torch.Tensor:
    """Rows of what both convolutions of a block make of x [1, I, H/2, W/2]: [1, O, number of rows, W].

    Each convolution computes more rows than it gives right ones, except at the edges of the image, where zeros follow.

    Args:
        layers: both layers with styles [1, I] and noise, None or [..., H, W].
        x: the block's input.
        rows: of its output.
    """
    height = 2 * x.shape[2]
    (up, up_styles, up_noise), (flat, styles, noise) = layers
    middle = slice(max(rows.start - MARGIN, 0), min(rows.stop + MARGIN, height))  # what the second one is given
    wide = slice(max(middle.start - MARGIN, 0), min(middle.stop + MARGIN, height))  # what the first one computes
    source = slice(wide.start // 2, wide.stop // 2)
    y = up._convolve(x[:, :, source], up_styles, _rows(up_noise, wide), fused_modconv=False)
    y = y[:, :, middle.start - wide.start : middle.stop - wide.start]
    y = flat._convolve(y, styles, _rows(noise, middle), fused_modconv=False)
    return y[:, :, rows.start - middle.start : rows.stop - middle.start]


def _part(noise: torch.Tensor | None, number: slice) -> torch.Tensor | None:
    """The noise of one sample: [1, 1, H, W] of random noise [N, 1, H, W]; constant noise [H, W] is that of all."""
    return noise[number] if noise is not None and noise.ndim == 4 else noise


def _rows(noise: torch.Tensor | None, rows: slice) -> torch.Tensor | None:
    """Rows of noise [..., H, W], if there is any."""
    return None if noise is None else noise[..., rows, :]
