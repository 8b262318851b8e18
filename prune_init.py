"""Slice a narrow student out of a trained network."""
import dataclasses
import json
import os
from fractions import Fraction

import click

from dgl import scores
from dnnlib.cli import Command, Fraction01, device_option, trust_pickle_option
from dnnlib.files import check_writable_dir, write_json_atomic
from dnnlib.util import UserError


@click.command(cls=Command)
@click.option("--teacher", required=True, help="Network pickle to slice: path or URL.", metavar="[PATH|URL]")
@click.option("--width", required=True, help="Part of the generator's channels to keep, e.g. 0.5 or 2/3.",
              type=Fraction01(), metavar="FRACTION")
@click.option("--d-width", help="The same for the discriminator.  [default: 1]", type=Fraction01(), default="1",
              metavar="FRACTION")
@click.option("--score", help="Which channels to keep: the first, random ones, or those with the largest outgoing "
              "weights.  [default: l1]", type=click.Choice(scores.NAMES), default="l1")
@click.option("--seed", help="Random seed of the score.  [default: 0]", type=click.IntRange(min=0), default=0,
              metavar="INT")
@click.option("--dest", help="File to write.", metavar="FILE.pkl")
@click.option("--outdir", help="Folder to write into, instead of --dest.", metavar="DIR")
@click.option("--latency/--no-latency", default=True, help="Measure milliseconds per image for the cost table.  "
              "[default: yes]")
@device_option
@trust_pickle_option
def main(
    teacher: str,
    width: Fraction,
    d_width: Fraction,
    score: str,
    seed: int,
    dest: str | None,
    outdir: str | None,
    latency: bool,
    device: str,
    trust_pickle: bool,
) -> None:
    """Slice a narrow student out of a trained StyleGAN2 network, ready to be trained with train.py --cfg=dgl, or to be
    used as it is.

    G_ema and G keep the same channels, chosen by the scores of G_ema; mapping network and latents stay the teacher's.
    Every layer keeps max(1, floor(width * channels)) channels. The student is a network pickle like any other; the cost
    of teacher and student is printed and saved beside it as FILE.cost.json.

    \b
    Examples:
      python prune_init.py --teacher=ffhq.pkl --width=0.5 --dest=student.pkl
      python prune_init.py --teacher=ffhq.pkl --width=2/3 --d-width=1/2 --score=random --seed=1 --outdir=students
    """
    path = _destination(teacher, width, score, dest, outdir)
    from dgl import cost, student
    from dgl import teacher as teachers
    from torch_utils.misc import resolve_device, tune_allocator
    from training.pickles import save_networks, snapshot_data

    tune_allocator()
    target = str(resolve_device(device))
    source = teachers.load(teacher, trust_pickle=trust_pickle)
    narrow = student.slice_student(source, width, score, d_width, seed)
    costs = [
        cost.measure("teacher G", source.G_ema, target, latency),
        cost.measure("student G", narrow.G_ema, target, latency),
        cost.measure("teacher D", source.D, target, latency=False),
        cost.measure("student D", narrow.D, target, latency=False),
    ]
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    nets = {"G": narrow.G, "D": narrow.D, "G_ema": narrow.G_ema, "augment_pipe": None}
    save_networks(snapshot_data(nets, source.training_set_kwargs), path)
    record = {
        "teacher": teacher,
        "teacher_sha256": source.sha256,
        "width": str(width),
        "d_width": str(d_width),
        "score": score,
        "seed": seed,
        "macs": "macs_in counts an up-convolution at its input resolution, macs_out every convolution at its output's",
        "device": target,
        "costs": [dataclasses.asdict(c) for c in costs],
        "kept_channels": {name: kept.tolist() for name, kept in narrow.keep.items()},
    }
    write_json_atomic(os.path.splitext(path)[0] + ".cost.json", record)
    click.echo(cost.table(costs))
    ratio = costs[0].macs_in / costs[1].macs_in
    click.echo(f"{ratio:.2f}x fewer MACs, {costs[0].params / costs[1].params:.2f}x fewer parameters")
    click.echo(json.dumps({"student": path, "width": str(width), "score": score}))


def _destination(teacher: str, width: Fraction, score: str, dest: str | None, outdir: str | None) -> str:
    """The file to write, checked before anything heavy begins."""
    if (dest is None) == (outdir is None):
        raise click.UsageError("pass either --dest or --outdir")
    if dest is None:
        assert outdir is not None
        stem = os.path.splitext(os.path.basename(teacher))[0]
        dest = os.path.join(outdir, f"{stem}-width{str(width).replace('/', 'of')}-{score}.pkl")
    if not dest.endswith(".pkl"):
        raise UserError(f"--dest: expected a name ending in .pkl, got {dest}")
    check_writable_dir(os.path.dirname(os.path.abspath(dest)), "--outdir" if outdir is not None else "--dest")
    return dest


if __name__ == "__main__":
    main()
