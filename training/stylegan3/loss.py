"""The loss of StyleGAN3: that of StyleGAN2 with moving averages of its own, and a blur that fades away."""
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from torch_utils.network_types import Generator
from torch_utils.ops import upfirdn2d

from ..loss import LossTerm, Part, Step, StyleGAN2Loss


class StyleGAN3Loss(StyleGAN2Loss):
    """Non-saturating logistic loss with R1 (Karras et al. 2021, arXiv:2106.12423, appendix F).

    The averages of the generator (w_avg, magnitude_ema) are updated in the generator's pass of D's main phase alone.

    Args:
        device: where the state lives.
        G: generator of StyleGAN3.
        D: discriminator.
        augment_pipe: applied to every image, real or generated, that D sees; None applies nothing.
        r1_gamma: weight of the gradient penalty; 0 switches it off.
        style_mixing_prob: probability that a batch mixes the styles of two latents.
        pl_weight: weight of the path length penalty; 0 switches it off.
        pl_batch_shrink: the penalty uses one of this many samples.
        pl_decay: rate of the running mean of path lengths.
        blur_init_sigma: standard deviation, pixels, of the blur that what D sees begins with; 0 is none.
        blur_fade_kimg: thousands of images over which it goes to 0; 0 is no blur.
        g_terms: terms of the generator's loss, as objects or as dictionaries with a class_name.
    """

    def __init__(
        self,
        device: torch.device,
        G: Generator,
        D: torch.nn.Module,
        augment_pipe: torch.nn.Module | None = None,
        r1_gamma: float = 10,
        style_mixing_prob: float = 0,
        pl_weight: float = 0,
        pl_batch_shrink: int = 2,
        pl_decay: float = 0.01,
        blur_init_sigma: float = 0,
        blur_fade_kimg: float = 0,
        g_terms: Sequence[LossTerm | Mapping[str, Any]] = (),
    ) -> None:
        super().__init__(device, G, D, augment_pipe, r1_gamma, style_mixing_prob, pl_weight, pl_batch_shrink, pl_decay,
                         g_terms)
        self.blur_init_sigma, self.blur_fade_kimg = blur_init_sigma, blur_fade_kimg
        self._sigma = 0.0  # of the blur, for the images of the present step

    def blur_sigma(self, cur_nimg: int) -> float:
        """The standard deviation of the blur, pixels, after so many images."""
        if self.blur_fade_kimg <= 0:
            return 0.0
        return self.blur_init_sigma * max(1 - cur_nimg / (self.blur_fade_kimg * 1000), 0)

    def accumulate_gradients(self, network: str, part: Part, step: Step) -> None:
        """As in the base class.

        Raises:
            ValueError: another network than G and D.
        """
        self._sigma = self.blur_sigma(step.cur_nimg)
        super().accumulate_gradients(network, part, step)

    def augment(self, img: torch.Tensor) -> torch.Tensor:
        """The images [N, C, H, W] as the discriminator sees them, blurred first, of the same shape."""
        radius = int(self._sigma * 3)
        if radius > 0:
            steps = torch.arange(-radius, radius + 1, dtype=img.dtype, device=img.device)
            taps = (-(steps / self._sigma).square()).exp2()
            img = upfirdn2d.filter2d(img, taps / taps.sum())
        return super().augment(img)

    def generate(self, z: torch.Tensor, c: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Images [N, C, H, W] and ws [N, num_ws, w_dim], with style mixing (arXiv:1812.04948, section 3.1)."""
        ws = self.G.mapping(z, c, update_emas=self._update_emas)
        if self.style_mixing_prob > 0:
            ws = torch.where(self._mixing_mask(ws.shape[1], ws.device), self.G.mapping(torch.randn_like(z), c), ws)
        return self.G.synthesis(ws, update_emas=self._update_emas), ws
