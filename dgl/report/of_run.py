"""The page of a run: its teacher, its newest student, and the networks between the two, made again."""
import copy
import os
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

from dnnlib.errors import UserError
from torch_utils.network_types import Generator
from training import run_config
from training.checkpoints.pickles import open_networks
from training.run_config import RunConfig

from .. import prune, refine
from ..bases import BASES  # noqa: F401 (registers what configurations of students name)
from ..refit import RefitOptions, prepared, refit_network
from ..student import Cut, keep_lists
from ..teacher import Teacher, load

FILE_NAME = "report.html"


def read(run_dir: str | os.PathLike) -> RunConfig:
    """The configuration of a student's run.

    Raises:
        UserError: it is missing or damaged.
    """
    return run_config.read(run_dir)


def teacher_of(config: RunConfig, run_dir: str | os.PathLike, trust_pickle: bool = False) -> Teacher:
    """The first teacher of a run, which its student was made from; its D may be None.

    Raises:
        UserError: the run has none, or its file is missing, damaged or another one by now.
    """
    teachers = config.loss.arguments.get("teachers")
    if not teachers:
        raise UserError(f"{os.fspath(run_dir)} is a run without a teacher; pass one that compresses a network",
                        field="run_dir")
    return load(teachers[0]["url"], trust_pickle, teachers[0].get("sha256"), needs_discriminator=False)


def newest_snapshot(run_dir: str | os.PathLike) -> str:
    """The path of a run's last network.

    Raises:
        UserError: it has none yet.
    """
    snapshots = sorted(Path(run_dir).glob("network-snapshot-*.pkl"))
    if not snapshots:
        raise UserError(f"{os.fspath(run_dir)} has no network-snapshot-….pkl yet; name a network", field="run_dir")
    return str(snapshots[-1])


def between(G: Generator, config: RunConfig) -> dict[str, Any]:
    """The networks on the way from a teacher's generator to the student: "slice", and "refit" if the run refitted it.

    They are made again by the options of the run, on the device of the teacher. Runs that started from scratch, or from
    another student's pickle, have none.

    Raises:
        UserError: the options do not apply to this teacher.
    """
    init = config.networks.init
    if init is None or init.arguments.get("init") != "slice":
        return {}
    arguments: Mapping[str, Any] = init.arguments
    cut = Cut(Fraction(arguments["width"]), arguments["score"], arguments["seed"], refine=arguments["refine"])
    keep = keep_lists(G, cut)
    sliced = prune.slice_network(G, keep)
    if cut.refine == "svs":
        refine.svs(sliced)
    networks = {"slice": sliced}
    if arguments.get("refit"):
        refitted = prune.slice_network(prepared(G), keep)
        if cut.refine == "svs":
            refine.svs(refitted)
        if refit_network("G_ema", G, refitted, keep, RefitOptions(seed=cut.seed)) is not None:
            networks["refit"] = refitted
    return networks


def write(config: RunConfig, run_dir: str | os.PathLike) -> str:
    """Writes the page of a run that is complete into its folder, over an earlier one; what train.py calls.

    Returns:
        The path of the page.

    Raises:
        UserError: a network cannot be read, or the page cannot be written.
    """
    try:
        return _write(config, run_dir)
    except UserError as error:
        raise UserError(f"the run in {os.fspath(run_dir)} is complete, but its report cannot be written: {error}"
                        ) from error


def _write(config: RunConfig, run_dir: str | os.PathLike) -> str:
    from torch_utils.devices import resolve_device

    from . import labels, page

    trust_pickle = any(teacher.get("trust_pickle", False) for teacher in config.loss.arguments.get("teachers", ()))
    teacher = teacher_of(config, run_dir, trust_pickle)
    snapshot = newest_snapshot(run_dir)
    device = resolve_device(config.machine.device)
    G = copy.deepcopy(teacher.G_ema).to(device)
    networks = open_networks(snapshot)
    student = networks["G_ema"].to(device)
    generators = {"teacher": G, **between(G, config), "student": student}
    dest, data = os.path.join(run_dir, FILE_NAME), data_of(config)
    choices = labels.choices(G, None, networks.get("label_kind"), data)
    page.write(dest, generators, teacher.D, run_dir, data, f"{os.path.basename(snapshot)} and its teacher", choices)
    return dest


def data_of(config: RunConfig) -> str | None:
    """The path of a run's training images; None where the teacher made them."""
    path = config.data.training_set.arguments.get("path")
    return path if isinstance(path, str) else None
