"""Generated images as bytes: the one place where values in [-1, 1] become 0..255."""
import torch

GENERATED = 128.0  # offset of the image tools, the sample grids and the metrics
PROJECTED = 127.5  # offset of the projector


def to_uint8(images: torch.Tensor, offset: float = GENERATED) -> torch.Tensor:
    """Converts images of any shape, nominally in [-1, 1], to uint8 of the same shape: trunc(127.5 x + offset).

    Values outside of [-1, 1] are clamped.
    """
    return (images * 127.5 + offset).clamp(0, 255).to(torch.uint8)
