"""Slice a narrow student out of a trained network."""
import dataclasses
import json
import os
import re
from collections.abc import Callable
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import click

from dgl import scores
from dnnlib.cli import Command, Fraction01, device_option, trust_pickle_option
from dnnlib.errors import UserError
from dnnlib.files import check_writable_dir, write_json_atomic

if TYPE_CHECKING:
    from torch_utils.network_types import Generator, Network

_TARGETS = ("target_macs", "target_params", "target_ms")


class Quantity(click.ParamType):
    """Option type: a positive number with an optional K, M or G, e.g. 7G."""

    name = "number"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The number."""
        match = re.fullmatch(r"([0-9]*\.?[0-9]+)([KMG]?)", str(value).strip())
        number = float(match[1]) * {"": 1, "K": 1e3, "M": 1e6, "G": 1e9}[match[2]] if match else 0
        if number <= 0:
            self.fail(f"expected a positive number such as 7G, 5M or 50, found {value!r}", param, ctx)
        return number


@click.command(cls=Command)
@click.option("--teacher", required=True, help="Network pickle to slice: path or URL.", metavar="[PATH|URL]")
@click.option("--width", help="Fraction of the generator's channels to keep, e.g. 0.5 or 2/3.", type=Fraction01(),
              metavar="FRACTION")
@click.option("--target-macs", help="Instead of --width: the widest student of at most this many multiply-accumulates "
              "(up-convolutions at their input resolution), e.g. 7G.", type=Quantity(), metavar="NUMBER")
@click.option("--target-params", help="Likewise, by parameters, e.g. 5M.", type=Quantity(), metavar="NUMBER")
@click.option("--target-ms", help="Likewise, by milliseconds per image, measured on this machine one image at a time.",
              type=Quantity(), metavar="NUMBER")
@click.option("--keep", help="Keep the same fraction of every layer, or the best channels of the whole network at the "
              "same cost.", type=click.Choice(["uniform", "global"]), default="uniform", show_default=True)
@click.option("--d-width", help="Fraction of the discriminator's channels to keep.", type=Fraction01(), default="1",
              show_default=True, metavar="FRACTION")
@click.option("--score", help="Which channels to keep: the first, random ones, those with the largest outgoing weights "
              "(l1), those the content depends on (content), those that make images differ (diversity), those that "
              "the others cannot reconstruct (reconstruct), or those whose trained scales stay above 0 (slimming).",
              type=click.Choice(scores.NAMES),
              show_default="reconstruct where it is refitted and the score applies, else l1; for an elastic network "
              "first")
@click.option("--score-samples", help="Latents to average the score over.", show_default="the score's own number",
              type=click.IntRange(min=1), metavar="INT")
@click.option("--roi", help="Region that counts for --score=content: a mask image, or MODULE:FUNCTION from images to "
              "masks.", show_default="everything", metavar="[MASK.png|MODULE:FUNCTION]")
@click.option("--refine", help="Refinement of the slice: svs replaces the singular values of its weights by their "
              "square roots.", type=click.Choice(scores.REFINEMENTS), default="none", show_default=True)
@click.option("--refit/--no-refit", help="Fit the weights of the slice to the teacher's features, in closed form and "
              "without data.", default=None, show_default="yes; no for an elastic network")
@click.option("--seed", help="Random seed of score and refit.", type=click.IntRange(min=0), default=0,
              show_default=True, metavar="INT")
@click.option("--dest", help="File to write.", metavar="FILE.pkl")
@click.option("--outdir", help="Folder to write into, instead of --dest.", metavar="DIR")
@click.option("--latency/--no-latency", default=True, show_default=True, help="Measure milliseconds per image for the "
              "cost table.")
@device_option
@trust_pickle_option
def main(**options: Any) -> None:
    """Slice a narrow student out of a trained network, ready to be trained with train.py --cfg=dgl or dgl-biggan, or to
    be used as it is.

    G_ema and G keep the same channels, chosen by the scores of G_ema; mapping network and latents stay the teacher's.
    Every layer keeps max(1, floor(width * channels)) channels. The student is a network pickle like any other; the cost
    of teacher and student is printed and saved beside it as FILE.cost.json.

    From an elastic network (train.py --elastic) it extracts exactly the networks that were trained at its widths.

    \b
    Examples:
      python prune_init.py --teacher=ffhq.pkl --width=0.5 --dest=student.pkl
      python prune_init.py --teacher=ffhq.pkl --width=2/3 --d-width=1/2 --score=random --seed=1 --outdir=students
      python prune_init.py --teacher=ffhq.pkl --target-macs=7G --keep=global --score=content --dest=student.pkl
    """
    if sum(options[name] is not None for name in ("width", *_TARGETS)) != 1:
        raise click.UsageError("pass exactly one of --width, --target-macs, --target-params and --target-ms")
    if options["roi"] is not None and options["score"] != "content":
        raise click.UsageError("--roi can only be given together with --score=content")
    path = _destination(**options)
    from dgl import cost, elastic, refit, roi, student
    from dgl import teacher as teachers
    from dgl.scores.registry import default_for
    from torch_utils.devices import resolve_device, tune_allocator
    from torch_utils.network_types import image_size
    from training.checkpoints.pickles import save_networks, snapshot_data

    device = options["device"] = str(resolve_device(options["device"]))
    source = teachers.load(options["teacher"], trust_pickle=options["trust_pickle"],
                           needs_discriminator=options["d_width"] != 1)
    tune_allocator()  # only now: from here on, freed memory stays with the process
    limit = _limit(**options)
    trained_widths = elastic.trained_widths(source.notes)  # None if it is not elastic
    is_refitted = options["refit"]
    if is_refitted is None:
        is_refitted = trained_widths is None and refit.applies(source.G_ema)
    if options["score"] is None:
        options["score"] = default_for(source.G_ema, is_refitted) if trained_widths is None else "first"
    cut = student.Cut(
        width=_width(source.G_ema, *limit, **options) if limit else options["width"],
        score=options["score"],
        seed=options["seed"],
        num_samples=options["score_samples"],
        roi=None if options["roi"] is None else roi.load(options["roi"], image_size(source.G_ema)),
        refine=options["refine"],
        across_layers=options["keep"] == "global",
        budget=limit[1:] if limit else None,
        refit=is_refitted,
    )
    narrow = student.slice_student(source, cut, options["d_width"], device)
    latency = options["latency"]
    costs = [
        cost.measure("teacher G", source.G_ema, device, latency),
        cost.measure("student G", narrow.G_ema, device, latency),
    ]
    if narrow.D is not None:
        costs += [cost.measure(name, network, device, latency=False)
                  for name, network in (("teacher D", source.D), ("student D", narrow.D))]
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    nets = {"G": narrow.G, "D": narrow.D, "G_ema": narrow.G_ema, "augment_pipe": None}
    how = {name: options[name] for name in ("keep", "score", "score_samples", "roi", "refine", "seed", *_TARGETS)}
    record = {
        "teacher": options["teacher"],
        "teacher_sha256": source.sha256,
        "width": str(cut.width),
        "d_width": str(options["d_width"]),
        **how,
        "elastic": None if trained_widths is None else list(map(str, trained_widths)),
        "refit": {name: report.as_dict() for name, report in narrow.refits.items()},
        "macs": "macs_in counts an up-convolution at its input resolution, macs_out every convolution at its output's",
        "device": device,
        "costs": [dataclasses.asdict(c) for c in costs],
        "kept_channels": {name: kept.tolist() for name, kept in narrow.keep.items()},
    }
    # The network comes last: where it is, everything is.
    write_json_atomic(os.path.splitext(path)[0] + ".cost.json", record)
    save_networks(snapshot_data(nets, source.training_set_kwargs, label_kind=source.label_kind), path)
    for name, report in narrow.refits.items():
        click.echo(f"refit of {name}: {report.summary()}")
    click.echo(cost.table(costs))
    if narrow.D is None:
        click.echo("Note: the teacher's file holds no discriminator that can be read, so the student has none; it can "
                   "be trained by the terms of distillation that need none (train.py --kd)", err=True)
    if _has_own_widths(narrow.G_ema):
        click.echo("Note: the student's widths are given layer by layer (layer_channels). Its file loads wherever the "
                   "teacher's does, but tools that build the network from their own class cannot; --keep=uniform of "
                   "a stock StyleGAN2 gives widths that they can build", err=True)
    took = costs[1].ms_batch1
    if options["target_ms"] is not None and took is not None and took > options["target_ms"]:
        click.echo(f"Warning: the student now takes {took:.3g} ms, more than --target-ms={options['target_ms']:g}: "
                   "times vary on this machine; measure again when it has nothing else to do", err=True)
    if trained_widths is not None and not elastic.was_trained(trained_widths, cut):
        click.echo("Warning: the teacher is elastic, but was not trained to be cut like this; what it was trained for: "
                   f"--width={' or --width='.join(map(str, trained_widths))}, without --score, --refine, --refit and "
                   "--keep", err=True)
    ratio = costs[0].macs_in / costs[1].macs_in
    click.echo(f"{ratio:.2f}x fewer MACs, {costs[0].params / costs[1].params:.2f}x fewer parameters")
    click.echo(json.dumps({"student": path, "width": str(cut.width), "score": cut.score}))


def _has_own_widths(G: "Generator") -> bool:
    """Whether the constructor's arguments are not those of a stock network."""
    arguments = getattr(G, "init_kwargs", {})
    return "layer_channels" in {**arguments, **arguments.get("synthesis_kwargs", {})}


def _limit(device: str, **options: Any) -> tuple[str, Callable[[Any], float], float] | None:
    """Name of the budget that was given, how a network is measured by it, and the limit; None with --width."""
    from dgl import cost
    from dgl.student import macs_in

    def count(network: "Network") -> int:
        return sum(p.numel() for p in network.parameters())

    def milliseconds(network: "Network") -> float:
        return cost.milliseconds_per_image(network, device, 1)

    for name, measure in zip(_TARGETS, (macs_in, count, milliseconds)):
        if options[name] is not None:
            return name, measure, options[name]
    return None


def _width(G: "Generator", name: str, measure: Callable[[Any], float], limit: float, **_: Any) -> Fraction:
    """The largest uniform width within a limit."""
    from dgl import budget
    from dgl.architectures import plan_of

    plan = plan_of(G)
    few = budget.thinned(budget.candidate_widths(plan.sets)) if name == "target_ms" else None
    return budget.largest_width(plan, measure, limit, "--" + name.replace("_", "-"), few)


def _destination(teacher: str, dest: str | None, outdir: str | None, **options: Any) -> str:
    """The file to write, checked before anything expensive."""
    if (dest is None) == (outdir is None):
        raise click.UsageError("pass either --dest or --outdir")
    if dest is None:
        assert outdir is not None
        stem = os.path.splitext(os.path.basename(os.path.normpath(teacher)))[0]
        dest = os.path.join(outdir, f"{stem}-{_description(**options)}.pkl")
        if os.path.exists(dest):
            raise UserError(f"--outdir: {dest} exists already; move it away, or name a file by --dest")
    if not dest.endswith(".pkl"):
        raise UserError(f"--dest: expected a name ending in .pkl, found {dest}")
    if os.path.exists(dest) and os.path.exists(teacher) and os.path.samefile(dest, teacher):
        raise UserError(f"--dest: {dest} is the teacher's own file; name another")
    check_writable_dir(os.path.dirname(os.path.abspath(dest)), "--outdir" if outdir is not None else "--dest")
    return dest


def _description(
    d_width: Fraction, score: str | None, score_samples: int | None, roi: str | None, refine: str, refit: bool | None,
    keep: str, seed: int, **sizes: Any,
) -> str:
    """What the student is, as part of a file name: its size, its score, and whatever is not the default."""
    name, amount = next((name, sizes[name]) for name in ("width", *_TARGETS) if sizes[name] is not None)
    size = _of(amount) if name == "width" else f"{amount:.15g}"
    region = None if roi is None else re.sub(r"[^A-Za-z0-9._]+", "-", os.path.splitext(os.path.basename(roi))[0])
    parts = [f"{name.replace('target_', '')}{size}"]
    parts += [] if score is None else [score]
    parts += [] if keep == "uniform" else [keep]
    parts += [] if d_width == 1 else [f"d{_of(d_width)}"]
    parts += [] if region is None else [f"roi-{region}"]
    parts += [] if score_samples is None else [f"samples{score_samples}"]
    parts += [] if refine == "none" else [refine]
    parts += ["plain"] if refit is False else []
    parts += [] if seed == 0 else [f"seed{seed}"]
    return "-".join(parts)


def _of(width: Fraction) -> str:
    return str(width).replace("/", "of")


if __name__ == "__main__":
    main()
