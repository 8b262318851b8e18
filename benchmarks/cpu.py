"""Generating and training on a CPU: the plain formulation, the torch path, native kernels without and with Winograd."""
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import click

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from benchmarks import cpu_report

ROOT = Path(__file__).resolve().parent.parent
VARIANTS = {
    "plain": {"SG_MALLOC": "default", "SG_OPS": "ref"},
    "torch": {"SG_OPS": "ref"},
    "direct": {"SG_OPS": "auto", "SG_CONV": "direct"},
    "native": {"SG_OPS": "auto"},
}
PEER = "peer"  # another checkout of this project, at its fastest
AVX2 = {"SG_CPU_ISA": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2"}  # hides AVX-512 from everything that computes
TABLE = ["generator 1024 px, batch 1", "generator 256 px, batch 4",
         "half-width generator 1024 px, batch 1, against full width",
         "training iteration 32 px, batch 32", "training iteration 256 px, batch 4"]  # fmt: skip
RESOLUTION = [f"generator {res} px, batch 1" for res in (64, 128, 256, 512, 1024)]
BATCH = [f"generator 128 px, batch {n} (base 16384)" for n in (1, 2, 8)]
WIDTH = ["generator 256 px, batch 1", *[f"generator 256 px, batch 1, 1/{part} width" for part in (2, 4)]]


class Worker:
    """A process that does one work in one variant on request; idle otherwise.

    Args:
        peer: the checkout that the variant "peer" is of.
    """

    def __init__(self, work: str, variant: str, threads: int, peer: str | None = None) -> None:
        root = Path(peer).resolve() if variant == PEER and peer else ROOT
        variant = "native" if variant == PEER else variant
        command = [sys.executable, str(root / "benchmarks" / "cpu_works.py"), work, variant, str(threads)]
        environment = {**os.environ, **VARIANTS[variant], "OMP_NUM_THREADS": str(threads)}
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root,
                                        env=environment)  # fmt: skip

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *error: object) -> None:
        self.process.communicate()

    def run(self) -> dict[str, float]:
        """Does it once."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())


def measure(
    work: str, variants: list[str], threads: int, pairs: int, peer: str | None = None
) -> list[dict[str, Any]]:
    """Medians of all variants of a work, each done once per round, after one round that does not count."""
    workers = {variant: Worker(work, variant, threads, peer) for variant in variants}
    for worker in workers.values():
        worker.run()
    rounds = [{variant: worker.run() for variant, worker in workers.items()} for _ in range(pairs)]
    for worker in workers.values():
        worker.__exit__()
    figures = []
    for variant in variants:
        figure: dict[str, Any] = {"work": work, "variant": variant, "threads": threads, "pairs": pairs}
        for key in rounds[0][variant]:
            figure[key] = statistics.median(turn[variant][key] for turn in rounds)
        for clock in ("wall", "cpu"):
            for other, name in (("plain", "ratio"), (PEER, "peer_ratio")):
                if other in variants:
                    ratios = [turn[other][clock] / turn[variant][clock] for turn in rounds]
                    figure[f"{clock}_{name}"] = statistics.median(ratios)
        figures.append(figure)
    return figures


def add_shares(figure: dict[str, Any], peak: dict[str, Any]) -> None:
    """The multiply-adds per second of a generator's convolutions, over the most that direct convolution reached."""
    if "gmacs" in figure and figure["work"] != peak["work"]:
        figure["wall_share"] = figure["gmacs"] / figure["wall"] / peak["gmacs"]
        figure["cpu_share"] = figure["gmacs"] / figure["cpu"] / peak["gmacs_per_cpu_s"]


def help_against_torch(pairs: int) -> dict[str, Any]:
    """Processor time of `train.py --help` over that of importing torch."""
    def seconds(command: list[str]) -> float:
        before = os.times()
        subprocess.run([sys.executable, *command], cwd=ROOT, check=True, capture_output=True)
        after = os.times()
        return after.children_user + after.children_system - before.children_user - before.children_system

    turns = [(seconds(["train.py", "--help"]), seconds(["-c", "import torch"])) for _ in range(pairs)]
    own, torch_alone = (statistics.median(times) for times in zip(*turns))
    ratio = statistics.median(a / b for a, b in turns)
    return {"work": "train.py --help against import torch", "cpu": own, "torch_cpu": torch_alone, "share": ratio}


def provenance() -> dict[str, Any]:
    """What every figure says about where it comes from."""
    import torch

    commit = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True)
    model = platform.processor()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), model)
    return {"commit": commit.stdout.strip(), "torch": str(torch.__version__), "python": platform.python_version(),
            "cpu_model": model, "cpus": os.cpu_count(), "time": time.strftime("%Y-%m-%dT%H:%M:%S")}  # fmt: skip


@click.command()
@click.option("--all", "everything", is_flag=True, help="Also the training at 256 px, and growth with size and threads")
@click.option("--only", metavar="TEXT", help="Only works whose name contains this")
@click.option("--threads", default=2, show_default=True, metavar="INT")
@click.option("--pairs", default=5, show_default=True, help="Rounds that count", metavar="INT")
@click.option("--variants", default=",".join(VARIANTS), show_default=True, help="Which of them", metavar="LIST")
@click.option("--peer", help="Another checkout, timed in the same rounds", metavar="DIR",
              type=click.Path(exists=True, file_okay=False))
@click.option("--isa", default="native", show_default=True, help="avx2 hides AVX-512 from torch and kernels alike",
              type=click.Choice(["native", "avx2"]))
@click.option("--out", default="build/cpu.jsonl", show_default=True, help="Figures are appended to it", metavar="FILE")
def main(
    everything: bool, only: str | None, threads: int, pairs: int, variants: str, peer: str | None, isa: str, out: str
) -> None:
    """Prints a table of medians and ratios, appends one JSON line per figure, and draws the growth with --all.

    The share of a generator is that of the fastest direct convolution on this machine, measured in the same run.
    """
    os.environ.update(AVX2 if isa == "avx2" else {})
    facts, figures = {**provenance(), "isa": isa}, []
    Path(out).parent.mkdir(parents=True, exist_ok=True)

    def keep(figure: dict[str, Any]) -> None:
        figure.update(facts, load=round(os.getloadavg()[0], 1))
        figures.append(figure)
        with open(out, "a", encoding="utf-8") as file:
            file.write(json.dumps(figure) + "\n")
        click.echo(cpu_report.line(figure))

    chosen = [*variants.split(","), *([PEER] if peer else [])]
    unknown = sorted({*chosen} - {*VARIANTS, PEER})
    if unknown:
        raise click.BadParameter(f"expected some of {', '.join(VARIANTS)}, found {unknown[0]!r}",
                                 param_hint="--variants")
    works = [(work, chosen, threads) for work in TABLE[: None if everything else -1]]
    if everything:
        works += [(work, ["native"], threads) for work in RESOLUTION + BATCH + WIDTH]
        works += [(RESOLUTION[2], ["native"], number) for number in range(1, threads)]
    (peak,) = measure("conv peak", ["torch"], threads, 3)
    keep(peak)
    for work, of_work, number in [work for work in works if only is None or only in work[0]]:
        for figure in measure(work, of_work, number, pairs, peer):
            add_shares(figure, peak)
            keep(figure)
    if only is None or only in "help":
        keep(help_against_torch(pairs))
    click.echo(f"\n{cpu_report.table(figures)}")
    if everything:
        Path(out).with_suffix(".svg").write_text(cpu_report.plot(figures), encoding="utf-8")


if __name__ == "__main__":
    main()
