"""The losses of StyleGAN2, and how others join them: terms of the generator's loss, and further phases.

Non-saturating logistic loss, R1 (Mescheder et al. 2018, arXiv:1801.04406) and path length regularisation (Karras et al.
2020, arXiv:1912.04958, section 3.2), each computed lazily in a separate phase.
"""
import dataclasses
import enum
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch
import torch.nn.functional as F

from torch_utils import distributed, training_stats
from torch_utils.network_types import Generator
from torch_utils.ops import conv2d_gradfix

from .run_config import LOSS_TERMS

ImageTransform = Callable[[torch.Tensor], torch.Tensor]  # images [N, C, H, W] to images of the same shape


class Part(enum.Enum):
    """Which part of a network's loss a phase computes."""

    MAIN = "main"
    REG = "reg"
    BOTH = "both"

    @property
    def has_main(self) -> bool:
        """Whether the main loss is computed."""
        return self is not Part.REG

    @property
    def has_reg(self) -> bool:
        """Whether the regularisation is computed."""
        return self is not Part.MAIN


@dataclasses.dataclass(frozen=True)
class Phase:
    """One optimisation step of the loop: `loss.accumulate_gradients(network, part, step)`, then a step of `opt`."""

    network: str  # "G", "D", or a further one of the loss
    part: Part
    module: torch.nn.Module
    opt: torch.optim.Optimizer
    interval: int = 1  # iterations
    steps: int = 1  # per iteration, each on different real images

    @property
    def name(self) -> str:
        """Name in statistics and states: "Gmain", "Dreg", ..."""
        return phase_name(self.network, self.part)


def phase_name(network: str, part: Part) -> str:
    """The name of a phase: "Gmain", "Dreg", ..."""
    return network + part.value


@dataclasses.dataclass(frozen=True)
class Step:
    """The images, labels and latents of one pass of one step."""

    real_img: torch.Tensor  # [N, img_channels, H, W] in [-1, 1]
    real_c: torch.Tensor  # labels of the real images, [N, c_dim]
    gen_z: torch.Tensor  # latents [N, z_dim]
    gen_c: torch.Tensor  # labels of the generated images, [N, c_dim]
    gain: float  # factor of the loss (the interval of a lazily computed phase)
    cur_nimg: int  # images seen so far


@dataclasses.dataclass(frozen=True)
class GenBatch:
    """Images from one pass of the generator, and what they were made from: the input of a term."""

    z: torch.Tensor  # [N, z_dim]
    c: torch.Tensor  # [N, c_dim]
    ws: torch.Tensor  # [N, num_ws, w_dim]; num_ws is 0 for a generator without styles
    img: torch.Tensor  # [N, img_channels, H, W], nominally in [-1, 1]
    img_aug: torch.Tensor  # the tensor that the discriminator was given
    cur_nimg: int  # images seen so far


class LossTerm(Protocol):
    """A term of the generator's loss.

    A term draws no random numbers from the global generators, reports the same statistics on every rank, never calls
    backward, and owns and freezes the networks it holds. Its name appears as Loss/G/<name>.
    """

    name: str

    def __call__(self, batch: GenBatch) -> torch.Tensor | None:
        """Loss per sample [N], already weighted; None adds nothing and leaves all bits as they are."""


class Loss:
    """What the training loop needs of a loss."""

    def accumulate_gradients(self, network: str, part: Part, step: Step) -> None:
        """Adds the gradients of one phase over one chunk of the batch to the parameters that require them.

        Args:
            network: whose phase it is, "G", "D" or the network of a further phase.
            part: of its loss.
            step: the chunk.

        Raises:
            ValueError: the loss has no such phase.
        """
        raise NotImplementedError

    def needs_images(self, cur_nimg: int) -> bool:
        """Whether the iteration after that many images looks at the images of the data set; if not, none are loaded."""
        return True

    def extra_phases(self) -> list[Phase]:
        """Further phases, run after those of G and D."""
        return []

    def references(self) -> Mapping[str, torch.nn.Module]:
        """Name → generator whose images of the sample latents are saved beside the first ones, as <name>.png."""
        return {}

    def notes(self) -> dict[str, Any]:
        """Plain values that network snapshots hold beside the networks, for those who use these later."""
        return {}

    def leaves_out(self) -> tuple[str, ...]:
        """Networks that network snapshots do not hold, because nothing trains them."""
        return ()

    def stage(self, cur_nimg: int) -> int:
        """The stage of training at this point; when it grows, the loop resets every optimizer."""
        return 0

    def begin_stage(self) -> None:
        """Called when a new stage begins."""

    def starts_from_average(self) -> bool:
        """Whether G takes over the weights of its moving average as a new stage begins."""
        return False

    def state_dict(self) -> dict[str, Any]:
        """What an exact resume must restore, as tensors and plain values."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores `state_dict()`."""


class AdversarialLoss(Loss):
    """What the losses of a generator against a discriminator share. Each family adds `generate`, `g_loss` and `d_step`.

    Args:
        device: where the networks are.
        G: generator.
        D: discriminator, called with images and labels.
        augment_pipe: applied to every image, real or generated, that D sees; None applies nothing.
        g_terms: terms of the generator's loss, as objects or as dictionaries with a class_name.
    """

    def __init__(
        self,
        device: torch.device,
        G: Any,
        D: torch.nn.Module,
        augment_pipe: torch.nn.Module | None = None,
        g_terms: Sequence[LossTerm | Mapping[str, Any]] = (),
    ) -> None:
        self.G, self.D, self.augment_pipe = G, D, augment_pipe
        self.g_terms = make_terms(g_terms, device)
        self.change_logits: Callable[[torch.Tensor, GenBatch], torch.Tensor] | None = None  # of D, in the loss of G

    def augment(self, img: torch.Tensor) -> torch.Tensor:
        """The images [N, C, H, W] as the discriminator sees them, of the same shape."""
        return img if self.augment_pipe is None else self.augment_pipe(img)

    def generate(self, z: torch.Tensor, c: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Images [N, C, H, W] of latents [N, z_dim] and labels [N, c_dim], and their ws [N, num_ws, w_dim]."""
        raise NotImplementedError

    @staticmethod
    def g_loss(logits: torch.Tensor) -> torch.Tensor:
        """Per-sample generator loss for discriminator logits, both [N, 1]."""
        raise NotImplementedError

    def g_main(self, step: Step) -> None:
        """Main loss of the generator: `g_loss` of the discriminator's logits, plus the terms."""
        img, ws = self.generate(step.gen_z, step.gen_c)
        img_aug = self.augment(img)
        logits = self.D(img_aug, step.gen_c)  # [N, 1]
        report_logits("fake", logits)
        batch = GenBatch(step.gen_z, step.gen_c, ws, img, img_aug, step.cur_nimg)
        if self.change_logits is not None:
            logits = self.change_logits(logits, batch)
        loss = add_terms(self.g_loss(logits), self.g_terms, batch)
        training_stats.report("Loss/G/loss", loss)
        accumulate(loss, step.gain)

    def d_step(self, D: torch.nn.Module, part: Part, step: Step, augment: ImageTransform, prefix: str = "") -> None:
        """The loss of a discriminator.

        Args:
            D: the discriminator; another one than the loss's own may learn from the same images.
            part: of the loss.
            step: images, labels and latents.
            augment: applied to all images that D sees.
            prefix: statistics are named Loss/<prefix>...
        """
        raise NotImplementedError


class StyleGAN2Loss(AdversarialLoss):
    """Losses of StyleGAN2-ADA.

    Args:
        device: where the state lives.
        G: generator with `mapping`, `synthesis` and `num_ws`.
        D: discriminator.
        augment_pipe: applied to every image, real or generated, that D sees; None applies nothing.
        r1_gamma: weight of the gradient penalty; 0 switches it off.
        style_mixing_prob: probability that a batch mixes the styles of two latents.
        pl_weight: weight of the path length penalty; 0 switches it off.
        pl_batch_shrink: the penalty uses one of this many samples.
        pl_decay: rate of the running mean of path lengths.
        g_terms: terms of the generator's loss, as objects or as dictionaries with a class_name.
    """

    def __init__(
        self,
        device: torch.device,
        G: Generator,
        D: torch.nn.Module,
        augment_pipe: torch.nn.Module | None = None,
        r1_gamma: float = 10,
        style_mixing_prob: float = 0.9,
        pl_weight: float = 2,
        pl_batch_shrink: int = 2,
        pl_decay: float = 0.01,
        g_terms: Sequence[LossTerm | Mapping[str, Any]] = (),
    ) -> None:
        super().__init__(device, G, D, augment_pipe, g_terms)
        self.r1_gamma, self.style_mixing_prob = r1_gamma, style_mixing_prob
        self.pl_weight, self.pl_batch_shrink, self.pl_decay = pl_weight, pl_batch_shrink, pl_decay
        self.pl_mean = torch.zeros([], device=device)  # running mean of path lengths
        self._update_emas = False  # of G, in the present pass

    def begin_stage(self) -> None:
        """Resets the mean path length."""
        self.pl_mean.zero_()

    def state_dict(self) -> dict[str, Any]:
        """The mean path length."""
        return {"pl_mean": self.pl_mean.clone()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores `state_dict()`."""
        self.pl_mean.copy_(state["pl_mean"])

    def accumulate_gradients(self, network: str, part: Part, step: Step) -> None:
        """As in the base class; the phases are those of G and D, with any part.

        Raises:
            ValueError: another network.
        """
        if network == "G":
            if part.has_main:
                self.g_main(step)
            if part.has_reg and self.pl_weight != 0:
                self.g_path_length(step)
        elif network == "D":
            self.d_step(self.D, part, step, self.augment)
        else:
            raise ValueError(f"unknown training phase {phase_name(network, part)!r}")

    # Passes through the networks.

    def generate(self, z: torch.Tensor, c: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Images [N, C, H, W] and ws [N, num_ws, w_dim], with style mixing (arXiv:1812.04948, section 3.1)."""
        tracks_by_itself = getattr(self.G.mapping, "tracks_in_training", True)
        ws = self.G.mapping(z, c, **({} if tracks_by_itself or not self._update_emas else {"update_emas": True}))
        if self.style_mixing_prob > 0:
            from_other = self._mixing_mask(ws.shape[1], ws.device)
            ws = torch.where(from_other, self.G.mapping(torch.randn_like(z), c, skip_w_avg_update=True), ws)
        return self.G.synthesis(ws), ws

    def _mixing_mask(self, num_ws: int, device: torch.device) -> torch.Tensor:
        """Which styles come from the second latent: bool [num_ws, 1]. Decided without waiting for the device."""
        first = torch.randint(1, num_ws, [], device=device)
        mixes = torch.rand([], device=device) < self.style_mixing_prob
        return (mixes & (torch.arange(num_ws, device=device) >= first))[:, None]

    @staticmethod
    def g_loss(logits: torch.Tensor) -> torch.Tensor:
        """Per-sample generator loss for discriminator logits, both [N, 1]: softplus(-logits)."""
        return F.softplus(-logits)

    # Phases.

    def g_path_length(self, step: Step) -> None:
        """Generator: squared deviation of the path lengths from their running mean."""
        count = max(len(step.gen_z) // self.pl_batch_shrink, 1)
        lengths = self._path_lengths(step.gen_z[:count], step.gen_c[:count])
        # The mean is that of all ranks, and its own small share of the gradient is kept.
        mean = self.pl_mean.lerp(distributed.mean(lengths.mean()), self.pl_decay)
        self.pl_mean.copy_(mean.detach())
        accumulate(weigh_penalty("pl", "G", (lengths - mean).square(), self.pl_weight), step.gain)

    def _path_lengths(self, z: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        """How much a random direction in the image changes with w, per sample [N]."""
        img, ws = self.generate(z, c)
        direction = torch.randn_like(img) / img.shape[2:].numel() ** 0.5
        with conv2d_gradfix.no_weight_gradients():  # a sum, because with grad_outputs torch imports sympy for a second
            (by_w,) = torch.autograd.grad((img * direction).sum(), ws, create_graph=True)
        return by_w.square().sum(dim=2).mean(dim=1).sqrt()

    def d_step(self, D: torch.nn.Module, part: Part, step: Step, augment: ImageTransform, prefix: str = "") -> None:
        """As in the base class: logistic loss, R1 penalty on the images before augmentation, or both."""
        fake_loss = self._d_fake(D, step, augment, prefix) if part.has_main else None
        penalise = part.has_reg and self.r1_gamma != 0
        if part.has_main or penalise:
            self._d_real(D, step, augment, prefix, fake_loss, penalise)

    def _d_fake(self, D: torch.nn.Module, step: Step, augment: ImageTransform, prefix: str) -> torch.Tensor:
        """Discriminator on generated images: softplus(D(G(z))), which is also returned, [N, 1], detached.

        Averages of a generator that does not track them by itself are updated here, but not again where another
        discriminator than the loss's own learns as well.
        """
        self._update_emas = D is self.D
        try:
            with torch.no_grad():
                img, _ = self.generate(step.gen_z, step.gen_c)
        finally:
            self._update_emas = False
        logits = D(augment(img), step.gen_c)
        report_logits("fake", logits, prefix)
        loss = F.softplus(logits)
        accumulate(loss, step.gain)
        return loss.detach()

    def _d_real(
        self,
        D: torch.nn.Module,
        step: Step,
        augment: ImageTransform,
        prefix: str,
        fake_loss: torch.Tensor | None,
        penalise: bool,
    ) -> None:
        """Discriminator on real images: softplus(-D(x)), and/or the R1 penalty.

        The former is the other half of `fake_loss` [N, 1], and left out if that is None.
        """
        img = step.real_img.detach().requires_grad_(penalise)
        logits = D(augment(img), step.real_c)
        report_logits("real", logits, prefix)
        losses = []
        if fake_loss is not None:
            losses.append(F.softplus(-logits))
            training_stats.report(f"Loss/{prefix}D/loss", fake_loss + losses[0])
        if penalise:
            losses.append(weigh_penalty("r1", "D", _r1(logits, img), self.r1_gamma / 2, prefix)[:, None])
        accumulate(functools.reduce(torch.add, losses), step.gain)


def _r1(logits: torch.Tensor, img: torch.Tensor) -> torch.Tensor:
    """Squared norm of the gradient of the logits with respect to the images, per sample [N]."""
    with conv2d_gradfix.no_weight_gradients():
        (by_img,) = torch.autograd.grad(logits.sum(), img, create_graph=True)
    return by_img.square().sum(dim=[1, 2, 3])


def weigh_penalty(name: str, network: str, penalty: torch.Tensor, weight: float, prefix: str = "") -> torch.Tensor:
    """A penalty per sample [N] times its weight; reports both, as Loss/<name>_penalty and Loss/<network>/reg."""
    weighted = penalty * weight
    training_stats.report(f"Loss/{prefix}{name}_penalty", penalty)
    training_stats.report(f"Loss/{prefix}{network}/reg", weighted)
    return weighted


def accumulate(loss: torch.Tensor, gain: float) -> None:
    """Adds the gradients of `gain` times the mean of a loss [N, ...] to the parameters that require them."""
    (gain * loss.mean()).backward()


def make_terms(terms: Sequence[LossTerm | Mapping[str, Any]], device: torch.device) -> list[LossTerm]:
    """Terms given as objects, or as dictionaries with the class_name of a registered one, as objects.

    Raises:
        UserError: no term of that name is registered in `training.run_config.LOSS_TERMS`.
    """
    made = []
    for term in terms:
        if isinstance(term, Mapping):
            arguments = dict(term)
            term = LOSS_TERMS.call(arguments.pop("class_name", None), arguments, device=device)
        made.append(term)
    return made


def add_terms(loss: torch.Tensor, terms: Sequence[LossTerm], batch: GenBatch) -> torch.Tensor:
    """A generator's loss per sample [N, 1] plus its terms, each of which is reported; [N, 1].

    Raises:
        ValueError: a term's result is not of shape [N]; the message names it.
    """
    for term in terms:
        value = term(batch)
        if value is None:
            continue
        if value.shape != (len(loss),):
            raise ValueError(f"loss term {term.name!r}: expected a per-sample loss of shape ({len(loss)},), "
                             f"found {tuple(value.shape)}")
        training_stats.report(f"Loss/G/{term.name}", value)
        loss = loss + value[:, None]
    return loss


def report_logits(kind: str, logits: torch.Tensor, prefix: str = "") -> None:
    """Reports logits [N, any] as Loss/scores/<kind>, and their signs as Loss/signs/<kind>."""
    training_stats.report(f"Loss/{prefix}scores/{kind}", logits)
    training_stats.report(f"Loss/{prefix}signs/{kind}", logits.sign())
