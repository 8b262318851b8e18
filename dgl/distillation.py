"""Distillation without data: a student learns its teacher's images of the same latents, by terms of `dgl.kd` alone.

No image of a data set takes part, and no discriminator is trained. With the term `feature` that is DGL-GAN
(arXiv:2112.06502) with the teacher's discriminator as a measure instead of a judge.
"""
from collections.abc import Sequence

import torch

from torch_utils import distributed, training_stats
from torch_utils.network_types import Generator
from training.data.generated import latents
from training.loss import GenBatch, LossTerm, Part, Phase, Step, accumulate

from .comparison import draw

NETWORK = "distil"  # name of the network in the phase
BETAS = (0.9, 0.99)
DECAY = 0.6  # last part of the images over which the learning rate falls to 0


class Distillation:
    """A phase that trains a student on the sum of distillation terms.

    Of a generator with styles the synthesis network is trained; its mapping network, which is the teacher's, is not.
    A generator without styles is run in eval mode, so that its images do not depend on each other.

    Args:
        G: the student.
        terms: compare it with its teacher; at least one has a weight.
        lr: learning rate.
        num_images: length in images.
        warmup_images: images over which the learning rate rises from 0.
        seed: of the latents.
        steps: per iteration, each on other latents.
    """

    def __init__(
        self,
        G: Generator,
        terms: Sequence[LossTerm],
        lr: float,
        num_images: int,
        warmup_images: int = 0,
        seed: int = 0,
        steps: int = 1,
    ) -> None:
        self.G, self.terms, self.lr = G, terms, lr
        self.num_images, self.warmup_images, self.seed = num_images, warmup_images, seed
        self._iteration, self._passed = -1, 0  # images before the present iteration, and of this rank in it so far
        module = G.synthesis if hasattr(G, "synthesis") else G
        opt = torch.optim.Adam(module.parameters(), lr=lr, betas=BETAS)
        self.phase = Phase(NETWORK, Part.MAIN, module, opt, steps=steps)

    def is_under_way(self, cur_nimg: int) -> bool:
        """Whether there is distillation after that many images."""
        return cur_nimg < self.num_images

    def learning_rate(self, cur_nimg: int) -> float:
        """The learning rate after that many images: a linear rise, a plateau and a linear fall to 0."""
        rise = min(1.0, (cur_nimg + 1) / max(self.warmup_images, 1))
        fall = min(1.0, (self.num_images - cur_nimg) / (DECAY * self.num_images))
        return self.lr * rise * fall

    def accumulate_gradients(self, step: Step) -> None:
        """Adds the gradients of one chunk of latents, and sets the learning rate; nothing after the end."""
        if not self.is_under_way(step.cur_nimg):
            return
        for group in self.phase.opt.param_groups:
            group["lr"] = self.learning_rate(step.cur_nimg)
        batch = self._generate(step)
        loss = torch.zeros([len(batch.z)], device=batch.img.device)
        for term in self.terms:
            value = term(batch)
            if value is not None:
                training_stats.report(f"Loss/distil/{term.name}", value)
                loss = loss + value
        training_stats.report("Loss/distil/loss", loss)
        training_stats.report("Loss/distil/lr", self.learning_rate(step.cur_nimg))
        accumulate(loss, step.gain)

    def _latents(self, step: Step) -> tuple[torch.Tensor, torch.Tensor]:
        """Latents [n, z_dim] and labels [n, c_dim] in place of the step's own.

        Those of image number i depend on the seed and on i alone. Ranks take turns, so all ranks together see the same
        ones however many they are.
        """
        if step.cur_nimg != self._iteration:
            self._iteration, self._passed = step.cur_nimg, 0
        ranks, num = distributed.world_size(), len(step.gen_z)
        first = step.cur_nimg + distributed.rank() + ranks * self._passed
        self._passed += num
        z, c = latents(self.G, self.seed, range(first, first + ranks * num, ranks))
        return z.to(step.gen_z), c.to(step.gen_z)

    def _generate(self, step: Step) -> GenBatch:
        """The student's images of the latents, with constant noise and without style mixing."""
        z, c = self._latents(step)
        if hasattr(self.G, "mapping"):
            with torch.no_grad():
                ws = self.G.mapping(z, c, skip_w_avg_update=True)
            img = draw(self.G, z, c, ws)
        else:
            ws = z.new_empty([len(z), 0, 0])
            was_training = self.G.training
            img = draw(self.G.eval(), z, c, ws)
            self.G.train(was_training)
        return GenBatch(z, c, ws, img, img, step.cur_nimg)
