"""The StyleGAN2 losses, and the seam through which others join: terms of the generator's loss, and further phases.

Non-saturating logistic loss, R1 (Mescheder et al. 2018, arXiv:1801.04406) and path length regularisation (Karras et al.
2020, arXiv:1912.04958, section 3.2), each computed lazily in a phase of its own.
"""
import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
import torch.nn.functional as F

import dnnlib
from torch_utils import distributed, training_stats
from torch_utils.ops import conv2d_gradfix


@dataclasses.dataclass(frozen=True)
class GenBatch:
    """What one pass of the generator made, for the terms of its loss."""

    z: torch.Tensor  # [N, z_dim]
    c: torch.Tensor  # [N, c_dim]
    ws: torch.Tensor  # [N, num_ws, w_dim]; num_ws is 0 for a generator without styles
    img: torch.Tensor  # [N, img_channels, H, W], nominally in [-1, 1]
    img_aug: torch.Tensor  # the very tensor the discriminator saw
    cur_nimg: int


class LossTerm(Protocol):
    """An addend of the generator's loss.

    A term draws no random numbers from the global generators, reports the same statistics on every rank, never calls
    backward, and owns and freezes the networks it holds. Its name appears as Loss/G/<name>.
    """

    name: str

    def __call__(self, batch: GenBatch) -> torch.Tensor | None:
        """Loss per sample [N], already weighted; None adds nothing, to the bit."""


@dataclasses.dataclass
class Phase:
    """One optimisation step of the loop: `loss.accumulate_gradients(name, ...)`, then a step of `opt`."""

    name: str
    module: torch.nn.Module
    opt: torch.optim.Optimizer
    interval: int = 1  # iterations
    steps: int = 1  # per iteration, each on real images of its own


class Loss:
    """What the training loop needs of a loss."""

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
        """Adds the gradients of one phase over one chunk of the batch to the parameters that require them.

        Args:
            phase: name of the phase.
            real_img: [N, img_channels, H, W] in [-1, 1].
            real_c, gen_c: labels of the real and of the generated images, [N, c_dim].
            gen_z: latents [N, z_dim].
            gain: factor of the loss (the interval of a lazily computed phase).
            cur_nimg: images seen so far.
        """
        raise NotImplementedError

    def extra_phases(self) -> list[Phase]:
        """Further phases, run after those of G and D."""
        return []

    def stage(self, cur_nimg: int) -> int:
        """The stage of training at this point; when it grows, the loop lets every optimizer start afresh."""
        return 0

    def begin_stage(self) -> None:
        """Told when a new stage begins."""

    def state_dict(self) -> dict[str, Any]:
        """What an exact resume must restore, as tensors and plain values."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores `state_dict()`."""


class StyleGAN2Loss(Loss):
    """Losses of StyleGAN2-ADA.

    Args:
        device: where the state lives.
        G: generator with `mapping`, `synthesis` and `num_ws`.
        D: discriminator.
        augment_pipe: applied to every image, real or generated, that D sees; None leaves them alone.
        r1_gamma: weight of the gradient penalty; 0 switches it off.
        style_mixing_prob: probability that a batch mixes the styles of two latents.
        pl_weight: weight of the path length penalty; 0 switches it off.
        pl_batch_shrink: the penalty uses one of this many samples.
        pl_decay: rate of the running mean of path lengths.
        g_terms: addends of the generator's loss, as objects or as dictionaries with a class_name.
    """

    def __init__(
        self,
        device: torch.device,
        G: Any,
        D: torch.nn.Module,
        augment_pipe: torch.nn.Module | None = None,
        r1_gamma: float = 10,
        style_mixing_prob: float = 0.9,
        pl_weight: float = 2,
        pl_batch_shrink: int = 2,
        pl_decay: float = 0.01,
        g_terms: Sequence[LossTerm | Mapping[str, Any]] = (),
    ) -> None:
        self.G, self.D, self.augment_pipe = G, D, augment_pipe
        self.r1_gamma, self.style_mixing_prob = r1_gamma, style_mixing_prob
        self.pl_weight, self.pl_batch_shrink, self.pl_decay = pl_weight, pl_batch_shrink, pl_decay
        self.pl_mean = torch.zeros([], device=device)  # running mean of path lengths
        self.g_terms = make_terms(g_terms, device)

    def begin_stage(self) -> None:
        self.pl_mean.zero_()

    def state_dict(self) -> dict[str, Any]:
        return {"pl_mean": self.pl_mean.clone()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.pl_mean.copy_(state["pl_mean"])

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
        if phase not in ("Gmain", "Greg", "Gboth", "Dmain", "Dreg", "Dboth"):
            raise ValueError(f"unknown training phase {phase!r}")
        network, part = phase[0], phase[1:]
        main, reg = part in ("main", "both"), part in ("reg", "both")
        if network == "G":
            if main:
                self.g_main(gen_z, gen_c, gain, cur_nimg)
            if reg and self.pl_weight != 0:
                self.g_path_length(gen_z, gen_c, gain)
            return
        self.d_step(self.D, real_img, real_c, gen_z, gen_c, gain, main, reg)

    # Passes through the networks.

    def run_G(self, z: torch.Tensor, c: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Images of latents, with style mixing (arXiv:1812.04948, section 3.1); returns (img, ws)."""
        ws = self.G.mapping(z, c)
        if self.style_mixing_prob > 0:
            from_other = self._mixing_mask(ws.shape[1], ws.device)
            ws = torch.where(from_other, self.G.mapping(torch.randn_like(z), c, skip_w_avg_update=True), ws)
        return self.G.synthesis(ws), ws

    def _mixing_mask(self, num_ws: int, device: torch.device) -> torch.Tensor:
        """Which styles come from the second latent: bool [num_ws, 1]. Nothing waits for the device to decide it."""
        first = torch.randint(1, num_ws, [], device=device)
        mixes = torch.rand([], device=device) < self.style_mixing_prob
        return (mixes & (torch.arange(num_ws, device=device) >= first))[:, None]

    def augment(self, img: torch.Tensor) -> torch.Tensor:
        """The images as the discriminator is shown them."""
        return img if self.augment_pipe is None else self.augment_pipe(img)

    @staticmethod
    def g_loss(logits: torch.Tensor) -> torch.Tensor:
        """What a generator minimises before a discriminator: softplus(-logits)."""
        return F.softplus(-logits)

    # Phases.

    def g_main(self, z: torch.Tensor, c: torch.Tensor, gain: float, cur_nimg: int) -> None:
        """Generator: softplus(-D(G(z))) plus the terms."""
        img, ws = self.run_G(z, c)
        img_aug = self.augment(img)
        logits = self.D(img_aug, c)
        report_logits("fake", logits)
        loss = add_terms(self.g_loss(logits), self.g_terms, GenBatch(z, c, ws, img, img_aug, cur_nimg))  # [N, 1]
        training_stats.report("Loss/G/loss", loss)
        accumulate(loss, gain)

    def g_path_length(self, z: torch.Tensor, c: torch.Tensor, gain: float) -> None:
        """Generator: squared deviation of the path lengths from their running mean."""
        count = max(len(z) // self.pl_batch_shrink, 1)
        lengths = self._path_lengths(z[:count], c[:count])
        # The mean is that of all ranks, and its own small share of the gradient is kept.
        mean = self.pl_mean.lerp(distributed.mean(lengths.mean()), self.pl_decay)
        self.pl_mean.copy_(mean.detach())
        accumulate(weigh_penalty("pl", "G", (lengths - mean).square(), self.pl_weight), gain)

    def _path_lengths(self, z: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        """How much a random direction in the image changes with w, per sample [N]."""
        img, ws = self.run_G(z, c)
        direction = torch.randn_like(img) / img.shape[2:].numel() ** 0.5
        with conv2d_gradfix.no_weight_gradients():
            (by_w,) = torch.autograd.grad(img, ws, grad_outputs=direction, create_graph=True)
        return by_w.square().sum(dim=2).mean(dim=1).sqrt()

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
        """One discriminator's main loss, its regularisation, or both; statistics are named Loss/<prefix>..."""
        fake_loss = self.d_fake(D, gen_z, gen_c, gain, prefix) if main else None
        penalise = reg and self.r1_gamma != 0
        if main or penalise:
            self.d_real(D, real_img, real_c, gain, fake_loss, penalise, prefix)

    def d_fake(
        self, D: torch.nn.Module, z: torch.Tensor, c: torch.Tensor, gain: float, prefix: str = ""
    ) -> torch.Tensor:
        """Discriminator on generated images: softplus(D(G(z))), which is also returned, [N, 1], detached."""
        with torch.no_grad():
            img, _ = self.run_G(z, c)
        logits = D(self.augment(img), c)
        report_logits("fake", logits, prefix)
        loss = F.softplus(logits)
        accumulate(loss, gain)
        return loss.detach()

    def d_real(
        self,
        D: torch.nn.Module,
        img: torch.Tensor,
        c: torch.Tensor,
        gain: float,
        fake_loss: torch.Tensor | None,
        penalise: bool,
        prefix: str = "",
    ) -> None:
        """Discriminator on real images: softplus(-D(x)), and/or the R1 penalty on the images before augmentation.

        The former is the other half of `fake_loss`, and left out if that is None.
        """
        img = img.detach().requires_grad_(penalise)
        logits = D(self.augment(img), c)
        report_logits("real", logits, prefix)
        losses = []
        if fake_loss is not None:
            losses.append(F.softplus(-logits))
            training_stats.report(f"Loss/{prefix}D/loss", fake_loss + losses[0])
        if penalise:
            losses.append(weigh_penalty("r1", "D", _r1(logits, img), self.r1_gamma / 2, prefix)[:, None])
        accumulate(functools.reduce(torch.add, losses), gain)


def _r1(logits: torch.Tensor, img: torch.Tensor) -> torch.Tensor:
    """Squared norm of the gradient of the logits with respect to the images, per sample [N]."""
    with conv2d_gradfix.no_weight_gradients():
        (by_img,) = torch.autograd.grad(logits.sum(), img, create_graph=True)
    return by_img.square().sum(dim=[1, 2, 3])


def weigh_penalty(name: str, network: str, penalty: torch.Tensor, weight: float, prefix: str = "") -> torch.Tensor:
    """A penalty per sample times its weight; reports both, as Loss/<name>_penalty and Loss/<network>/reg."""
    weighted = penalty * weight
    training_stats.report(f"Loss/{prefix}{name}_penalty", penalty)
    training_stats.report(f"Loss/{prefix}{network}/reg", weighted)
    return weighted


def accumulate(loss: torch.Tensor, gain: float) -> None:
    """Adds the gradients of `gain` times the mean of a loss per sample to the parameters that require them."""
    (gain * loss.mean()).backward()


def make_terms(terms: Sequence[LossTerm | Mapping[str, Any]], device: torch.device) -> list[LossTerm]:
    """Terms given as objects or as dictionaries with a class_name, as objects."""
    return [
        dnnlib.util.construct_class_by_name(device=device, **term) if isinstance(term, Mapping) else term
        for term in terms
    ]


def add_terms(loss: torch.Tensor, terms: Sequence[LossTerm], batch: GenBatch) -> torch.Tensor:
    """A generator's loss per sample [N, 1] plus its terms, each of which is reported.

    Raises:
        ValueError: a term's result is not of shape [N]; the message names it.
    """
    for term in terms:
        addend = term(batch)
        if addend is None:
            continue
        if addend.shape != (len(loss),):
            raise ValueError(f"loss term {term.name!r}: expected a per-sample loss of shape ({len(loss)},), "
                             f"got {tuple(addend.shape)}")
        training_stats.report(f"Loss/G/{term.name}", addend)
        loss = loss + addend[:, None]
    return loss


def report_logits(kind: str, logits: torch.Tensor, prefix: str = "") -> None:
    """Reports Loss/scores/<kind> and Loss/signs/<kind>."""
    training_stats.report(f"Loss/{prefix}scores/{kind}", logits)
    training_stats.report(f"Loss/{prefix}signs/{kind}", logits.sign())
