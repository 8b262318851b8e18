"""What will help with this teacher: measures its discriminator on a few images before anything is trained.

    python -m dgl.probe TEACHER.pkl --data=images.zip --student=student.pkl
"""
import json
import time
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import click

from dnnlib.cli import Command, device_option, trust_pickle_option
from dnnlib.errors import UserError

if TYPE_CHECKING:
    from torch_utils.network_types import Discriminator, Generator, Network

    from .probe_measures import Images
    from .teacher import Teacher

NUM_GRADIENTS = 64  # images whose gradients are compared
SLICE_WIDTH = Fraction(1, 2)  # of the student that is used if none is given


def probe(
    teacher: "Teacher",
    student: tuple[Any, Any] | None = None,
    data: object = None,
    num: int = 512,
    seed: int = 0,
    device: str = "cpu",
) -> dict[str, Any]:
    """Measures a teacher's discriminator.

    Args:
        teacher: a `dgl.teacher.Teacher`.
        student: generator and discriminator of a student; None takes a refitted slice of half the width.
        data: a data set of the teacher's kind of images; None leaves out what needs real ones.
        num: images of each kind.
        seed: of latents, and of the choice of real images.
        device: where to compute.

    Returns:
        A dict for JSON; `explain` puts it into words.

    Raises:
        UserError: student or data do not fit the teacher.
    """
    import copy

    from . import probe_measures as measures

    start = time.monotonic()

    def own(network: "Network") -> Any:
        return copy.deepcopy(network).eval().requires_grad_(False).to(device)

    G_T, D_T = own(teacher.G_ema), own(teacher.D)
    G_S, D_S = _slice(teacher) if student is None else student
    for attribute in ("img_resolution", "img_channels", "z_dim", "c_dim"):
        expected, actual = getattr(G_T, attribute), getattr(G_S, attribute)
        if actual != expected:
            raise UserError(f"{attribute} of the student is {actual}, the teacher's is {expected}; pass a student of "
                            "this teacher", "student")
    G_S = own(G_S)
    by_teacher, by_student = _generate([G_T, G_S], num, seed)
    logits = {"teacher": measures.logits(D_T, by_teacher), "student": measures.logits(D_T, by_student)}
    result: dict[str, Any] = {"num": num, "seed": seed, "student": "slice" if student is None else "given"}
    result["auc"] = {"teacher_over_student": measures.auc(logits["teacher"], logits["student"])}
    few = measures.Images(by_student.img[:NUM_GRADIENTS], by_student.c[:NUM_GRADIENTS])
    towards = by_teacher.img[:NUM_GRADIENTS] - few.img
    verdict = measures.verdict_gradient(D_T, few)
    features = measures.feature_gradient(D_T, few.img, by_teacher.img[:NUM_GRADIENTS])
    result["alignment"] = {"verdict": measures.cosine(verdict, towards),
                           "features": measures.cosine(features, towards)}
    if D_S is not None:
        result["redundancy"] = measures.cosine(measures.verdict_gradient(own(D_S), few), verdict)
    if data is not None:
        real = _real(data, G_T, num, seed, device)
        logits["real"] = measures.logits(D_T, real)
        result["auc"] |= {"real_over_teacher": measures.auc(logits["real"], logits["teacher"]),
                          "real_over_student": measures.auc(logits["real"], logits["student"])}
        a, b = measures.calibration(logits["real"], logits["teacher"])
        result["calibration"] = {"a": a, "b": b}
        result["rejection"] = _rejection(D_T, by_teacher, real, logits["teacher"])
    result["mean_logit"] = {name: float(values.mean()) for name, values in logits.items()}
    result["seconds"] = round(time.monotonic() - start, 1)
    return result


def _slice(teacher: "Teacher") -> tuple[Any, None]:
    """A refitted slice of half the width, or a plain one of networks that cannot be refitted."""
    from . import prune, refit, student
    from .scores.registry import default_for

    fits = refit.applies(teacher.G_ema)
    cut = student.Cut(SLICE_WIDTH, default_for(teacher.G_ema, fits), refit=fits)
    keep = student.keep_lists(teacher.G_ema, cut)
    narrow = prune.slice_network(refit.prepared(teacher.G_ema) if fits else teacher.G_ema, keep)
    if fits:
        refit.refit_network("G_ema", teacher.G_ema, narrow, keep, refit.RefitOptions())
    return narrow, None


def _generate(networks: Sequence[Any], num: int, seed: int) -> "list[Images]":
    """The images of the same latents by several generators."""
    import torch

    from .probe_measures import Images
    from .scores.sampling import latents

    z, c = latents(networks[0], num, torch.Generator().manual_seed(seed))
    images = []
    with torch.no_grad():
        for G in networks:
            parts = zip(z.split(8), c.split(8))
            img = torch.cat([G(*part, noise_mode="const", force_fp32=True) for part in parts])
            images.append(Images(img.float().clamp(-1, 1), c))
    return images


def _real(data: Any, G: "Generator", num: int, seed: int, device: str) -> "Images":
    """Random images of a data set."""
    import numpy as np
    import torch

    from torch_utils.network_types import check_square

    from .probe_measures import Images

    check_square(G, "a comparison with real images", "data")
    shape = (data.resolution, data.num_channels, data.label_dim)
    if shape[:2] != (G.img_resolution, G.img_channels):
        raise UserError(f"expected {G.img_resolution}x{G.img_resolution} images of {G.img_channels} channel(s) as the "
                        f"teacher makes, found {shape[0]}x{shape[0]} of {shape[1]}", "data")
    if G.c_dim and shape[2] != G.c_dim:
        raise UserError(f"the teacher takes labels of size {G.c_dim}, the data set gives {shape[2]}", "data")
    chosen = np.random.RandomState(seed).permutation(len(data))[:num]
    items = [data[int(index)] for index in chosen]
    img = torch.from_numpy(np.stack([image for image, _ in items])).to(device, torch.float32) / 127.5 - 1
    c = torch.from_numpy(np.stack([label for _, label in items])) if G.c_dim else torch.zeros([len(items), 0])
    return Images(img, c.to(device, torch.float32))


def _rejection(D: "Discriminator", fake: "Images", real: "Images", logits: Any) -> dict[str, float]:
    """Distances to the real images, in D's pooled features, of the half of the teacher's images that D likes best, and
    of any half. If liking were a measure of quality, the former were nearer.
    """
    from . import probe_measures as measures

    features = [measures.pooled_features(D, images.img) for images in (fake, real)]
    half = len(fake.img) // 2
    best = logits.argsort(descending=True)[:half]
    return {"best_half": measures.distance(features[0][best], features[1]),
            "any_half": measures.distance(features[0][:half], features[1])}


def _confidence(a: float) -> str:
    """What the factor of a calibrated logit says of a discriminator, as the end of a sentence."""
    if a < 0.7:
        return ": it is overconfident."
    return "." if a < 1.4 else ": it is underconfident."


def explain(result: Mapping[str, Any]) -> list[str]:
    """What the measures say, a sentence each."""
    auc, alignment = result["auc"], result["alignment"]
    student = "the student's" if result["student"] == "given" else "a refitted half-width slice's"
    lines = [f"D_T prefers the teacher's image to {student} of other latents in {auc['teacher_over_student']:.0%} of "
             "pairs (50% is no preference)."]
    if "real_over_teacher" in auc:
        share = auc["real_over_teacher"]
        ability = "tells them apart" if abs(share - 0.5) > 0.1 else "hardly tells them apart"
        lines.append(f"It prefers a real image to the teacher's in {share:.0%}: it {ability}, and "
                     f"{auc['real_over_student']:.0%} to {student}.")
        a, b = result["calibration"]["a"], result["calibration"]["b"]
        lines.append(f"Calibrated, its logit is {a:.2f} * D_T {b:+.2f}"
                     + _confidence(a))
        best, other = result["rejection"]["best_half"], result["rejection"]["any_half"]
        effect = "nearer to" if best < other else "farther from"
        lines.append(f"The half of the teacher's images that it likes best is {effect} the real ones than any half "
                     f"({best:.3g} against {other:.3g} in its features): "
                     + ("its verdict alone is a usable measure." if best < other else
                        "as a reward on its own, the verdict would cost diversity."))
    lines.append(f"Towards the teacher's image of the same latent, the verdict's gradient has a cosine of "
                 f"{alignment['verdict']:.2f}, that of D_T's features {alignment['features']:.2f}.")
    if "redundancy" in result:
        value = result["redundancy"]
        lines.append(f"The gradients of the student's own discriminator and of D_T have a cosine of {value:.2f}"
                     + (": the verdict adds little to it." if value > 0.5 else "."))
    helps = alignment["features"] > max(2 * abs(alignment["verdict"]), 0.1)
    lines.append("What will help: " + ("distillation by D_T's features." if helps else
                                       "no clear direction towards the teacher's images; compare pixels (rgb) too."))
    return lines


@click.command(cls=Command)
@click.argument("teacher", metavar="TEACHER")
@click.option("--data", help="Real images of the teacher's kind: folder or zip.", show_default="none", metavar="PATH")
@click.option("--student", help="Network pickle of a student.", show_default="a refitted slice of half the width",
              metavar="[PATH|URL]")
@click.option("--num", help="Images of each kind.", type=click.IntRange(min=32), default=512, show_default=True,
              metavar="INT")
@click.option("--seed", help="Random seed.", type=click.IntRange(min=0), default=0, show_default=True,
              metavar="INT")
@device_option
@trust_pickle_option
def main(
    teacher: str, data: str | None, student: str | None, num: int, seed: int, device: str, trust_pickle: bool
) -> None:
    """Measure what a teacher's discriminator (D_T) can do for a student, before anything is trained.

    TEACHER is a network pickle, path or URL. Prints a verdict in words, and the numbers as one JSON line.
    """
    from torch_utils.devices import resolve_device, tune_allocator
    from training.checkpoints.parts import optional
    from training.checkpoints.pickles import open_networks
    from training.data.dataset import ImageFolderDataset

    from . import teacher as teachers

    tune_allocator()
    source = teachers.load(teacher, trust_pickle=trust_pickle)
    pair = None
    if student is not None:
        nets = open_networks(student, trust_pickle=trust_pickle)
        pair = nets["G_ema"], optional(nets, "D")
    dataset = None if data is None else ImageFolderDataset(data, use_labels=source.G_ema.c_dim > 0)
    result = probe(source, pair, dataset, num, seed, str(resolve_device(device)))
    for line in explain(result):
        click.echo(line)
    click.echo(json.dumps(result))


if __name__ == "__main__":
    main()
