"""The student of a teacher: sliced out of it, or with random weights."""
import dataclasses
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

import torch

from torch_utils import misc
from torch_utils.network_types import Network
from training.checkpoints.pickles import open_networks

from . import budget, prune, refine
from .architectures import costs_of, plan_of
from .refit import RefitOptions, Report, applies, images_of, prepared, refit_network
from .roi import Roi
from .scores import DISCRIMINATOR_SCORES
from .scores.registry import ScoreOptions, compute
from .teacher import Teacher, load


@dataclasses.dataclass(frozen=True)
class Cut:
    """How the generator of a student is cut out of its teacher's."""

    width: Fraction = Fraction(1)  # part of the channels to keep
    score: str = "l1"  # one of dgl.scores.NAMES
    seed: int = 0  # of everything random in the scores
    num_samples: int | None = None  # latents to average a score over; None is the score's own number
    roi: Roi | None = None  # region of interest of the score `content`
    refine: str = "none"  # one of dgl.scores.REFINEMENTS
    across_layers: bool = False  # keep the best channels of the whole network, within a budget
    budget: tuple[Callable[[torch.nn.Module], float], float] | None = None  # cost and its limit, across layers; None
    # is the MACs of the uniform cut
    refit: bool = False  # fit the weights of the slice to the teacher's features
    nested: bool = False  # order the channels by their score, best first

    def options(self) -> ScoreOptions:
        """The options of the score."""
        return ScoreOptions(seed=self.seed, num_samples=self.num_samples, roi=self.roi)


@dataclasses.dataclass
class Student:
    """A student's networks and how they were cut."""

    G: Any
    G_ema: Any
    D: Any
    keep: dict[str, torch.Tensor]  # generator's channel sets → kept channels of the teacher, in the student's order
    refits: dict[str, Report] = dataclasses.field(default_factory=dict)  # network → what was fitted


def macs_in(network: torch.nn.Module) -> int:
    """Multiply-accumulates for one image, up-convolutions at their input resolution."""
    return sum(layer.macs_in for layer in costs_of(network))


def channel_scores(
    network: torch.nn.Module, cut: Cut, device: torch.device | str | None = None
) -> dict[str, torch.Tensor]:
    """Channel set → scores [C] of a network by the cut's score, computed on the device; None is where it is."""
    home = next(network.parameters()).device
    try:
        return compute(cut.score, network.to(device or home), plan_of(network), cut.options())
    finally:
        network.to(home)


def keep_lists(
    network: torch.nn.Module, cut: Cut, device: torch.device | str | None = None, scores: prune.Scores | None = None
) -> dict[str, torch.Tensor]:
    """Channel set → kept channels [C'] (ascending int64) of a network.

    Args:
        device: where to score; None is where the network is.
        scores: set name → scores [C], if they are known already.
    """
    plan = plan_of(network)
    if scores is None:
        scores = channel_scores(network, cut, device)
    kept = plan.scaled(cut.width)
    if cut.across_layers:
        cost, target = cut.budget or (macs_in, macs_in(plan.build(list(kept.values()))))
        kept = budget.global_widths(plan, scores, cost, target, cut.width)
    return prune.choose(scores, kept)


def slice_student(
    teacher: Teacher, cut: Cut, d_width: Fraction = Fraction(1), device: torch.device | str | None = None
) -> Student:
    """Slices G_ema by its scores, G by the same channels, and D by its own scores; refits them if `cut` says so.

    A teacher whose G is its G_ema gives a student of which the same holds. A discriminator of a family whose
    discriminators cannot be refitted is only sliced.

    Args:
        d_width: part of the discriminator's channels to keep, uniformly; 1 keeps it as it is.
        device: where to score and refit; None is where the networks are.

    Raises:
        UserError: a score or a refit does not apply to these networks, or they hold NaN.
    """
    scores = channel_scores(teacher.G_ema, cut, device)
    keep = keep_lists(teacher.G_ema, cut, scores=scores)
    generators = {"G_ema": teacher.G_ema} if teacher.G is teacher.G_ema else {"G_ema": teacher.G_ema, "G": teacher.G}
    if cut.refit and plan_of(teacher.G_ema).sets != {name: len(kept) for name, kept in keep.items()}:
        generators = {name: prepared(network) for name, network in generators.items()}
    slices = {name: prune.slice_network(network, keep) for name, network in generators.items()}
    if cut.refine == "svs":
        for network in slices.values():
            refine.svs(network)
    D = teacher.D
    if d_width != 1:
        score = cut.score if cut.score in DISCRIMINATOR_SCORES else "l1"
        d_keep = keep_lists(D, Cut(d_width, score, cut.seed), device)
        D = prune.slice_network(D, d_keep)
    student = Student(slices.get("G", slices["G_ema"]), slices["G_ema"], D, keep)
    if cut.refit:
        of_D = {"D": d_keep} if d_width != 1 and applies(teacher.D) else {}
        keeps = {**dict.fromkeys(slices, keep), **of_D}
        student.refits = refit(teacher, student, keeps, RefitOptions(seed=cut.seed), device)
    if cut.nested:
        order = {name: scores[name][kept].argsort(descending=True, stable=True) for name, kept in keep.items()}
        for network in slices.values():
            prune.reorder(network, order)
        student.keep = {name: kept[order[name]] for name, kept in keep.items()}
    return student


def refit(
    teacher: Teacher,
    student: Student,
    keeps: Mapping[str, Mapping[str, torch.Tensor]],
    options: RefitOptions,
    device: torch.device | str | None = None,
) -> dict[str, Report]:
    """Refits a student's networks to the teacher's in place, each to the one of its name.

    Args:
        keeps: network → channel set → kept channels, int64 [C']; networks without one are left alone.
        options: see `dgl.refit.RefitOptions`.
        device: where to work; None is where the networks are.

    Returns:
        Network → what was fitted; networks that keep every channel are missing.

    Raises:
        UserError: as `dgl.refit.refit_network`.
    """
    reports = {}
    for name, keep in keeps.items():
        pair = [getattr(networks, name) for networks in (teacher, student)]
        home = next(pair[0].parameters()).device
        images = images_of(teacher.G_ema.to(device or home), options.seed) if name == "D" else None
        try:
            wide, narrow = (network.to(device or home) for network in pair)
            report = refit_network(name, wide, narrow, keep, options, images)
        finally:
            for network in (*pair, teacher.G_ema):
                network.to(home)
        if report is not None:
            reports[name] = report
    return reports


def resized(network: Network, width: Fraction, is_refitted: bool = False) -> Any:
    """A network of the same kind at another width, with random weights; of the shape of a refitted slice or of a plain
    one.
    """
    plan = plan_of(network)
    widths = plan.scaled(width)
    if is_refitted and widths != plan.sets:
        plan = plan_of(prepared(network))
    return plan.build(list(widths.values()))


def initialise(
    networks: Mapping[str, torch.nn.Module],
    teacher: Mapping[str, Any],
    init: str,
    width: str,
    score: str,
    refine: str,
    d_init: str,
    d_width: str,
    seed: int,
    refit: bool = False,
    from_average: bool = False,
    nested: bool = False,
) -> list[str]:
    """Sets the weights that a student starts from; what the training loop calls.

    Args:
        networks: G, D and G_ema of the student's shapes, changed in place.
        teacher: arguments of `teacher.load`.
        init: 'slice', 'mapping' (mapping network and constant noise alone), 'scratch' (leave the generators alone), or
            the pickle of a student.
        d_init: 'teacher', 'scratch' (leave D alone), or 'init' (the discriminator in the pickle).
        width, d_width: exact fractions as text.
        refit: fit a slice's weights to the teacher's features.
        from_average: G starts as G_ema does, not from the teacher's raw generator.
        nested: order a slice's channels by their score, best first.

    Returns:
        Lines that say what was done.

    Raises:
        UserError: a file cannot be read, or an option does not apply to the teacher's networks.
    """
    lines = []
    sources: dict[str, torch.nn.Module] = {}
    if init not in ("slice", "mapping", "scratch"):
        nets = open_networks(init, trust_pickle=teacher.get("trust_pickle", False))
        sources.update({name: nets[name] for name in ("G_ema", *(["D"] if d_init == "init" else []))})
        sources["G"] = nets["G"] if "G" in nets else nets["G_ema"]
        lines.append(f"Student: weights of {init}")
    if init == "slice" or d_init == "teacher":
        device = next(networks["G"].parameters()).device
        cut = Cut(Fraction(width), score, seed, refine=refine, refit=refit, nested=nested)
        opened = load(**teacher, needs_discriminator=d_init == "teacher")
        if from_average:
            opened = dataclasses.replace(opened, G=opened.G_ema)
        student = slice_student(opened, cut, Fraction(d_width), device)
        if init == "slice":
            sources.update({"G": student.G, "G_ema": student.G_ema})
            lines.append(f"Student: {width} of the channels of {teacher['url']}, chosen by {score}")
        if d_init == "teacher":
            sources["D"] = student.D
            lines.append(f"Student's discriminator: {d_width} of the channels of the teacher's")
        lines += [f"Refit of {name}: {report.summary()}" for name, report in student.refits.items()]
    if init == "mapping":
        opened = load(**teacher, needs_discriminator=d_init == "teacher")
        for name in ("G", "G_ema"):
            _copy_latent_space(opened.G_ema if from_average else getattr(opened, name), networks[name])
        lines.append(f"Student: mapping network and constant noise of {teacher['url']}, else random weights")
    if from_average and "G_ema" in sources:
        sources["G"] = sources["G_ema"]
    for name, source in sources.items():
        misc.copy_params_and_buffers(source, networks[name], require_all=True)
    return lines or ["Student: random weights"]


def _copy_latent_space(teacher: Any, student: Any) -> None:
    """Copies the mapping network and the constant noise, so that a latent means the same to both."""
    misc.copy_params_and_buffers(teacher.mapping, student.mapping, require_all=True)
    targets = dict(student.synthesis.named_buffers())
    with torch.no_grad():
        for name, noise in teacher.synthesis.named_buffers():
            if name.endswith("noise_const"):
                targets[name].copy_(noise)
