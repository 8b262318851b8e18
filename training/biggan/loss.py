"""The hinge loss of BigGAN (Brock et al. 2019, arXiv:1809.11096; Lim and Ye 2017, arXiv:1705.02894)."""
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F

from torch_utils import training_stats

from ..loss import GenBatch, Loss, LossTerm, accumulate, add_terms, make_terms, report_logits


class HingeLoss(Loss):
    """G minimises mean -D(G(z), c); D minimises mean max(0, 1 - D(x, c)) + mean max(0, 1 + D(G(z), c)).

    There is no regularisation: the networks are spectrally normalised. Every pass is in the networks' own mode, so in
    training the generator's batch statistics and all singular vectors move in the phases of D too, as in the paper.

    Args:
        device: where the networks are.
        G: generator that is called with latents and labels.
        D: discriminator.
        augment_pipe: applied to every image, real or generated, that D sees; None leaves them alone.
        g_terms: addends of the generator's loss, as objects or as dictionaries with a class_name.
    """

    def __init__(
        self,
        device: torch.device,
        G: torch.nn.Module,
        D: torch.nn.Module,
        augment_pipe: torch.nn.Module | None = None,
        g_terms: Sequence[LossTerm | Mapping[str, Any]] = (),
    ) -> None:
        self.G, self.D, self.augment_pipe = G, D, augment_pipe
        self.g_terms = make_terms(g_terms, device)

    def accumulate_gradients(
        self,
        phase: str,
        real_img: torch.Tensor,
        real_c: torch.Tensor,
        gen_z: torch.Tensor,
        gen_c: torch.Tensor,
        gain: float,
        cur_nimg: int,
    ) -> None:
        if phase == "Gboth":
            self.g_main(gen_z, gen_c, gain, cur_nimg)
        elif phase == "Dboth":
            self.d_step(self.D, real_img, real_c, gen_z, gen_c, gain, main=True, reg=False)
        else:
            raise ValueError(f"unknown training phase {phase!r}")

    def augment(self, img: torch.Tensor) -> torch.Tensor:
        """The images as the discriminator is shown them."""
        return img if self.augment_pipe is None else self.augment_pipe(img)

    @staticmethod
    def g_loss(logits: torch.Tensor) -> torch.Tensor:
        """What a generator minimises before a discriminator: -logits."""
        return -logits

    def g_main(self, z: torch.Tensor, c: torch.Tensor, gain: float, cur_nimg: int) -> None:
        """Generator: -D(G(z)) plus the terms."""
        img = self.G(z, c)
        img_aug = self.augment(img)
        logits = self.D(img_aug, c)  # [N, 1]
        report_logits("fake", logits)
        batch = GenBatch(z, c, z.new_empty([len(z), 0, 0]), img, img_aug, cur_nimg)
        loss = add_terms(self.g_loss(logits), self.g_terms, batch)
        training_stats.report("Loss/G/loss", loss)
        accumulate(loss, gain)

    def d_step(
        self,
        D: torch.nn.Module,
        real_img: torch.Tensor,
        real_c: torch.Tensor,
        gen_z: torch.Tensor,
        gen_c: torch.Tensor,
        gain: float,
        main: bool,
        reg: bool,
        prefix: str = "",
    ) -> None:
        """One discriminator on generated and real images in one pass; a step of regularisation alone is none at all.

        Statistics are named Loss/<prefix>...
        """
        if not main:
            return
        with torch.no_grad():
            fake_img = self.G(gen_z, gen_c)
        img, c = torch.cat([fake_img, real_img]), torch.cat([gen_c, real_c])
        fake, real = D(self.augment(img), c).split([len(fake_img), len(real_img)])
        report_logits("fake", fake, prefix)
        report_logits("real", real, prefix)
        loss_fake, loss_real = F.relu(1 + fake), F.relu(1 - real)
        training_stats.report(f"Loss/{prefix}D/loss", loss_fake.detach() + loss_real.detach())
        accumulate(loss_fake.mean() + loss_real.mean(), gain)
