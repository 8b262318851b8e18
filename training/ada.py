"""The controller of adaptive augmentation: raises or lowers the pipeline's probability p as the discriminator overfits.

Karras et al. 2020, arXiv:2006.06676, section 3: the discriminator's mean sign on real images, r_t, is steered to a
target by changing p at a fixed pace.
"""
import logging
import math
from typing import Any

import torch

from torch_utils import training_stats

from . import run_config

SIGNS = "Loss/signs/real"  # what the loss reports: sign(D(real image))
KIMG_FROM_SCRATCH = 500  # p goes from 0 to 1 in this time at the fastest
KIMG_TRANSFER = 100  # the same where training starts from another network
LEAK_P = 0.8  # above, augmentations begin to show in generated images (ibid.)
SATURATED_R_T = 0.95  # the discriminator is right about nearly every real image …
COLLAPSE_UPDATES = 10  # … for this many updates in a row, with p at its maximum

_log = logging.getLogger(__name__)


def build_augmentation(config: run_config.AugmentationConfig, device: torch.device) -> torch.nn.Module | None:
    """The pipeline that augments what D sees, if there is one."""
    if config.pipe is None or (config.p == 0 and config.ada_target is None):
        return None
    pipe = run_config.AUGMENTATIONS.call(config.pipe.name, config.pipe.arguments)
    pipe.to(device).requires_grad_(False).train()
    pipe.get_buffer("p").fill_(config.p)
    return pipe


class AdaController:
    """Adjusts `augment_pipe.p` every few training iterations.

    An update takes r_t, the mean of the signs reported since the last one on all processes, and moves p by
    batch_size * interval / (ada_kimg * 1000): up if r_t is above the target, down if it is below, within [0, max_p].
    Before the first report p stays as it is.

    Two conditions are logged as warnings, once each: p reaching 0.8, and collapse, that is r_t at or above 0.95 in ten
    successive updates while p is at max_p. The attribute `collapsed` says whether the latter holds now.

    Args:
        augment_pipe: module with the scalar buffer `p`; where it starts is the caller's choice.
        target: r_t to hold, in [0, 1].
        batch_size: images per iteration over all processes.
        interval: iterations between updates.
        ada_kimg: thousands of images in which p can go from 0 to 1.
        max_p: upper bound of p.

    Raises:
        ValueError: an argument is out of its range.
    """

    def __init__(
        self,
        augment_pipe: torch.nn.Module,
        target: float,
        batch_size: int,
        interval: int = 4,
        ada_kimg: float = KIMG_FROM_SCRATCH,
        max_p: float = 1,
    ) -> None:
        if not 0 <= target <= 1:
            raise ValueError(f"AdaController: expected a target in [0, 1], found {target}")
        if not (max_p > 0 and ada_kimg > 0 and interval >= 1 and batch_size >= 1):
            raise ValueError(
                "AdaController: max_p, ada_kimg, interval and batch_size must be positive, "
                f"found {max_p}, {ada_kimg}, {interval}, {batch_size}"
            )
        self.augment_pipe = augment_pipe
        self.target = target
        self.interval = interval
        self.step_p = batch_size * interval / (ada_kimg * 1000)
        self.max_p = max_p
        self.r_t = math.nan
        self._collector = training_stats.Collector(regex=SIGNS)
        self._saturated_updates = 0
        self._warned: set[str] = set()

    @property
    def p(self) -> float:
        """The probability now."""
        return float(self._buffer)

    @property
    def collapsed(self) -> bool:
        """Whether the discriminator has memorised the real images although p is at its upper bound."""
        return self._saturated_updates >= COLLAPSE_UPDATES

    @property
    def _buffer(self) -> torch.Tensor:
        return self.augment_pipe.get_buffer("p")

    def step(self, batch_idx: int) -> bool:
        """Updates p in every `interval`-th iteration; all processes must call it alike.

        Args:
            batch_idx: iterations done so far, including the one that just ended.

        Returns:
            Whether p was updated.
        """
        if batch_idx % self.interval != 0:
            return False
        self._collector.update()
        self.r_t = float(self._collector[SIGNS])
        if not math.isnan(self.r_t):
            direction = (self.r_t > self.target) - (self.r_t < self.target)
            self._buffer.add_(direction * self.step_p).clamp_(0, self.max_p)
            self._watch()
        return True

    def _watch(self) -> None:
        """Warns of the two conditions."""
        p = self.p
        pinned = p >= self._buffer.new_tensor(self.max_p).item()
        self._saturated_updates = self._saturated_updates + 1 if pinned and self.r_t >= SATURATED_R_T else 0
        if p >= LEAK_P:
            self._warn_once(
                "leak",
                f"augmentation p has reached {p:.2f}: above {LEAK_P} augmentations may leak into the generated images. "
                "More training data, a larger R1 weight (gamma, of a StyleGAN2), or a smaller network help; ada_max "
                "bounds p",
            )
        if self.collapsed:
            self._warn_once(
                "collapse",
                f"training may be collapsing: the discriminator gets {self.r_t:.2f} (mean sign) on real images with "
                f"augmentation p at its maximum of {self.max_p:g}. Go back to an earlier snapshot with a larger "
                "R1 weight (gamma, of a StyleGAN2) or more training data",
            )

    def _warn_once(self, topic: str, message: str) -> None:
        if topic not in self._warned:
            self._warned.add(topic)
            _log.warning(message)

    def state_dict(self) -> dict[str, Any]:
        """What an exact resume must restore, including p, as tensors and plain values."""
        return {
            "p": self.p,
            "r_t": self.r_t,
            "saturated_updates": self._saturated_updates,
            "warned": sorted(self._warned),
            "collector": self._collector.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores `state_dict()`; the arguments of the constructor are not part of it."""
        self._buffer.fill_(state["p"])
        self.r_t = state["r_t"]
        self._saturated_updates = state["saturated_updates"]
        self._warned = set(state["warned"])
        self._collector.load_state_dict(state["collector"])
