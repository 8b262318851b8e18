"""The works that benchmarks/cpu.py times: networks at fixed sizes, generating and training, in four variants."""
import resource
import sys
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

PHASES = {"Gmain": 1.0, "Greg": 1 / 4, "Dmain": 1.0, "Dreg": 1 / 16}  # how often per iteration


class Size(NamedTuple):
    """A network's size, and images per batch."""

    resolution: int
    channel_base: int
    batch: int
    channel_max: int = 512
    w_dim: int = 512
    img_channels: int = 3


class Work(NamedTuple):
    """What one row of the table times."""

    size: Size
    training: bool = False
    distilling: bool = False
    baseline: Size | None = None  # where the plain formulation computes something larger


CONFIG_F = Size(1024, 32768, 1)
WORKS = {
    "generator 1024 px, batch 1": Work(CONFIG_F),
    "generator 256 px, batch 4": Work(Size(256, 16384, 4)),
    "half-width generator 1024 px, batch 1, against full width": Work(Size(1024, 16384, 1, 256), baseline=CONFIG_F),
    "training iteration 256 px, batch 4": Work(Size(256, 16384, 4), training=True),
    "training iteration 32 px, batch 32": Work(Size(32, 1024, 32, 64, 64, 1), training=True),
}
for _size in (Size(32, 1024, 32, 64, 64, 1), Size(64, 2048, 16, 64, 64, 3), Size(256, 16384, 4)):
    WORKS[f"distillation step {_size.resolution} px, batch {_size.batch}"] = Work(_size, distilling=True)
for _res in (64, 128, 256, 512):
    WORKS[f"generator {_res} px, batch 1"] = Work(Size(_res, 32768, 1))
for _batch in (1, 2, 8):
    WORKS[f"generator 128 px, batch {_batch} (base 16384)"] = Work(Size(128, 16384, _batch))
for _part in (2, 4):
    WORKS[f"generator 256 px, batch 1, 1/{_part} width"] = Work(Size(256, 32768 // _part, 1, 512 // _part))


def _networks(variant: str) -> Any:
    if variant == "plain":
        from benchmarks import plain_ops

        return plain_ops.plain_networks()
    from torch_utils.devices import tune_allocator
    from training import networks

    tune_allocator()
    return networks


def _widths(size: Size) -> dict[str, int]:
    return {"channel_base": size.channel_base, "channel_max": size.channel_max}


def _generator(nets: Any, size: Size) -> Any:
    torch.manual_seed(0)
    return nets.Generator(
        z_dim=size.w_dim, c_dim=0, w_dim=size.w_dim, img_resolution=size.resolution, img_channels=size.img_channels,
        mapping_kwargs={"num_layers": 2}, synthesis_kwargs={**_widths(size), "conv_clamp": 256},
    ).requires_grad_(False)  # fmt: skip


def generating(nets: Any, size: Size, plain: bool) -> Callable[[], dict[str, float]]:
    """Images from given ws; the plain formulation makes the samples groups of one convolution."""
    options = {"fused_modconv": True} if plain else {}
    G = _generator(nets, size).eval()
    ws = G.mapping(torch.randn(size.batch, size.w_dim), None)

    @torch.no_grad()
    def run() -> dict[str, float]:
        G.synthesis(ws, noise_mode="const", **options)
        return {}

    return run


def training(nets: Any, size: Size) -> Callable[[], dict[str, float]]:
    """The gradients of the four phases, without the optimizer; the result is the time of each."""
    from training.loss import Part, Step, StyleGAN2Loss

    G = _generator(nets, size).train()
    D = nets.Discriminator(c_dim=0, img_resolution=size.resolution, img_channels=size.img_channels, conv_clamp=256,
                           **_widths(size)).train().requires_grad_(False)  # fmt: skip
    loss = StyleGAN2Loss(torch.device("cpu"), G, D, r1_gamma=1)
    real = torch.randn(size.batch, size.img_channels, size.resolution, size.resolution)
    c = torch.zeros(size.batch, 0)

    def run() -> dict[str, float]:
        times = {}
        for phase in PHASES:
            module = G if phase[0] == "G" else D
            module.requires_grad_(True).zero_grad(set_to_none=True)
            z = torch.randn(size.batch, size.w_dim)
            begin = clocks()
            loss.accumulate_gradients(phase[0], Part(phase[1:]), Step(real, c, z, c, gain=1, cur_nimg=0))
            times[f"{phase} wall"], times[f"{phase} cpu"] = (now - then for now, then in zip(clocks(), begin))
            module.requires_grad_(False)
        return times

    return run


def distilling(size: Size, width: Fraction = Fraction(1, 2), compiled: bool = False) -> Callable[[], dict[str, float]]:
    """The gradients of one step of distillation of a student of this width, without the optimizer.

    With `compiled`, both generators and the blocks of the teacher's discriminator are compiled by torch.compile.
    """
    from dgl.loss import Guidance, GuidedLoss
    from dgl.student import resized
    from dgl.teacher import Teacher, TeacherSet
    from training import networks
    from training.loss import Part, Step, StyleGAN2Loss

    device = torch.device("cpu")
    T = _generator(networks, size).eval()
    D = networks.Discriminator(c_dim=0, img_resolution=size.resolution, img_channels=size.img_channels, conv_clamp=256,
                               **_widths(size)).eval().requires_grad_(False)  # fmt: skip
    G = resized(T, width).train().requires_grad_(False)
    for network in (G.synthesis, T.synthesis, *D.children()) if compiled else ():
        network.compile()
    teachers = TeacherSet([Teacher("", "", T, T, D, None)], device, with_generator=True)
    guidance = Guidance(kd={"rgb": 1.0, "feature": 1.0}, distil_kimg=1000)
    loss = GuidedLoss(StyleGAN2Loss(device, G, D), teachers, guidance)
    (phase,) = loss.extra_phases()
    real = torch.empty(size.batch, size.img_channels, size.resolution, size.resolution)
    z, c = torch.empty(size.batch, size.w_dim), torch.empty(size.batch, 0)
    phase.module.requires_grad_(True)

    def run() -> dict[str, float]:
        phase.module.zero_grad(set_to_none=True)
        loss.accumulate_gradients(phase.network, Part.MAIN, Step(real, c, z, c, gain=1, cur_nimg=0))
        return {}

    return run


def clocks() -> tuple[float, float]:
    """Seconds on the wall and of this process's processors."""
    return time.perf_counter(), time.process_time()


def conv_peak() -> dict[str, float]:
    """The most multiply-adds of a 3x3 convolution as the generators have them: 1e9 per second of the wall, and per
    second of a processor."""
    best = {"gmacs": 0.0, "gmacs_per_cpu_s": 0.0}
    for channels, side in ((512, 64), (256, 128), (128, 256), (64, 512)):
        x = torch.randn(1, channels, side, side).to(memory_format=torch.channels_last)
        w = torch.randn(channels, channels, 3, 3).to(memory_format=torch.channels_last)
        for _ in range(5):
            begin = clocks()
            torch.nn.functional.conv2d(x, w, padding=1)
            for key, now, then in zip(best, clocks(), begin):
                best[key] = max(best[key], channels**2 * 9 * side**2 / (now - then) / 1e9)
    return best


def generator_gmacs(size: Size) -> float:
    """Multiply-adds of a generator's convolutions, the up-sampling ones counted at their input's size; 1e9."""
    def width(res: int) -> int:
        return min(size.channel_base // res, size.channel_max)

    total, res = width(4) ** 2 * 9 * 16, 8
    while res <= size.resolution:
        total += width(res // 2) * width(res) * 9 * (res // 2) ** 2 + width(res) ** 2 * 9 * res**2
        res *= 2
    return total * size.batch / 1e9


def serve(name: str, variant: str, threads: int) -> None:
    """A worker: prepares a work, and does it once for every line on stdin, answering with one line of JSON."""
    import json

    torch.set_num_threads(threads)
    if name == "conv peak":
        run: Callable[[], dict[str, float]] = conv_peak
        _networks("torch")
    else:
        work = WORKS[name]
        size = work.baseline if variant == "plain" and work.baseline else work.size
        nets = _networks(variant)
        if work.distilling:
            run = distilling(size)
        else:
            run = training(nets, size) if work.training else generating(nets, size, variant == "plain")
    for _ in sys.stdin:
        begin = clocks()
        more = run()
        wall, cpu = (now - then for now, then in zip(clocks(), begin))
        if "Gmain cpu" in more:
            wall, cpu = (sum(more[f"{p} {clock}"] * n for p, n in PHASES.items()) for clock in ("wall", "cpu"))
        if name in WORKS and not (WORKS[name].training or WORKS[name].distilling):
            more["gmacs"] = generator_gmacs(size)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        sys.stdout.write(json.dumps({"wall": wall, "cpu": cpu, "peak_mb": peak, **more}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    serve(sys.argv[1], sys.argv[2], int(sys.argv[3]))
