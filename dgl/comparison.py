"""What distillation terms share: the teacher's images of a batch's latents, and means over weighted pixels."""
import dataclasses

import torch
import torch.nn.functional as F

from torch_utils.network_types import Generator, image_size
from training.loss import GenBatch

from .masks import read_mask
from .teacher import Teacher


@dataclasses.dataclass(frozen=True)
class ComparisonOptions:
    """Details of the distillation terms.

    Attributes:
        mask: path of a greyscale picture of the image's size whose brightness weighs the pixels; None weighs all alike.
        blocks: weights of the blocks of the teacher's D in `feature`, from high to low resolution; None takes the mean.
        lpips: path or URL of the TorchScript file of `lpips`.
    """

    mask: str | None = None
    blocks: tuple[float, ...] | None = None
    lpips: str | None = None


class Comparison:
    """A student and its teacher on the same latents.

    Args:
        teacher: whose G_ema is imitated, frozen on the device.
        G: the student.
        options: see `ComparisonOptions`.

    Raises:
        UserError: the mask cannot be read or is for images of another size.
    """

    def __init__(self, teacher: Teacher, G: Generator, options: ComparisonOptions = ComparisonOptions()) -> None:
        self.teacher, self.G, self.options = teacher, G, options
        self._masks: dict[tuple[int, ...], torch.Tensor] = {}  # size → weights of mean 1
        self._mask = None if options.mask is None else read_mask(
            options.mask, image_size(teacher.G_ema), "kd_mask", "the teacher's")
        self._latents: tuple[torch.Tensor, ...] = ()  # those of `_image`
        self._image = torch.empty(0)

    @torch.no_grad()
    def teacher_image(self, batch: GenBatch) -> torch.Tensor:
        """The teacher's images [N, C, H, W] of a batch with constant noise; made once for all terms, and for all
        batches of the same latents.

        A teacher with styles is given the student's ws (style mixing included). So they presuppose the teacher's w
        space, which a student keeps that starts with the teacher's mapping network.
        """
        latents = (batch.z, batch.c, batch.ws)
        if not self._latents or any(old is not new for old, new in zip(self._latents, latents)):
            self._latents, self._image = latents, draw(self.teacher.G_ema, *latents)
        return self._image

    def mean(self, values: torch.Tensor) -> torch.Tensor:
        """Mean per sample [N] of values [N, ..., h, w], weighted by the mask."""
        dims = list(range(1, values.ndim))
        if self._mask is None:
            return values.mean(dim=dims)
        return (values * self.weights(values)).mean(dim=dims)

    def weights(self, values: torch.Tensor) -> torch.Tensor:
        """The mask averaged down to the size of values [..., h, w], with mean 1: [h, w]."""
        size = tuple(values.shape[-2:])
        if size not in self._masks:
            assert self._mask is not None
            mask = F.interpolate(self._mask[None, None], size=size, mode="area")[0, 0]
            self._masks[size] = (mask / mask.mean()).to(values.device)
        return self._masks[size]

    def inside(self, img: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """An image [N, C, H, W] that differs from the target only where the mask is bright."""
        if self._mask is None:
            return img
        return torch.lerp(target, img, self._mask.to(img.device))


def draw(G: Generator, z: torch.Tensor, c: torch.Tensor, ws: torch.Tensor) -> torch.Tensor:
    """Images [N, C, H, W] of latents z [N, z_dim], labels c [N, c_dim] and ws [N, num_ws, w_dim], without noise of its
    own: constant noise of a generator with styles, which is given the ws; another one is given latents and labels.
    """
    return G.synthesis(ws, noise_mode="const") if ws.shape[1] else G(z, c)
