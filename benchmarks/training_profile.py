"""Shares of the processor's time in training's main phases on a CPU, by kind of operation."""
import sys
from collections import defaultdict
from pathlib import Path

import click
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from benchmarks import cpu_works

# Kind → beginnings of the names of what torch's profiler sees; the first that fits counts.
KINDS = {
    "convolutions, backwards": ("aten::convolution_backward", "aten::mkldnn_convolution_backward", "mkldnn",
                                "_OutputBackward"),
    "convolutions": ("_Output", "aten::mkldnn", "aten::convolution", "aten::_convolution", "aten::conv",
                     "aten::slow_conv"),
    "matrix products": ("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm"),
    "epilogues (native)": ("_Epilogue", "_DActivation", "_Dot"),
    "FIR (native)": ("_Resample", "_Pass", "Upfirdn", "_Upfirdn2d"),
    "copies and allocation": ("aten::copy_", "aten::clone", "aten::contiguous", "aten::empty", "aten::fill_",
                              "aten::zero_"),
    "random numbers": ("aten::normal_", "aten::randn"),
}


DISTILLATION = "distillation"


def kind_of(name: str) -> str:
    """The kind that an operation belongs to."""
    name = name.removeprefix("autograd::engine::evaluate_function: ")
    return next((kind for kind, names in KINDS.items() if name.startswith(names)), "everything else")


def shares(size: cpu_works.Size, phases: list[str], repeats: int) -> tuple[dict[str, float], float, list[str]]:
    """Kind → share of the time, seconds per iteration, and the largest operations of the last kind."""
    cpu_works.PHASES = dict.fromkeys(phases, 1.0)
    nets = cpu_works._networks("native")
    run = cpu_works.distilling(size) if phases == [DISTILLATION] else cpu_works.training(nets, size)
    run()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        for _ in range(repeats):
            run()
    times: dict[str, float] = defaultdict(float)
    others: dict[str, float] = {}
    for event in profile.key_averages():
        kind = kind_of(event.key)
        times[kind] += event.self_cpu_time_total
        if kind == "everything else":
            others[event.key] = event.self_cpu_time_total
    total = sum(times.values())
    largest = sorted(others, key=lambda name: -others[name])[:8]
    ordered = {kind: times[kind] / total for kind in sorted(times, key=lambda kind: -times[kind])}
    rest = [f"{name} {others[name] / total:.1%}" for name in largest]
    return ordered, total / repeats / 1e6, rest


@click.command()
@click.option("--resolution", default=32, show_default=True)
@click.option("--channel-base", default=1024, show_default=True)
@click.option("--channel-max", default=64, show_default=True)
@click.option("--batch", default=32, show_default=True)
@click.option("--repeats", default=3, show_default=True, help="Iterations that are profiled")
def main(resolution: int, channel_base: int, channel_max: int, batch: int, repeats: int) -> None:
    """Prints the shares of Gmain, Dmain and distillation, and which operations make up the rest. The default size is
    the demo's."""
    torch.set_num_threads(1)
    size = cpu_works.Size(resolution, channel_base, batch, channel_max, 64, 1)
    for phase in ("Gmain", "Dmain", DISTILLATION):
        parts, seconds, largest = shares(size, [phase], repeats)
        click.echo(f"{phase}, {resolution} px, batch {batch}: {seconds:.3f} s; "
                   + ", ".join(f"{kind} {share:.0%}" for kind, share in parts.items()))
        click.echo(f"  everything else: {', '.join(largest)}")


if __name__ == "__main__":
    main()
