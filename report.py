"""Write a page about a student: images beside its teacher's, costs, channels, scores, curves, lost modes."""
import os
from typing import Any

import click

from dnnlib.cli import ClassChoice, Command, class_option, device_option, trust_pickle_option
from dnnlib.errors import UserError

FIELDS = {"teacher": "teacher", "slice": "sliced", "refit": "refitted", "student": "network"}


@click.command(cls=Command, fields=FIELDS)
@click.option("--teacher", help="The network that the student was made from: path or URL.", metavar="[PATH|URL]",
              show_default="the run's; required without --run")
@click.option("--network", help="The student: path or URL.", metavar="[PATH|URL]",
              show_default="the run's newest; required without --run")
@click.option("--slice", "sliced", help="The student as it was sliced, to be shown between the two.",
              show_default="made again as the run made it", metavar="[PATH|URL]")
@click.option("--refit", "refitted", help="The refitted slice, likewise.", metavar="[PATH|URL]",
              show_default="made again as the run made it")
@click.option("--run", "run_dir", help="The student's run directory, for scores and curves, and for what is not given.",
              metavar="DIR")
@click.option("--data", help="Training images, for the nearest neighbours of the student's.", show_default="the run's",
              metavar="PATH")
@class_option
@click.option("--dest", help="The page: a name that ends in .html; must not exist.", metavar="FILE",
              show_default="report.html in the run directory; required without --run")
@device_option
@trust_pickle_option
def main(
    teacher: str | None, network: str | None, sliced: str | None, refitted: str | None, run_dir: str | None,
    data: str | None, class_idx: ClassChoice | None, dest: str | None, device: str, trust_pickle: bool,
) -> None:
    """Write a report about a student: one HTML file that needs no internet access.

    \b
    Examples:
      # The page of a run.
      python report.py --run=runs/00000-ffhq-dgl
    \b
      # The page of any student.
      python report.py --teacher=ffhq.pkl --network=student.pkl --data=ffhq.zip --dest=student.html
    """
    if run_dir is not None and not os.path.isdir(run_dir):
        raise UserError(f"{run_dir}: no such folder", field="run_dir")
    if data is not None and not os.path.exists(data):
        raise UserError(f"{data}: no such folder or zip", field="data")
    for flag, value in (("--teacher", teacher), ("--network", network), ("--dest", dest)):
        if value is None and run_dir is None:
            raise click.UsageError(f"Missing option '{flag}'; it can only be left out together with --run.")
    if dest is None:
        assert run_dir is not None
        dest = os.path.join(run_dir, "report.html")
    if not dest.endswith(".html"):
        raise UserError(f"expected a name that ends in .html, found {dest}", field="dest")
    if os.path.lexists(dest):
        raise UserError(f"{dest} exists already; remove it, or name another", field="dest")
    from dgl.report import labels, page
    from torch_utils.devices import resolve_device, tune_allocator

    target = resolve_device(device)
    tune_allocator()
    given = {"slice": sliced, "refit": refitted}
    generators, D, network, kind = _networks(teacher, network, given, run_dir, target, trust_pickle)
    if run_dir is not None and data is None:
        data = _data_of(run_dir)
    choices = labels.choices(generators["teacher"], class_idx, kind, data)
    page.write(dest, generators, D, run_dir, data, f"{os.path.basename(network)} and its teacher", choices)
    click.echo(f"{dest}: {os.path.getsize(dest):,} bytes")


def _networks(
    teacher: str | None, network: str | None, given: dict[str, str | None], run_dir: str | None, device: Any,
    trust_pickle: bool,
) -> tuple[dict[str, Any], Any, str, str | None]:
    """The generators by name, from the teacher's to the student's; the teacher's discriminator; the student's path; of
    what kind its labels are, if that is known.
    """
    from dgl.report import of_run
    from training.checkpoints.parts import optional
    from training.checkpoints.pickles import open_networks

    def generator(path: str) -> Any:
        return open_networks(path, trust_pickle=trust_pickle)["G_ema"].to(device)

    config = None if run_dir is None else of_run.read(run_dir)
    if teacher is None:
        assert config is not None
        assert run_dir is not None
        own = of_run.teacher_of(config, run_dir, trust_pickle)
        G, D = own.G_ema.to(device), own.D
    else:
        networks = open_networks(teacher, trust_pickle=trust_pickle)
        G, D = networks["G_ema"].to(device), optional(networks, "D")
    if network is None:
        assert run_dir is not None
        network = of_run.newest_snapshot(run_dir)
    of_student = open_networks(network, trust_pickle=trust_pickle)
    student = of_student["G_ema"].to(device)
    made = of_run.between(G, config) if config is not None and None in given.values() else {}
    stages = {name: generator(path) if path else made.get(name) for name, path in given.items()}
    between = {name: stage for name, stage in stages.items() if stage is not None}
    return {"teacher": G, **between, "student": student}, D, network, of_student.get("label_kind")


def _data_of(run_dir: str) -> str | None:
    """The training images of a run, if they are where they were."""
    from dgl.report import of_run

    data = of_run.data_of(of_run.read(run_dir))
    if data is None or os.path.exists(data):
        return data
    click.echo(f"The run's training images are not at {data} any more; --data says where they are now.")
    return None


if __name__ == "__main__":
    main()
