"""Write a page about a student: images beside its teacher's, costs, channels, scores, curves, lost modes."""
import os

import click

from dnnlib.cli import Command, trust_pickle_option
from dnnlib.errors import UserError


@click.command(cls=Command)
@click.option("--teacher", help="The network that the student was made from: path or URL.", required=True,
              metavar="[PATH|URL]")
@click.option("--network", help="The student: path or URL.", required=True, metavar="[PATH|URL]")
@click.option("--slice", "between", help="The student before its training, to be shown between the two.",
              metavar="[PATH|URL]")
@click.option("--run", "run_dir", help="The student's run directory, for scores and curves.", metavar="DIR")
@click.option("--data", help="Training images, for the nearest neighbours of the student's.", metavar="PATH")
@click.option("--dest", help="The page: a name that ends in .html; must not exist.", required=True, metavar="FILE")
@trust_pickle_option
def main(
    teacher: str, network: str, between: str | None, run_dir: str | None, data: str | None, dest: str,
    trust_pickle: bool,
) -> None:
    """Write a page about a student, in one file that needs no network.

    \b
    Example:
      python report.py --teacher=ffhq.pkl --network=runs/00000-ffhq-dgl/network-snapshot-010000.pkl \\
          --run=runs/00000-ffhq-dgl --data=ffhq.zip --dest=student.html
    """
    if not dest.endswith(".html"):
        raise UserError(f"expected a name that ends in .html, found {dest}", field="dest")
    if os.path.lexists(dest):
        raise UserError(f"{dest} exists already; remove it, or name another", field="dest")
    if run_dir is not None and not os.path.isdir(run_dir):
        raise UserError(f"{run_dir}: no such folder", field="run_dir")
    from dgl.report import page
    from training.checkpoints.pickles import open_networks

    paths = {"teacher": teacher, "slice": between, "student": network}
    generators = {name: open_networks(path, trust_pickle=trust_pickle)["G_ema"] for name, path in paths.items() if path}
    sizes = {name: (G.z_dim, G.c_dim, G.img_resolution, G.img_channels) for name, G in generators.items()}
    for name, size in sizes.items():
        if size != sizes["teacher"]:
            raise UserError(f"expected the teacher's z_dim, c_dim, img_resolution, img_channels {sizes['teacher']}, "
                            f"found {size}", field="between" if name == "slice" else "network")
    page.write(dest, generators, run_dir, data, f"{os.path.basename(network)} and its teacher")
    click.echo(f"{dest}: {os.path.getsize(dest):,} bytes")


if __name__ == "__main__":
    main()
