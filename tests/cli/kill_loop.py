"""A program that starts commands again and again, kills them (kill -9) at random moments, and then lets them finish.

Run as `python -m tests.cli.kill_loop FOLDER NUM_KILLS [SEED]`. The processes are forks of one that has imported
everything. After every kill, whatever has its name must be whole; a run to the end must work on top of what is left,
with the result of an undisturbed one. Prints one JSON object: command → counts, and what was wrong.
"""
import importlib
import json
import os
import random
import signal
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

from tests import tiny
from tests.helpers import random_images, write_images
from tests.metrics.toys import write_detector
from torch_utils.ops import cpu_kernels
from training.checkpoints.pickles import NETWORKS, open_networks

MODULES = ("dataset_tool", "prune_init", "projector", "calc_metrics")
IMPORTED = ("torch._dynamo", "dgl.student", "training.data.conversion", "metrics.metric_main")  # by them, later


def commands(inputs: Path) -> dict[str, tuple[str, list[str]]]:
    """Name → module and arguments, in which OUT is the folder for results."""
    teacher = tiny.write_teacher(inputs / "teacher.pkl", resolution=8)
    detector = write_detector(inputs / "toy.pt")
    images = write_images(inputs / "images", random_images(60, side=64))
    small = write_images(inputs / "small", random_images(40, side=16, seed=1))
    write_images(inputs / "target", random_images(1, side=8))
    slicing = [f"--teacher={teacher}", "--width=0.5", "--no-latency", "--device=cpu"]
    features = [f"--detector={detector}", "--device=cpu"]
    return {
        "dataset_tool to a zip": ("dataset_tool", [f"--source={images}", "--dest=OUT/data.zip", "--width=32",
                                                   "--height=32"]),
        "dataset_tool to a folder": ("dataset_tool", [f"--source={images}", "--dest=OUT/data"]),
        "prune_init": ("prune_init", [*slicing, "--dest=OUT/student.pkl"]),
        "prune_init into a folder": ("prune_init", [*slicing, "--no-refit", "--outdir=OUT"]),
        "projector": ("projector", [f"--network={teacher}", f"--target={inputs}/target/0.png", "--num-steps=8",
                                    "--save-video=false", "--outdir=OUT", "--detector=D", "--device=cpu"]),
        "calc_metrics": ("calc_metrics", [f"--images={small}", f"--data={images}", *features]),
    }


def child(module: str, args: list[str], out: Path, log: Path) -> None:
    """The life of a process that is going to be killed."""
    os.environ["DNNLIB_CACHE_DIR"] = str(out)
    with open(log, "a") as file:
        os.dup2(file.fileno(), 2)
    stdout = os.open(out.with_suffix(".stdout"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(stdout, 1)
    importlib.import_module(module).main([arg.replace("OUT", str(out)) for arg in args], standalone_mode=False)
    sys.stdout.flush()


def start(module: str, args: list[str], out: Path, log: Path) -> int:
    """Forks; returns the number of the new process."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            child(module, args, out, log)
            status = 0
        except BaseException as error:
            with open(log, "a") as file:
                file.write(f"FAILED {type(error).__name__}: {error}\n")
        finally:
            os._exit(status)
    return pid


def visible(out: Path) -> Iterator[Path]:
    """Files with a name of their own; those being written have one that begins with a dot, or lie in such a folder.

    Locks of caches are left out: they are empty.
    """
    for path in sorted(out.rglob("*")):
        is_hidden = any(part.startswith(".") for part in path.relative_to(out).parts)
        if path.is_file() and path.suffix != ".lock" and not is_hidden:
            yield path


def content(path: Path) -> Any:
    """What is in a file, fully decoded; raises an exception if it is not whole."""
    if path.suffix == ".pkl":
        nets = open_networks(str(path))
        return [tensor.sum().item() for role in NETWORKS for tensor in nets[role].state_dict().values()]
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            return {name: archive.read(name) for name in archive.namelist()}
    if path.suffix == ".npz":
        with np.load(path) as arrays:
            return {name: arrays[name].tolist() for name in arrays}
    if path.suffix == ".png":
        with PIL.Image.open(path) as image:
            return image.size, image.mode, image.tobytes()
    if path.suffix == ".json":
        return json.loads(path.read_text())
    raise ValueError(f"{path} is of no known kind")


def results(out: Path) -> dict[str, Any]:
    """Name → content of all files."""
    return {str(path.relative_to(out)): content(path) for path in visible(out)}


def numbers(out: Path) -> Any:
    """What a metric printed; None if the command is another one."""
    text = out.with_suffix(".stdout").read_text()
    return json.loads(text)["results"] if text.startswith("{") and '"results"' in text else None


class Loop:
    """One command that is killed again and again.

    Args:
        command: module and arguments.
        folder: where everything is written.
        rng: chooses the moments.
    """

    def __init__(self, command: tuple[str, list[str]], folder: Path, rng: random.Random) -> None:
        self.command, self.folder, self.rng = command, folder, rng
        self.killed = self.finished = self.complete = self.turn = 0
        self.wrong: list[str] = []
        self.log = folder / "log.txt"
        self.out = self.new_folder()
        began = time.monotonic()
        self.run_to_its_end()
        self.longest = time.monotonic() - began
        self.expected, self.numbers = results(self.out), numbers(self.out)
        self.out = self.new_folder()

    def new_folder(self) -> Path:
        self.turn += 1
        out = self.folder / f"out{self.turn}"
        out.mkdir()
        return out

    def run_to_its_end(self) -> None:
        if os.waitpid(start(*self.command, self.out, self.log), 0)[1] != 0:
            self.wrong.append(f"a run failed: {self.log.read_text()[-500:]}")

    def run_and_kill(self) -> None:
        pid = start(*self.command, self.out, self.log)
        time.sleep(self.rng.uniform(0, self.longest))
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended == 0:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            self.killed += 1
        self.finished += bool(ended)
        if ended and status != 0:
            self.wrong.append(f"a run after kills failed: {self.log.read_text()[-500:]}")
        try:
            present = results(self.out)
        except Exception as error:
            self.wrong.append(f"something is not whole: {type(error).__name__}: {error}")
            present = self.expected
        if any(name not in self.expected or value != self.expected[name] for name, value in present.items()):
            self.wrong.append("something is not as in an undisturbed run")
        if ended or present == self.expected:  # commands do not write over a result
            self.complete += not ended
            self.out = self.new_folder()

    def finish(self) -> None:
        self.run_to_its_end()
        if results(self.out) != self.expected or numbers(self.out) != self.numbers:
            self.wrong.append("the last run made something else than an undisturbed one")


def main(folder: Path, num_kills: int, seed: int) -> None:
    cpu_kernels.enabled = False  # a killed process would leave a compiler behind
    for module in (*MODULES, *IMPORTED):
        importlib.import_module(module)
    (folder / "inputs").mkdir()
    counts = {}
    for name, command in commands(folder / "inputs").items():
        place = folder / name.replace(" ", "-")
        place.mkdir()
        loop = Loop(command, place, random.Random(f"{name} {seed}"))
        while loop.killed < num_kills and not loop.wrong:
            loop.run_and_kill()
        loop.finish()
        counts[name] = {"killed": loop.killed, "finished": loop.finished, "complete": loop.complete,
                        "wrong": loop.wrong}
    sys.stdout.write(json.dumps(counts))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 0)
