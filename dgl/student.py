"""The student of a teacher: sliced out of it, or of its shape with random weights."""
import dataclasses
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import torch

from torch_utils import misc
from training.pickles import open_networks

from . import prune, widths
from .architectures import plan_of
from .scores import DISCRIMINATOR_NAMES
from .scores.registry import ScoreOptions, compute
from .teacher import Teacher, load


@dataclasses.dataclass
class Student:
    """A student's networks and how they were cut."""

    G: Any
    G_ema: Any
    D: Any
    keep: dict[str, torch.Tensor]  # generator's channel sets → kept channels of the teacher


def keep_lists(network: torch.nn.Module, width: Fraction, score: str, options: ScoreOptions) -> dict:
    """The channels of a network to keep at a width, by a score."""
    plan = plan_of(network)
    return prune.choose(compute(score, network, plan, options), widths.scaled(plan.sets, width))


def slice_student(
    teacher: Teacher,
    width: Fraction,
    score: str = "l1",
    d_width: Fraction = Fraction(1),
    seed: int = 0,
) -> Student:
    """Slices G_ema by its scores, G by the same channels, and D by its own scores.

    Args:
        width, d_width: parts of the generator's and the discriminator's channels to keep; 1 keeps the network as it is.
        score: one of `dgl.scores.NAMES`.
        seed: of everything random in the scores.
    """
    options = ScoreOptions(seed=seed)
    keep = keep_lists(teacher.G_ema, width, score, options)
    G_ema, G = (prune.slice_network(network, keep) for network in (teacher.G_ema, teacher.G))
    D = teacher.D
    if d_width != 1:
        d_score = score if score in DISCRIMINATOR_NAMES else "l1"
        D = prune.slice_network(D, keep_lists(D, d_width, d_score, options))
    return Student(G, G_ema, D, keep)


def resized(network: Any, width: Fraction) -> Any:
    """A network of the same kind at another width, with random weights."""
    plan = plan_of(network)
    return plan.build(list(widths.scaled(plan.sets, width).values()))


def initialise(
    networks: Mapping[str, torch.nn.Module],
    teacher: Mapping[str, Any],
    init: str,
    width: str,
    score: str,
    d_init: str,
    d_width: str,
    seed: int,
) -> list[str]:
    """Sets the weights that a student starts from; what the training loop calls.

    Args:
        networks: G, D and G_ema of the student's shapes, changed in place.
        teacher: arguments of `teacher.load`.
        init: 'slice', 'scratch' (leave the generators alone), or the pickle of a student.
        d_init: 'teacher' or 'scratch' (leave D alone).
        width, d_width: exact fractions as text.

    Returns:
        Lines that say what was done.
    """
    lines = []
    sources: dict[str, torch.nn.Module] = {}
    if init not in ("slice", "scratch"):
        nets = open_networks(init, trust_pickle=teacher.get("trust_pickle", False))
        sources.update({name: nets[name] for name in ("G", "G_ema")})
        lines.append(f"Student: weights of {init}")
    if init == "slice" or d_init == "teacher":
        student = slice_student(load(**teacher), Fraction(width), score, Fraction(d_width), seed)
        if init == "slice":
            sources.update({"G": student.G, "G_ema": student.G_ema})
            lines.append(f"Student: {width} of the channels of {teacher['url']}, chosen by {score}")
        if d_init == "teacher":
            sources["D"] = student.D
            lines.append(f"Student's discriminator: {d_width} of the channels of the teacher's")
    for name, source in sources.items():
        misc.copy_params_and_buffers(source, networks[name], require_all=True)
    return lines or ["Student: random weights"]
