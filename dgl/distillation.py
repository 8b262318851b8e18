"""Distillation without data: a student learns its teacher's images of the same latents, by terms of `dgl.kd` alone.

No image of a data set takes part, and no discriminator is trained. With the term `feature` that is DGL-GAN
(arXiv:2112.06502) with the teacher's discriminator as a measure instead of a judge.
"""
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import torch

from torch_utils import distributed, training_stats
from torch_utils.network_types import Generator
from torch_utils.optimizers import Adam
from training import architectures
from training.data.generated import latents
from training.loss import GenBatch, LossTerm, Part, Phase, Step, accumulate

from .comparison import draw
from .elastic import Sandwich

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
        widths: of an elastic student, below 1; see `dgl.elastic`.
        uses_given_labels: take the labels of the step, which are those of a data set, instead of every class in turn.
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
        widths: Sequence[Fraction] = (),
        uses_given_labels: bool = False,
    ) -> None:
        self.G, self.terms, self.lr = G, terms, lr
        self.num_images, self.warmup_images, self.seed = num_images, warmup_images, seed
        self.uses_given_labels = uses_given_labels
        self._iteration, self._passed = -1, 0  # images before the present iteration, and of this rank in it so far
        self._sandwich = Sandwich(G, widths, seed) if widths else None
        self._batch_norms = [] if hasattr(G, "mapping") else _with_running_buffers(G)
        module = G.synthesis if hasattr(G, "synthesis") else G
        opt = Adam(module.parameters(), lr=lr, betas=BETAS)
        self.phase = Phase(NETWORK, Part.MAIN, module, opt, steps=steps)

    def is_under_way(self, cur_nimg: int) -> bool:
        """Whether there is distillation after that many images."""
        return cur_nimg < self.num_images

    def learning_rate(self, cur_nimg: int) -> float:
        """The learning rate after that many images: a linear rise, a plateau and a linear fall to 0."""
        rise = min(1.0, (cur_nimg + 1) / max(self.warmup_images, 1))
        fall = min(1.0, (self.num_images - cur_nimg) / (DECAY * self.num_images))
        return self.lr * rise * fall

    def keep_statistics(self) -> None:
        """Has the batch norms of a generator keep their statistics in adversarial training, too: with those of its own
        batches the student makes other images than the ones that it was distilled to.
        """
        for module in self._batch_norms:
            module.eval()

    def accumulate_gradients(self, step: Step) -> None:
        """Adds the gradients of one chunk of latents, and sets the learning rate; nothing after the end."""
        if not self.is_under_way(step.cur_nimg):
            return
        for group in self.phase.opt.param_groups:
            group["lr"] = self.learning_rate(step.cur_nimg)
        z, c = self._latents(step)
        ws = self._map(z, c)
        students: dict[Fraction, Any] = {Fraction(1): self.G}
        if self._sandwich is not None:
            students = self._sandwich.at(step.cur_nimg)
        for width, student in students.items():
            loss = self._loss(self._generate(student, z, c, ws, step.cur_nimg), width)
            accumulate(loss, step.gain / len(students))
        training_stats.report("Loss/distil/lr", self.learning_rate(step.cur_nimg))

    def _loss(self, batch: GenBatch, width: Fraction) -> torch.Tensor:
        """The sum of the terms per sample [N], and statistics of it; those of narrower networks by their width."""
        loss = torch.zeros([len(batch.z)], device=batch.img.device)
        for term in self.terms:
            value = term(batch)
            if value is not None:
                if width == 1:
                    training_stats.report(f"Loss/distil/{term.name}", value)
                loss = loss + value
        training_stats.report("Loss/distil/loss" if width == 1 else f"Loss/distil/width{float(width):.3g}", loss)
        return loss

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
        return z.to(step.gen_z), step.gen_c if self.uses_given_labels else c.to(step.gen_z)

    def _map(self, z: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        """The ws [N, num_ws, w_dim] of latents z [N, z_dim] and labels c [N, c_dim]; num_ws is 0 without styles."""
        if not hasattr(self.G, "mapping"):
            return z.new_empty([len(z), 0, 0])
        with torch.no_grad():
            return self.G.mapping(z, c, skip_w_avg_update=True)

    def _generate(self, G: Generator, z: torch.Tensor, c: torch.Tensor, ws: torch.Tensor, cur_nimg: int) -> GenBatch:
        """The student's images of latents z [N, z_dim], labels c [N, c_dim] and ws [N, num_ws, w_dim], with constant
        noise and without style mixing.
        """
        if ws.shape[1]:
            img = draw(G, z, c, ws)
        else:
            was_training = G.training
            img = draw(G.eval(), z, c, ws)
            G.train(was_training)
        return GenBatch(z, c, ws, img, img, cur_nimg)


def _with_running_buffers(G: Generator) -> list[torch.nn.Module]:
    """The modules that estimate buffers from the samples of training."""
    endings = architectures.of_network(G).running_buffers
    names = {name.rpartition(".")[0] for name, _ in G.named_buffers() if name.endswith(endings)}
    return [G.get_submodule(name) for name in sorted(names)]
